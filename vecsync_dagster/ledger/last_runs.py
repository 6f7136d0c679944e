"""The last runs of each partition, found by an index: what it costs grows with the partitions, not with the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import CTE, Column, ColumnElement, Connection, Select, and_, func, literal, select, true, union_all

from vecsync_dagster.ledger.base import LISTING, LastRuns, Partition, Run
from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.ledger.runs import run_of
from vecsync_dagster.ledger.tables import NOT_DONE, sync_run

__all__ = ["Newest", "each", "one_by_one"]

_R: Final = sync_run.c
_SYNCS: Final = ("full", "incremental")
_OUTCOMES: Final = ("success", "failed", "interrupted")


_Tenants = Callable[[ColumnElement[bool]], CTE]
"""The tenants to look at, of an entity and collection."""


class Newest(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def last_runs(self, entity: str | None = None, tenant: str | None = None) -> dict[Partition, LastRuns]:
        def tenants(place: ColumnElement[bool]) -> CTE:
            return one_by_one(_R.tenant_id, place) if tenant is None else select(literal(tenant).label("value")).cte()

        return self._last_runs(entity, tenants)

    def last_runs_of_undone(self, entity: str) -> dict[Partition, LastRuns]:
        return self._last_runs(
            entity, lambda place: select(_R.tenant_id.label("value")).where(place, NOT_DONE).distinct().cte()
        )

    def _last_runs(self, entity: str | None, tenants: _Tenants) -> dict[Partition, LastRuns]:
        found: dict[Partition, list[Run]] = {}
        for name, collection in self._collections(entity):
            for run in self._newest(name, collection, tenants):
                found.setdefault(Partition(run.entity, run.collection, run.tenant), []).append(run)
        return {partition: _last(runs) for partition, runs in found.items()}

    def _collections(self, entity: str | None) -> Iterator[tuple[str, str]]:
        for name in self._distinct(_R.entity, true()) if entity is None else [entity]:
            for collection in self._distinct(_R.collection, _R.entity == name):
                yield name, collection

    def _distinct(self, column: Column[str], where: ColumnElement[bool]) -> list[str]:
        with self.database.read() as connection:
            return each(connection, column, where)

    def _newest(self, entity: str, collection: str, tenants: _Tenants) -> list[Run]:
        """The newest run of each of these tenants, mode and outcome."""
        place = and_(_R.entity == entity, _R.collection == collection)
        query = _query(place, tenants(place), _SYNCS if collection else [LISTING])
        with self.database.read() as connection:
            return [run_of(row) for row in connection.execute(query)]


def one_by_one(column: Column[str], where: ColumnElement[bool]) -> CTE:
    """The different values of a column of an index, each found behind the one before; None at the end. DISTINCT would
    read every row."""
    found = select(func.min(column).label("value")).where(where).cte("found", recursive=True)
    following = select(func.min(column)).where(where, column > found.c.value).correlate(found).scalar_subquery()
    return found.union_all(select(following).where(found.c.value.is_not(None)))


def each(connection: Connection, column: Column[str], where: ColumnElement[bool]) -> list[str]:
    """The values that `one_by_one` finds."""
    return [value for value in connection.scalars(select(one_by_one(column, where).c.value)) if value is not None]


def _query(place: ColumnElement[bool], tenants: CTE, modes: Sequence[str]) -> Select[*tuple[Any, ...]]:
    kinds = union_all(
        *(
            select(literal(mode).label("mode"), literal(outcome).label("outcome"))
            for mode in modes
            for outcome in _OUTCOMES
        )
    ).cte("kinds")
    at = and_(place, _R.tenant_id == tenants.c.value, _R.mode == kinds.c.mode, _R.outcome == kinds.c.outcome)
    newest = (
        select(tenants.c.value, kinds, select(func.max(_R.started_at)).where(at).scalar_subquery().label("started_at"))
        .select_from(tenants.join(kinds, true()))
        .cte("newest")
    )
    # The outer join keeps both databases from starting with the runs, which are many.
    found = newest.outerjoin(
        sync_run,
        and_(
            place,
            _R.tenant_id == newest.c.value,
            _R.mode == newest.c.mode,
            _R.outcome == newest.c.outcome,
            _R.started_at == newest.c.started_at,
        ),
    )
    return select(sync_run).select_from(found).where(newest.c.started_at.is_not(None))


def _last(runs: Iterable[Run]) -> LastRuns:
    newest_first = sorted(runs, key=lambda run: (run.started_at, run.run_id), reverse=True)

    def first(wanted: Callable[[Run], bool]) -> Run | None:
        return next((run for run in newest_first if wanted(run)), None)

    return LastRuns(
        newest_first[0],
        first(lambda run: run.outcome == "success"),
        first(lambda run: run.mode == "full"),
        first(lambda run: run.mode == "full" and run.outcome == "success"),
        first(lambda run: run.mode == "full" and run.outcome == "failed"),
    )
