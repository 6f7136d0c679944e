"""Where the vectors of a space come from: one model's name may stand for another model on another server.

Empty for the spaces that are there: what they come from is noted when something is embedded.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "space_origin",
        sa.Column("space", _KEY, primary_key=True),
        sa.Column("origin", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("space_origin")
