"""Where each collection lies: at another place nothing is known of its points.

A ledger of an earlier version does not say it: the first run takes the place of that day for the one it always was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "collection_place",
        sa.Column("collection", _KEY, primary_key=True),
        sa.Column("place", sa.Text(), nullable=False),
    )
    op.add_column("unfinished_run", sa.Column("moved", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("unfinished_run", "moved")
    op.drop_table("collection_place")
