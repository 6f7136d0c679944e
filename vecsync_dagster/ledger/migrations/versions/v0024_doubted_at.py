"""What another tenant's run removed from a partition by a look at the source: a full run is to confirm it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column("source_state", sa.Column("doubted_at", _TIME))


def downgrade() -> None:
    op.drop_column("source_state", "doubted_at")
