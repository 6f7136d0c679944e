"""What runs leave in Dagster's history: an incremental one what it wrote, the next full one all of it."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckPartitionInfo
from dagster._core.storage.tags import SENSOR_NAME_TAG

from vecsync_dagster.assets.events import told_before
from vecsync_dagster.assets.recording import record
from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.checks import evaluation, grid_key
from vecsync_dagster.sync import STAGES, CheckOutcome, SyncOptions, checks_of
from vecsync_dagster_tests.alerts.test_dagster import repair
from vecsync_dagster_tests.assets.test_assets import ALL, checked, evaluations, materialized, run
from vecsync_dagster_tests.world import ENTITY, World

ACME = "works|acme"
BY_A_SENSOR = {SENSOR_NAME_TAG: "works_changes"}
TWICE = 2  # Dagster's SQLite storage has each of them in the run's file and in the index
BYTES = 6 * 1024


def change(world: World) -> None:
    world.update(next(row["id"] for row in world.rows() if row["tenant_id"] == "acme"), name=f"Работа {world.now}")


def incremental(world: World, instance: dg.DagsterInstance, **more: str) -> dg.ExecuteInProcessResult:
    return run(world, instance, partition_key=ACME, config={"mode": "incremental"}, tags=BY_A_SENSOR, **more)


def stages_told(result: dg.ExecuteInProcessResult, partition: str = ACME) -> list[str]:
    found = (event for event in result.all_events if event.is_step_materialization and event.partition == partition)
    return [event.materialization.asset_key.path[-1] for event in found]


def grid(world: World, instance: dg.DagsterInstance) -> dict[tuple[str, str], str]:
    keys = [dg.AssetCheckKey(grid_key(ENTITY), name) for name in checks_of(world.config.entities[ENTITY])]
    states: Iterable[AssetCheckPartitionInfo] = instance.event_log_storage.get_asset_check_partition_info(keys)
    return {(one.check_key.name, str(one.partition_key)): str(one.latest_execution_status) for one in states}


def test_an_incremental_run_tells_what_it_wrote(world: World, instance: dg.DagsterInstance) -> None:
    """One event, of a few hundred bytes, with the figures of all stages; the grid is as it was."""
    assert run(world, instance, config={"mode": "full"}).success
    before = grid(world, instance)
    change(world)
    result = incremental(world, instance)
    assert stages_told(result) == ["vectors"]
    assert checked(result) == []
    assert grid(world, instance) == before
    assert len(before) == len(ALL) * len(checks_of(world.config.entities[ENTITY]))
    [told] = [e.materialization.metadata for e in result.all_events if e.is_step_materialization]
    assert [told[name].value for name in ("changed", "embedded", "upserted")] == [1, 1, 1]
    entries = [one.event_log_entry for one in instance.get_records_for_run(result.run_id).records]
    own = [one for one in entries if one.dagster_event is not None and one.dagster_event.is_step_materialization]
    assert TWICE * sum(len(dg.serialize_value(one)) for one in own) <= BYTES


def test_the_next_full_run_tells_all_of_it(world: World, instance: dg.DagsterInstance) -> None:
    """Although it finds nothing to do there: rows and figures of the other stages are of today. Once."""
    assert run(world, instance, config={"mode": "full"}).success
    change(world)
    incremental(world, instance)
    full = run(world, instance, config={"mode": "full"})
    assert stages_told(full) == list(STAGES)
    assert {partition for _, partition in evaluations(full)} == {ACME}
    assert stages_told(full, "works|brick") == []
    assert stages_told(run(world, instance, config={"mode": "full"})) == []


def test_quiet_runs_hide_no_brief_one(world: World, instance: dg.DagsterInstance) -> None:
    """However many they are: the next full run still shows what the brief one wrote."""
    assert run(world, instance, config={"mode": "full"}).success
    change(world)
    incremental(world, instance)
    for _ in range(11):
        world.sync(mode="incremental")
    assert stages_told(run(world, instance, config={"mode": "full"})) == list(STAGES)


def test_what_nobody_was_told_of_is_shown(world: World, instance: dg.DagsterInstance) -> None:
    """A sync that wrote, and was killed before it was recorded; one stage alone does not show it."""
    assert run(world, instance, config={"mode": "full"}).success
    change(world)
    world.sync(mode="full")
    assert stages_told(run(world, instance, stages=["export"], config={"mode": "full"})) == ["export"]
    assert stages_told(run(world, instance, config={"mode": "full"})) == list(STAGES)
    assert stages_told(run(world, instance, config={"mode": "full"})) == []


def test_a_partition_that_was_empty_is_shown_whole(world: World, instance: dg.DagsterInstance) -> None:
    """Its stages say that it was removed: an incremental run that fills it again tells of all of them."""
    world.insert([{"id": 500, "is_global": True}])
    assert run(world, instance, config={"mode": "full"}).success
    with world.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM {ENTITY} WHERE is_global"))
    for _ in range(2):
        run(world, instance, config={"mode": "full", "allow_removals": True})
    world.insert([{"id": 501, "is_global": True}])
    result = run(world, instance, config={"mode": "incremental"}, tags=BY_A_SENSOR)
    assert stages_told(result, "works|global") == list(STAGES)


def test_another_document_that_fails_is_shown(world: World, instance: dg.DagsterInstance) -> None:
    """Where it is one again, the sentence is the same, and the table names another one."""

    def outcome(document: str) -> CheckOutcome:
        rows = [{"document": document, "error": "EMBEDDING_ERROR", "attempts": "1", "next": "never"}]
        return CheckOutcome("statuses", False, "failed: 1 permanent", {"failed": 1}, rows=rows)

    add_tenants(instance, ENTITY, ["acme"])
    instance.report_runless_asset_event(evaluation(ENTITY, ENTITY, "acme", outcome("a"), "Acme"))
    with world.workspace() as workspace:
        told = told_before(instance, workspace, ENTITY)
    assert told.says(ENTITY, outcome("a"), ACME)
    assert not told.says(ENTITY, outcome("b"), ACME)


def test_a_new_tenant_is_told_of_in_full(world: World, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, config={"mode": "full"}).success
    world.insert([{"id": 500, "tenant_id": "delta"}])
    result = run(world, instance, config={"mode": "incremental"}, tags=BY_A_SENSOR)
    assert stages_told(result, "works|delta") == list(STAGES)
    assert materialized(instance, "export") == {*ALL, "works|delta"}


def test_what_fails_and_what_is_well_again_is_told(world: World, instance: dg.DagsterInstance) -> None:
    """By incremental runs: no stage looks as if it had failed, and the grid is green as soon as it is well."""
    world.only_report()
    assert run(world, instance, config={"mode": "full"}).success
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [points] = store.scan(ENTITY, "acme")
        last = max(points, key=lambda point: point.payload["id"])  # another one than what `change` writes
        store.delete(ENTITY, "acme", [last.point_id])
    change(world)
    failed = incremental(world, instance)
    assert not failed.success
    assert stages_told(failed) == list(STAGES)
    assert grid(world, instance)["counts", ACME] == "AssetCheckExecutionRecordStatus.FAILED"
    repair(world)
    change(world)
    assert incremental(world, instance).success
    assert grid(world, instance)["counts", ACME] == "AssetCheckExecutionRecordStatus.SUCCEEDED"


def test_people_who_ask_for_a_partition_get_its_events(world: World, instance: dg.DagsterInstance) -> None:
    """Also where nothing was to do."""
    assert run(world, instance, config={"mode": "full"}).success
    result = run(world, instance, partition_key=ACME, config={"mode": "incremental"})
    assert stages_told(result) == list(STAGES)
    assert {name for name, _ in evaluations(result)} >= {"counts", "statuses"}


def test_the_command_line_is_as_brief(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def synced(mode: str) -> int:
        with world.workspace() as workspace:
            results = [
                result
                for selection in workspace.select([ENTITY])
                for result in workspace.sync(selection, SyncOptions(mode="full" if mode == "full" else "incremental"))
            ]
            return record(workspace, results).events

    everything = synced("full")
    change(world)
    assert synced("incremental") == 1
    assert synced("incremental") == 0
    assert synced("full") == everything / len(ALL)


def test_a_warning_that_lasts_is_told_once(world: World, instance: dg.DagsterInstance) -> None:
    """And again when it says something else, as an incremental run does at first, which does not know of how many."""
    ids = [row["id"] for row in world.rows() if row["tenant_id"] == "acme"]
    world.update(ids[-1], name="")
    told = [evaluations(run(world, instance, config={"mode": "full"})) for _ in range(2)]
    told += [evaluations(incremental(world, instance)) for _ in range(3)]
    assert told[0]["validation", ACME] is False
    assert told[1:] == [{}, {("validation", ACME): False}, {}, {}]
    world.update(ids[-2], name="")
    assert ("validation", ACME) in evaluations(incremental(world, instance))
