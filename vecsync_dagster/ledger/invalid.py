"""Records that are rejected now: not what was ever rejected, and not what is valid again or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Subquery, and_, case, delete, func, literal, or_, select

from vecsync_dagster.identity import OF_MANY
from vecsync_dagster.ledger.base import REPEATED, InvalidRecord, LastRuns, Partition, Run
from vecsync_dagster.ledger.document_statements import NOT_SYNCED, REJECTED
from vecsync_dagster.ledger.part import LedgerPart, chunks
from vecsync_dagster.ledger.record_states import FORMER
from vecsync_dagster.ledger.tables import index_state, invalid_record

__all__ = ["Invalid"]

_T: Final = index_state.c
_I: Final = invalid_record.c
_REJECTED: Final = and_(
    NOT_SYNCED,
    or_(
        and_(_T.status == "stale", _T.error_code.is_distinct_from(FORMER)),
        and_(_T.status == "failed", REJECTED),
    ),
)


class Invalid(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def invalid(self, last: Mapping[Partition, LastRuns | None], limit: int = 1000) -> list[InvalidRecord]:
        found: list[InvalidRecord] = []
        noted = select(_I.entity, _I.collection, _I.tenant_id).where(_I.collection.is_not(None)).distinct()
        with self.database.read() as connection:
            with_some = {Partition(*row) for row in connection.execute(noted)}
        for place, runs in last.items():
            found += self._identified(place, limit - len(found))
            if place in with_some:
                found += self._unidentified(place, None if runs is None else runs.full_success, limit - len(found))
            if len(found) >= limit:
                break
        return found

    def _identified(self, place: Partition, limit: int) -> list[InvalidRecord]:
        query = (
            select(_T.db_id, _T.status, _T.error_code, _T.last_error, _T.updated_at)
            .where(
                _T.entity == place.entity, _T.collection == place.collection, _T.tenant_id == place.tenant, _REJECTED
            )
            .order_by(_T.document_id)
            .limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        fields = self._fields(place, [row.db_id for row in rows])
        return [
            InvalidRecord(
                *place, row.db_id, row.error_code, fields.get(row.db_id), row.last_error, row.updated_at, row.status
            )
            for row in rows
        ]

    def _fields(self, place: Partition, ids: Sequence[str]) -> dict[str, str | None]:
        """The field that each of these records was last rejected for."""
        of_place = and_(_I.entity == place.entity, _I.tenant_id == place.tenant)
        here = or_(_I.collection.is_(None), _I.collection == place.collection)
        found: dict[str, str | None] = {}
        with self.database.read() as connection:
            for some in chunks(ids):
                newest = select(func.max(_I.id)).where(of_place, here, _I.db_id.in_(some)).group_by(_I.db_id)
                rows = connection.execute(select(_I.db_id, _I.field).where(_I.id.in_(newest)))
                found.update({identity: field for identity, field in rows if identity is not None})
        return found

    def unidentified_since(self, place: Partition, full: Run | None) -> int:
        later = select(_I.id).where(_met_since(place, full)).limit(1)
        with self.database.read() as connection:
            if connection.execute(later).first() is None:
                return 0
            met = _unidentified(place, full)
            in_full = literal(0) if full is None else func.max(case((met.c.run_id == full.run_id, 1), else_=0))
            fresh = select(met.c.nth).group_by(met.c.db_id, met.c.code, met.c.nth).having(in_full == 0).subquery()
            return int(connection.scalar(select(func.count()).select_from(fresh)) or 0)

    def _unidentified(self, place: Partition, full: Run | None, limit: int) -> list[InvalidRecord]:
        """Those without a usable id of their own have no row: they are as the last full run found them, and those that
        runs have met since. One whose id another tenant's record has has no row in this partition either."""
        met = _unidentified(place, full)
        once = select(func.min(met.c.id)).group_by(met.c.db_id, met.c.code, met.c.nth)
        query = select(_I.db_id, _I.code, _I.field, _I.error, _I.rejected_at).where(_I.id.in_(once))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(_I.id).limit(limit))
            return [InvalidRecord(*place, *row, "unidentified") for row in rows]

    def forget_rejected(self, entity: str, tenant: str | None = None, collection: str | None = None) -> None:
        wanted = {_I.entity: entity, _I.tenant_id: tenant, _I.collection: collection}
        place = [column == value for column, value in wanted.items() if value is not None]
        with self.database.write() as connection:
            connection.execute(delete(invalid_record).where(*place))


def _met_since(place: Partition, full: Run | None) -> ColumnElement[bool]:
    of_place = and_(_I.entity == place.entity, _I.tenant_id == place.tenant, _I.collection == place.collection)
    return of_place if full is None else and_(of_place, _I.rejected_at > full.started_at)


def _unidentified(place: Partition, full: Run | None) -> Subquery:
    """What the last full run, and each one since, has rejected without a usable id of its own. Runs meet the same ones
    again: what two of them have `nth` under one id (or none) for one reason is one record."""
    known = select(literal(1)).where(
        _T.collection == place.collection,
        _T.entity == place.entity,
        _T.tenant_id == place.tenant,
        _T.db_id == _I.db_id,
    )
    twice = and_(_I.error == REPEATED, known.exists())
    own = or_(_I.db_id.is_(None), twice, _I.code == "ID_NOT_UNIQUE", _I.error.endswith(OF_MANY))
    met = _met_since(place, full)
    if full is not None:
        in_full = and_(_I.run_id == full.run_id, _I.collection == place.collection)
        met = or_(met, and_(in_full, _I.entity == place.entity, _I.tenant_id == place.tenant))
    nth = func.row_number().over(partition_by=(_I.run_id, _I.db_id, _I.code), order_by=_I.id).label("nth")
    return select(_I.id, _I.run_id, _I.db_id, _I.code, nth).where(met, own).subquery()
