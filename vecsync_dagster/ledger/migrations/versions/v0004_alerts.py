"""Problems that were seen, and what each alert channel was told of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("key", _KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text()),
        sa.Column("check_name", sa.Text()),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("raised_at", _TIME, nullable=False),
        sa.Column("observed_at", _TIME, nullable=False),
        sa.Column("closed_at", _TIME),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "alert_delivery",
        sa.Column("key", _KEY, nullable=False),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("told_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", "channel"),
    )


def downgrade() -> None:
    op.drop_table("alert_delivery")
    op.drop_table("alert")
