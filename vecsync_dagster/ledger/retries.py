"""Documents that failed: which are due, which have used up their retries, and giving them another chance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, and_, func, or_, select, true, update

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger import partition_statements as statements
from vecsync_dagster.ledger.base import Tally
from vecsync_dagster.ledger.document_statements import REJECTED
from vecsync_dagster.ledger.part import LedgerPart, chunks
from vecsync_dagster.ledger.record_states import OF_ONE_DOCUMENT, FailedRow, Failures
from vecsync_dagster.ledger.tables import index_state

__all__ = ["Retries"]

_T: Final = index_state.c
_OUTAGE: Final = or_(
    _T.retry_count == 0, ~or_(*(_T.error_code.endswith(code, autoescape=True) for code in OF_ONE_DOCUMENT))
)


class Retries(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def failed_rows(
        self,
        entity: str,
        collections: Sequence[str],
        *,
        due: datetime | None = None,
        or_outage: bool = False,
        ids: Sequence[str] | None = None,
        tenant: str | None = None,
        limit: int = 10_000,
    ) -> list[FailedRow]:
        when = true() if due is None else _T.next_attempt_at <= due
        if or_outage:
            when = or_(when, and_(_T.next_attempt_at.is_not(None), _OUTAGE))
        query = (
            select(
                _T.collection,
                _T.tenant_id,
                _T.document_id,
                _T.db_id,
                _T.error_code,
                _T.retry_count,
                _T.next_attempt_at,
                _T.db_key,
            )
            .where(_of(entity, collections, ids), when, true() if tenant is None else _T.tenant_id == tenant)
            .order_by(_T.last_attempt_at, _T.document_id, _T.collection)
            .limit(limit)
        )
        with self.database.read() as connection:
            return [
                FailedRow(collection, whose, identity, Key(db_id, db_key), code, count, due_at)
                for collection, whose, identity, db_id, code, count, due_at, db_key in connection.execute(query)
            ]

    def failures(
        self, entity: str, collections: Sequence[str], ids: Sequence[str] | None = None
    ) -> tuple[Failures, datetime | None]:
        waits = _T.next_attempt_at.is_not(None)
        query = select(func.count().filter(waits), func.count().filter(~waits), func.min(_T.next_attempt_at))
        with self.database.read() as connection:
            waiting, permanent, first = connection.execute(query.where(_of(entity, collections, ids))).one()
        return Failures(waiting, permanent), first

    def reset(self, entity: str, collections: Sequence[str], ids: Sequence[str] | None = None) -> int:
        now = self._now()
        with self.database.write() as connection:
            done = 0
            for some in [None] if ids is None else chunks(ids):
                change = update(index_state).where(_of(entity, collections, some))
                done += connection.execute(change.values(retry_count=0, next_attempt_at=now, updated_at=now)).rowcount
        return done

    def postpone(self, entity: str, collection: str, tenant: str, ids: Sequence[str], until: datetime) -> None:
        now = self._now()
        with self.database.write() as connection:
            for some in chunks(ids):
                place = and_(_of(entity, [collection], some), _T.tenant_id == tenant, _T.next_attempt_at <= now)
                values = {"last_attempt_at": now, "next_attempt_at": until, "updated_at": now}
                connection.execute(update(index_state).where(place).values(values))

    def tally(self, entity: str, collection: str, tenant: str) -> Tally:
        values = statements.place(entity, collection, tenant)
        with self.database.read() as connection:
            rows, never_held, stale, *failures, truncated, former = connection.execute(statements.TALLY, values).one()
        return Tally(rows, rows - never_held, Failures(*failures), stale, truncated, former)

    def truncated_ids(self, entity: str, collection: str, tenant: str, limit: int) -> list[str]:
        query = select(_T.db_id).where(statements.CUT).order_by(_T.db_id).limit(limit)
        with self.database.read() as connection:
            return list(connection.scalars(query, statements.place(entity, collection, tenant)))


def _of(entity: str, collections: Sequence[str], ids: Sequence[str] | None) -> ColumnElement[bool]:
    """Failed documents that another attempt may help: a rejected record has to change first."""
    place = and_(statements.FAILED, ~REJECTED, _T.entity == entity, _T.collection.in_(collections))
    return place if ids is None else and_(place, _T.document_id.in_(ids))
