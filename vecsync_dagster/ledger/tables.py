"""The tables of the ledger, as SQLAlchemy Core describes them on SQLite and on PostgreSQL.

What belongs here: columns, keys, indexes and the type of a time. How a database comes to have them is
written out by hand in `migrations/`; a test holds the two together.

Wherever a column is called `tenant_id` it holds the partition key: a tenant's id, or the text `global`.

`watermark` is keyed by collection too: a run may select one collection of an entity, and the others must
not skip what only that one has read. `sync_run` is keyed by the partition too: one run of Dagster may sync
many; the row with an empty collection and tenant says that an entity's source could not be asked for its tenants.
`check_result` has the last result of each check of each partition. `alert` has a row for each problem that was
seen, `alert_delivery` what each channel was told of it.
`tenant_name` has a row for each tenant whose name was asked for, `unshown` one for each partition that a run wrote to
and whose stages Dagster does not all show as they are now. `listener` has a row for each entity whose changes a process
listens to, or did until it died. `left_vector` has a row for each cached vector of a document that was removed, under
the tenant that had it: as long as that one is there it may need the vector again.
`unfinished_run` has a row for each run that began to write and has not ended well. `collection_place` says in which
place (a hash) the points of a collection lie. `source_state` is what the source looked like before the last sync of a
partition that left nothing out; `doubted_at`: another tenant's run removed documents from it since, and only a full run
can tell whether it was right. `invalid_record`
holds names and ids, never a record's values.

A document was last seen at its `last_seen_at` or at its partition's `partition_seen`, whichever is later: a full run
that saw all that is left writes one row for all of them. `number` is what a run remembers a document by.
Of `index_state` the indexes on a status hold only what is not synced: most rows are, and cost nothing there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = [
    "NOT_DONE",
    "Moment",
    "alert",
    "alert_delivery",
    "check_result",
    "collection_place",
    "collection_space",
    "embedding_cache",
    "index_state",
    "invalid_record",
    "left_vector",
    "listener",
    "metadata",
    "partition_seen",
    "source_state",
    "space_origin",
    "sync_run",
    "unfinished_run",
    "unshown",
    "watermark",
]


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds: timestamptz on PostgreSQL, ISO text on SQLite.

    The text always has six decimals and the zone +00:00, so that it sorts as the times do. A time without
    a zone is refused.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return _iso(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC)


# All rows of a batch carry the same few times.
@lru_cache(maxsize=64)
def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


metadata = MetaData()

# Keys sort bytewise on both databases: reconciliation merges them with a store's own order, and an index
# must not depend on the version of the server's locales.
_Key = Text().with_variant(Text(collation="C"), "postgresql")

index_state = Table(
    "index_state",
    metadata,
    Column("collection", _Key, nullable=False),
    Column("document_id", _Key, nullable=False),
    Column("entity", _Key, nullable=False),
    Column("scope", Text, nullable=False),
    Column("tenant_id", _Key, nullable=False),
    Column("db_id", Text, nullable=False),
    Column("point_id", _Key, nullable=False),
    Column("space", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("content_hash", Text),
    Column("payload_hash", Text),
    Column("attempt_hash", Text),
    Column("vector_version", Integer, nullable=False),
    Column("error_code", Text),
    Column("last_error", Text),
    Column("retry_count", Integer, nullable=False),
    Column("next_attempt_at", Moment),
    Column("last_seen_at", Moment, nullable=False),
    Column("last_synced_at", Moment),
    Column("last_attempt_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("field_hashes", Text),
    Column("modified_fields", Text),  # a JSON list of names
    Column("record_hash", Text),  # of the whole record, as it was when the hashes were confirmed
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("db_key", Text),  # in the source's own notation, where db_id does not tell the type
    Column("text_hash", _Key),  # of the text that the vector is of: the key of `embedding_cache`
    Column("truncated", Integer),  # 1: the model takes less than the whole text
    Column("rest_id", _Key),  # db_id without the tenant, where that is a part of it; of documents that were written
    UniqueConstraint("collection", "document_id", name="uq_index_state_document"),
    CheckConstraint("status IN ('pending', 'synced', 'stale', 'failed')", name="ck_index_state_status"),
    # Counts go by the indexes alone: a row that is synced is one that the store holds.
    CheckConstraint("status <> 'synced' OR content_hash IS NOT NULL", name="ck_index_state_held"),
    Index("ix_index_state_cleanup", "collection", "tenant_id", "last_seen_at"),
    Index("ix_index_state_partition_points", "collection", "tenant_id", "point_id"),
    Index(
        "ix_index_state_status",
        "collection",
        "tenant_id",
        "status",
        "next_attempt_at",
        sqlite_where=text("status <> 'synced'"),
        postgresql_where=text("status <> 'synced'"),
    ),
    Index("ix_index_state_statistics", "entity", "collection", "tenant_id"),
    Index(
        "ix_index_state_failed",
        "entity",
        "last_attempt_at",
        "document_id",
        sqlite_where=text("status = 'failed'"),
        postgresql_where=text("status = 'failed'"),
    ),
    Index("ix_index_state_text", text("substr(text_hash, 1, 8)")),
    Index(
        "ix_index_state_truncated",
        "collection",
        "tenant_id",
        sqlite_where=text("truncated = 1"),
        postgresql_where=text("truncated = 1"),
    ),
    Index(
        "ix_index_state_rest",
        "collection",
        "rest_id",
        sqlite_where=text("rest_id IS NOT NULL"),
        postgresql_where=text("rest_id IS NOT NULL"),
    ),
    Index(
        "ix_index_state_former",
        "collection",
        "db_id",
        sqlite_where=text("error_code = 'NOT_REPLACED'"),
        postgresql_where=text("error_code = 'NOT_REPLACED'"),
    ),
    sqlite_autoincrement=True,  # the number of a row that is gone is not given again
)

partition_seen = Table(
    "partition_seen",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("seen_at", Moment, nullable=False),  # the start of a full run that saw every document that was left
)

collection_space = Table(
    "collection_space",
    metadata,
    Column("collection", _Key, primary_key=True),
    Column("entity", _Key, nullable=False),
    Column("space", Text, nullable=False),
    Column("pinned_at", Moment, nullable=False),
)

collection_place = Table(
    "collection_place",
    metadata,
    Column("collection", _Key, primary_key=True),
    Column("place", Text, nullable=False),
)

embedding_cache = Table(
    "embedding_cache",
    metadata,
    Column("space", _Key, primary_key=True),
    Column("text_hash", _Key, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment, nullable=False),
    Index("ix_embedding_cache_used", "last_used_at"),
)

space_origin = Table(
    "space_origin",
    metadata,
    Column("space", _Key, primary_key=True),
    Column("origin", Text, nullable=False),
)

left_vector = Table(
    "left_vector",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("space", _Key, primary_key=True),
    Column("text_hash", _Key, primary_key=True),
    Index("ix_left_vector_text", "text_hash", "space"),
)

watermark = Table(
    "watermark",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("cursor_value", Text, nullable=False),
    Column("cursor_id", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

unfinished_run = Table(
    "unfinished_run",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("run_id", _Key, primary_key=True),
    Column("began_at", Moment, nullable=False),
    Column("mode", Text),  # of a sync, as in sync_run; None: a repair, or a mark that no run of its own left
    Column("moved", Boolean),  # true: the collection came to another place, and the partition is to be read in full
)

missing_tenant = Table(
    "missing_tenant",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("since", Moment, nullable=False),  # the first look that did not find a row of the tenant
    Column("looks", Integer, nullable=False),
)

tenant_name = Table(
    "tenant_name",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("name", Text, nullable=False),  # '' where the source has none
)

unshown = Table(
    "unshown",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("written_at", Moment, nullable=False),  # when the last run that wrote to it began to
)

listener = Table(
    "listener",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("since", Moment, nullable=False),
    Column("at", Moment, nullable=False),  # when it last said so
    Column("problem", Text),  # why it hears nothing now
)

source_state = Table(
    "source_state",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("fingerprint", Text),
    Column("settings", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("doubted_at", Moment),
)

sync_run = Table(
    "sync_run",
    metadata,
    Column("run_id", _Key, primary_key=True),
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),
    Column("tenant_id", _Key, primary_key=True),
    Column("mode", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("error", Text),
    Column("failed_checks", JSON(none_as_null=True)),  # names of those that found an error
    Index("ix_sync_run_started", "started_at"),
    Index("ix_sync_run_partition", "entity", "tenant_id", "started_at"),
    Index("ix_sync_run_last", "entity", "collection", "tenant_id", "mode", "outcome", "started_at"),
    Index(
        "ix_sync_run_undone",
        "entity",
        "collection",
        "tenant_id",
        sqlite_where=text("outcome <> 'success'"),
        postgresql_where=text("outcome <> 'success'"),
    ),
)

NOT_DONE = text("outcome <> 'success'")
"""As the index has it: SQLite uses it for no other text of the same meaning."""

check_result = Table(
    "check_result",
    metadata,
    Column("entity", _Key, primary_key=True),
    Column("collection", _Key, primary_key=True),  # '' with tenant_id '': over all partitions of the entity
    Column("tenant_id", _Key, primary_key=True),
    Column("check_name", _Key, primary_key=True),
    Column("passed", Boolean, nullable=False),
    Column("warning", Boolean, nullable=False),
    Column("message", Text, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at", Moment, nullable=False),
)

invalid_record = Table(
    "invalid_record",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run_id", _Key, nullable=False),
    Column("entity", _Key, nullable=False),
    Column("collection", _Key),
    Column("tenant_id", _Key, nullable=False),
    Column("db_id", Text),
    Column("code", Text, nullable=False),
    Column("field", Text),
    Column("error", Text, nullable=False),
    Column("rejected_at", Moment, nullable=False),
    Index("ix_invalid_record_rejected", "rejected_at"),
    Index("ix_invalid_record_partition", "entity", "tenant_id", "rejected_at"),
)

alert = Table(
    "alert",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("partition", Text),
    Column("check_name", Text),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("episode", Integer, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("raised_at", Moment, nullable=False),
    Column("observed_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("project", Text),  # whose, where several have the ledger (`Config.project`); None: of an earlier version
)

alert_delivery = Table(
    "alert_delivery",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("channel", _Key, primary_key=True),
    Column("episode", Integer, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("told_at", Moment, nullable=False),
)
