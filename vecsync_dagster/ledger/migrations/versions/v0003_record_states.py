"""Which fields of a document changed the last time, and an index for the failed ones that are due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FAILED = sa.text("status = 'failed'")


def upgrade() -> None:
    op.add_column("index_state", sa.Column("field_hashes", sa.Text()))
    op.add_column("index_state", sa.Column("modified_fields", sa.Text()))
    op.create_index(
        "ix_index_state_failed",
        "index_state",
        ["entity", "last_attempt_at", "document_id"],
        sqlite_where=_FAILED,
        postgresql_where=_FAILED,
    )


def downgrade() -> None:
    op.drop_index("ix_index_state_failed", "index_state")
    op.drop_column("index_state", "modified_fields")
    op.drop_column("index_state", "field_hashes")
