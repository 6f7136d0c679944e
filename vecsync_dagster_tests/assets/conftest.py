"""A world whose sync is run by Dagster, on an ephemeral instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vecsync_dagster.stores import GLOBAL
from vecsync_dagster_tests.world import World, config_of


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def world(tmp_path: Path) -> World:
    config = config_of(
        tmp_path, source={"type": "sqlite", "path": "source.db"}, store={"type": "qdrant", "path": "qdrant"}
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    world.insert({"id": n, "is_global": True} for n in range(1, 6))
    world.insert({"id": n, "tenant_id": "acme"} for n in range(11, 15))
    world.insert({"id": n, "tenant_id": "brick"} for n in range(21, 24))
    return world


TENANTS = (GLOBAL, "acme", "brick")
