"""Checks over all partitions at once: their jobs, their schedules, and what they find."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import dagster as dg
import numpy as np
import pytest

from vecsync_dagster.config.automation import CheckName
from vecsync_dagster.ledger.base import Run, Seen
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import CHECKS, SyncOptions, Workspace, standing
from vecsync_dagster.sync.drift import Comparison, compare_settled
from vecsync_dagster.sync.metrics import METRICS
from vecsync_dagster.sync.standing import FRESHNESS, RECONCILIATION, check_again
from vecsync_dagster_tests.automation.ticks import VECTORS, Automated
from vecsync_dagster_tests.world import ENTITY, START, World

RECONCILED = {"reconciliation", "isolation_of_all"}


def run(automated: Automated, job: str) -> dict[str, dg.AssetCheckEvaluation]:
    result = automated.definitions.resolve_job_def(job).execute_in_process(instance=automated.instance)
    assert result.success
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def foreign_point(world: World, tenant: str, **payload: object) -> None:
    with world.workspace() as workspace:
        point = Point("00000000-0000-4000-8000-000000000001", {"tenantId": tenant, **payload}, np.ones(64, np.float32))
        workspace.store_of(ENTITY, ENTITY).upsert(ENTITY, [point])


def test_all_is_well(settled: Automated) -> None:
    """One unpartitioned run over everything: every point as the ledger says, every partition in time."""
    found = run(settled, "reconcile_job")
    # And the headlines of what was synced without Dagster.
    assert found.keys() == RECONCILED | {"runs"} | CHECKS.keys() - {"collections"}
    assert {(one.passed, one.partition) for one in found.values()} == {(True, None)}
    assert found["reconciliation"].metadata["points"].value == 17
    assert {name: one.passed for name, one in run(settled, "freshness_job").items()} == {"freshness": True}


def test_reconciliation_finds_what_no_partition_sees(settled: Automated) -> None:
    """A foreign point under a tenant that nobody knows, and a lost one, are told by partition and kind."""
    foreign_point(settled.world, "nobody")
    with settled.world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [points] = list(store.scan(ENTITY, "acme"))
        store.delete(ENTITY, "acme", [points[0].point_id])
    found = run(settled, "reconcile_job")
    told = found["reconciliation"]
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "1 missing of works|acme; 1 orphan of works|nobody" in str(told.description)
    assert found["isolation_of_all"].passed


def test_a_comparison_hides_nothing_that_was_found_since_it_began(
    settled: Automated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run ends while everything is compared: what it found of its partition is newer."""
    settled.world.only_report()

    def compare(workspace: Workspace, entity: str, collection: str) -> Comparison:
        found = compare_settled(workspace, entity, collection)
        store = workspace.store_of(entity, collection)
        [points] = list(store.scan(collection, "acme"))
        store.delete(collection, "acme", [points[0].point_id])
        workspace.close()
        settled.world.sync("acme", mode="full")
        return found

    monkeypatch.setattr(standing, "compare_settled", compare)
    found = run(settled, "reconcile_job")
    assert found["reconciliation"].passed
    assert not found["identity"].passed
    with settled.world.workspace() as workspace:
        red = [(one.check, one.tenant) for one in workspace.ledger.check_results(ENTITY, failed=True)]
    assert red == [("counts", "acme"), ("identity", "acme")]


@pytest.mark.parametrize("leak", [{"tenantId": "brick"}, {"isGlobal": True}, {"scope": GLOBAL}])
def test_isolation_of_all_finds_who_may_read_too_much(settled: Automated, leak: dict[str, object]) -> None:
    """A point of one tenant that another, or everybody, may read is found, in its partition and over all."""
    with settled.world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [points] = list(store.scan(ENTITY, "acme"))
        store.set_payload(ENTITY, [Point(points[0].point_id, {**points[0].payload, **leak})])
        selection = next(s for s in workspace.select([ENTITY]) if s.tenant == "acme")
        [(_, outcomes)] = workspace.verify(selection)
    assert [one.name for one in outcomes if not one.passed and one.name in ("identity", "isolation")] == ["isolation"]
    told = run(settled, "reconcile_job")["isolation_of_all"]
    assert not told.passed
    assert "1 wrong tenant of works|acme" in str(told.description)


def test_freshness_names_what_is_late(settled: Automated) -> None:
    """A partition whose last sync is too old, one that was never synced, and documents not seen for long."""
    long_ago = datetime.now(UTC) - timedelta(days=3)
    with settled.world.workspace() as workspace:
        seen = workspace.ledger.seen(ENTITY)[ENTITY, "acme"]
        workspace.ledger.set_seen(ENTITY, ENTITY, "acme", replace(seen, at=long_ago))
    settled.world.insert([{"id": 70, "tenant_id": "delta"}])
    settled.use(checks={"freshness": {"unseen": 1}})
    told = run(settled, "freshness_job")["freshness"]
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    facts = {name: told.metadata[name].value for name in ("partitions", "never_synced", "too_old", "oldest_hours")}
    assert facts == {"partitions": 5, "never_synced": 1, "too_old": 1, "oldest_hours": 72}
    assert "1 partition never synced: works|delta; 1 partition not synced for 2 days: works|acme" in str(
        told.description
    )


def test_what_left_the_configuration_is_not_late(settled: Automated) -> None:
    """No sync would ever see its documents again: they are a leftover, which `drop` removes."""
    entities = settled.world.config.model_dump(mode="json", exclude_unset=True)["entities"]
    entities[ENTITY]["collections"] = {"renamed": entities[ENTITY]["collections"][ENTITY]}
    settled.use(entities=entities, checks={"freshness": {"unseen": 1}})
    with settled.world.workspace() as workspace:
        for selection in workspace.select([ENTITY]):
            workspace.sync(selection, SyncOptions(mode="full"))
    time.sleep(1)
    said = str(run(settled, "freshness_job")["freshness"].description)
    assert f"{ENTITY}|" not in said


def test_a_partition_in_time_is_fresh(settled: Automated) -> None:
    """The limits are the configuration's."""
    with settled.world.workspace() as workspace:
        workspace.ledger.set_seen(ENTITY, ENTITY, "acme", Seen(datetime.now(UTC) - timedelta(days=3), "x"))
    settled.use(checks={"freshness": {"max_age": "P4D"}})
    assert run(settled, "freshness_job")["freshness"].passed


def test_every_check_can_be_given_a_severity() -> None:
    """The names that the configuration takes are those of the checks that there are."""
    assert set(get_args(CheckName)) == {*CHECKS, *RECONCILIATION, FRESHNESS}


def test_severity_is_the_configurations(settled: Automated) -> None:
    """Each check may warn or be an error, whichever is configured."""
    settled.use(checks={"severity": {"reconciliation": "warn", "freshness": "error"}, "freshness": {"max_age": 1}})
    foreign_point(settled.world, "nobody")
    with settled.world.workspace() as workspace:
        workspace.ledger.set_seen(ENTITY, ENTITY, "acme", Seen(datetime.now(UTC) - timedelta(days=3), "x"))
    assert run(settled, "reconcile_job")["reconciliation"].severity is dg.AssetCheckSeverity.WARN
    assert run(settled, "freshness_job")["freshness"].severity is dg.AssetCheckSeverity.ERROR
    metrics = json.loads((settled.world.config.state_folder / METRICS).read_bytes())
    assert metrics["health"]["failed_checks"] == [{"entity": ENTITY, "check": "freshness"}]


def test_a_materialization_from_the_ui_reads_no_whole_collection(settled: Automated) -> None:
    """Dagster adds all checks of an asset to what the UI materializes: those over everything stay out of it."""
    for name in ("reconcile_job", "freshness_job"):
        run(settled, name)
    job = settled.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=settled.instance, partition_key="works|acme", asset_selection=[VECTORS])
    assert result.success
    assert not {one.check_name for one in result.get_asset_check_evaluations()} & {*RECONCILED, "freshness"}


def test_sensors_and_schedules_run_by_default(automated: Automated) -> None:
    """What runs by itself runs without anybody switching it on; intervals, crons and switches are configuration."""
    definitions = automated.definitions
    sensors = {name: definitions.resolve_sensor_def(name) for name in ("works_tenants", "works_changes")}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    assert [sensor.minimum_interval_seconds for sensor in sensors.values()] == [60, 10]
    weekly, fresh = (definitions.resolve_schedule_def(name) for name in ("reconcile_weekly", "freshness"))
    assert (weekly.cron_schedule, weekly.job_name, weekly.execution_timezone) == ("0 5 * * SUN", "reconcile_job", "UTC")
    assert (fresh.cron_schedule, fresh.job_name) == ("30 */6 * * *", "freshness_job")
    assert {one.default_status for one in (weekly, fresh)} == {dg.DefaultScheduleStatus.RUNNING}
    automated.use(
        automation={"tenants": {"enabled": False}, "changes": {"interval": 5, "enabled": False}},
        schedule={"enabled": False, "reconcile_cron": "0 6 * * *"},
    )
    definitions = automated.definitions
    assert definitions.resolve_sensor_def("works_tenants").default_status is dg.DefaultSensorStatus.STOPPED
    assert definitions.resolve_sensor_def("works_changes").default_status is dg.DefaultSensorStatus.STOPPED
    assert definitions.resolve_sensor_def("works_changes").minimum_interval_seconds == 5
    assert definitions.resolve_schedule_def("reconcile_weekly").cron_schedule == "0 6 * * *"
    assert definitions.resolve_schedule_def("freshness").default_status is dg.DefaultScheduleStatus.STOPPED


def test_the_sensors_of_retries_and_alerts_can_be_switched_off_too(automated: Automated) -> None:
    """`sync.retry.enabled` and `alerts.enabled` are to their sensors what `enabled` is to the others."""
    webhook = {"webhook": {"url": {"env": "HOOK"}, "secret": {"env": "HOOK_SECRET"}}}
    names = ("vecsync_retry", "vecsync_alerts_on_success", "vecsync_alerts_on_failure", "vecsync_alerts_delivery")
    for enabled, status in ((True, dg.DefaultSensorStatus.RUNNING), (False, dg.DefaultSensorStatus.STOPPED)):
        automated.use(alerts={**webhook, "enabled": enabled}, sync={"retry": {"enabled": enabled}})
        definitions = automated.definitions
        assert {definitions.resolve_sensor_def(name).default_status for name in names} == {status}


def made(automated: Automated) -> dict[str, tuple[bool, str]]:
    with automated.world.workspace() as workspace:
        return {one.check: (one.passed, one.message) for one in workspace.ledger.check_results(ENTITY, "")}


def sync(automated: Automated, *tenants: str, mode: Literal["full", "incremental"] = "full") -> None:
    """As a run does, to its end."""
    results = [result for tenant in tenants for result in automated.world.sync(tenant, mode=mode)]
    with automated.world.workspace() as workspace:
        check_again(workspace, results)


def test_a_new_project_waits_for_no_schedule(automated: Automated) -> None:
    """Once every partition is synced the checks over all of them are made, whichever runs synced them."""
    sync(automated, "acme")
    sync(automated, "brick", "cord")
    assert made(automated) == {}, "global is still to be synced"
    sync(automated, "global")
    assert made(automated) == {
        "reconciliation": (True, "no point is missing, stale or unknown to the ledger"),
        "isolation_of_all": (True, "no point is under a wrong tenant"),
        "freshness": (True, "4 partitions, all in time"),
    }


def test_no_check_waits_for_a_collection_that_left_the_configuration(automated: Automated) -> None:
    """Its last run failed, and nothing syncs it any more."""
    with automated.world.workspace() as workspace:
        workspace.ledger.record_run(Run("1", ENTITY, "former", "acme", "full", "failed", START, START))
    sync(automated, "acme", "brick", "cord", "global")
    assert made(automated).keys() == {*RECONCILED, FRESHNESS}


def test_what_a_run_over_everything_compared_is_not_read_again(
    automated: Automated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own comparisons tell; but not of points that are in none of its partitions, nor what it repaired."""
    automated.world.sync(mode="full")
    compared: list[str] = []

    def count(workspace: Workspace, entity: str, collection: str) -> Comparison:
        compared.append(collection)
        return compare_settled(workspace, entity, collection)

    monkeypatch.setattr(standing, "compare_settled", count)
    everybody = ("global", "acme", "brick", "cord")
    sync(automated, *everybody)
    assert (compared, made(automated)["reconciliation"]) == (
        [],
        (True, "no point is missing, stale or unknown to the ledger"),
    )
    with automated.world.workspace() as workspace:
        workspace.ledger.forget_collection(ENTITY, ENTITY)
    foreign_point(automated.world, "dune")
    sync(automated, *everybody)
    assert compared == [ENTITY]
    passed, message = made(automated)["reconciliation"]
    assert (passed, "1 orphan of works|dune" in message) == (False, True)


def test_an_incremental_run_makes_no_check_over_everything(settled: Automated) -> None:
    """It compares nothing."""
    sync(settled, "global", "acme", "brick", "cord", mode="incremental")
    assert made(settled) == {}
