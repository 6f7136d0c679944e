"""Worlds on both pairs of real parts: SQLite with the embedded store, PostgreSQL with the HTTP store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
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
    with QdrantRest() as server:
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": server.url, "timeout_s": 20},
        )
        yield World(url.replace("postgresql://", "postgresql+psycopg://"), config)
