"""A collection that somebody else writes too, or that was written under another name or type before: no run removes
what this project did not write, and none leaves a record there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.errors import StoreUnavailable
from vecsync_dagster.ledger.tables import sync_run
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster.sync.dropping import drop, leaving
from vecsync_dagster.sync.standing import check_everything
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World


def owners(world: World) -> list[tuple[Any, Any]]:
    with world.workspace() as workspace:
        points = [point.payload for page in workspace.store("main").scan(ENTITY) for point in page]
    return sorted((payload["entity"], payload["dbId"]) for payload in points)


def named(world: World, entity: str, **more: Any) -> None:
    """From now on the same collection is fed by an entity of this name."""
    [settings] = world.config.entities.values()
    settings = settings.model_copy(update={"type": None})
    world.config = world.config.model_copy(update={"entities": {entity: settings}, **more})


def identity_of(result: PartitionResult) -> tuple[dict[str, int | str], bool]:
    [check] = [check for check in result.checks if check.name == "identity"]
    return dict(check.facts), check.passed or check.warning


def another_project(world: World, entity: str) -> list[tuple[Any, Any]]:
    """The world, once synced, becomes that of a project with other rows, a ledger of its own and the same collection;
    returns the owners of all points that should be there from now on."""
    named(world, ENTITY)
    seed(world, {"acme": 3})
    world.sync()
    theirs = owners(world)
    world.delete(1, 2, 3)
    world.insert({"id": n, "tenant_id": "acme"} for n in (11, 12))
    named(world, entity, state=Path("elsewhere"))
    return sorted([*theirs, (entity, "11"), (entity, "12")])


@pytest.mark.parametrize("entity", ["others", ENTITY])
def test_another_project_s_points_stay(embedded_world: World, entity: str) -> None:
    """A project with a ledger of its own, whatever its entity is called, reports them in every run, and removes them
    by hand alone."""
    world = embedded_world
    both = another_project(world, entity)
    world.sync("acme", entity=entity, limit=1)
    for mode in ("full", "full", "incremental", "full"):
        result = one(world.sync(entity=entity, mode=mode, allow_removals=True), "acme")
        assert (owners(world), result.ok) == (both, False)
        if mode == "full":
            assert identity_of(result) == ({"foreign": 3}, False)
    with world.workspace() as workspace:
        workspace.repair(entity, ENTITY, workspace.differences(entity, ENTITY))
    if entity != ENTITY:
        assert owners(world) == both, "no repair takes what names another entity"
        with world.workspace() as workspace:
            drop(workspace, leaving(workspace, ENTITY, ENTITY, replaced=False))
    assert one(world.sync(entity=entity, mode="full"), "acme").ok
    assert owners(world) == [(entity, "11"), (entity, "12")]


@pytest.mark.parametrize("method", ["upsert", "ensure_collection"])
def test_another_project_s_points_stay_after_a_run_that_failed(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also where its first run left the partition half done, or never reached the store, and the next one puts that
    right."""
    world = embedded_world
    both = another_project(world, ENTITY)

    def down(*_: object) -> None:
        raise StoreUnavailable("the disk is away", service="QDRANT")

    with monkeypatch.context() as away:
        away.setattr(QdrantEmbeddedStore, method, down)
        assert one(world.sync(mode="full"), "acme").outcome == "failed"
    for _ in range(2):
        world.sync(mode="full", allow_removals=True)
        assert owners(world) == both


def test_another_project_s_points_stay_after_everything_was_compared(embedded_world: World) -> None:
    """A comparison that repairs nothing settles nothing: the points are reported, and stay."""
    world = embedded_world
    both = another_project(world, ENTITY)
    for _ in range(2):
        assert identity_of(one(world.sync(mode="full", allow_removals=True), "acme")) == ({"foreign": 3}, False)
        with world.workspace() as workspace:
            [found, _] = check_everything(workspace, ENTITY)
        assert (found.passed, found.facts["differences"]) == (False, 3)
    assert owners(world) == both


def test_everything_compared_counts_foreign_points_as_a_run_does(embedded_world: World) -> None:
    """Those that name another entity, and those that may be another project's, together."""
    world = embedded_world
    another_project(world, ENTITY)
    world.sync(mode="full")
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        theirs = next(p for some in store.scan(ENTITY, "acme") for p in some if p.payload["dbId"] == "1")
        store.set_payload(ENTITY, [Point(theirs.point_id, {**theirs.payload, "entity": "others"})])
    assert identity_of(one(world.sync(mode="full"), "acme")) == ({"foreign": 3}, False)
    with world.workspace() as workspace:
        list(check_everything(workspace, ENTITY))
        [kept] = [one for one in workspace.ledger.check_results(ENTITY, "acme") if one.check == "identity"]
    assert kept.facts == {"foreign": 3}


def test_an_entity_that_is_renamed_and_named_back_ends_exact(embedded_world: World) -> None:
    """Points of the former name go with its rows and its watermark, so that it begins anew, and pays for nothing: once
    somebody says that nobody syncs under that name any more."""
    world = embedded_world
    seed(world, {"acme": 3, GLOBAL: 2})
    former = None
    for entity in ("a", "b", "a"):
        named(world, entity)
        results = world.sync(entity=entity, mode="full")
        assert sum(result.figures.embedded for result in results) == (5 if len(world.results) == 2 else 0)
        if former is not None:
            with world.workspace() as workspace:
                drop(workspace, leaving(workspace, ENTITY, former))
        former = entity
        results = world.sync(entity=entity, mode="full")
        assert all(result.ok for result in results)
        assert owners(world) == [(entity, n) for n in ("1", "1001", "1002", "2", "3")]
    world.update(1, name="changed")
    assert one(world.sync(entity="a", mode="incremental"), "acme").figures.changed == 1
    assert len(owners(world)) == 5


def test_two_projects_with_one_ledger_leave_each_other_s_points(embedded_world: World) -> None:
    """Each has an entity of its own that feeds the collection; both say so, in every run, however seldom one runs."""
    world = embedded_world
    seed(world, {"acme": 3})
    for entity in ("a", "b", "a", "b", "b", "b", "a"):
        named(world, entity)
        result = one(world.sync(entity=entity, mode="full", allow_removals=True), "acme")
        there = {entity for entity, _ in owners(world)}
        assert (len(owners(world)), result.ok) == (3 * len(there), len(there) == 1)
        assert result.figures.removed == 0
    assert there == {"a", "b"}


def test_rows_without_runs_are_no_entity_that_left(embedded_world: World) -> None:
    """A ledger that was made anew from the store has no runs yet, and two projects may use it."""
    world = embedded_world
    seed(world, {"acme": 3})
    named(world, "a")
    world.sync(entity="a")
    with world.workspace() as workspace, workspace.ledger.database.write() as connection:
        connection.execute(sync_run.delete())
    named(world, "b")
    for _ in range(3):
        assert not one(world.sync(entity="b", mode="full", allow_removals=True), "acme").ok
    assert {entity for entity, _ in owners(world)} == {"a", "b"}


def test_another_type_replaces_the_documents(world: World) -> None:
    """However many there are: they are there once, under their new ids, and unpaid; what is really gone is guarded."""
    seed(world, {"acme": 60})
    world.sync()
    for kind in ("x", "work"):
        [settings] = world.config.entities.values()
        settings = settings.model_copy(update={"type": kind})
        world.config = world.config.model_copy(update={"entities": {ENTITY: settings}})
        result = one(world.sync(), "acme")
        assert (result.ok, result.figures.removed, result.figures.embedded) == (True, 60, 0)
        world.assert_exact()
    world.delete(*range(1, 58))
    assert one(world.sync(mode="full"), "acme").figures.removals_blocked == 57
