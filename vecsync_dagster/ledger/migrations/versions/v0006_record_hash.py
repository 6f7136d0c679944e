"""A hash of the record behind each document, so that records that did not change need no look at all.

The index on last_seen_at goes: it was written for each document at each full run (and on PostgreSQL all the other
indexes with it, since no update of an indexed column stays on its page) and read once a run, by a clean-up that
finds its partition by another index as well.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("index_state", sa.Column("record_hash", sa.Text()))
    op.drop_index("ix_index_state_cleanup", "index_state")


def downgrade() -> None:
    columns = ["collection", "tenant_id", "last_seen_at", "document_id"]
    op.create_index("ix_index_state_cleanup", "index_state", columns)
    op.drop_column("index_state", "record_hash")
