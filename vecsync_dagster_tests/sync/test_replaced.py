"""What an entity left under a former name, or in a collection that it exchanged, goes once all of it is found
elsewhere; what may be another project's goes by force alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import WrongUsage
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync.dropping import drop, leaving, leftovers
from vecsync_dagster.sync.standing import check_everything
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.sync.test_foreign_points import named, owners
from vecsync_dagster_tests.world import ENTITY, World


def leave(world: World, entity: str = "a", collection: str = ENTITY, *, force: bool = False) -> None:
    with world.workspace() as workspace:
        drop(workspace, leaving(workspace, collection, entity, replaced=not force))


def refused(world: World, told: str, collection: str = ENTITY) -> None:
    """It is refused with these words, and every point stays."""
    before = owners(world)
    with pytest.raises(WrongUsage, match=told):
        leave(world, collection=collection)
    assert owners(world) == before


def rename(world: World, **settings: Any) -> None:
    """What was synced as a is b from now on."""
    named(world, "b")
    [former] = world.config.entities.values()
    world.config = world.config.model_copy(update={"entities": {"b": former.model_copy(update=settings)}})


def test_a_tenant_that_is_missing_just_then(embedded_world: World) -> None:
    """Whether the source lists it or not: its records are nowhere else until a full sync has found it."""
    world = embedded_world
    seed(world, {"acme": 2, "brick": 2})
    named(world, "a")
    world.sync(entity="a")
    rename(world)
    rows = [row for row in world.rows() if row["tenant_id"] == "brick"]
    world.sync("acme", entity="b", mode="full")
    world.delete(1001, 1002)
    refused(world, "2 records of brick: no full sync as b has succeeded since")
    world.delete(1, 2)
    refused(world, "2 records that entity a left .*: 2 records of brick")
    world.insert(rows)
    world.sync("brick", entity="b", mode="full")
    leave(world)
    assert {entity for entity, _ in owners(world)} == {"b"}


def test_an_empty_source_proves_nothing(embedded_world: World) -> None:
    """Neither where nothing was synced since nor where a full sync found nothing."""
    world = embedded_world
    seed(world, {"acme": 3})
    named(world, "a")
    world.sync(entity="a")
    rename(world)
    world.delete(1, 2, 3)
    refused(world, "3 records of acme: no full sync")
    world.sync("acme", entity="b", mode="full")
    refused(world, "3 records of acme: the source has none of them")


def test_records_that_the_heir_rejects_are_kept(embedded_world: World) -> None:
    """They are all that is found of them; what the source does not have any more is no reason to refuse."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "acme", "price": "1" if n > 2 else None} for n in range(1, 6))
    named(world, "a")
    world.sync(entity="a")
    rename(world, required=("name", "price"))
    world.delete(5)
    world.sync(entity="b", mode="full")
    refused(world, "2 records of acme: the source has them, and b does not")
    world.update(1, 2, price="2")
    world.sync(entity="b", mode="full")
    leave(world)
    assert owners(world) == [("b", str(n)) for n in range(1, 5)]


def exchange(world: World, *collections: str) -> None:
    """Entities a and b feed these collections from now on."""
    settings = next(iter(world.config.entities.values())).model_copy(update={"type": None})
    collection = next(iter(settings.collections.values()))
    entities = {
        entity: settings.model_copy(update={"collections": {name: collection}})
        for entity, name in zip(("a", "b"), collections, strict=True)
    }
    world.config = world.config.model_copy(update={"entities": entities})


def sync_both(world: World, entities: Sequence[str] = ("a", "b")) -> None:
    for entity in entities:
        world.sync(entity=entity, mode="full")


def test_a_full_sync_of_an_earlier_time_replaces_nothing(embedded_world: World) -> None:
    """Two entities exchanged their collections, and back: what one of them wrote meanwhile is found in no other."""
    world = embedded_world
    seed(world, {"acme": 2})
    exchange(world, ENTITY, "second")
    sync_both(world)
    exchange(world, "second", ENTITY)
    world.insert([{"id": 7, "tenant_id": "acme"}])
    sync_both(world)
    exchange(world, ENTITY, "second")
    refused(world, "3 records of acme: no full sync as a has succeeded since", "second")
    sync_both(world, ["b"])
    refused(world, "3 records of acme: no full sync as a has succeeded since", "second")
    sync_both(world, ["a"])
    leave(world, "a", "second")
    assert ("a", "7") in owners(world)


def test_a_ledger_that_was_lost_after_a_rename(embedded_world: World) -> None:
    """The points themselves say whose they are; nothing proves that they are replaced. The check names the command."""
    world = embedded_world
    seed(world, {"acme": 2})
    named(world, "a")
    world.sync(entity="a")
    rename(world)
    (world.config.state_folder / "ledger.sqlite").unlink()
    [result] = [one for one in world.sync(entity="b", mode="full") if one.tenant == "acme"]
    [identity] = [check for check in result.checks if check.name == "identity"]
    assert f"`vecsync drop {ENTITY} --entity a --force` removes" in identity.message
    with world.workspace() as workspace:
        [found, _] = check_everything(workspace, "b")
    assert ("`vecsync drop works --entity a --force`" in found.message, "--repair" in found.message) == (True, False)
    refused(world, "nothing proves that they are replaced")
    leave(world, force=True)
    assert owners(world) == [("b", "1"), ("b", "2")]
    assert one(world.sync(entity="b", mode="full"), "acme").ok


@pytest.mark.parametrize("collection", [ENTITY, "second"])
def test_what_somebody_else_syncs_is_not_dropped(embedded_world: World, collection: str) -> None:
    """What was synced of late, and not from this state folder, may be another project's that uses this ledger."""
    world = embedded_world
    seed(world, {"acme": 2})
    exchange(world, ENTITY, collection + "_of_b")
    sync_both(world, ["a"])
    [_, settings] = world.config.entities.values()
    collections = {collection: next(iter(settings.collections.values()))}
    entities = {"b": settings.model_copy(update={"collections": collections})}
    world.config = world.config.model_copy(update={"entities": entities})
    sync_both(world, ["b"])
    with world.workspace() as workspace:
        [here] = leftovers(workspace)
        left = ["leftovers" in next(check_everything(workspace, "b")).facts]
        workspace.snapshots.drop("a")
        [elsewhere] = leftovers(workspace)
        left.append("leftovers" in next(check_everything(workspace, "b")).facts)
    assert left == [True, False]
    command = f"`vecsync drop {ENTITY}{' --entity a' if collection == ENTITY else ''}"
    assert f"{command}` removes it, unless another project with this ledger syncs it" in str(here)
    assert "it may be another project's" in str(elsewhere)
    assert f"if nobody syncs it any more, {command} --force` removes it" in str(elsewhere)
    refused(world, "it may be another project's")
    freshness = world.config.checks.freshness.model_copy(update={"max_age": timedelta(0)})
    checks = world.config.checks.model_copy(update={"freshness": freshness})
    world.config = world.config.model_copy(update={"checks": checks})
    leave(world)
    with world.workspace() as workspace:
        assert leftovers(workspace) == []


def test_foreign_points_stand_in_for_none_that_are_lost(embedded_world: World) -> None:
    """As many as the ledger knows are there, and none of them is ours: an incremental run says so."""
    world = embedded_world
    seed(world, {"acme": 3})
    world.sync()
    with world.workspace() as workspace:
        store, space = workspace.store("main"), workspace.ledger.space_of(ENTITY)
        assert space is not None
        points = [point for page in store.scan(ENTITY) for point in page]
        vector = np.ones(space.dimensions, np.float32)
        payloads = [{**point.payload, "entity": "tools"} for point in points]
        store.upsert(ENTITY, [Point(point_id("tools", str(p["id"])), p, vector) for p in payloads])
        store.delete_foreign(ENTITY, [point.point_id for point in points])
    world.only_report()
    result = one(world.sync(mode="incremental"), "acme")
    [counts] = [check for check in result.checks if check.name == "counts"]
    assert (counts.passed, counts.warning) == (False, False)
    assert "the store has 3 points, 3 of them not of works, the ledger says 3" in counts.message
