"""The statements on `index_state` that name their documents, for SQLite and for PostgreSQL.

Parameters: of_entity, of_collection, of_tenant, ids (a list), and those each statement speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Delete,
    Select,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)

from vecsync_dagster.ledger.part import Insert, insert_into
from vecsync_dagster.ledger.tables import Moment, index_state

__all__ = [
    "ANY_STALE",
    "NO_ERROR",
    "announce",
    "confirm",
    "fail",
    "field_hashes",
    "forget",
    "freshen",
    "mark_stale",
    "rows",
    "touch",
]

_T: Final = index_state.c

NO_ERROR: Final[Mapping[str, Any]] = {
    "status": "synced",
    "attempt_hash": None,
    "error_code": None,
    "last_error": None,
    "retry_count": 0,
    "next_attempt_at": None,
}
"""A document that is known to be right: no trace of earlier attempts."""

# Statements that name their documents go by the table's key. Without statistics (SQLite; a new PostgreSQL
# table) both planners would rather walk the whole partition by an index on entity and tenant, once a chunk:
# a hundred times slower. Appending nothing keeps these conditions, but out of the choice of an index.
_NOTHING: Final[ColumnElement[str]] = literal_column("''")
_IN_COLLECTION: Final = and_(
    _T.collection == bindparam("of_collection"), _T.entity.concat(_NOTHING) == bindparam("of_entity")
)
_IN_PARTITION: Final = and_(_IN_COLLECTION, _T.tenant_id.concat(_NOTHING) == bindparam("of_tenant"))

ANY_STALE: Final = (
    select(_T.document_id)
    .where(
        _T.collection == bindparam("of_collection"),
        _T.entity.concat(_NOTHING) == bindparam("of_entity"),
        _T.tenant_id == bindparam("of_tenant"),
        _T.status == "stale",
    )
    .limit(1)
)


@cache
def rows(dialect: str) -> Select[*tuple[Any, ...]]:
    """The columns of `base.LedgerRow`, in its order; `started_at`."""
    seen = _T.last_seen_at == bindparam("started_at", type_=Moment)
    return select(
        _T.document_id,
        _T.tenant_id,
        _T.space,
        _T.status,
        _T.content_hash,
        _T.payload_hash,
        _T.attempt_hash,
        _T.retry_count,
        _T.next_attempt_at,
        seen,
    ).where(_IN_COLLECTION, _among(dialect))


@cache
def field_hashes(dialect: str) -> Select[str, str]:
    return select(_T.document_id, _T.field_hashes).where(_IN_COLLECTION, _among(dialect), _T.field_hashes.is_not(None))


@cache
def touch(dialect: str) -> Update:
    """`seen_at`; never back to an earlier one."""
    seen_at = bindparam("seen_at", type_=Moment)
    return (
        update(index_state)
        .where(_IN_PARTITION, _among(dialect), _T.last_seen_at < seen_at)
        .values(last_seen_at=seen_at)
    )


@cache
def freshen(dialect: str) -> Update:
    """Stale rows become synced, `now`: but a row the store never held does not by being seen."""
    return (
        update(index_state)
        .where(_IN_PARTITION, _among(dialect), _T.status.concat(_NOTHING) == "stale", _T.content_hash.is_not(None))
        .values(**NO_ERROR, updated_at=bindparam("now", type_=Moment))
    )


@cache
def mark_stale(dialect: str) -> Update:
    """`code`, `error`, `seen_at`, `now`."""
    return (
        update(index_state)
        .where(_IN_PARTITION, _among(dialect))
        .values(
            status="stale",
            error_code=bindparam("code"),
            last_error=bindparam("error"),
            last_seen_at=bindparam("seen_at", type_=Moment),
            updated_at=bindparam("now", type_=Moment),
        )
    )


@cache
def forget(dialect: str) -> Delete:
    return delete(index_state).where(_IN_PARTITION, _among(dialect))


@cache
def confirm(dialect: str) -> Insert:
    """Insert or update by the key; a row of another entity is left alone, so the count tells."""
    insert = insert_into(index_state, dialect)
    new = insert.excluded
    kept = {"collection", "document_id", "entity", "vector_version", "created_at"}
    values: dict[str, Any] = {column.name: new[column.name] for column in index_state.c if column.name not in kept}
    values["vector_version"] = _T.vector_version + new.vector_version
    values["modified_fields"] = func.coalesce(new.modified_fields, _T.modified_fields)
    return insert.on_conflict_do_update(
        index_elements=[_T.collection, _T.document_id], set_=values, where=_T.entity == new.entity
    ).execution_options(preserve_rowcount=True)


@cache
def announce(dialect: str) -> Insert:
    return insert_into(index_state, dialect).on_conflict_do_nothing(index_elements=[_T.collection, _T.document_id])


@cache
def fail(dialect: str) -> Insert:
    """Insert or update by the key; what the store confirmed stays as it is (fault 7), and where it is."""
    insert = insert_into(index_state, dialect)
    new = insert.excluded
    never_held = _T.content_hash.is_(None)
    kept = {"collection", "document_id", "entity", "content_hash", "payload_hash", "vector_version"}
    kept |= {"last_synced_at", "created_at", "field_hashes"}
    values: dict[str, Any] = {column.name: new[column.name] for column in index_state.c if column.name not in kept}
    values["modified_fields"] = func.coalesce(new.modified_fields, _T.modified_fields)
    for name in ("space", "db_id", "point_id"):
        values[name] = case((never_held, new[name]), else_=_T[name])
    return insert.on_conflict_do_update(
        index_elements=[_T.collection, _T.document_id],
        set_=values,
        where=and_(_T.entity == new.entity, or_(_T.tenant_id == new.tenant_id, never_held)),
    )


def _among(dialect: str) -> ColumnElement[bool]:
    """One parameter for all ids: the statement, and its place in each cache on the way, stays the same."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam("ids", type_=JSON)).table_valued("value")
        return _T.document_id.in_(select(listed.c.value))
    return _T.document_id == any_(bindparam("ids", type_=ARRAY(Text)))
