"""What is known of the texts behind the vectors: who still needs one, and which the model cuts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from vecsync_dagster.config import Config
from vecsync_dagster.ledger.tables import embedding_cache, index_state
from vecsync_dagster_tests.four import Four
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World


def cached(world: World) -> int:
    with world.workspace() as workspace, workspace.ledger.database.read() as connection:
        return len(connection.execute(embedding_cache.select()).all())


def test_a_removed_tenants_vectors_go_with_it(world: World) -> None:
    """At once, but for those whose text another tenant has too; those of a single deleted record stay as long as its
    tenant."""
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
    assert cached(world) == before - 2
    world.assert_exact()


def texts(world: World) -> dict[str, tuple[Any, ...]]:
    """By document id the text of its vector, whether it was cut, and how often the vector was written."""
    found = sa.select(*(index_state.c[name] for name in ("document_id", "text_hash", "truncated", "vector_version")))
    with world.workspace() as workspace, workspace.ledger.database.read() as connection:
        return {row[0]: row[1:] for row in connection.execute(found.where(index_state.c.entity == ENTITY))}


def test_a_full_run_learns_what_an_older_ledger_does_not_know(world: World) -> None:
    """Rows without their texts get them, also beside a new payload: nothing is embedded for it, and vectors that nobody
    needs go again."""
    seed(world, {"acme": 3, "brick": 2})
    world.insert([{"id": 901, "tenant_id": "acme", "name": "word " * 9000}])
    world.sync()
    before = texts(world)
    with world.workspace() as workspace, workspace.ledger.database.write() as connection:
        connection.execute(sa.update(index_state).values(text_hash=None, truncated=None))
    world.update(1, code="new")
    results = world.sync(mode="full")
    assert {(result.figures.embedded, result.figures.upserted) for result in results} == {(0, 0)}
    assert one(results, "acme").figures.payload_only == 1
    assert texts(world) == before
    world.assert_exact()
    kept = cached(world)
    world.delete(1001, 1002)
    assert one(world.sync("brick", mode="full", allow_removals=True), "brick").figures.removed == 2
    assert cached(world) == kept - 2
    world.update(2, name="another text")
    world.sync()
    with world.workspace() as workspace:
        assert workspace.ledger.forget_unused_vectors(datetime.max.replace(tzinfo=UTC)) == 1


def test_a_full_run_learns_the_texts_of_a_rebuilt_ledger(embedded_world: World) -> None:
    """Whose rows have neither these nor records that they would be recognised by."""
    world = embedded_world
    seed(world, {"acme": 3})
    world.sync()
    before = texts(world)
    with world.workspace() as workspace:
        workspace.rebuild(ENTITY, ENTITY, force=True)
    assert {known[0] for known in texts(world).values()} == {None}
    assert one(world.sync(mode="full"), "acme").figures.writes == 0
    assert {identity: known[:2] for identity, known in texts(world).items()} == {
        identity: known[:2] for identity, known in before.items()
    }


def test_texts_that_are_cut_are_told(world: World) -> None:
    """By a figure of the run, and by a check that stays until the text is short enough."""
    seed(world, {"acme": 2})
    world.insert([{"id": 901, "tenant_id": "acme", "name": "word " * 9000}])
    first = one(world.sync(), "acme")
    assert first.figures.truncated == 1
    for _ in range(2):
        [check] = [check for check in one(world.sync(mode="full"), "acme").checks if check.name == "truncation"]
        assert (check.passed, check.warning, check.facts) == (False, True, {"truncated": 1, "held": 3})
        assert "1 of 3 texts cut to the 8,192 tokens" in check.message
        assert check.message.endswith(": 901"), "the records are named"
    world.update(901, name="word")
    [result] = world.sync("acme", ids=("901",))
    [check] = [check for check in result.checks if check.name == "truncation"]
    assert check.passed


def test_another_limit_embeds_again_what_is_cut_otherwise(four: Four) -> None:
    """Raised, lowered and by default: a full run embeds the texts whose cut differs, and no other one; the next run
    nothing."""
    four.insert(1, code="one two three four five six seven eight")
    four.insert(2, code="one two three")

    def sync(limit: int | None) -> tuple[int, int]:
        data = four.world.config.model_dump(mode="json", exclude_unset=True)
        provider = data["embedding"]["chain"][0]
        provider.pop("max_tokens", None)
        provider |= {"max_tokens": limit} if limit else {}
        four.world.config = Config.model_validate(data).with_folder(four.world.config.folder)
        results = [four.sync("functionality", mode="full")["functionality"] for _ in range(2)]
        [check] = [check for check in results[1].checks if check.name == "truncation"]
        assert results[1].figures.upserted == 0
        return results[0].figures.upserted, int(check.facts["truncated"])

    assert [sync(limit) for limit in (4, 6, None, 2, None)] == [(2, 1), (1, 1), (1, 0), (2, 2), (2, 0)]
    four.world.assert_exact("functionality")
