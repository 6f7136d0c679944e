"""The last run of each partition by an index, and the checks that failed in it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LAST = ["entity", "collection", "tenant_id", "mode", "outcome", "started_at"]


def upgrade() -> None:
    op.add_column("sync_run", sa.Column("failed_checks", sa.JSON(none_as_null=True)))
    op.create_index("ix_sync_run_last", "sync_run", _LAST)


def downgrade() -> None:
    op.drop_index("ix_sync_run_last", "sync_run")
    op.drop_column("sync_run", "failed_checks")
