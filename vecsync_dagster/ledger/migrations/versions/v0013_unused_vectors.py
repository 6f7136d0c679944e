"""Vectors are found by when they were last used: those that nobody needs any more are forgotten."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_embedding_cache_used", "embedding_cache", ["last_used_at"])


def downgrade() -> None:
    op.drop_index("ix_embedding_cache_used", "embedding_cache")
