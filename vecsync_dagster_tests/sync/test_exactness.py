"""The store equals the source after every kind of change, and after the faults the old systems had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.errors import StoreUnavailable
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import PartitionResult, SyncOptions
from vecsync_dagster_tests.world import ENTITY, World, file_of


def one(results: list[PartitionResult], tenant: str) -> PartitionResult:
    [result] = [result for result in results if result.tenant == tenant]
    return result


def seed(world: World, tenants: dict[str, int]) -> None:
    """So many rows for each tenant; ids start at 1 for the first, 1001 for the second..."""
    for number, (tenant, count) in enumerate(tenants.items()):
        world.insert(
            {
                "id": number * 1000 + n + 1,
                "tenant_id": None if tenant == GLOBAL else tenant,
                "is_global": tenant == GLOBAL,
            }
            for n in range(count)
        )


def sync_twice(world: World) -> list[PartitionResult]:
    """Two full runs, as far apart as a tenant must be missing; the results of the second."""
    world.sync(mode="full")
    world.wait()
    return world.sync(mode="full")


@pytest.mark.in_turn
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_year_of_tenants(world: World, mode: str) -> None:
    """After every step of a year the store equals the source, point by point."""
    seed(world, {GLOBAL: 12, "acme": 8, "brick": 5})
    results = world.sync(mode=mode)
    assert {r.tenant: r.figures.new for r in results} == {GLOBAL: 12, "acme": 8, "brick": 5}
    world.assert_exact()

    world.insert([{"id": 1900, "tenant_id": "acme"}, {"id": 5001, "tenant_id": "cement"}])  # a row, and a tenant
    results = world.sync(mode=mode)
    assert one(results, "cement").figures.new == 1
    world.assert_exact()

    world.update(1001, name="Новое имя")
    world.update(1002, code="W-7")
    results = world.sync(mode=mode)
    assert (one(results, "acme").figures.changed, one(results, "acme").figures.payload_only) == (1, 1)
    assert one(results, "acme").figures.embedded == 1
    world.assert_exact()

    world.update(1003, tenant_id=None, is_global=True)  # from a tenant to everybody
    world.sync(mode=mode)
    world.assert_exact()

    world.update(1003, tenant_id="acme", is_global=False)  # and back
    world.sync(mode=mode)
    world.assert_exact()

    world.update(1004, tenant_id="brick")  # from one tenant to another
    world.sync(mode=mode)
    world.assert_exact()

    world.update(1005, deleted_at=world.now.isoformat() if world.engine.dialect.name == "sqlite" else world.now)
    world.sync(mode=mode)
    world.assert_exact()

    world.delete(5001)  # a tenant's last row: only full runs can see that it is gone
    sync_twice(world)
    world.assert_exact()

    world.delete(*[row["id"] for row in world.rows() if row["tenant_id"] == "brick"])  # a whole tenant
    sync_twice(world)
    world.assert_exact()
    assert all(result.ok for result in world.results), [r.checks for r in world.results if not r.ok]


def test_nothing_changed_writes_nothing(world: World) -> None:
    """A second run finds everything unchanged, embeds nothing and writes nothing."""
    seed(world, {GLOBAL: 30, "acme": 20})
    world.sync()
    for mode in ("incremental", "full"):
        results = world.sync(mode=mode)
        assert sum(r.figures.writes + r.figures.embedded + r.figures.failed for r in results) == 0
        assert not any(r.figures.touched for r in results)
    assert sum(r.figures.unchanged for r in results) == 50


@pytest.mark.parametrize("first", ["acme", "brick"])
def test_a_moved_record_ends_under_the_new_tenant_once(world: World, first: str) -> None:
    """Whichever tenant runs first, a record that moved is there once, under its new tenant, unpaid."""
    seed(world, {"acme": 3, "brick": 3})
    world.sync()
    world.update(1, tenant_id="brick")
    second = "brick" if first == "acme" else "acme"
    results = world.sync(first, mode="full") + world.sync(second, mode="full")
    assert sum(r.figures.embedded for r in results) == 0
    world.assert_exact()


def test_a_record_that_stops_being_global_is_hidden_at_once(world: World) -> None:
    """An incremental run of its tenant alone removes the global document."""
    seed(world, {GLOBAL: 3, "acme": 1})
    world.sync()
    world.update(1, is_global=False, tenant_id="acme")
    world.sync("acme")
    world.assert_exact()


class Broken:
    """A store whose named method fails a number of times, and is real otherwise."""

    def __init__(self, store: Any, method: str, times: int) -> None:
        self._store, self._method, self._times = store, method, times

    def __getattr__(self, name: str) -> Any:
        if name == self._method and self._times:
            self._times -= 1

            def fail(*_: Any, **__: Any) -> None:
                raise StoreUnavailable("the store is away", service="QDRANT")

            return fail
        return getattr(self._store, name)


def sync_with_broken_store(world: World, method: str, times: int = 1, **options: Any) -> list[PartitionResult]:
    with world.workspace() as workspace:
        workspace._stores["main"] = Broken(workspace.store("main"), method, times)
        results = []
        for selection in workspace.select([ENTITY]):
            results += workspace.sync(selection, SyncOptions(**options))
    return results


def test_fault_01_a_row_whose_upsert_failed_is_not_seen_as_synced(world: World) -> None:
    """A failed upsert leaves the row failed, with its code, and the next run writes it."""
    seed(world, {"acme": 5})
    result = one(sync_with_broken_store(world, "upsert"), "acme")
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "QDRANT_UNAVAILABLE"
    with world.workspace() as workspace:
        assert workspace.ledger.tally(ENTITY, ENTITY, "acme").held == 0
    again = one(world.sync(), "acme")
    assert (again.figures.retry, again.figures.upserted, again.figures.embedded) == (5, 5, 0)
    world.assert_exact()


def test_fault_02_a_tenant_that_deletes_its_last_row_loses_its_vectors(world: World) -> None:
    """Zero exported rows are an answer, not the lack of one: when a second read agrees, the vectors go."""
    seed(world, {"acme": 1, "brick": 2})
    world.sync()
    world.delete(1)
    assert one(sync_twice(world), "acme").figures.removed == 1
    world.assert_exact()


def test_fault_03_a_failed_remote_delete_keeps_the_ledger_row(world: World) -> None:
    """No orphan for ever: the row stays until the store confirmed the removal."""
    seed(world, {"acme": 4})
    world.sync()
    world.delete(1)
    assert one(sync_with_broken_store(world, "delete", mode="full"), "acme").outcome == "failed"
    with world.workspace() as workspace:
        assert workspace.ledger.tally(ENTITY, ENTITY, "acme").held == 4
    assert one(world.sync(mode="full"), "acme").figures.removed == 1
    world.assert_exact()


def test_fault_04_a_tenant_that_vanished_is_visited_and_emptied(world: World) -> None:
    """A tenant that only the ledger knows is synced too."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    world.delete(1001, 1002, 1003)
    assert one(sync_twice(world), "brick").figures.removed == 3
    assert "brick" not in {r.tenant for r in world.sync(mode="full")}
    world.assert_exact()


def test_fault_06_a_limited_run_removes_nothing(world: World) -> None:
    """A partial run never deletes what it did not look at."""
    seed(world, {"acme": 6})
    world.sync()
    partial: list[dict[str, Any]] = [{"limit": 2}, {"offset": 3}, {"limit": 0}]
    for options in partial:
        result = one(world.sync(mode="full", **options), "acme")
        assert result.figures.removed == 0
        world.assert_exact()
    world.delete(6)
    assert one(world.sync(mode="full", limit=3), "acme").figures.fetched == 3
    assert len(world.stored()) == 6
    world.update(5, deleted_at=world.now.isoformat() if world.engine.dialect.name == "sqlite" else world.now)
    assert one(world.sync(limit=10), "acme").figures.removed == 0
    assert len(world.stored()) == 6


def test_fault_10_another_process_finds_every_point(world: World, tmp_path: Path) -> None:
    """A process with another seed of Python's own hashes knows all points by the same ids, and writes none anew."""
    seed(world, {GLOBAL: 3, "acme": 5})
    world.sync()
    before = world.stored()
    program = [sys.executable, "-m", "vecsync_dagster_tests.sync.killed_process", str(file_of(world.config, tmp_path))]
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    subprocess.run([*program, "store", "upsert", "before", "1"], env=environment, timeout=120, check=True)
    with world.workspace() as workspace:
        runs = workspace.ledger.runs(ENTITY, limit=2)
    assert {run.tenant: run.figures["unchanged"] for run in runs} == {GLOBAL: 3, "acme": 5}
    assert world.stored() == before
    world.assert_exact()


def test_the_removal_guard_stops_a_suspicious_removal(world: World) -> None:
    """More than 30 % and more than 50 documents: nothing goes, the check fails and says how to allow it."""
    seed(world, {"acme": 100})
    world.sync()
    world.delete(*range(1, 61))
    result = one(world.sync(mode="full"), "acme")
    [guard] = [check for check in result.checks if check.name == "removal_guard"]
    assert (result.figures.removed, result.figures.removals_blocked, guard.passed, result.ok) == (0, 60, False, False)
    assert guard.message.startswith(
        "the source no longer has 60 synced documents, over 30% of the partition: nothing was removed. If they are "
        "really gone, or the fields of `id` in vecsync.yaml were changed: `vecsync sync tenant acme --entity works "
        "--full --allow-removals`, or in the launchpad `mode: full` and `allow_removals: true`; the first are "
    )
    [counts] = [check for check in result.checks if check.name == "counts"]
    assert counts.message.endswith("; a removal was stopped: the check removal_guard says what to do")
    assert len(world.stored()) == 100
    assert one(world.sync(mode="full", allow_removals=True), "acme").figures.removed == 60
    world.assert_exact()


def test_drift_is_found_and_mended_without_paying_again(world: World) -> None:
    """Lost points, altered payloads, foreign and misplaced points are named, then repaired from the cache."""
    world.only_report()
    seed(world, {GLOBAL: 40, "acme": 40})
    world.sync()
    with world.workspace() as workspace:
        store = workspace.store("main")
        [points] = list(store.scan(ENTITY, "acme"))
        store.delete(ENTITY, "acme", [points[0].point_id])
        altered = {**points[1].payload, "code": "tampered"}
        moved = {**points[2].payload, "tenantId": "brick"}
        store.set_payload(ENTITY, [Point(points[1].point_id, altered), Point(points[2].point_id, moved)])
        vector = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider.embed_query("чужой")
        foreign = Point("00000000-0000-4000-8000-000000000001", {"tenantId": "acme", "scope": "tenant"}, vector)
        store.upsert(ENTITY, [foreign])
    result = one(world.sync(mode="full"), "acme")
    checks = {check.name: check for check in result.checks}
    assert checks["identity"].facts == {"missing": 1, "orphan": 1, "stale_hash": 1}
    assert checks["isolation"].facts == {"wrong_tenant": 1}
    assert {d.point_id for d in checks["identity"].differences} == {
        points[0].point_id,
        points[1].point_id,
        foreign.point_id,
    }
    with world.workspace() as workspace:
        figures = workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
        assert (figures.embedded, figures.removed) == (0, 1)
        assert list(workspace.differences(ENTITY, ENTITY)) == []
    world.assert_exact()
    assert one(world.sync(mode="full"), "acme").ok


def test_a_dry_run_counts_and_touches_nothing(world: World) -> None:
    """A dry run says what would happen; afterwards everything is as it was."""
    seed(world, {"acme": 7})
    result = one(world.sync(dry_run=True), "acme")
    assert (result.figures.new, result.figures.embedded, result.figures.upserted) == (7, 7, 0)
    assert world.stored() == {}
    world.sync()
    world.delete(1)
    world.update(2, name="иначе")
    world.update(3, code="другой")
    result = one(world.sync(dry_run=True, mode="full"), "acme")
    assert (result.figures.removed, result.figures.changed, result.figures.payload_only) == (1, 1, 1)
    assert result.figures.embedded == 1
    assert len(world.stored()) == 7


def test_a_changed_template_is_applied_by_the_next_incremental_run(embedded_world: World) -> None:
    """Where settings that make documents change, rows that did not change get their new documents all the same."""
    seed(embedded_world, {GLOBAL: 3, "acme": 5})
    embedded_world.sync()
    data = embedded_world.config.model_dump(mode="json", exclude_unset=True)
    data["entities"][ENTITY]["collections"][ENTITY] = {"text": "Работа: {name}", "payload": ["name"]}
    config = type(embedded_world.config).model_validate(data).with_folder(embedded_world.config.folder)
    world = World(embedded_world.source_url, config, now=embedded_world.now)
    results = world.sync(mode="incremental")
    assert {r.mode for r in results} == {"full"}
    assert sum(r.figures.changed for r in results) == 8
    world.assert_exact()
    assert {r.mode for r in world.sync(mode="incremental")} == {"incremental"}
