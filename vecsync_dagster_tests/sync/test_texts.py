"""What is known of the texts behind the vectors: who still needs one, and which the model cuts."""

from __future__ import annotations

from vecsync_dagster.ledger.tables import embedding_cache
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import World


def cached(world: World) -> int:
    with world.workspace() as workspace, workspace.ledger.database.read() as connection:
        return len(connection.execute(embedding_cache.select()).all())


def test_a_removed_tenants_vectors_go_with_it(world: World) -> None:
    """At once, but for those whose text another tenant has too; those of a single deleted record stay a while."""
    seed(world, {"acme": 3})
    world.insert({"id": n, "tenant_id": "brick", "name": f"own {n}"} for n in (901, 902))
    world.insert(
        [{"id": 903, "tenant_id": "brick", "name": "of both"}, {"id": 904, "tenant_id": "acme", "name": "of both"}]
    )
    world.sync()
    before = cached(world)
    world.delete(901)
    world.sync(mode="full")
    assert cached(world) == before
    world.delete(902, 903)
    assert one(world.sync(mode="full", allow_removals=True), "brick").figures.removed == 2
    assert cached(world) == before - 1
    world.assert_exact()


def test_texts_that_are_cut_are_told(world: World) -> None:
    """By a figure of the run, and by a check that stays until the text is short enough."""
    seed(world, {"acme": 2})
    world.insert([{"id": 901, "tenant_id": "acme", "name": "word " * 9000}])
    first = one(world.sync(), "acme")
    assert first.figures.truncated == 1
    for _ in range(2):
        [check] = [check for check in one(world.sync(mode="full"), "acme").checks if check.name == "truncation"]
        assert (check.passed, check.warning, check.facts) == (False, True, {"truncated": 1, "held": 3})
        assert "1 of 3 texts are cut to the 8,192 tokens" in check.message
    world.update(901, name="word")
    [check] = [check for check in one(world.sync(), "acme").checks if check.name == "truncation"]
    assert check.passed
