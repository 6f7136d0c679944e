"""Records that are rejected now: not what was ever rejected, and not what is valid again or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import and_, delete, func, literal, or_, select

from vecsync_dagster.errors import ValidationFailed
from vecsync_dagster.ledger.base import REPEATED, InvalidRecord, LastRuns, Partition
from vecsync_dagster.ledger.document_statements import NOT_SYNCED
from vecsync_dagster.ledger.part import LedgerPart, chunks
from vecsync_dagster.ledger.tables import index_state, invalid_record

__all__ = ["Invalid"]

_T: Final = index_state.c
_I: Final = invalid_record.c
_REJECTED: Final = and_(
    NOT_SYNCED,
    or_(
        _T.status == "stale",
        and_(_T.status == "failed", or_(_T.attempt_hash == "", _T.error_code == ValidationFailed.default_code)),
    ),
)


class Invalid(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def invalid(self, last: Mapping[Partition, LastRuns | None], limit: int = 1000) -> list[InvalidRecord]:
        found: list[InvalidRecord] = []
        for place, runs in last.items():
            run = None if runs is None else runs.full_success
            found += self._identified(place, limit - len(found))
            if run is not None and run.figures.get("unidentified"):
                found += self._unidentified(place, run.run_id, limit - len(found))
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

    def _unidentified(self, place: Partition, run_id: str, limit: int) -> list[InvalidRecord]:
        """Those without a usable id of their own have no row: they are as the last full run found them. One whose id
        another tenant's record has has no row in this partition either."""
        known = select(literal(1)).where(
            _T.collection == place.collection,
            _T.entity == place.entity,
            _T.tenant_id == place.tenant,
            _T.db_id == _I.db_id,
        )
        twice = and_(_I.error == REPEATED, known.exists())
        query = (
            select(_I.db_id, _I.code, _I.field, _I.error, _I.rejected_at)
            .where(_I.run_id == run_id, _I.entity == place.entity, _I.tenant_id == place.tenant)
            .where(_I.collection == place.collection, or_(_I.db_id.is_(None), twice, _I.code == "ID_NOT_UNIQUE"))
            .order_by(_I.id)
            .limit(limit)
        )
        with self.database.read() as connection:
            return [InvalidRecord(*place, *row, "unidentified") for row in connection.execute(query)]

    def forget_rejected(self, entity: str, tenant: str | None = None, collection: str | None = None) -> None:
        wanted = {_I.entity: entity, _I.tenant_id: tenant, _I.collection: collection}
        place = [column == value for column, value in wanted.items() if value is not None]
        with self.database.write() as connection:
            connection.execute(delete(invalid_record).where(*place))
