"""Records across the collections of their entity: the state of each, and which collections lack one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Subquery,
    and_,
    case,
    func,
    or_,
    select,
    union_all,
)

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.document_statements import NOT_SYNCED
from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.ledger.record_states import FORMER, SEVERITY, CollectionState, RecordState, Status
from vecsync_dagster.ledger.tables import index_state

__all__ = ["Records"]

_T: Final = index_state.c
_IS_TODAYS: Final = or_(_T.status != "stale", _T.error_code.is_distinct_from(FORMER))
"""No document that `Ledger.keep_former` kept: those are no records of their own."""
_PENDING: Final = SEVERITY["pending"]
_STATUS: Final[dict[int, Status]] = {rank: status for status, rank in SEVERITY.items()}
_STATE: Final = (
    _T.status,
    _T.vector_version,
    _T.content_hash,
    _T.error_code,
    _T.last_error,
    _T.retry_count,
    _T.next_attempt_at,
    _T.last_synced_at,
    _T.last_attempt_at,
    _T.modified_fields,
)


class Records(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def records(
        self,
        entity: str,
        collections: Sequence[str],
        *,
        tenant: str | None = None,
        collection: str | None = None,
        status: Status | None = None,
        ids: Sequence[str] | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> list[RecordState]:
        with self.database.read() as connection:
            own = _own(connection, entity, collections, tenant)
            ranked = _ranked(own, collections, collection, ids)
            query = select(ranked.c.record).order_by(ranked.c.rank.desc(), ranked.c.record)
            if status is not None:
                query = query.where(ranked.c.rank == SEVERITY[status])
            page = connection.scalars(query.limit(limit).offset(offset)).all()
            same = and_(_T.collection == own.c.collection, _T.document_id == own.c.document_id)
            rows = connection.execute(
                select(own.c.record, _T.document_id, _T.tenant_id, _T.db_id, _T.collection, _T.db_key, *_STATE)
                .join_from(own, index_state, same)
                .where(own.c.record.in_(page))
            ).all()
        found: dict[str, list[Row[*tuple[Any, ...]]]] = {identity: [] for identity in page}
        for row in sorted(rows, key=lambda row: row[0] != row[1]):  # a former document after today's
            found[row[0]].append(row)
        return [_record(some, collections) for some in found.values() if some]

    def count_records(
        self, entity: str, collections: Sequence[str], *, tenant: str | None = None, collection: str | None = None
    ) -> dict[Status, int]:
        with self.database.read() as connection:
            ranked = _ranked(_own(connection, entity, collections, tenant), collections, collection, None)
            query = select(ranked.c.rank, func.count()).group_by(ranked.c.rank)
            return {_STATUS[rank]: count for rank, count in connection.execute(query)}

    def absent(
        self, entity: str, collection: str, others: Sequence[str], tenant: str | None, limit: int
    ) -> tuple[int, list[tuple[str, str | None]]]:
        here = index_state.alias("here")
        same = and_(here.c.collection == collection, here.c.document_id == _T.document_id)
        query = (
            select(_T.document_id, here.c.error_code)
            .distinct()
            .outerjoin_from(index_state, here, same)
            .where(_place(entity, others, tenant), _IS_TODAYS, _T.content_hash.is_not(None))
            .where(here.c.content_hash.is_(None))
        )
        with self.database.read() as connection:
            count = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
            first = connection.execute(query.order_by(_T.document_id).limit(limit)).all() if count else []
        return count, [(row[0], row[1]) for row in first]


def _place(entity: str, collections: Sequence[str], tenant: str | None) -> ColumnElement[bool]:
    place = and_(_T.entity == entity, _T.collection.in_(collections))
    return place if tenant is None else and_(place, _T.tenant_id == tenant)


def _own(connection: Connection, entity: str, collections: Sequence[str], tenant: str | None) -> Subquery:
    """The documents, each with its `record`, by the id of today: that of a former one is its record's other row, if
    there is any. Most ledgers have no former ones, which their index tells."""
    place = _place(entity, collections, tenant)
    columns = (_T.document_id, _T.collection, _T.status)
    todays = select(_T.document_id.label("record"), *columns).where(place, _IS_TODAYS)
    # The entity as no key of another index: SQLite shall take the one of what is not synced.
    former = and_(_T.collection.in_(collections), _T.entity.concat("") == entity, NOT_SYNCED, ~_IS_TODAYS)
    if tenant is not None:
        former = and_(former, _T.tenant_id == tenant)
    if connection.execute(select(_T.document_id).where(former).limit(1)).first() is None:
        return todays.subquery()
    keys = select(_T.db_id).where(former)
    others = (
        select(_T.tenant_id, _T.db_id, func.min(_T.document_id).label("record"))
        .where(place, _IS_TODAYS, _T.db_id.in_(keys))
        .group_by(_T.tenant_id, _T.db_id)
        .subquery()
    )
    same = and_(others.c.tenant_id == _T.tenant_id, others.c.db_id == _T.db_id)
    record = func.coalesce(others.c.record, _T.document_id)
    return union_all(
        todays, select(record, *columns).outerjoin_from(index_state, others, same).where(former)
    ).subquery()


def _ranked(own: Subquery, collections: Sequence[str], collection: str | None, ids: Sequence[str] | None) -> Subquery:
    """Id and rank of each record: of its worst collection (without a row: pending), or of `collection`."""
    rank: ColumnElement[int]
    each = case(dict(SEVERITY), value=own.c.status)
    if collection is None:
        # Without former ones no collection has a record twice; to count each once takes longer.
        one = own.c.collection.distinct() if isinstance(own.element, CompoundSelect) else own.c.collection
        number = func.count(one)
        rank = case((and_(number < len(collections), func.max(each) < _PENDING), _PENDING), else_=func.max(each))
    else:
        rank = func.coalesce(func.max(case((own.c.collection == collection, each))), _PENDING)
    query = select(own.c.record, rank.label("rank"))
    if ids is not None:
        query = query.where(own.c.record.in_(ids))
    return query.group_by(own.c.record).subquery()


def _record(rows: Sequence[Row[*tuple[Any, ...]]], collections: Sequence[str]) -> RecordState:
    states: dict[str, CollectionState] = {}
    for record, document_id, _, _, collection, _, *values in rows:
        state = _state(*values)
        before = states.get(collection, state)
        former = before.former if document_id == record and state.error_code != FORMER else document_id
        states[collection] = replace(max(before, state, key=_severity), former=former)
    record, _, tenant, db_id, *_ = rows[0]
    db_key = next((row[5] for row in rows if row[5] is not None), None)
    complete = {name: states.get(name, CollectionState()) for name in collections}
    return RecordState(tenant, Key(db_id, db_key), record, complete)


def _severity(state: CollectionState) -> int:
    return SEVERITY[state.status]


def _state(*values: Any) -> CollectionState:
    modified = None if values[-1] is None else tuple(json.loads(values[-1]))
    fields = (*values[:-1], modified)
    return CollectionState(*fields)
