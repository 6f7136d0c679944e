"""Partitions as a whole: what they hold, what was not seen, what is due, how far they were read."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import chain, islice
from typing import Any, Final, get_args

from pyroaring import BitMap64
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger import partition_statements as statements
from vecsync_dagster.ledger.base import LedgerPoint, PartitionTotals, RunStart, Status
from vecsync_dagster.ledger.document_statements import NOT_SYNCED, REJECTED, list_of
from vecsync_dagster.ledger.last_runs import each
from vecsync_dagster.ledger.part import Insert, LedgerPart, chunks, insert_into
from vecsync_dagster.ledger.tables import (
    index_state,
    missing_tenant,
    partition_seen,
    unfinished_run,
    watermark,
)
from vecsync_dagster.ledger.unshown import mark_unshown
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster.stores.base import GLOBAL

__all__ = ["Partitions"]

_T: Final = index_state.c
_W: Final = watermark.c
_U: Final = unfinished_run.c
_P: Final = partition_seen.c
_M: Final = missing_tenant.c
_HELD: Final = _T.content_hash.is_not(None)
_WAITING: Final = and_(_T.status == "failed", _T.next_attempt_at.is_not(None))
_STATUSES: Final[tuple[Status, ...]] = get_args(Status)
AnyRow = Row[*tuple[Any, ...]]
_TICK: Final = timedelta(microseconds=1)
_NUMBERS: Final = 10_000
_POINTS: Final = 20_000
"""So many rows at a time, of all partitions together."""


class Partitions(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def unseen(
        self,
        entity: str,
        collection: str,
        tenant: str,
        before: datetime,
        seen: BitMap64 | None = None,
        chunk: int = 500,
    ) -> Iterator[list[tuple[str, str]]]:
        query = select(_T.document_id, _T.point_id).where(_in(entity, collection, tenant), _T.last_seen_at < before)
        for numbers in self._numbers(collection, tenant):
            for some in chunks(list(numbers - (seen or BitMap64())), chunk):
                with self.database.read() as connection:
                    rows = connection.execute(query.where(_T.number.in_(some))).all()
                if rows:
                    yield [(identity, point) for identity, point in rows]

    def _numbers(self, collection: str, tenant: str) -> Iterator[BitMap64]:
        """The numbers of a partition's rows, of many at a time, from its index alone."""
        index = select(_T.point_id, _T.number).where(_T.collection == collection, _T.tenant_id == tenant)
        listed = list_of(self.database.dialect)
        begin, before, ended = "", BitMap64(), False
        while not ended:
            page = index.where(_T.point_id >= begin).order_by(_T.point_id).limit(_NUMBERS).subquery()
            with self.database.read() as connection:
                last, numbers = connection.execute(select(func.max(page.c.point_id), listed(page.c.number))).one()
            found = BitMap64(numbers or ())
            yield found - before
            ended = last in (None, begin) or len(found) < _NUMBERS
            begin, before = last, found

    def mark_seen(self, entity: str, collection: str, tenant: str, numbers: Sequence[int], seen_at: datetime) -> None:
        earlier = update(index_state).where(_in(entity, collection, tenant), _T.last_seen_at < seen_at)
        with self.database.write() as connection:
            for some in chunks(numbers):
                connection.execute(earlier.where(_T.number.in_(some)).values(last_seen_at=seen_at))

    def mark_all_seen(self, entity: str, collection: str, tenant: str, seen_at: datetime) -> None:
        values = {"entity": entity, "collection": collection, "tenant_id": tenant, "seen_at": seen_at}
        with self.database.write() as connection:
            connection.execute(_set_seen(self.database.dialect), values)

    def all_due(
        self, entity: str, collection: str, tenant: str, now: datetime, chunk: int = 10_000
    ) -> Iterator[list[Key]]:
        query = select(_T.document_id, _T.db_id, _T.db_key).where(
            _in(entity, collection, tenant), NOT_SYNCED, _T.status == "failed", _T.next_attempt_at <= now
        )
        for rows in self._by_key(query, (_T.document_id,), chunk):
            yield [Key(*row[1:]) for row in rows]

    def never_stored(self, entity: str, collection: str, tenant: str, chunk: int = 10_000) -> Iterator[list[Key]]:
        query = select(_T.document_id, _T.db_id, _T.db_key).where(
            _in(entity, collection, tenant), NOT_SYNCED, _T.content_hash.is_(None)
        )
        for rows in self._by_key(query, (_T.document_id,), chunk):
            yield [Key(*row[1:]) for row in rows]

    def run_start(self, entity: str, collection: str, tenant: str) -> RunStart:
        values = statements.place(entity, collection, tenant)
        with self.database.read() as connection:
            known, looks, *seen, held, collection_held, former = connection.execute(statements.RUN_START, values).one()
        at = max([self._now(), *(last + _TICK for last in seen if last is not None)])
        return RunStart(at, known, bool(looks), held, collection_held, former)

    def with_rows(self, entity: str, collection: str | None = None) -> list[str]:
        with self.database.read() as connection:
            return sorted(_tenants_with_rows(connection, entity, collection))

    def with_rows_or_marks(self, entity: str, collection: str | None = None) -> list[str]:
        marked = select(_U.tenant_id).distinct().where(_U.entity == entity)
        if collection is not None:
            marked = marked.where(_U.collection == collection)
        with self.database.read() as connection:
            return sorted(_tenants_with_rows(connection, entity, collection).union(connection.scalars(marked)))

    def has_scope(self, entity: str, collection: str, *, is_global: bool) -> bool:
        # Each of these by its index, where "not equal" would read every row.
        whose = (_T.tenant_id == GLOBAL,) if is_global else (_T.tenant_id < GLOBAL, _T.tenant_id > GLOBAL)
        some = (exists().where(_T.entity == entity, _T.collection == collection, one) for one in whose)
        with self.database.read() as connection:
            return bool(connection.scalar(select(or_(*some))))

    def has_others(self, entity: str, tenant: str) -> bool:
        with self.database.read() as connection:
            return bool(connection.scalar(select(exists().where(_T.entity == entity, _T.tenant_id != tenant))))

    def points(
        self, entity: str, collection: str, tenant: str | None = None, chunk: int = 1000
    ) -> Iterator[list[LedgerPoint]]:
        if tenant is None:
            yield from self._points_of_all(entity, collection, chunk)
            return
        keys = (_T.point_id, _T.document_id, _T.db_id, _T.db_key)
        query = select(*keys, _T.tenant_id, _T.content_hash, _T.payload_hash).where(
            _in(entity, collection, tenant), _HELD
        )
        for rows in self._by_key(query, (_T.point_id, _T.document_id), chunk):
            yield [_point(*row) for row in rows]

    def _points_of_all(self, entity: str, collection: str, chunk: int) -> Iterator[list[LedgerPoint]]:
        """The partitions merged, in memory that is bounded also where they are many."""
        tenants = self.with_rows(entity, collection)
        each = min(chunk, max(_POINTS // max(len(tenants), 1), 20))
        partitions = [chain.from_iterable(self.points(entity, collection, one, each)) for one in tenants]
        merged = heapq.merge(*partitions, key=lambda point: (point.point_id, point.document_id))
        while points := list(islice(merged, chunk)):
            yield points

    def totals(self, unseen_before: datetime) -> list[PartitionTotals]:
        partition = (_T.entity, _T.collection, _T.tenant_id)
        query = (
            select(
                *partition,
                func.count(),
                func.max(_T.last_synced_at),
                func.max(_T.last_seen_at),
                _P.seen_at,
                func.count().filter(
                    _T.last_seen_at < unseen_before, or_(_P.seen_at.is_(None), _P.seen_at < unseen_before)
                ),
                func.count().filter(_T.status == "failed", REJECTED),
                func.count().filter(_WAITING),
                func.min(_T.next_attempt_at).filter(_WAITING),
                *(func.count().filter(_T.status == status) for status in _STATUSES),
            )
            .outerjoin_from(
                index_state,
                partition_seen,
                and_(_P.entity == _T.entity, _P.collection == _T.collection, _P.tenant_id == _T.tenant_id),
            )
            .group_by(*partition, _P.seen_at)
            .order_by(*partition)
        )
        with self.database.read() as connection:
            return [_totals(row) for row in connection.execute(query)]

    def watermark(self, entity: str, collection: str, tenant: str, settings: str = "") -> Cursor | None:
        values = {**statements.place(entity, collection, tenant), "of_settings": settings}
        with self.database.read() as connection:
            row = connection.execute(statements.WATERMARK, values).one_or_none()
        return None if row is None else Cursor(*row)

    def set_watermark(self, entity: str, collection: str, tenant: str, cursor: Cursor, settings: str = "") -> None:
        values = {
            "entity": entity,
            "collection": collection,
            "tenant_id": tenant,
            "cursor_value": cursor.value,
            "cursor_id": cursor.id,
            "settings": settings,
            "updated_at": self._now(),
        }
        with self.database.write() as connection:
            connection.execute(_set_watermark(self.database.dialect), values)

    def begin_writing(self, entity: str, collection: str, tenant: str, run_id: str, mode: str | None = None) -> None:
        """Beginning twice changes nothing."""
        place, now = {"entity": entity, "collection": collection, "tenant_id": tenant}, self._now()
        statement = insert_into(unfinished_run, self.database.dialect).on_conflict_do_nothing()
        with self.database.write(durable=True) as connection:
            connection.execute(statement, {**place, "run_id": run_id, "began_at": now, "mode": mode})
            mark_unshown(connection, self.database.dialect, place, now)

    def unfinished(self, entity: str, collection: str, tenant: str) -> list[str]:
        with self.database.read() as connection:
            return list(connection.scalars(statements.UNFINISHED, statements.place(entity, collection, tenant)))

    def is_cut_short(self, entity: str, collection: str, tenant: str) -> bool:
        with self.database.read() as connection:
            return bool(connection.scalar(statements.CUT_SHORT, statements.place(entity, collection, tenant)))

    def finish_writing(self, entity: str, collection: str, tenant: str, run_ids: Sequence[str]) -> None:
        place = and_(_U.entity == entity, _U.collection == collection, _U.tenant_id == tenant)
        with self.database.write() as connection:
            for run_id in run_ids:
                connection.execute(delete(unfinished_run).where(place, _U.run_id == run_id))

    def _by_key(
        self, query: Select[*tuple[Any, ...]], key: Sequence[Column[Any]], chunk: int
    ) -> Iterator[Sequence[AnyRow]]:
        """The rows of `query`, whose first columns are `key`, in that order; each chunk is read on its own."""
        page = query.order_by(*key).limit(chunk)
        while True:
            with self.database.read() as connection:
                rows = connection.execute(page).all()
            if rows:
                yield rows
            if len(rows) < chunk:
                return
            last = (literal(value, column.type) for value, column in zip(rows[-1], key, strict=False))
            page = query.where(tuple_(*key) > tuple_(*last)).order_by(*key).limit(chunk)


def _in(entity: str, collection: str, tenant: str) -> ColumnElement[bool]:
    return and_(_T.entity == entity, _T.collection == collection, _T.tenant_id == tenant)


def _tenants_with_rows(connection: Connection, entity: str, collection: str | None) -> set[str]:
    names = each(connection, _T.collection, _T.entity == entity) if collection is None else [collection]
    places = (and_(_T.entity == entity, _T.collection == name) for name in names)
    return {tenant for place in places for tenant in each(connection, _T.tenant_id, place)}


def _totals(row: AnyRow) -> PartitionTotals:
    entity, collection, tenant, documents, last_synced_at, last_seen_at, all_seen_at, *counts = row
    unseen, rejected, waiting, next_retry, *by_status = counts
    return PartitionTotals(
        entity=entity,
        collection=collection,
        tenant=tenant,
        documents=documents,
        by_status=dict(zip(_STATUSES, by_status, strict=True)),
        rejected=rejected,
        waiting=waiting,
        next_retry=next_retry,
        last_synced_at=last_synced_at,
        last_seen_at=max(last_seen_at, all_seen_at or last_seen_at),
        unseen_since=unseen,
    )


@cache
def _set_seen(dialect: str) -> Insert:
    insert = insert_into(partition_seen, dialect)
    return insert.on_conflict_do_update(
        index_elements=[_P.entity, _P.collection, _P.tenant_id], set_={"seen_at": insert.excluded.seen_at}
    )


@cache
def _set_watermark(dialect: str) -> Insert:
    insert = insert_into(watermark, dialect)
    values = {name: insert.excluded[name] for name in ("cursor_value", "cursor_id", "settings", "updated_at")}
    return insert.on_conflict_do_update(index_elements=[_W.entity, _W.collection, _W.tenant_id], set_=values)


def _point(point: str, document: str, db_id: str, db_key: str | None, *rest: str) -> LedgerPoint:
    return LedgerPoint(point, document, Key(db_id, db_key), *rest)
