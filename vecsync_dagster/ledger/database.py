"""The ledger's database: its URL, its engine, and how a transaction is begun on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from vecsync_dagster.compiled import CompiledStatements
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.ledger.failures import ledger_errors
from vecsync_dagster.postgres_session import LOOKS, set_for_session
from vecsync_dagster.postgres_url import check_postgres_url
from vecsync_dagster.url_options import refuse_empty, refuse_unknown

__all__ = ["Database", "display_name", "parse_url", "sqlite_file"]

_POSTGRES: Final = {"postgresql", "postgresql+psycopg", "postgres"}
_SQLITE: Final = {"sqlite", "sqlite+pysqlite"}
_KEY: Final = "ledger.url"
_SQLITE_OPTIONS: Final = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
_SQLITE_FILE_OPTIONS: Final = {"cache", "immutable", "modeof", "mode", "nolock", "psow", "vfs"}
_SYNCHRONOUS: Final = "vecsync_synchronous"

LOCK_TIMEOUT_S: Final = 60.0

_PAGES_IN_WAL: Final = 4_000
"""Of 4 KiB each. Rows lie in no order in some indexes: the longer pages are gathered, the fewer are written twice."""


def _json(value: Any) -> str:
    """Text as it is, not as escapes: what is no Unicode is refused by the driver, as it is in any other parameter."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False)


_ENGINE: Final[Mapping[str, Any]] = {
    "hide_parameters": True,
    "json_serializer": _json,
    "json_deserializer": orjson.loads,
    "execution_options": {"compiled_cache": CompiledStatements()},
}


class Database:
    """One database with its pool of connections, safe for several threads.

    `name` is what messages call it: the file, or the URL without its password.
    """

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ConfigError where `url` is not one of SQLite or PostgreSQL."""
        parsed = parse_url(url)
        self.name = display_name(parsed)
        self.dialect = parsed.get_backend_name()
        self.engine = _sqlite_engine(parsed) if self.dialect == "sqlite" else _postgres_engine(parsed)
        self.file = sqlite_file(parsed)
        self._writer = threading.Lock()
        # All threads share the one connection of a database in memory: they read in turn as well.
        self._reader = self._writer if isinstance(self.engine.pool, StaticPool) else nullcontext()
        self._read: Engine = self.engine
        self._write: Engine = self.engine
        self._write_durably: Engine = self.engine
        if self.dialect == "sqlite":
            self._write = self.engine.execution_options(**{_SYNCHRONOUS: "NORMAL"})
            self._write_durably = self.engine.execution_options(**{_SYNCHRONOUS: "FULL"})
        else:
            self._read = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read from; each statement sees what is committed when it starts."""
        with ledger_errors(self.name), self._reader, self._read.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by an error.

        `durable`: on disk, not only with the operating system, when this returns (see `_begin`).
        """
        engine = self._write_durably if durable else self._write
        # SQLite has one writer. Waiting here is fair and wakes at once; its busy handler polls.
        turn = self._writer if self.dialect == "sqlite" else nullcontext()
        with ledger_errors(self.name), turn, engine.begin() as connection:
            yield connection

    def session(self) -> Connection:
        """A connection for a lock that lasts as long as it is open. The caller maps errors and closes it."""
        return self._read.connect()

    def close(self) -> None:
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """`url` with the driver we use. Raises ConfigError, which does not repeat it: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("the ledger's url is not a database URL", key=_KEY) from None
    if parsed.drivername in _POSTGRES:
        check_postgres_url(url, parsed, key=_KEY)
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in _SQLITE:
        valid = _SQLITE_OPTIONS | _file_options(parsed)
        refuse_unknown("SQLite", url, parsed.query, valid, key=_KEY)
        refuse_empty(url, parsed, valid, key=_KEY)
        try:
            pysqlite.dialect().create_connect_args(parsed)
        except ValueError:
            raise ConfigError(f"{_KEY}: a URL option has a wrong value", key=_KEY) from None
        return parsed.set(drivername="sqlite")
    raise ConfigError(
        f"the ledger's url is one of {parsed.drivername}; write postgresql://user:password@host/database",
        key=_KEY,
    )


def _file_options(url: URL) -> set[str]:
    """Those that SQLite reads from `file:...?mode=ro` itself."""
    return _SQLITE_FILE_OPTIONS if "uri" in url.query else set()


def display_name(url: URL) -> str:
    """How messages call the database: an SQLite file by its path, a server without the password and without options,
    any of which may hold one."""
    if url.get_backend_name() == "sqlite":
        return url.database or "in memory"
    return url.set(query={}).render_as_string(hide_password=True)


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite URL; None for a database in memory or on a server."""
    name = (url.database or "").removeprefix("file:") if url.get_backend_name() == "sqlite" else ""
    return None if name in ("", ":memory:") else Path(name)


def _postgres_engine(url: URL) -> Engine:
    defaults: dict[str, Any] = {"connect_timeout": 10, "application_name": "vecsync", "client_encoding": "utf8"}
    arguments = {key: value for key, value in defaults.items() if key not in url.query}
    engine = create_engine(url, **_ENGINE, pool_pre_ping=True, connect_args=arguments)
    event.listen(engine, "connect", _settle, insert=True)  # before SQLAlchemy asks for the isolation level
    return engine


def _settle(driver: psycopg.Connection[Any], _: object) -> None:
    # The session that holds a tenant (holds.py) is idle as long as the sync takes; servers before 14 have no limit.
    patient = {"idle_session_timeout": "0"} if driver.info.server_version >= 140_000 else {}
    set_for_session(driver, {**LOOKS, "default_transaction_isolation": "read committed", **patient})


def _sqlite_engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {} if "timeout" in url.query else {"timeout": LOCK_TIMEOUT_S}
    if sqlite_file(url) is None:
        arguments["check_same_thread"] = False
        engine = create_engine(url, **_ENGINE, poolclass=StaticPool, connect_args=arguments)
    else:
        engine = create_engine(url, **_ENGINE, connect_args=arguments)
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    return engine


def _connect(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver begins nothing on its own: `_begin` does
    connection.execute(f"PRAGMA wal_autocheckpoint={_PAGES_IN_WAL}")


def _begin(connection: Connection) -> None:
    """A reader begins nothing: each of its statements is a snapshot of its own.

    A writer takes the write lock before it reads (a lock taken later can fail with no way to wait).

    With NORMAL a power cut (not a crash of the process) may lose the last commits: always the newest,
    never one before another. The next run then finds those documents unconfirmed or those rows still
    there, and writes or deletes the same points again; a watermark is never ahead of what it stands for,
    because it was committed after it. What would be lost for good is money: vectors that were paid for.
    They, and a collection's pinned space, are committed with FULL, which also brings all commits before
    them to the disk.

    A statement that writes many rows keeps the pages as they were, in case it fails half-way. SQLite would write
    them to a file of their own, one for each statement: in memory that is a quarter of the work less. Only
    for writers of batches, not for migrations, which sort whole tables.
    """
    synchronous = connection.get_execution_options().get(_SYNCHRONOUS)
    if synchronous is not None:
        if connection.info.get(_SYNCHRONOUS) != synchronous:
            connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
            connection.exec_driver_sql("PRAGMA temp_store=MEMORY")
            connection.info[_SYNCHRONOUS] = synchronous
        connection.exec_driver_sql("BEGIN IMMEDIATE")
