"""The runs that did not succeed are found by an index: who looks for them every few seconds reads no others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_WHERE = sa.text("outcome <> 'success'")


def upgrade() -> None:
    op.create_index(
        "ix_sync_run_undone",
        "sync_run",
        ["entity", "collection", "tenant_id"],
        sqlite_where=_WHERE,
        postgresql_where=_WHERE,
    )


def downgrade() -> None:
    op.drop_index("ix_sync_run_undone", "sync_run")
