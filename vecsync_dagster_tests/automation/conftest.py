"""A world that Dagster's sensors look after, on an ephemeral instance; ticks are real, their runs are run here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster_tests.automation.ticks import Automated
from vecsync_dagster_tests.world import ENTITY, World, config_of


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory: what storage does with events is tested elsewhere, and costs a second a run."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three tenants with four works each, and five works that everybody may see."""
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        sync={"removal_guard": {"share": 0.3, "min_documents": 2}},
        automation={"tenants": {"missing_for": 0}},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    world.insert({"id": n, "is_global": True} for n in range(1, 6))
    for number, tenant in enumerate(("acme", "brick", "cord"), 1):
        world.insert({"id": number * 10 + n, "tenant_id": tenant} for n in range(4))
    return world


@pytest.fixture
def automated(world: World, instance: dg.DagsterInstance) -> Automated:
    return Automated(world, instance)


@pytest.fixture
def settled(automated: Automated) -> Automated:
    """All that is there is a partition and synced, as the sensors would leave it."""
    results = automated.world.sync(mode="full")
    add_tenants(automated.instance, ENTITY, [result.tenant for result in results])
    return automated
