"""What the source looked like when a partition was last synced: what the change sensor compares with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "source_state",
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("entity", "collection", "tenant_id"),
    )


def downgrade() -> None:
    op.drop_table("source_state")
