"""A run that began to write says how it reads: it can be recorded as failed when its process was killed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("unfinished_run", sa.Column("mode", sa.Text()))


def downgrade() -> None:
    op.drop_column("unfinished_run", "mode")
