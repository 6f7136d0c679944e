"""A world whose services can fail in the middle of a run, for the tests that make them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from psycopg import sql

from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.world import World

__all__ = ["BATCH", "MANY", "PostgresAway", "Services", "SqliteAway", "befall", "codes", "in_batches"]

BATCH = 10
MANY = 1000


class Away(Protocol):
    """Takes the ledger's database away, and gives it back."""

    def go(self) -> None: ...

    def come_back(self) -> None: ...


@dataclass
class Services:
    """A world with a provider that can fail, and the ledger's database, which can go away."""

    world: World
    provider: OpenAIServer
    ledger_url: str
    ledger: Away

    def work(self) -> None:
        """Something of every kind to do: payloads, changed and new texts, removals."""
        world = self.world
        world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 41))
        world.sync()
        world.update(*range(1, 11), code="neu")
        for n in range(11, 16):
            world.update(n, name=f"иначе {n}")
        world.delete(*range(21, 26))
        world.insert({"id": n, "tenant_id": "acme"} for n in range(101, 126))

    def sync(self) -> PartitionResult:
        [result] = self.world.sync("acme", mode="full")
        return result

    def assert_right_after_one_clean_run(self, *, lost: int = 0) -> None:
        """`lost`: texts whose paid vectors may have been lost on the way."""
        result = self.sync()
        assert result.ok, (result.error, result.checks)
        self.world.assert_exact()
        paid = Counter(self.provider.answered)
        assert sum(times - 1 for times in paid.values()) <= lost
        again = self.sync()
        assert again.ok
        assert not again.figures.touched


class PostgresAway:
    """Contract: `Away`. As a restart of the server: all connections end, and new ones are refused."""

    def __init__(self, url: str) -> None:
        self._server, _, self._name = url.rpartition("/")

    def go(self) -> None:
        self._allow(False)
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,)
            )

    def come_back(self) -> None:
        self._allow(True)

    def _allow(self, allowed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self._name), sql.SQL("true" if allowed else "false")))


class SqliteAway:
    """Contract: `Away`. Another program has locked the file: reading goes on, writing waits, and then fails."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._other: sqlite3.Connection | None = None

    def go(self) -> None:
        self._other = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        self._other.execute("BEGIN IMMEDIATE")

    def come_back(self) -> None:
        assert self._other is not None
        self._other.close()


def codes(services: Services) -> set[str]:
    """The error codes in the ledger's rows."""
    engine = sa.create_engine(services.ledger_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT DISTINCT error_code FROM index_state WHERE error_code IS NOT NULL")
        return {code for (code,) in found}


def in_batches(provider: OpenAIServer) -> dict[str, Any]:
    """Keys of a configuration: this provider, and small batches one after another."""
    openai = {
        "provider": "openai",
        "model": "loopback",
        "dimensions": 16,
        "base_url": provider.base_url,
        "texts_per_request": BATCH,
        "attempts": 2,
        "timeout_s": 30,
    }
    return {"embedding": {"chain": [openai]}, "sync": {"batch": BATCH, "page": BATCH, "parallel": 1}}


def befall(owner: Any, method: str, event: Callable[[], None], *, nth: int = 1, after: bool = False) -> None:
    """Something happens before, or after, the nth call of one method of an object."""
    real, calls = getattr(owner, method), count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == nth
        if now and not after:
            event()
        answer = real(*args, **kwargs)
        if now and after:
            event()
        return answer

    setattr(owner, method, wrapped)
