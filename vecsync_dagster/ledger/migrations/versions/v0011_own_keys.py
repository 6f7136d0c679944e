"""The key of a document's record as its source writes it, beside the text: 7 is not "7".

Empty for the rows that are there, and for sources whose keys are told by their texts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("index_state", sa.Column("db_key", sa.Text()))


def downgrade() -> None:
    op.drop_column("index_state", "db_key")
