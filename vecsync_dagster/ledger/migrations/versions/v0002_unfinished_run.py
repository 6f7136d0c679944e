"""Runs that began to write into a partition and have not said that they ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "unfinished_run",
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("began_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("entity", "collection", "tenant_id", "run_id"),
    )


def downgrade() -> None:
    op.drop_table("unfinished_run")
