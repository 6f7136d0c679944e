"""One collection, one vector space; one text, one payment."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.sync.test_kills import paid_world
from vecsync_dagster_tests.world import World

HASH = {"provider": "hash", "dimensions": 64}


def with_chain(world: World, *chain: dict[str, object]) -> World:
    """The same world under another embedding chain."""
    data = world.config.model_dump(mode="json", exclude_unset=True)
    data["embedding"] = {"chain": list(chain)}
    config = type(world.config).model_validate(data).with_folder(world.config.folder)
    return World(world.source_url, config, now=world.now)


def codes(results: list[PartitionResult]) -> set[str]:
    return {result.error.code for result in results if result.error is not None}


def test_fault_12_the_fallback_model_never_writes_into_the_collection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection that began with one model waits for it: the fallback writes nothing, whatever the chain says."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        paid = {"provider": "openai", "model": "loopback", "dimensions": 16, "base_url": server.base_url}
        world = with_chain(world, paid, HASH)
        world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
        world.sync("acme")
        world.assert_exact()
        before = world.stored()

        world.update(1, name="иначе")
        monkeypatch.delenv("OPENAI_API_KEY")
        assert codes(world.sync("acme")) == {"EMBEDDING_UNAVAILABLE"}
        assert codes(with_chain(world, HASH).sync("acme")) == {"SPACE_MISMATCH"}
        assert world.stored() == before

        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        assert codes(world.sync("acme")) == set()
        world.assert_exact()


def test_a_text_that_two_tenants_share_is_paid_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is shared by all tenants: equal texts cost one embedding."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        world = paid_world(tmp_path, server)
        for number, tenant in enumerate(("acme", "brick", "cement")):
            world.insert({"id": 100 * number + n, "tenant_id": tenant, "name": f"общая {n}"} for n in range(10))
        results = world.sync()
        assert sum(result.figures.embedded for result in results) == 10
        assert sum(result.figures.cache_hits for result in results) == 20
        assert len(server.answered) == 10
        world.assert_exact()


def test_hash_vectors_are_named_on_every_run(embedded_world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Each run with hash vectors says that search is not semantic, in its results and in the log."""
    embedded_world.insert([{"id": 1, "tenant_id": "acme"}])
    for _ in range(2):
        caplog.clear()
        [result] = embedded_world.sync("acme")
        assert not result.semantic
        assert "NOT semantic" in caplog.text


def test_a_collection_keeps_the_space_it_began_with(embedded_world: World) -> None:
    """A better provider that comes first in the chain later on does not take over a collection."""
    embedded_world.insert([{"id": 1, "tenant_id": "acme"}])
    [first] = embedded_world.sync("acme")
    world = with_chain(embedded_world, {"provider": "hash", "dimensions": 32}, HASH)
    world.update(1, name="иначе")
    [second] = world.sync("acme")
    assert second.space == first.space
    world.assert_exact()
