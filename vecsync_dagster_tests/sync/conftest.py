"""Worlds on both sets of real parts: SQLite with the embedded store, and PostgreSQL with the HTTP store.

The ledger is an SQLite file in the one, and a PostgreSQL database in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.ledger import migrate
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.four import Four, four_collections
from vecsync_dagster_tests.world import World, config_of


@pytest.fixture
def embedded_world(tmp_path: Path) -> World:
    config = config_of(
        tmp_path, source={"type": "sqlite", "path": "source.db"}, store={"type": "qdrant", "path": "qdrant"}
    )
    return World(f"sqlite:///{tmp_path / 'source.db'}", config)


@pytest.fixture(params=["sqlite+embedded", "postgres+http"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "sqlite+embedded":
        yield request.getfixturevalue("embedded_world")
        return
    url: str = request.getfixturevalue("postgres_database")
    monkeypatch.setenv("SOURCE_URL", url)
    monkeypatch.setenv("LEDGER_URL", url)
    migrate.upgrade(url)
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
