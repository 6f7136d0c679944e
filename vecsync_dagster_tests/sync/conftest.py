"""Worlds on both sets of real parts: SQLite with the embedded store, and PostgreSQL with the HTTP store.

The ledger is an SQLite file in the one, and a PostgreSQL database in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from vecsync_dagster.ledger import migrate
from vecsync_dagster_tests.conftest import WORLDS
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.four import Four, four_collections
from vecsync_dagster_tests.sync.failing_services import PostgresAway, Services, SqliteAway, in_batches
from vecsync_dagster_tests.world import World, config_of


@pytest.fixture
def embedded_world(tmp_path: Path) -> World:
    config = config_of(
        tmp_path, source={"type": "sqlite", "path": "source.db"}, store={"type": "qdrant", "path": "qdrant"}
    )
    return World(f"sqlite:///{tmp_path / 'source.db'}", config)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "sqlite+embedded":
        yield request.getfixturevalue("embedded_world")
        return
    url: str = request.getfixturevalue("postgres_ledger")
    monkeypatch.setenv("SOURCE_URL", url)
    monkeypatch.setenv("LEDGER_URL", url)
    with QdrantRest() as server:
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": server.url, "timeout_s": 20},
            ledger={"url": {"env": "LEDGER_URL"}},
        )
        yield World(url.replace("postgresql://", "postgresql+psycopg://"), config)


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Four]:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with four_collections(tmp_path) as four:
        yield four


# -- services that fail --------------------------------------------------------------------------------
@pytest.fixture
def no_waiting() -> Iterator[None]:
    """As many attempts as the configuration says, without the time between them."""
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        yield server


@pytest.fixture
def http_store() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


@pytest.fixture
def remote(
    tmp_path: Path,
    postgres_database: str,
    postgres_ledger: str,
    http_store: QdrantRest,
    provider: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Services:
    """PostgreSQL and the HTTP store; source and ledger are databases of their own."""
    monkeypatch.setenv("SOURCE_URL", postgres_database)
    monkeypatch.setenv("LEDGER_URL", postgres_ledger)
    config = config_of(
        tmp_path,
        source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
        store={"type": "qdrant", "url": http_store.url, "timeout_s": 30, "attempts": 2},
        ledger={"url": {"env": "LEDGER_URL"}},
        **in_batches(provider),
    )
    url = postgres_database.replace("postgresql://", "postgresql+psycopg://")
    driver = postgres_ledger.replace("postgresql://", "postgresql+psycopg://")
    return Services(World(url, config), provider, driver, PostgresAway(postgres_ledger))


@pytest.fixture
def local(tmp_path: Path, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Services:
    """SQLite and the embedded store."""
    ledger = tmp_path / "ledger.sqlite"
    migrate.upgrade(f"sqlite:///{ledger}")
    monkeypatch.setenv("LEDGER_URL", f"sqlite:///{ledger}?timeout=0.5")
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant", "lock_timeout_s": 0.2},
        ledger={"url": {"env": "LEDGER_URL"}},
        **in_batches(provider),
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    return Services(world, provider, f"sqlite:///{ledger}", SqliteAway(ledger))


@pytest.fixture(params=["local", "remote"])
def services(request: pytest.FixtureRequest) -> Services:
    found: Services = request.getfixturevalue(request.param)
    return found
