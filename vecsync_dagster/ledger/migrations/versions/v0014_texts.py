"""Which text a document's vector was made of, as the cache names it, and whether the model cut it.

Empty for the rows that are there: as long as a space has such a row, no vector of it is taken for unused.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("index_state", sa.Column("text_hash", _KEY))
    op.add_column("index_state", sa.Column("truncated", sa.Integer()))
    op.create_index("ix_index_state_text", "index_state", ["text_hash"])
    truncated = sa.text("truncated = 1")
    op.create_index(
        "ix_index_state_truncated",
        "index_state",
        ["collection", "tenant_id"],
        sqlite_where=truncated,
        postgresql_where=truncated,
    )


def downgrade() -> None:
    op.drop_index("ix_index_state_truncated", "index_state")
    op.drop_index("ix_index_state_text", "index_state")
    op.drop_column("index_state", "truncated")
    op.drop_column("index_state", "text_hash")
