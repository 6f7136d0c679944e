"""Partitions of which a run has written what Dagster does not show on all stages yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "unshown",
        sa.Column("entity", _KEY, primary_key=True),
        sa.Column("collection", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, primary_key=True),
        sa.Column("written_at", _TIME, nullable=False),
    )
    # Of what ran before nobody knows: the next full run shows it all once.
    op.execute(
        "INSERT INTO unshown SELECT entity, collection, tenant_id, max(ended_at) FROM sync_run "
        "WHERE collection <> '' GROUP BY entity, collection, tenant_id"
    )


def downgrade() -> None:
    op.drop_table("unshown")
