"""The version of a ledger's schema: which one it has, and bringing it up or down.

Alembic does the work; its environment lies in `migrations/` inside this package, so that nothing but the
installed package is needed. `target` is a URL, or an engine that is open already (a database in memory).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable
from vecsync_dagster.ledger.database import LOCK_TIMEOUT_S, Database, display_name, sqlite_file
from vecsync_dagster.ledger.failures import MIGRATE, ledger_errors

__all__ = ["VERSION_TABLE", "current", "downgrade", "head", "pending", "require_head", "upgrade"]

VERSION_TABLE: Final = "vecsync_ledger_version"
"""Not Alembic's own name: a ledger may share a database with Dagster, which uses that one."""

# Written out: to find it every process that opens a ledger would have to load all migrations.
_HEAD: Final = "0007"

_PG_LOCK: Final = 0x7665637379  # any number; the same in every process that migrates

# Alembic keeps its context in module globals: one migration at a time in a process.
_alembic = threading.Lock()


def head() -> str:
    """The version this package works with."""
    return _HEAD


def current(target: Engine | str) -> str | None:
    """The version the ledger has; None for an empty database. Raises Ledger* errors, OutputUnwritable."""
    with _engine(target) as engine, ledger_errors(display_name(engine.url)), engine.connect() as connection:
        return _version(connection)


def pending(target: Engine | str) -> bool:
    """Whether the ledger is behind this package. Raises LedgerRejected where it is ahead of it."""
    with _engine(target) as engine:
        version = current(engine)
        if version == _HEAD:
            return False
        _refuse_newer(version, display_name(engine.url))
        return True


def require_head(target: Engine | str) -> None:
    """Raises LedgerRejected unless the ledger has exactly the version this package works with."""
    with _engine(target) as engine:
        if pending(engine):
            have = current(engine) or "none"
            name = display_name(engine.url)
            raise LedgerRejected(f"ledger {name}: its version is {have}, needed is {head()}; {MIGRATE}", ledger=name)


def upgrade(target: Engine | str, revision: str = "head") -> None:
    """Bring the ledger to `revision`, all of it or nothing; does nothing where it is there already.

    Safe when several processes race. Raises Ledger* errors, OutputUnwritable.
    """
    _run(target, lambda config: command.upgrade(config, revision))


def downgrade(target: Engine | str, revision: str) -> None:
    """Take the ledger back to `revision` (`base`: no tables at all); what newer tables held is gone."""
    _run(target, lambda config: command.downgrade(config, revision))


def _run(target: Engine | str, migrate: Callable[[Config], None]) -> None:
    with _engine(target) as engine, _file_lock(engine):
        name = display_name(engine.url)
        with _alembic, ledger_errors(name), engine.connect() as connection:
            _prepare(connection)
            with connection.begin():
                _begin_alone(connection)
                _refuse_newer(_version(connection), name)
                config = _config()
                config.attributes["connection"] = connection
                try:
                    migrate(config)
                except CommandError as error:
                    raise LedgerRejected(f"ledger {name}: no such version to migrate to", ledger=name) from error


def _prepare(connection: Connection) -> None:
    """WAL, which the file remembers: readers go on while somebody writes. Not possible in a transaction."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.rollback()


def _begin_alone(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PG_LOCK})


@contextmanager
def _file_lock(engine: Engine) -> Iterator[None]:
    """One process at a time sets up an SQLite file: switching it to WAL fails, without a wait, when raced.

    Its folder is made here, so that a first `vecsync migrate` needs no other command before it.
    """
    file = sqlite_file(engine.url)
    if file is None:
        yield
        return
    lock = FileLock(f"{file}.lock", timeout=LOCK_TIMEOUT_S)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise LedgerUnavailable(f"ledger {file}: another process is migrating it", ledger=str(file)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"ledger {file}: cannot be written ({reason})", ledger=str(file)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _engine(target: Engine | str) -> Iterator[Engine]:
    if isinstance(target, Engine):
        yield target
        return
    database = Database(target)
    try:
        yield database.engine
    finally:
        database.close()


def _version(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _refuse_newer(version: str | None, name: str) -> None:
    known = {script.revision for script in _script().walk_revisions()}
    if version is not None and version not in known:
        raise LedgerRejected(
            f"ledger {name}: its version {version} is newer than this vecsync ({head()}); install the newer one",
            ledger=name,
        )


@cache
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # The value is interpolated: a folder's name may hold a percent sign.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
