"""A number for each document, so that a run can remember which ones it saw, and writes nothing where nothing changed.

`partition_seen` says since when every document of a partition is known to be there. The index on the status keeps
only what is not synced. The one on the points of a whole collection goes: point ids come in no order, which made it
half of what a new row costs, and a collection is the sum of its partitions, whose points have an index. The one on
last_seen_at comes back, now that only what changed is written.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_STATUS = ["collection", "tenant_id", "status", "next_attempt_at"]
_NOT_SYNCED = sa.text("status <> 'synced'")
_STATUSES = "status IN ('pending', 'synced', 'stale', 'failed')"
_HELD = "status <> 'synced' OR content_hash IS NOT NULL"
_FAILED = sa.text("status = 'failed'")
_BEFORE = "index_state_before"


def upgrade() -> None:
    op.drop_index("ix_index_state_status", "index_state")
    op.drop_index("ix_index_state_points", "index_state")
    if op.get_context().dialect.name == "sqlite":
        unique = sa.UniqueConstraint("collection", "document_id", name="uq_index_state_document")
        held = sa.CheckConstraint(_HELD, name="ck_index_state_held")
        _rebuild(sa.Column("number", sa.Integer(), primary_key=True), unique, held)
    else:
        op.drop_constraint("index_state_pkey", "index_state")
        op.execute("ALTER TABLE index_state ADD COLUMN number BIGSERIAL PRIMARY KEY")
        op.create_unique_constraint("uq_index_state_document", "index_state", ["collection", "document_id"])
        op.create_check_constraint("ck_index_state_held", "index_state", _HELD)
    op.create_index(
        "ix_index_state_status", "index_state", _STATUS, sqlite_where=_NOT_SYNCED, postgresql_where=_NOT_SYNCED
    )
    op.create_index("ix_index_state_cleanup", "index_state", ["collection", "tenant_id", "last_seen_at"])
    op.create_table(
        "partition_seen",
        sa.Column("entity", _KEY, nullable=False),
        sa.Column("collection", _KEY, nullable=False),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("entity", "collection", "tenant_id"),
    )


def downgrade() -> None:
    op.execute(
        "UPDATE index_state SET last_seen_at = p.seen_at FROM partition_seen AS p WHERE p.entity = index_state.entity "
        "AND p.collection = index_state.collection AND p.tenant_id = index_state.tenant_id "
        "AND p.seen_at > index_state.last_seen_at"
    )
    op.drop_table("partition_seen")
    op.drop_index("ix_index_state_cleanup", "index_state")
    op.drop_index("ix_index_state_status", "index_state")
    if op.get_context().dialect.name == "sqlite":
        _rebuild(sa.PrimaryKeyConstraint("collection", "document_id"))
    else:
        op.drop_constraint("ck_index_state_held", "index_state")
        op.drop_column("index_state", "number")
        op.drop_constraint("uq_index_state_document", "index_state")
        op.create_primary_key("index_state_pkey", "index_state", ["collection", "document_id"])
    op.create_index("ix_index_state_status", "index_state", _STATUS)
    op.create_index("ix_index_state_points", "index_state", ["collection", "point_id"])


def _rebuild(*keys: sa.schema.SchemaItem) -> None:
    """SQLite cannot change a table's key: its rows go into a new one."""
    for index in ("partition_points", "statistics", "failed"):
        op.drop_index(f"ix_index_state_{index}", "index_state")
    op.rename_table("index_state", _BEFORE)
    columns = _columns()
    names = ", ".join(column.name for column in columns)
    check = sa.CheckConstraint(_STATUSES, name="ck_index_state_status")
    numbered = any(isinstance(key, sa.Column) for key in keys)
    op.create_table("index_state", *columns, *keys, check, sqlite_autoincrement=numbered)
    op.execute(f"INSERT INTO index_state ({names}) SELECT {names} FROM {_BEFORE} ORDER BY rowid")  # noqa: S608 (names only)
    op.drop_table(_BEFORE)
    op.create_index("ix_index_state_partition_points", "index_state", ["collection", "tenant_id", "point_id"])
    op.create_index("ix_index_state_statistics", "index_state", ["entity", "collection", "tenant_id"])
    failed = ["entity", "last_attempt_at", "document_id"]
    op.create_index("ix_index_state_failed", "index_state", failed, sqlite_where=_FAILED)


def _columns() -> list[sa.Column[Any]]:
    return [
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
        sa.Column("field_hashes", sa.Text()),
        sa.Column("modified_fields", sa.Text()),
        sa.Column("record_hash", sa.Text()),
    ]
