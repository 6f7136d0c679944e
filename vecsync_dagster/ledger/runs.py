"""What happened: one row a run and partition, and the records that were rejected on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Table, insert, select

from vecsync_dagster.ledger import partition_statements as statements
from vecsync_dagster.ledger.base import Rejected, Run
from vecsync_dagster.ledger.check_results import CheckResult, write_checks
from vecsync_dagster.ledger.part import Insert, LedgerPart, chunks, clean, insert_into
from vecsync_dagster.ledger.tables import invalid_record, sync_run

__all__ = ["Runs", "run_of", "values_of"]

_R: Final = sync_run.c
_I: Final = invalid_record.c
_TICK: Final = timedelta(microseconds=1)


class Runs(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def record_run(self, run: Run, checks: Sequence[CheckResult] = ()) -> None:
        """A run of the same id and partition is replaced: writing it twice changes nothing."""
        self.record_runs([run], checks)

    def record_runs(self, runs: Sequence[Run], checks: Sequence[CheckResult] = ()) -> None:
        if not runs:
            return
        with self.database.write() as connection:
            for some in chunks(runs):
                rows = [values_of(_behind(connection, run)) for run in some]
                connection.execute(_record(self.database.dialect), rows)
            write_checks(connection, self.database.dialect, checks)

    def runs(
        self,
        entity: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
        *,
        collection: str | None = None,
        mode: str | None = None,
        outcome: str | None = None,
    ) -> list[Run]:
        wanted = {"entity": entity, "tenant_id": tenant, "collection": collection, "mode": mode, "outcome": outcome}
        query = (
            select(sync_run)
            .where(*_among(sync_run, wanted))
            .order_by(_R.started_at.desc(), _R.run_id, _R.entity, _R.collection, _R.tenant_id)
            .limit(limit)
        )
        with self.database.read() as connection:
            return [run_of(row) for row in connection.execute(query)]

    def reject(self, run_id: str, entity: str, tenant: str, rejected: Sequence[Rejected], at: datetime) -> None:
        common = {"run_id": run_id, "entity": entity, "tenant_id": tenant, "rejected_at": at}
        rows = [common | _rejection(one) for one in rejected]
        if not rows:
            return
        with self.database.write() as connection:
            for some in chunks(rows):
                connection.execute(insert(invalid_record), some)

    def rejected(self, entity: str | None = None, tenant: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        query = (
            select(invalid_record)
            .where(*_among(invalid_record, {"entity": entity, "tenant_id": tenant}))
            .order_by(_I.rejected_at.desc(), _I.id.desc())
            .limit(limit)
        )
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _behind(connection: Connection, run: Run) -> Run:
    """The run, dated behind those of its partition that say they began after its end: a clock that was ahead for a
    while must not hide what comes later."""
    place = statements.place(run.entity, run.collection, run.tenant)
    last = connection.scalar(statements.AHEAD, {**place, "but_run": run.run_id, "ended_at": run.ended_at})
    return run if last is None else replace(run, started_at=last + _TICK, ended_at=last + _TICK)


def _among(table: Table, wanted: Mapping[str, str | None]) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def values_of(run: Run) -> dict[str, Any]:
    """Its row of `sync_run`."""
    return {
        "run_id": run.run_id,
        "entity": run.entity,
        "collection": run.collection,
        "tenant_id": run.tenant,
        "mode": run.mode,
        "outcome": run.outcome,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "figures": dict(run.figures),
        "error": None if run.error is None else clean(run.error),
        "failed_checks": list(run.failed_checks) or None,
    }


def run_of(row: Row[*tuple[Any, ...]]) -> Run:
    return Run(
        run_id=row.run_id,
        entity=row.entity,
        collection=row.collection,
        tenant=row.tenant_id,
        mode=row.mode,
        outcome=row.outcome,
        started_at=row.started_at,
        ended_at=row.ended_at,
        figures=row.figures,
        error=row.error,
        failed_checks=tuple(row.failed_checks or ()),
    )


def _rejection(rejected: Rejected) -> dict[str, Any]:
    return {
        "collection": rejected.collection,
        "db_id": rejected.db_id,
        "code": rejected.code,
        "field": rejected.field,
        "error": clean(rejected.error),
    }


@cache
def _record(dialect: str) -> Insert:
    statement = insert_into(sync_run, dialect)
    key = sync_run.primary_key.columns
    values = {column.name: statement.excluded[column.name] for column in sync_run.columns if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=list(key), set_=values)
