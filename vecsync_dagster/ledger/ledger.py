"""`SqlLedger`: the ledger on SQLite and on PostgreSQL, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

from vecsync_dagster.ledger import version
from vecsync_dagster.ledger.alerts import AlertBook
from vecsync_dagster.ledger.check_results import CheckResults
from vecsync_dagster.ledger.database import Database
from vecsync_dagster.ledger.dead_runs import DeadRuns
from vecsync_dagster.ledger.documents import Documents
from vecsync_dagster.ledger.invalid import Invalid
from vecsync_dagster.ledger.leaving import Leaving
from vecsync_dagster.ledger.listeners import Listeners
from vecsync_dagster.ledger.missing import MissingTenants
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.ledger.partitions import Partitions
from vecsync_dagster.ledger.places import Places
from vecsync_dagster.ledger.records import Records
from vecsync_dagster.ledger.retention import Retention
from vecsync_dagster.ledger.retries import Retries
from vecsync_dagster.ledger.runs import Runs
from vecsync_dagster.ledger.source_states import States
from vecsync_dagster.ledger.tenant_names import TenantNames
from vecsync_dagster.ledger.touched import Touched
from vecsync_dagster.ledger.traces import Traces
from vecsync_dagster.ledger.unshown import Unshown
from vecsync_dagster.ledger.vectors import Vectors

__all__ = ["SqlLedger"]


class SqlLedger(
    Documents,
    Partitions,
    Records,
    Touched,
    Retries,
    States,
    MissingTenants,
    TenantNames,
    Unshown,
    Listeners,
    Vectors,
    Places,
    Runs,
    Leaving,
    Traces,
    CheckResults,
    Invalid,
    Retention,
    AlertBook,
    DeadRuns,
):
    """`base.Ledger` over SQLAlchemy; its methods raise LedgerUnavailable, LedgerRejected, OutputUnwritable."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        """A ledger of a database whose schema is known to be right; see `open`."""
        super().__init__(database, clock)

    @classmethod
    def open(cls, url: str, *, auto_migrate: bool = True, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the ledger at `url` (sqlite:///file, sqlite:// in memory, postgresql://...).

        A schema that is behind, or not there yet, is migrated; without `auto_migrate` it is refused.

        Raises ConfigError for a URL of something else; LedgerRejected for a schema that is newer than
        this package, or behind and not to be migrated; LedgerUnavailable, OutputUnwritable.
        """
        database = Database(url)
        try:
            if not auto_migrate:
                version.require_head(database.engine)
            elif version.pending(database.engine):
                from vecsync_dagster.ledger import migrate  # Alembic takes longer to load than all else here

                migrate.upgrade(database.engine)
        except BaseException:
            database.close()
            raise
        return cls(database, clock=clock)

    def check(self) -> str:
        version.require_head(self.database.engine)
        return f"ledger {self.database.name}: version {version.HEAD}"

    def close(self) -> None:
        self.database.close()
