"""Two runs at once, in two real processes: one waits or is refused clearly, and nothing is corrupted."""

from __future__ import annotations

from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.stores import GLOBAL
from vecsync_dagster_tests.ledger.processes import running
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.sync.two_processes import PATIENCE_S, code_of, sync_on_demand, sync_slowly
from vecsync_dagster_tests.world import World, file_of


@pytest.fixture
def impatient(world: World) -> World:
    """A world that does not wait long for an embedded store that another process has open."""
    store = world.config.stores["main"].model_copy(update={"lock_timeout_s": 0.1})
    world.config = world.config.model_copy(update={"stores": {"main": store}})
    return world


def told(pipe: Connection) -> Any:
    assert pipe.poll(PATIENCE_S)
    return pipe.recv()


def test_the_second_run_on_a_partition_is_refused(impatient: World, tmp_path: Path) -> None:
    """While one process syncs a tenant another is told PARTITION_BUSY, and does nothing; the first goes on unharmed.
    Another tenant can be synced meanwhile, where the store takes more than one process."""
    world = impatient
    embedded = world.config.stores["main"].path is not None
    seed(world, {GLOBAL: 5, "acme": 30})
    with running(sync_slowly, str(file_of(world.config, tmp_path)), "acme") as (_, pipe):
        assert told(pipe) == "about to write"
        [refused] = world.sync("acme", mode="full")
        assert (refused.outcome, code_of(refused)) == ("failed", "PARTITION_BUSY")
        assert "another run is syncing it" in str(refused.error)
        [other] = world.sync(GLOBAL, mode="full")
        assert code_of(other) == ("QDRANT_LOCKED" if embedded else None)
        pipe.send("go on")
        assert told(pipe) == [None]
    results = world.sync(mode="full")
    assert all(result.ok for result in results)
    assert one(results, "acme").figures.unchanged == 30
    world.assert_exact()


@pytest.mark.in_turn
@pytest.mark.parametrize("tenants", [([], []), (["acme"], ["brick"])], ids=["the same tenants", "one tenant each"])
def test_two_processes_that_race(impatient: World, tmp_path: Path, tenants: tuple[list[str], list[str]]) -> None:
    """Two processes sync the same tenants, or two between which records move, again and again while the source
    changes: each result is a success or a clear refusal, and one clean run finds everything right."""
    world = impatient
    seed(world, {GLOBAL: 10, "acme": 20, "brick": 20})
    world.sync()
    config = str(file_of(world.config, tmp_path))
    codes: set[str | None] = set()
    with ExitStack() as stack:
        pipes = [stack.enter_context(running(sync_on_demand, config))[1] for _ in range(2)]
        assert [told(pipe) for pipe in pipes] == ["ready", "ready"]
        for step in range(5):
            change(world, step)
            for pipe, some in zip(pipes, tenants, strict=True):
                pipe.send(some)
            change(world, step + 2)  # while they read, or before, or after: as it comes
            codes.update(code for pipe in pipes for _, code in told(pipe))
        for pipe in pipes:
            pipe.send(None)
    assert codes <= {None, "PARTITION_BUSY", "QDRANT_LOCKED", "LEDGER_UNAVAILABLE"}
    assert [result.error for result in world.sync(mode="full")] == [None, None, None]
    world.assert_exact()
    world.assert_vectors()
    results = world.sync(mode="full")
    assert all(result.ok and not result.figures.touched for result in results), [r.checks for r in results]


def change(world: World, step: int) -> None:
    """New texts and codes, a row less, and rows that go back and forth between two tenants."""
    world.update(*range(1001 + step, 1011 + step), name=f"Раз {step}")
    world.update(*range(2001, 2004), code=f"W-{step}", name=f"Два {step % 2}")
    world.update(*range(2001, 2009), tenant_id="acme" if step % 2 else "brick")
    world.delete(1 + step)
