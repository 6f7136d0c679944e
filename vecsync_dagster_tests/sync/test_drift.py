"""Somebody works on the store behind our back: where runs only report, the next one names what, and a repair repairs it
unpaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from vecsync_dagster.config import resolve
from vecsync_dagster.documents.hashing import payload_hash
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.world import ENTITY, World

TENANTS = {GLOBAL: 200, "acme": 300, "brick": 100}
SHARE = 100  # one of so many points is lost, another one altered
Owner = Mapping[str, Any]

ACME: Owner = {"tenantId": "acme", "scope": "tenant"}
EVERYBODY: Owner = {"tenantId": None, "scope": "global"}
STRANGER: Owner = {"tenantId": "stranger", "scope": "tenant"}
NOBODY: Owner = {"any": "thing"}

# Ten under tenants that are known, as far as a payload tells, and ten that lie in no partition we know.
KNOWN: dict[str, Owner] = {
    **{str(number): ACME for number in (1, 2, 3)},
    **{f"00000000-0000-4000-8000-00000000000{n}": ACME for n in range(4)},
    **{f"ffffffff-0000-4000-8000-00000000000{n}": EVERYBODY for n in range(3)},
}
UNKNOWN: dict[str, Owner] = {
    **{str(number): STRANGER for number in (11, 12, 13)},
    **{f"80000000-0000-4000-8000-00000000000{n}": STRANGER for n in range(4)},
    **{str(number): NOBODY for number in (21, 22)},
    "90000000-0000-4000-8000-000000000000": NOBODY,
}
FOREIGN = {**KNOWN, **UNKNOWN}


def write_as_stranger(world: World, points: Mapping[str, Owner]) -> None:
    """Past our own store, whose ids are UUIDs; it must be closed."""
    config = world.config.stores["main"]
    with world.workspace() as workspace:
        physical = workspace.store("main").pinned_space(ENTITY) or ""
    vector = np.full(64, 0.125).tolist()
    ids = {point_id: int(point_id) if point_id.isdigit() else point_id for point_id in points}
    if config.path is not None:
        shard = edge.EdgeShard.load(str(world.config.path(config.path) / physical))
        new = [edge.Point(ids[key], vector, dict(payload)) for key, payload in points.items()]
        shard.update(edge.UpdateOperation.upsert_points(new))
        shard.close()
        return
    client = QdrantClient(url=resolve(config.url or "", "url"), check_compatibility=False)
    structs = [models.PointStruct(id=ids[key], vector=vector, payload=dict(p)) for key, p in points.items()]
    client.upsert(physical, structs)
    client.close()


def damage(world: World) -> tuple[set[str], set[str]]:
    """One per cent of each tenant's points deleted, one per cent altered; returns their ids."""
    lost: set[str] = set()
    altered: dict[str, dict[str, Any]] = {}
    with world.workspace() as workspace:
        store = workspace.store("main")
        for tenant, count in TENANTS.items():
            points = [point for page in store.scan(ENTITY, tenant) for point in page]
            few = count // SHARE
            gone = [point.point_id for point in points[10 : 10 + few]]
            store.delete(ENTITY, tenant, gone)
            lost.update(gone)
            for number, point in enumerate(points[50 : 50 + few]):
                altered[point.point_id] = tampered(number, point.payload)
        assert store.set_payload(ENTITY, [Point(key, payload) for key, payload in altered.items()]) == []
    return lost, set(altered)


def tampered(number: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    """In three ways: a field, a field with a hash that fits it, and the hash of the text."""
    if number % 3 == 2:
        return {**payload, "contentHash": "0" * 16}
    changed = {**payload, "unit": "тайно"}
    return {**changed, "payloadHash": payload_hash(changed)} if number % 3 else changed


def named(results: list[PartitionResult], check: str) -> dict[str, set[str]]:
    """The ids that a check names, by kind of difference."""
    found: dict[str, set[str]] = {}
    for result in results:
        for outcome in result.checks:
            for difference in outcome.differences if outcome.name == check else ():
                found.setdefault(difference.kind, set()).add(difference.point_id)
    return found


def test_one_per_cent_lost_one_altered_and_twenty_foreign(world: World) -> None:
    """The next run's identity check fails and names every one in the partitions it looks at; what lies under tenants
    that nobody knows is named by `reconcile`, which looks at the whole collection. A repair repairs it all and embeds
    nothing."""
    world.only_report()
    seed(world, TENANTS)
    world.sync()
    lost, altered = damage(world)
    write_as_stranger(world, FOREIGN)
    assert (len(lost), len(altered), len(FOREIGN)) == (6, 6, 20)

    results = world.sync(mode="full")
    assert sum(result.figures.writes + result.figures.embedded for result in results) == 0
    assert {result.tenant for result in results if not result.ok} == set(TENANTS)
    assert named(results, "identity") == {"missing": lost, "stale_hash": altered, "orphan": set(KNOWN)}
    assert named(results, "isolation") == {}

    with world.workspace() as workspace:
        differences = list(workspace.differences(ENTITY, ENTITY))
        by_kind: dict[str, set[str]] = {}
        for difference in differences:
            by_kind.setdefault(difference.kind, set()).add(difference.point_id)
        assert by_kind == {"missing": lost, "stale_hash": altered, "orphan": set(FOREIGN)}
        assert len(differences) == 32
        assert {d.stored_tenant for d in differences if d.point_id in UNKNOWN} == {"stranger", None}

        figures = workspace.repair(ENTITY, ENTITY, differences)
        assert (figures.removed, figures.embedded) == (20, 0)
        assert figures.upserted + figures.payload_only == 12
        assert list(workspace.differences(ENTITY, ENTITY)) == []
    world.assert_exact()
    after = world.sync(mode="full")
    assert all(result.ok for result in after)
    assert not any(result.figures.touched for result in after)


def test_a_repair_over_a_broken_source_removes_nothing(embedded_world: World) -> None:
    """Where it lacks more than a full run would remove, that tenant's repair says so; what is there is repaired."""
    world = embedded_world
    seed(world, {"acme": 80})
    world.sync()
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        points = [Point(p.point_id, {**p.payload, "price": 1}) for page in store.scan(ENTITY) for p in page]
        store.set_payload(ENTITY, points)
    world.delete(*range(6, 81))
    failed: dict[str, str] = {}
    with world.workspace() as workspace:
        differences = workspace.differences(ENTITY, ENTITY)
        workspace.repair(ENTITY, ENTITY, differences, lambda tenant, error: failed.update({tenant: error.code}))
        assert len(list(workspace.differences(ENTITY, ENTITY))) == 75
    assert (failed, len(world.stored())) == ({"acme": "SOURCE_ERROR"}, 80)


@pytest.mark.parametrize("lost", ["nothing", "ledger"])
def test_a_repair_over_an_empty_source_removes_nothing(embedded_world: World, lost: str) -> None:
    """Few documents are below every guard: they may be between the DELETE and the INSERT of an import. Where the ledger
    was lost as well, they are orphans."""
    world = embedded_world
    seed(world, {"acme": 5, "brick": 5})
    world.sync()
    rows = [row for row in world.rows() if row["tenant_id"] == "acme"]
    world.delete(*(row["id"] for row in rows))
    failed: dict[str, str] = {}
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [page] = store.scan(ENTITY, "acme")
        if lost == "ledger":
            workspace.ledger.forget(ENTITY, ENTITY, "acme", [str(p.payload["id"]) for p in page])
        else:
            store.set_payload(ENTITY, [Point(p.point_id, {**p.payload, "price": 1}) for p in page[:3]])
        found = list(workspace.differences(ENTITY, ENTITY))
        workspace.repair(ENTITY, ENTITY, found, lambda tenant, error: failed.update({tenant: error.code}))
        assert (failed, store.count(ENTITY)) == ({"acme": "SOURCE_ERROR"}, 10)
        if lost == "ledger":
            workspace.repair(ENTITY, ENTITY, found, allow_removals=True)
            assert store.count(ENTITY) == 5
    if lost == "nothing":
        world.insert(rows)
        world.sync(mode="full")
        world.assert_exact()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_leaked_point_is_returned_though_its_owner_has_no_record(embedded_world: World, allowed: bool) -> None:
    """Nobody else is to read it, whether it may go or not."""
    world = embedded_world
    seed(world, {"acme": 3, "brick": 3})
    world.sync()
    world.delete(*(row["id"] for row in world.rows() if row["tenant_id"] == "acme"))
    failed: dict[str, str] = {}
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [page] = store.scan(ENTITY, "acme")
        store.set_payload(ENTITY, [Point(page[0].point_id, {**page[0].payload, "tenantId": "brick"})])
        found = list(workspace.differences(ENTITY, ENTITY))
        workspace.repair(
            ENTITY, ENTITY, found, lambda tenant, error: failed.update({tenant: error.code}), allow_removals=allowed
        )
        counts = [store.count(ENTITY, tenant) for tenant in ("acme", "brick")]
    assert (failed, counts) == (({}, [2, 3]) if allowed else ({"acme": "SOURCE_ERROR"}, [3, 3]))


def test_orphans_stay_where_a_full_run_meets_no_record(embedded_world: World) -> None:
    """The ledger was lost, and the source is between the DELETE and the INSERT of an import."""
    world = embedded_world
    seed(world, {"acme": 5, "brick": 5})
    world.sync()
    rows = [row for row in world.rows() if row["tenant_id"] == "acme"]
    world.delete(*(row["id"] for row in rows))
    with world.workspace() as workspace:
        [page] = workspace.store_of(ENTITY, ENTITY).scan(ENTITY, "acme")
        workspace.ledger.forget(ENTITY, ENTITY, "acme", [str(p.payload["id"]) for p in page])
    world.sync("acme", mode="full")
    with world.workspace() as workspace:
        assert workspace.store_of(ENTITY, ENTITY).count(ENTITY, "acme") == 5
    world.insert(rows)
    world.sync(mode="full")
    world.assert_exact()


def test_points_of_a_tenant_that_nobody_knows_are_found_by_the_whole_collection(world: World) -> None:
    """A run looks at its own partition, whose points are all right; comparing the collection names the others."""
    seed(world, {"acme": 5})
    world.sync()
    write_as_stranger(world, UNKNOWN)
    results = world.sync(mode="full")
    assert all(result.ok for result in results)
    assert "stranger" not in {result.tenant for result in results}
    with world.workspace() as workspace:
        assert {d.point_id for d in workspace.differences(ENTITY, ENTITY)} == set(UNKNOWN)
        workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
    world.assert_exact()
