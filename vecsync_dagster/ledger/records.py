"""Records across the collections of their entity: the state of each, and which collections lack one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Subquery, and_, case, func, select

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.ledger.record_states import SEVERITY, CollectionState, RecordState, Status
from vecsync_dagster.ledger.tables import index_state

__all__ = ["Records"]

_T: Final = index_state.c
_RANK: Final = case(dict(SEVERITY), value=_T.status)
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
        ranked = _ranked(entity, collections, tenant, collection, ids)
        query = select(ranked.c.document_id).order_by(ranked.c.rank.desc(), ranked.c.document_id)
        if status is not None:
            query = query.where(ranked.c.rank == SEVERITY[status])
        with self.database.read() as connection:
            page = connection.scalars(query.limit(limit).offset(offset)).all()
            place = and_(_place(entity, collections, tenant), _T.document_id.in_(page))
            rows = connection.execute(
                select(_T.document_id, _T.tenant_id, _T.db_id, _T.collection, _T.db_key, *_STATE).where(place)
            ).all()
        found: dict[str, list[Row[*tuple[Any, ...]]]] = {identity: [] for identity in page}
        for row in rows:
            found[row[0]].append(row)
        return [_record(some, collections) for some in found.values() if some]

    def count_records(
        self, entity: str, collections: Sequence[str], *, tenant: str | None = None, collection: str | None = None
    ) -> dict[Status, int]:
        ranked = _ranked(entity, collections, tenant, collection, None)
        query = select(ranked.c.rank, func.count()).group_by(ranked.c.rank)
        with self.database.read() as connection:
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
            .where(_place(entity, others, tenant), _T.content_hash.is_not(None), here.c.content_hash.is_(None))
        )
        with self.database.read() as connection:
            count = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
            first = connection.execute(query.order_by(_T.document_id).limit(limit)).all() if count else []
        return count, [(row[0], row[1]) for row in first]


def _place(entity: str, collections: Sequence[str], tenant: str | None) -> ColumnElement[bool]:
    place = and_(_T.entity == entity, _T.collection.in_(collections))
    return place if tenant is None else and_(place, _T.tenant_id == tenant)


def _ranked(
    entity: str, collections: Sequence[str], tenant: str | None, collection: str | None, ids: Sequence[str] | None
) -> Subquery:
    """Document id and rank of each record: of its worst collection (without a row: pending), or of `collection`."""
    rank: ColumnElement[int]
    if collection is None:
        incomplete = and_(func.count() < len(collections), func.max(_RANK) < _PENDING)
        rank = case((incomplete, _PENDING), else_=func.max(_RANK))
    else:
        rank = func.coalesce(func.max(case((_T.collection == collection, _RANK))), _PENDING)
    query = select(_T.document_id, rank.label("rank")).where(_place(entity, collections, tenant))
    if ids is not None:
        query = query.where(_T.document_id.in_(ids))
    return query.group_by(_T.document_id).subquery()


def _record(rows: Sequence[Row[*tuple[Any, ...]]], collections: Sequence[str]) -> RecordState:
    states = {row[3]: _state(*row[5:]) for row in rows}
    document_id, tenant, db_id, *_ = rows[0]
    db_key = next((row[4] for row in rows if row[4] is not None), None)
    complete = {name: states.get(name, CollectionState()) for name in collections}
    return RecordState(tenant, Key(db_id, db_key), document_id, complete)


def _state(*values: Any) -> CollectionState:
    modified = None if values[-1] is None else tuple(json.loads(values[-1]))
    fields = (*values[:-1], modified)
    return CollectionState(*fields)
