"""Which version of the schema a ledger has, and which one this package works with.

Apart from `migrate.py`, so that a process whose ledger is up to date, as most are, need not load Alembic.
`target` is a URL, or an engine that is open already (a database in memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, Text, column, inspect, select, table

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.ledger.database import Database, display_name
from vecsync_dagster.ledger.failures import MIGRATE, ledger_errors

__all__ = ["HEAD", "VERSION_TABLE", "current", "opened", "pending", "refuse_newer", "require_head", "version_of"]

HEAD: Final = "0026"
"""The version this package works with: the last one in `migrations/versions`."""

VERSION_TABLE: Final = "vecsync_ledger_version"
"""Not Alembic's own name: a ledger may share a database with Dagster, which uses that one."""

_VERSION: Final = select(column("version_num", Text)).select_from(table(VERSION_TABLE))


def current(target: Engine | str) -> str | None:
    """The version the ledger has; None for an empty database. Raises Ledger* errors, OutputUnwritable."""
    with opened(target) as engine, ledger_errors(display_name(engine.url)), engine.connect() as connection:
        return version_of(connection)


def pending(target: Engine | str) -> bool:
    """Whether the ledger is behind this package. Raises LedgerRejected where it is ahead of it."""
    with opened(target) as engine:
        version = current(engine)
        refuse_newer(version, display_name(engine.url))
        return version != HEAD


def require_head(target: Engine | str) -> None:
    """Raises LedgerRejected unless the ledger has exactly the version this package works with."""
    with opened(target) as engine:
        if pending(engine):
            have = current(engine) or "none"
            name = display_name(engine.url)
            raise LedgerRejected(f"ledger {name}: its version is {have}, needed is {HEAD}; {MIGRATE}", ledger=name)


def version_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(_VERSION)


def refuse_newer(version: str | None, name: str) -> None:
    """Versions are numbered, with as many digits."""
    if version is not None and version > HEAD:
        raise LedgerRejected(
            f"ledger {name}: its version {version} is newer than this vecsync ({HEAD}); install the newer one",
            ledger=name,
        )


@contextmanager
def opened(target: Engine | str) -> Iterator[Engine]:
    if isinstance(target, Engine):
        yield target
        return
    database = Database(target)
    try:
        yield database.engine
    finally:
        database.close()
