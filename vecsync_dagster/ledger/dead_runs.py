"""Runs whose processes were killed: they began to write, left no result, and nobody holds their tenant any more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Row, Select, and_, select

from vecsync_dagster.errors import OutputUnwritable, PartitionBusy
from vecsync_dagster.ledger.base import DIED, Run
from vecsync_dagster.ledger.holds import Holds
from vecsync_dagster.ledger.part import insert_into
from vecsync_dagster.ledger.runs import values_of
from vecsync_dagster.ledger.tables import sync_run, unfinished_run

__all__ = ["DeadRuns"]

_U: Final = unfinished_run.c
_R: Final = sync_run.c
_SAME: Final = and_(
    _R.run_id == _U.run_id, _R.entity == _U.entity, _R.collection == _U.collection, _R.tenant_id == _U.tenant_id
)
_UNRECORDED: Final = (
    select(unfinished_run)
    .outerjoin(sync_run, _SAME)
    .where(_U.mode.is_not(None), _R.run_id.is_(None))
    .order_by(_U.entity, _U.tenant_id)
)
"""Most of them are under way."""


class DeadRuns(Holds):
    """See `base.Ledger` for what each method promises."""

    def end_dead_runs(self, entity: str | None = None) -> list[Run]:
        """Raises LedgerUnavailable, LedgerRejected."""
        wanted = _UNRECORDED if entity is None else _UNRECORDED.where(_U.entity == entity)
        ended: list[Run] = []
        for (name, tenant), _ in groupby(self._marks(wanted), lambda row: (row.entity, row.tenant_id)):
            # Held by whoever syncs the tenant; a folder where nothing can be locked has no locks to tell by.
            with suppress(PartitionBusy, OutputUnwritable), self.hold(name, tenant):
                # Again, as it may just have ended well.
                ended += self._record(self._marks(wanted.where(_U.entity == name, _U.tenant_id == tenant)))
        return ended

    def _marks(self, wanted: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        with self.database.read() as connection:
            return connection.execute(wanted).all()

    def _record(self, marks: Sequence[Row[*tuple[Any, ...]]]) -> list[Run]:
        """Each at the time at which it began: what ended since is newer."""
        runs = [
            Run(
                row.run_id,
                row.entity,
                row.collection,
                row.tenant_id,
                row.mode,
                "failed",
                row.began_at,
                row.began_at,
                error=DIED,
            )
            for row in marks
        ]
        if runs:
            statement = insert_into(sync_run, self.database.dialect).on_conflict_do_nothing()
            with self.database.write() as connection:
                connection.execute(statement, [values_of(run) for run in runs])
        return runs
