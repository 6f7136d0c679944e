"""Bringing a ledger's schema up to another version, or down.

Alembic does the work; its environment lies in `migrations/` inside this package, so that nothing but the
installed package is needed. `target` is a URL, or an engine that is open already (a database in memory).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable
from vecsync_dagster.ledger.database import LOCK_TIMEOUT_S, display_name, sqlite_file
from vecsync_dagster.ledger.failures import ledger_errors
from vecsync_dagster.ledger.version import opened, refuse_newer, version_of
from vecsync_dagster.private import private_file, private_folder

__all__ = ["downgrade", "upgrade"]

_PG_LOCK: Final = 0x7665637379  # any number; the same in every process that migrates

# Alembic keeps its context in module globals: one migration at a time in a process.
_alembic = threading.Lock()


def upgrade(target: Engine | str, revision: str = "head") -> None:
    """Bring the ledger to `revision`, all of it or nothing; does nothing where it is there already.

    Safe when several processes race. Raises Ledger* errors, OutputUnwritable.
    """
    _run(target, lambda config: command.upgrade(config, revision))


def downgrade(target: Engine | str, revision: str) -> None:
    """Take the ledger back to `revision` (`base`: no tables at all); what newer tables held is gone."""
    _run(target, lambda config: command.downgrade(config, revision))


def _run(target: Engine | str, migrate: Callable[[Config], None]) -> None:
    with opened(target) as engine, _file_lock(engine):
        name = display_name(engine.url)
        with _alembic, ledger_errors(name), engine.connect() as connection:
            _prepare(connection)
            with connection.begin():
                _begin_alone(connection)
                refuse_newer(version_of(connection), name)
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
    lock = FileLock(f"{file}.lock", timeout=LOCK_TIMEOUT_S, mode=0o600)
    try:
        if not file.parent.exists():
            private_folder(file.parent)
        lock.acquire()
        private_file(file)  # what SQLite puts beside it has the same rights
    except Timeout as error:
        raise LedgerUnavailable(f"ledger {file}: another process is migrating it", ledger=str(file)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"ledger {file}: cannot be written ({reason})", ledger=str(file)) from error
    try:
        yield
    finally:
        lock.release()


def _config() -> Config:
    config = Config()
    # The value is interpolated: a folder's name may hold a percent sign.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
