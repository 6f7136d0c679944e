"""Bringing a ledger's schema up to another version, or down.

Alembic does the work; its environment lies in `migrations/` inside this package, so that nothing but the
installed package is needed. An empty database gets the tables as they are now, without the history of how they came
to be so. `target` is a URL, or an engine that is open already (a database in memory).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock, Timeout
from sqlalchemy import Column, Connection, Engine, MetaData, PrimaryKeyConstraint, String, Table, insert, text

from vecsync_dagster.errors import LedgerUnavailable, NotFound, OutputUnwritable
from vecsync_dagster.ledger.database import LOCK_TIMEOUT_S, display_name, sqlite_file
from vecsync_dagster.ledger.failures import ledger_errors
from vecsync_dagster.ledger.tables import metadata
from vecsync_dagster.ledger.version import HEAD, VERSION_TABLE, opened, refuse_newer, version_of
from vecsync_dagster.private import private_file, private_folder

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["downgrade", "upgrade"]

_PG_LOCK: Final = 0x7665637379  # any number; the same in every process that migrates

# Alembic keeps its context in module globals: one migration at a time in a process.
_alembic = threading.Lock()


# As Alembic makes it.
_VERSIONS: Final = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def upgrade(target: Engine | str, revision: str = "head") -> None:
    """Bring the ledger to `revision`, all of it or nothing; does nothing where it is there already.

    Safe when several processes race. Raises Ledger* errors, OutputUnwritable.
    """

    def bring_up(connection: Connection) -> None:
        if revision in ("head", HEAD) and version_of(connection) is None:
            _create(connection)
        else:
            _migrate(connection, "upgrade", revision)

    _alone(target, bring_up)


def downgrade(target: Engine | str, revision: str) -> None:
    """Take the ledger back to `revision` (`base`: no tables at all); what newer tables held is gone."""
    _alone(target, lambda connection: _migrate(connection, "downgrade", revision))


def _alone(target: Engine | str, change: Callable[[Connection], None]) -> None:
    with opened(target) as engine, _file_lock(engine):
        name = display_name(engine.url)
        with ledger_errors(name), engine.connect() as connection:
            _prepare(connection)
            with connection.begin():
                _begin_alone(connection)
                refuse_newer(version_of(connection), name)
                change(connection)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    _VERSIONS.create(connection, checkfirst=True)
    connection.execute(insert(_VERSIONS).values(version_num=HEAD))


def _migrate(connection: Connection, way: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command  # it takes longer to load than a new ledger to make
    from alembic.util import CommandError

    config = _config()
    config.attributes["connection"] = connection
    try:
        with _alembic:
            getattr(command, way)(config, revision)
    except CommandError as error:
        name = display_name(connection.engine.url)
        raise NotFound(f"ledger {name}: no such version to migrate to", ledger=name) from error


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
    from alembic.config import Config

    config = Config()
    # The value is interpolated: a folder's name may hold a percent sign.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
