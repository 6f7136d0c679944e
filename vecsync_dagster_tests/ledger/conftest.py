"""Ledgers to test: an SQLite file, SQLite in memory, and a database of a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.tables import metadata
from vecsync_dagster_tests.ledger.samples import Clock
from vecsync_dagster_tests.servers.postgres import new_database


@pytest.fixture(scope="session")
def contract_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of one SQLite file for all contract tests; each empties it first."""
    return f"sqlite:///{tmp_path_factory.mktemp('contract') / 'ledger.sqlite'}"


@pytest.fixture(scope="session")
def contract_postgresql(postgres_url: str) -> Iterator[str]:
    """URL of one PostgreSQL database for all contract tests; each empties it first."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of the kind of database the test asks for by a parameter; a new one, but for those of the contract."""
    kind: str = request.param
    if kind == "memory":
        return "sqlite://"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_database" if kind == "postgresql" else kind))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(url: str, clock: Clock) -> Iterator[SqlLedger]:
    """An empty ledger; its clock stands still until a test moves it."""
    ledger = SqlLedger.open(url, clock=clock)
    with ledger.database.write() as connection:
        for table in metadata.tables.values():
            connection.execute(table.delete())
    yield ledger
    ledger.close()
