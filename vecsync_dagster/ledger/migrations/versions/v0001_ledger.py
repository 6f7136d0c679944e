"""The first ledger: documents, pinned spaces, cached vectors, watermarks, runs, rejected records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    _index_state()
    _collection_space()
    _embedding_cache()
    _watermark()
    _sync_run()
    _invalid_record()


def downgrade() -> None:
    op.drop_table("invalid_record")
    op.drop_table("sync_run")
    op.drop_table("watermark")
    op.drop_table("embedding_cache")
    op.drop_table("collection_space")
    op.drop_table("index_state")


def _index_state() -> None:
    op.create_table(
        "index_state",
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("document_id", _KEY, nullable=False),
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("db_id", sa.Text(), nullable=False),
        sa.Column("point_id", _KEY, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text()),
        sa.Column("payload_hash", sa.Text()),
        sa.Column("attempt_hash", sa.Text()),
        sa.Column("vector_version", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("last_error", sa.Text()),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _TIME),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("last_synced_at", _TIME),
        sa.Column("last_attempt_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("collection", "document_id"),
        sa.CheckConstraint("status IN ('pending', 'synced', 'stale', 'failed')", name="ck_index_state_status"),
    )
    op.create_index("ix_index_state_cleanup", "index_state", ["collection", "tenant_id", "last_seen_at", "document_id"])
    op.create_index("ix_index_state_partition_points", "index_state", ["collection", "tenant_id", "point_id"])
    op.create_index("ix_index_state_points", "index_state", ["collection", "point_id"])
    op.create_index("ix_index_state_status", "index_state", ["collection", "tenant_id", "status", "next_attempt_at"])
    op.create_index("ix_index_state_statistics", "index_state", ["entity", "collection", "tenant_id"])


def _collection_space() -> None:
    op.create_table(
        "collection_space",
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("pinned_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("collection"),
    )


def _embedding_cache() -> None:
    op.create_table(
        "embedding_cache",
        sa.Column("space", _KEY, nullable=False),
        sa.Column("text_hash", _KEY, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("space", "text_hash"),
    )


def _watermark() -> None:
    op.create_table(
        "watermark",
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("cursor_value", sa.Text(), nullable=False),
        sa.Column("cursor_id", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("entity", "collection", "tenant_id"),
    )


def _sync_run() -> None:
    op.create_table(
        "sync_run",
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", "entity", "collection", "tenant_id"),
    )
    op.create_index("ix_sync_run_started", "sync_run", ["started_at"])
    op.create_index("ix_sync_run_partition", "sync_run", ["entity", "tenant_id", "started_at"])


def _invalid_record() -> None:
    op.create_table(
        "invalid_record",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("db_id", sa.Text()),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("field", sa.Text()),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("rejected_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_invalid_record_rejected", "invalid_record", ["rejected_at"])
    op.create_index("ix_invalid_record_partition", "invalid_record", ["entity", "tenant_id", "rejected_at"])
