"""The statements on `index_state` that name their documents, for SQLite and for PostgreSQL.

Parameters: of_entity, of_collection, of_tenant, ids (a list), and those each statement speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Delete,
    FromClause,
    Function,
    Select,
    Subquery,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    column,
    delete,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from vecsync_dagster.errors import ValidationFailed
from vecsync_dagster.ledger.part import Insert, insert_into
from vecsync_dagster.ledger.record_states import FORMER
from vecsync_dagster.ledger.tables import Moment, index_state, left_vector

__all__ = [
    "ANY_STALE",
    "IS_FORMER",
    "NOT_SYNCED",
    "NO_ERROR",
    "REJECTED",
    "WRITTEN",
    "confirm",
    "fail",
    "forget",
    "formers_of",
    "freshen",
    "keep_former",
    "keep_texts",
    "leave_vectors",
    "list_of",
    "mark_stale",
    "namesakes",
    "owners",
    "rare_rests",
    "recognise",
    "rows",
    "texts",
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

WRITTEN: Final = (
    "document_id",
    "db_id",
    "point_id",
    "content_hash",
    "payload_hash",
    "record_hash",
    "field_hashes",
    "db_key",
    "text_hash",
)
"""What `confirm` is told of each document; then its modified fields, how many vectors were written (0 or 1), whether
the text was cut (0, 1, or null with no vector), and its key without the tenant (null: the tenant is no part of it)."""

# Statements that name their documents go by the table's key. Without statistics (SQLite; a new PostgreSQL
# table) both planners would rather walk the whole partition by an index on entity and tenant, once a chunk:
# a hundred times slower. Appending nothing keeps these conditions, but out of the choice of an index.
_NOTHING: Final[ColumnElement[str]] = literal_column("''")
_IN_COLLECTION: Final = and_(
    _T.collection == bindparam("of_collection"), _T.entity.concat(_NOTHING) == bindparam("of_entity")
)
_IN_PARTITION: Final = and_(_IN_COLLECTION, _T.tenant_id.concat(_NOTHING) == bindparam("of_tenant"))

# Written out: only then do both databases see that the index of what is not synced will do.
NOT_SYNCED: Final = _T.status != literal_column("'synced'")
REJECTED: Final = or_(_T.error_code == ValidationFailed.default_code, _T.attempt_hash == "")
"""Of a failed row: no attempt was made, as its record is no document."""
IS_FORMER: Final = _T.error_code == literal_column(f"'{FORMER}'")

ANY_STALE: Final = (
    select(_T.document_id)
    .where(
        _T.collection == bindparam("of_collection"),
        _T.entity.concat(_NOTHING) == bindparam("of_entity"),
        _T.tenant_id == bindparam("of_tenant"),
        NOT_SYNCED,
        _T.status == "stale",
    )
    .limit(1)
)


@cache
def rows(dialect: str) -> Select[*tuple[Any, ...]]:
    """The columns of `base.LedgerRow`, in its order; `started_at`."""
    seen = _T.last_seen_at == bindparam("started_at", type_=Moment)
    return select(
        _T.number,
        _T.document_id,
        _T.tenant_id,
        _T.space,
        _T.status,
        _T.content_hash,
        _T.payload_hash,
        _T.attempt_hash,
        _T.retry_count,
        _T.next_attempt_at,
        _T.field_hashes,
        seen,
        _T.last_attempt_at,
        _T.text_hash,
        _T.truncated,
        _T.db_id,
        _T.db_key,
    ).where(_IN_COLLECTION, _among(dialect))


def list_of(dialect: str) -> Callable[[ColumnElement[Any]], Function[Any]]:
    """The aggregate that makes a list of a column's values, in one row: each row that comes out of SQLite takes
    Python's lock from the other threads."""
    return partial(func.json_group_array, type_=JSON) if dialect == "sqlite" else func.array_agg


@cache
def recognise(dialect: str) -> Select[*tuple[Any, ...]]:
    """`of_space`, `hashes` (document id -> record hash), `started_at`: one row with the numbers of those documents
    that are synced and whose records have these hashes, and the ids of the others."""
    given = _given(dialect)
    listed = list_of(dialect)
    # Looked up one by one: of a join PostgreSQL, without statistics, would read the whole collection.
    number = select(_T.number).where(_alike(given)).scalar_subquery().label("number")
    found = _once(select(given.c.key, number), dialect)
    return select(
        listed(found.c.number).filter(found.c.number.is_not(None)), listed(found.c.key).filter(found.c.number.is_(None))
    )


@cache
def namesakes(dialect: str) -> Select[*tuple[Any, ...]]:
    """`ids` (keys without their tenant): what other tenants hold with these rests of their keys. Document id, tenant
    and key."""
    return _theirs(_among(dialect, _T.rest_id), _T.content_hash.is_not(None))


@cache
def rare_rests(dialect: str) -> Select[str]:
    """Those of `ids` (keys without their tenant) that at most `most` documents have."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam("ids", type_=JSON)).table_valued("value", name="listed")
    else:
        listed = func.unnest(bindparam("ids", type_=ARRAY(Text))).table_valued("value", name="listed").render_derived()
    same: Select[*tuple[Any, ...]] = select(literal_column("1")).where(_IN_COLLECTION, _T.rest_id == listed.c.value)
    return select(listed.c.value).where(~same.offset(bindparam("most")).limit(1).correlate(listed).exists())


@cache
def formers_of(dialect: str) -> Select[*tuple[Any, ...]]:
    """`ids` (keys): the same of what `keep_former` kept for other tenants."""
    return _theirs(IS_FORMER, _among(dialect, _T.db_id))


def _theirs(*where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    others = _T.tenant_id.concat(_NOTHING) != bindparam("of_tenant")
    return select(_T.document_id, _T.tenant_id, _T.db_id, _T.db_key).where(_IN_COLLECTION, others, *where)


@cache
def touch(dialect: str) -> Update:
    """`hashes` (document id -> record hash or null), `seen_at`; never back to an earlier one."""
    given = _given(dialect)
    seen_at = bindparam("seen_at", type_=Moment)
    return (
        update(index_state)
        .where(_IN_PARTITION, _T.document_id == given.c.key, _T.last_seen_at < seen_at)
        .values(last_seen_at=seen_at, record_hash=given.c.value)
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
def keep_texts(dialect: str) -> Update:
    """`of_space`, `hashes` (document id -> text hash), `cut` (0 or 1)."""
    given = _given(dialect)
    unknown = and_(
        _T.text_hash.concat(_NOTHING).is_(None), _T.content_hash.is_not(None), _T.space == bindparam("of_space")
    )
    return (
        update(index_state)
        .where(_IN_PARTITION, _T.document_id == given.c.key, unknown)
        .values(text_hash=given.c.value, truncated=bindparam("cut"))
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
def keep_former() -> Update:
    """`of_document`, `key`, `native`, `rest`, `code`, `error`, `seen_at`, `now`."""
    return (
        update(index_state)
        .where(_IN_PARTITION, _T.document_id == bindparam("of_document"))
        .values(
            **{**NO_ERROR, "status": "stale", "error_code": bindparam("code"), "last_error": bindparam("error")},
            db_id=bindparam("key"),
            db_key=bindparam("native"),
            rest_id=bindparam("rest"),
            last_seen_at=bindparam("seen_at", type_=Moment),
            updated_at=bindparam("now", type_=Moment),
        )
    )


@cache
def forget(dialect: str) -> Delete:
    return delete(index_state).where(_IN_PARTITION, _among(dialect))


@cache
def texts(dialect: str) -> Select[str, str]:
    """Space and text hash of the documents' vectors, each once."""
    return select(_T.space, _T.text_hash).where(_IN_PARTITION, _among(dialect), _T.text_hash.is_not(None)).distinct()


@cache
def leave_vectors(dialect: str) -> Insert:
    """The vectors of these documents are of a tenant that had them; each once."""
    names = ("entity", "tenant_id", "collection", "space", "text_hash")
    theirs = select(*(_T[name] for name in names)).where(_IN_PARTITION, _among(dialect), _T.text_hash.is_not(None))
    return insert_into(left_vector, dialect).from_select(names, theirs.distinct()).on_conflict_do_nothing()


@cache
def confirm(dialect: str, moved: bool) -> Insert:
    """Insert or update by the key; a row of another entity is left alone, and one of another tenant unless it
    `moved`, so the count tells.

    All rows are one parameter (`writes`, a list of lists in the order of `WRITTEN`): what is the same for all of
    them is bound once, and the database does the rest without Python. Others: entity, collection, scope,
    tenant_id, space, seen_at, now.
    """
    insert = insert_into(index_state, dialect)
    new = insert.excluded
    selected = _written(dialect)
    rows = insert.from_select(list(selected), select(*selected.values()).where(true()))  # SQLite must see a WHERE
    kept = {"number", "collection", "document_id", "entity", "point_id", "vector_version", "created_at"}
    if not moved:
        # What is set is written to its indexes too. When its own rows were seen, a run marks at its end.
        kept |= {"scope", "tenant_id", "last_seen_at"}
    values: dict[str, Any] = {c.name: new[c.name] for c in index_state.c if c.name not in kept}
    values["vector_version"] = _T.vector_version + new.vector_version
    for name in ("modified_fields", "text_hash", "truncated"):  # null: as it was
        values[name] = func.coalesce(new[name], _T[name])
    ours = _T.entity == new.entity if moved else and_(_T.entity == new.entity, _T.tenant_id == new.tenant_id)
    return rows.on_conflict_do_update(
        index_elements=[_T.collection, _T.document_id], set_=values, where=ours
    ).execution_options(preserve_rowcount=True)


def _written(dialect: str) -> dict[str, ColumnElement[Any]]:
    """Each column of the table with the value that `confirm` gives it."""
    each = func.json_each if dialect == "sqlite" else func.jsonb_array_elements
    listed = bindparam("writes", type_=JSON if dialect == "sqlite" else JSONB)
    value = each(listed).table_valued(column("value", JSON if dialect == "sqlite" else JSONB)).c.value
    now, seen_at = bindparam("now", type_=Moment), bindparam("seen_at", type_=Moment)
    same = ("entity", "collection", "scope", "tenant_id", "space")
    return {
        **{name: bindparam(name, type_=_T[name].type) for name in same},
        **{name: value[place].as_string() for place, name in enumerate(WRITTEN)},
        "modified_fields": value[len(WRITTEN)].as_string(),
        "vector_version": value[len(WRITTEN) + 1].as_integer(),
        "truncated": value[len(WRITTEN) + 2].as_integer(),
        "rest_id": value[len(WRITTEN) + 3].as_string(),
        **{name: null() if given is None else literal(given) for name, given in NO_ERROR.items()},
        "last_seen_at": seen_at,
        **dict.fromkeys(("last_synced_at", "last_attempt_at", "created_at", "updated_at"), now),
    }


@cache
def owners(dialect: str) -> Select[*tuple[Any, ...]]:
    """Document id, entity and tenant of rows, whoever's they are."""
    of_collection = _T.collection == bindparam("of_collection")
    return select(_T.document_id, _T.entity, _T.tenant_id).where(of_collection, _among(dialect))


@cache
def fail(dialect: str) -> Insert:
    """Insert or update by the key; what the store confirmed stays as it is, and where it is."""
    insert = insert_into(index_state, dialect)
    new = insert.excluded
    never_held = _T.content_hash.is_(None)
    kept = {"number", "collection", "document_id", "entity", "content_hash", "payload_hash", "vector_version"}
    kept |= {"last_synced_at", "created_at", "field_hashes", "record_hash", "text_hash", "truncated", "rest_id"}
    values: dict[str, Any] = {c.name: new[c.name] for c in index_state.c if c.name not in kept}
    values["modified_fields"] = func.coalesce(new.modified_fields, _T.modified_fields)
    for name in ("space", "db_id", "db_key", "point_id"):
        values[name] = case((never_held, new[name]), else_=_T[name])
    return insert.on_conflict_do_update(
        index_elements=[_T.collection, _T.document_id],
        set_=values,
        where=and_(_T.entity == new.entity, or_(_T.tenant_id == new.tenant_id, never_held)),
    )


def _alike(given: FromClause) -> ColumnElement[bool]:
    return and_(
        _IN_PARTITION,
        _T.document_id == given.c.key,
        _T.record_hash == given.c.value,
        _T.status.concat(_NOTHING) == "synced",
        _T.space == bindparam("of_space"),
        _T.text_hash.is_not(None),
        _T.last_seen_at < bindparam("started_at", type_=Moment),
    )


def _given(dialect: str) -> FromClause:
    """The pairs of the one parameter `hashes` as a table of key and value."""
    if dialect == "sqlite":
        pairs = func.json_each(bindparam("hashes", type_=JSON)).table_valued("key", "value")
        return _once(select(pairs.c.key, pairs.c.value), dialect)
    return func.jsonb_each_text(bindparam("hashes", type_=JSONB)).table_valued("key", "value", name="given")


def _once(query: Select[*tuple[Any, ...]], dialect: str) -> Subquery:
    """A subquery that the database reads by itself, with a limit or an offset of nothing; else it would walk the
    whole collection for each pair, or look a row up each time that its number is used."""
    return (query.limit(-1) if dialect == "sqlite" else query.offset(0)).subquery()


def _among(dialect: str, name: ColumnElement[str] | ColumnElement[str | None] = _T.document_id) -> ColumnElement[bool]:
    """One parameter for all ids: the statement, and its place in each cache on the way, stays the same."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam("ids", type_=JSON)).table_valued("value")
        return name.in_(select(listed.c.value))
    return name == any_(bindparam("ids", type_=ARRAY(Text)))
