"""The server behind a model's name may be another one: its vectors are taken where they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.cli.searching import find
from vecsync_dagster.errors import SpaceMismatch
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.sync.test_kills import paid_world
from vecsync_dagster_tests.sync.test_spaces import codes, with_chain
from vecsync_dagster_tests.world import World


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, first: OpenAIServer) -> World:
    """Synced with the first server."""
    world = paid_world(tmp_path, first)
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
    world.sync()
    return world


def at(world: World, server: OpenAIServer) -> World:
    [provider] = world.config.model_dump(mode="json", exclude_unset=True)["embedding"]["chain"]
    return with_chain(world, provider | {"base_url": server.base_url})


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_another_model_behind_the_same_name_writes_nothing(world: World, mode: str) -> None:
    """Two models' vectors meet neither in a collection nor in the cache, and no search compares them."""
    with OpenAIServer(dimensions=16, salt="other") as other:
        moved = at(world, other)
        moved.insert([{"id": 7, "tenant_id": "acme", "name": "семь"}, {"id": 8, "tenant_id": "new"}])
        before = moved.stored()
        results = moved.sync(mode=mode)
        assert codes(results) == {"SPACE_MISMATCH"}
        assert all("base_url" in str(result.error) for result in results if result.error is not None)
        assert moved.stored() == before
        with moved.workspace() as workspace, pytest.raises(SpaceMismatch):
            find(workspace, "семь", tenant="acme", collection="works", limit=3)
    assert codes(world.sync(mode=mode)) == set()
    world.assert_exact()


def test_the_same_model_at_another_address_goes_on(world: World, first: OpenAIServer) -> None:
    """One text is embedded once more to find that out, and only when there is something to embed."""
    with OpenAIServer(dimensions=16) as second:
        moved = at(world, second)
        assert codes(moved.sync(mode="full")) == set()
        assert second.asked == []
        moved.insert([{"id": 7, "tenant_id": "acme", "name": "семь"}])
        [result] = moved.sync("acme")
        assert (result.ok, len(second.asked), result.figures.api_calls) == (True, 2, 2)
        moved.insert([{"id": 8, "tenant_id": "acme", "name": "восемь"}])
        assert codes(moved.sync()) == set()
        assert len(second.asked) == 3
        moved.assert_exact()


def test_a_dropped_collection_may_begin_with_another_model(world: World) -> None:
    """Where no document of the former model is left, its cached vectors go too."""
    with OpenAIServer(dimensions=16, salt="other") as other:
        moved = at(world, other)
        world.delete(*range(1, 6))
        world.sync("acme", mode="full", allow_removals=True)
        moved.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
        assert codes(moved.sync(mode="full")) == set()
        assert len(other.asked) == 5
