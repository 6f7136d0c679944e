"""The ledger lost altogether: it is made anew from the store, and nothing is paid for again."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecsync_dagster.errors import LedgerRejected, PartitionBusy, SpaceMismatch
from vecsync_dagster.ledger import ledger_url, migrate
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import rebuild as rebuilding
from vecsync_dagster.sync.rebuild import Rebuilt
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.world import ENTITY, World


def lose_ledger(world: World) -> None:
    """Delete the file; empty the database."""
    if world.config.ledger.url is None:
        for file in world.config.state_folder.glob("ledger.sqlite*"):
            if file.is_file():
                file.unlink()
        return
    url = ledger_url(world.config.ledger, state_folder=Path())
    migrate.downgrade(url, "base")
    migrate.upgrade(url)


def rebuild(world: World, *, force: bool = False) -> Rebuilt:
    with world.workspace() as workspace:
        return workspace.rebuild(ENTITY, ENTITY, force=force)


def test_a_full_store_beside_an_empty_ledger_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A sync says what it is about to pay for again, and what to do instead; a first sync says nothing."""
    seed(world, {"acme": 5})
    world.sync()
    assert "ledger rebuild" not in caplog.text
    lose_ledger(world)
    world.sync()
    assert "works of acme: the store has 5 points, and the ledger knows of none" in caplog.text
    assert "ledger rebuild" in caplog.text


@pytest.mark.in_turn
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_the_next_run_embeds_and_changes_nothing(world: World, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of all tenants come back, in one chunk or many, with the space; then everything is unchanged."""
    monkeypatch.setattr(rebuilding, "_CHUNK", chunk)
    seed(world, {GLOBAL: 15, "acme": 25, "brick": 4})
    world.sync()
    lose_ledger(world)
    rebuilt = rebuild(world)
    assert dict(rebuilt.taken) == {GLOBAL: 15, "acme": 25, "brick": 4}
    assert rebuilt.space == "hash/words-1/64/cosine"
    assert not rebuilt.left
    world.assert_exact()
    for mode in ("incremental", "full"):  # the incremental one has no watermark: it reads everything
        results = world.sync(mode=mode)
        assert sum(r.figures.unchanged for r in results) == 44
        assert not any(r.figures.touched or r.figures.embedded for r in results)
        assert all(r.ok for r in results)


def test_what_changed_meanwhile_is_seen(world: World) -> None:
    """Between the loss and the rebuild rows were changed, added and deleted: the next run does just that."""
    seed(world, {"acme": 10, "brick": 2})
    world.sync()
    lose_ledger(world)
    world.update(1, name="иначе")
    world.update(2, code="W-2")
    world.delete(3, 1001)
    world.insert([{"id": 500, "tenant_id": "acme"}])
    rebuild(world)
    results = world.sync(mode="full")
    figures = next(r.figures for r in results if r.tenant == "acme")
    assert (figures.new, figures.changed, figures.payload_only, figures.removed) == (1, 1, 1, 1)
    assert sum(r.figures.embedded for r in results) == 2
    world.assert_exact()


def test_only_points_that_are_really_ours_are_taken(world: World) -> None:
    """Foreign points, altered payloads and points of other ids are left, counted and named; a full run and a repair
    make it right."""
    seed(world, {GLOBAL: 3, "acme": 9})
    world.sync()
    with world.workspace() as workspace:
        store = workspace.store("main")
        [points] = list(store.scan(ENTITY, "acme"))
        vector = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider.embed_query("чужой")
        altered = [
            {**points[0].payload, "code": "tampered"},
            {**points[1].payload, "tenantId": "brick"},
            {k: v for k, v in points[2].payload.items() if k != "payloadHash"},
            {k: v for k, v in points[3].payload.items() if k != "contentHash"},
        ]
        store.set_payload(ENTITY, [Point(p.point_id, new) for p, new in zip(points, altered, strict=False)])
        copied = Point("00000000-0000-4000-8000-000000000001", points[4].payload, vector)
        nobody = Point("00000000-0000-4000-8000-000000000002", {"any": "thing"}, vector)
        store.upsert(ENTITY, [copied, nobody])
    lose_ledger(world)
    rebuilt = rebuild(world)
    assert dict(rebuilt.taken) == {GLOBAL: 3, "acme": 5}
    assert dict(rebuilt.left) == {"foreign": 2, "altered": 4}
    assert {(e.reason, e.point_id) for e in rebuilt.examples} == {
        *(("altered", point.point_id) for point in points[:4]),
        ("foreign", copied.point_id),
        ("foreign", nobody.point_id),
    }
    world.sync(mode="full")
    with world.workspace() as workspace:
        workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
    world.assert_exact()


def test_a_ledger_with_rows_is_refused(world: World) -> None:
    """Rows that are there stay as they are; with force they give way to what the store holds."""
    seed(world, {"acme": 6, "brick": 2})
    world.sync()
    before = world.ledger_points()
    with pytest.raises(LedgerRejected, match="--force"):
        rebuild(world)
    assert world.ledger_points() == before
    with world.workspace() as workspace:  # the store was put back to an older state
        store = workspace.store("main")
        for tenant in ("acme", "brick"):
            lost = [point.point_id for page in store.scan(ENTITY, tenant) for point in page][:2]
            store.delete(ENTITY, tenant, lost)
    assert dict(rebuild(world, force=True).taken) == {"acme": 4}
    results = world.sync()
    assert sum(r.figures.new for r in results) == 4
    assert sum(r.figures.embedded for r in results) == 0
    world.assert_exact()


def test_a_space_that_the_chain_does_not_have_is_named(embedded_world: World) -> None:
    """A store written by another model is not taken: the error names what it holds and what the chain has."""
    world = embedded_world
    seed(world, {"acme": 2})
    world.sync()
    lose_ledger(world)
    chain = world.config.embedding.model_validate({"chain": [{"provider": "hash", "dimensions": 32}]})
    world.config = world.config.model_copy(update={"embedding": chain})
    with pytest.raises(SpaceMismatch, match=r"works__hash-words-1-64-\w+, .*hash/words-1/32/cosine"):
        rebuild(world)
    assert world.ledger_points() == {}


def test_a_ledger_pinned_to_another_space_is_not_filled(embedded_world: World) -> None:
    """Where the ledger says one space and the store another, nothing is written."""
    world = embedded_world
    seed(world, {"acme": 2})
    world.sync()
    lose_ledger(world)
    chain = {"chain": [{"provider": "hash", "dimensions": 32}, {"provider": "hash", "dimensions": 64}]}
    world.config = world.config.model_copy(update={"embedding": world.config.embedding.model_validate(chain)})
    with world.workspace() as workspace:
        workspace.embedders.of(ENTITY, ENTITY, pin=True)
    with pytest.raises(SpaceMismatch, match="pinned to hash/words-1/32/cosine"):
        rebuild(world)
    assert world.ledger_points() == {}


def test_a_run_under_way_is_not_disturbed(world: World) -> None:
    """A tenant that another run holds is busy for a rebuild too."""
    seed(world, {"acme": 2})
    world.sync()
    lose_ledger(world)
    with world.workspace() as workspace, workspace.ledger.hold(ENTITY, "acme"), pytest.raises(PartitionBusy):
        workspace.rebuild(ENTITY, ENTITY)
    assert world.ledger_points() == {}
    assert rebuild(world, force=True).taken.total() == 2
    world.assert_exact()
