"""The last result of each check: the one place from which `status`, the UI and the alerts take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, or_, select

from vecsync_dagster.ledger import partition_statements as statements
from vecsync_dagster.ledger.part import Insert, LedgerPart, chunks, clean, insert_into, utc_now
from vecsync_dagster.ledger.tables import check_result

__all__ = ["CheckResult", "CheckResults", "write_checks"]

_C: Final = check_result.c


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`collection` and `tenant` are empty for a check over all partitions of an entity. `warning`: bad, but nothing is
    wrong yet. `facts` are names and counts, never a record's values. `run_id` is that of the sync that found it."""

    entity: str
    check: str
    passed: bool
    message: str
    at: datetime
    collection: str = ""
    tenant: str = ""
    warning: bool = False
    facts: Mapping[str, int | str] = field(default_factory=dict)
    run_id: str = ""

    @property
    def severity(self) -> str:
        return "passed" if self.passed else "warning" if self.warning else "error"


class CheckResults(LedgerPart):
    """A result stays until another one of the same check and partition replaces it that is not older, or the partition
    is dropped."""

    def record_checks(self, results: Sequence[CheckResult]) -> None:
        """Raises LedgerUnavailable, LedgerRejected."""
        if results:
            with self.database.write() as connection:
                write_checks(connection, self.database.dialect, results)

    def check_results(
        self, entity: str | None = None, tenant: str | None = None, *, failed: bool = False
    ) -> list[CheckResult]:
        """By entity, collection, tenant and check; with `tenant`, those of its partitions alone."""
        wanted = [
            column == value for column, value in ((_C.entity, entity), (_C.tenant_id, tenant)) if value is not None
        ]
        if failed:
            wanted.append(_C.passed.is_(False))
        query = select(check_result).where(*wanted).order_by(*check_result.primary_key.columns)
        with self.database.read() as connection:
            return [_result(row) for row in connection.execute(query)]

    def failed_checks(self, entity: str, collection: str, tenant: str) -> list[CheckResult]:
        """Those of one partition, by check."""
        values = statements.place(entity, collection, tenant)
        with self.database.read() as connection:
            return [_result(row) for row in connection.execute(statements.FAILED_CHECKS, values)]


def _result(row: Row[*tuple[Any, ...]]) -> CheckResult:
    return CheckResult(
        entity=row.entity,
        check=row.check_name,
        passed=row.passed,
        message=row.message,
        at=row.at,
        collection=row.collection,
        tenant=row.tenant_id,
        warning=row.warning,
        facts=row.facts,
        run_id=row.run_id,
    )


def write_checks(connection: Connection, dialect: str, results: Sequence[CheckResult]) -> None:
    """Within a transaction of somebody else's: a run and its checks are recorded together."""
    now = utc_now()
    rows = [
        {
            "entity": one.entity,
            "collection": one.collection,
            "tenant_id": one.tenant,
            "check_name": one.check,
            "passed": one.passed,
            "warning": one.warning,
            "message": clean(one.message),
            "facts": dict(one.facts),
            "run_id": one.run_id,
            "at": one.at,
            "written_at": now,
        }
        for one in results
    ]
    for some in chunks(rows):
        connection.execute(_record(dialect), some)


@cache
def _record(dialect: str) -> Insert:
    insert = insert_into(check_result, dialect)
    values = {column.name: insert.excluded[column.name] for column in check_result.columns if not column.primary_key}
    # Whoever looked earlier may be later to write. What is dated ahead of now is of a clock that was: it stops nothing.
    not_newer = or_(_C.at <= insert.excluded.at, _C.at > bindparam("written_at", type_=_C.at.type))
    keys = list(check_result.primary_key.columns)
    return insert.on_conflict_do_update(index_elements=keys, set_=values, where=not_newer)
