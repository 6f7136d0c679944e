"""Cached vectors of documents that tenants had: they go with the tenant, where nobody else needs them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "left_vector",
        sa.Column("entity", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, primary_key=True),
        sa.Column("collection", _KEY, primary_key=True),
        sa.Column("space", _KEY, primary_key=True),
        sa.Column("text_hash", _KEY, primary_key=True),
    )
    op.create_index("ix_left_vector_text", "left_vector", ["text_hash", "space"])


def downgrade() -> None:
    op.drop_index("ix_left_vector_text", "left_vector")
    op.drop_table("left_vector")
