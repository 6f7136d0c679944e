"""The checks of partitions made on demand, and which results say something of the health of the whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import DagsterEvent, DagsterEventType

from vecsync_dagster.alerts import problems, sync_failed
from vecsync_dagster.automation.partitions import PARTITION_TAG
from vecsync_dagster.checks import headlines
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.errors import (
    PartitionBusy,
    SourceUnavailable,
    StoreLocked,
    StoreRejected,
    StoreUnavailable,
    Transient,
)
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.standing import check_again
from vecsync_dagster_tests.automation.ticks import Automated
from vecsync_dagster_tests.world import ENTITY

NOW = datetime.now(UTC)


def check_all(
    automated: Automated, partition: str | None = None
) -> tuple[dg.ExecuteInProcessResult, dict[str | None, set[bool]]]:
    """ "Execute" on the page of the grid, for all or one `partition`: the run, and what each partition's checks say."""
    keys = [
        key
        for key in automated.definitions.resolve_asset_graph().asset_check_keys
        if key.asset_key == dg.AssetKey([ENTITY, "checks"])
    ]
    job = automated.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=set(keys))
    tags = {} if partition is None else {PARTITION_TAG: partition}
    ran = job.execute_in_process(instance=automated.instance, raise_on_error=False, tags=tags)
    found: dict[str | None, set[bool]] = {}
    for one in ran.get_asset_check_evaluations():
        if one.asset_key.path[-1] == "checks":
            found.setdefault(one.partition, set()).add(one.passed)
    return ran, found


def test_a_partition_that_cannot_be_checked_is_one_result(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checks have failed and say why, the others are made, and the run that fails at its end names it. What a run
    found of the records, and later runs go by, is as it was."""
    at = datetime.now(UTC)
    validation = CheckResult(ENTITY, "validation", False, "", at, ENTITY, "brick", facts={"stopped": "full"})
    guard = CheckResult(ENTITY, "removal_guard", False, "", at, ENTITY, "brick", facts={"blocked": 2})
    with settled.world.workspace() as workspace:
        workspace.ledger.record_checks([validation, guard])
    real = Workspace.target

    def target(self: Workspace, entity: str, collection: str, tenant: str) -> Any:
        if tenant == "brick":
            raise RuntimeError("nobody foresaw it")
        return real(self, entity, collection, tenant)

    monkeypatch.setattr(Workspace, "target", target)
    ran, found = check_all(settled)
    assert not ran.success
    assert found == {
        "works|acme": {True},
        "works|brick": {False},
        "works|cord": {True},
        "works|global": {True},
    }
    with settled.world.workspace() as workspace:
        failed = [one for one in workspace.ledger.check_results(ENTITY) if not one.passed]
    of_runs = [one for one in failed if one.check in ("validation", "removal_guard")]
    assert of_runs == [guard, validation]
    told = {(one.tenant, one.message.partition(":")[0]) for one in failed if one not in of_runs}
    assert told == {("brick", "could not be checked")}


def test_a_partition_that_is_being_synced_keeps_its_results(settled: Automated) -> None:
    """What a run has written and not recorded yet is no difference: nobody looks meanwhile."""
    with settled.world.workspace() as workspace, workspace.ledger.hold(ENTITY, "acme"):
        store = workspace.store("main")
        [points] = list(store.scan(ENTITY, "acme"))
        store.delete(ENTITY, "acme", [points[0].point_id])
        [acme] = workspace.select([ENTITY], ["acme"])
        with pytest.raises(PartitionBusy):
            workspace.verify(acme)
        workspace.store("main").close()
        ran, found = check_all(settled)
    assert ran.success
    assert found["works|acme"] == {True}
    _, found = check_all(settled)
    assert False in found["works|acme"]


@pytest.mark.parametrize(
    "error",
    [
        StoreLocked("another process has it", service="qdrant"),
        StoreUnavailable("away", service="qdrant"),
        SourceUnavailable("away"),
    ],
)
def test_what_cannot_be_reached_keeps_its_results(
    settled: Automated, monkeypatch: pytest.MonkeyPatch, error: Transient
) -> None:
    """Nobody looked, so nothing is known to be wrong: the run fails and names the partition, and no result changes."""
    with settled.world.workspace() as workspace:
        before = workspace.ledger.check_results(ENTITY, "brick")
    real = Workspace.target

    def target(self: Workspace, entity: str, collection: str, tenant: str) -> Any:
        if tenant == "brick":
            raise error
        return real(self, entity, collection, tenant)

    monkeypatch.setattr(Workspace, "target", target)
    ran, found = check_all(settled)
    told = [str(event.step_failure_data.error) for event in ran.all_events if event.is_step_failure]
    assert not ran.success
    assert f"1 partition could not be checked: works|brick: {error.code}" in told[0]
    assert found == {f"works|{tenant}": {True} for tenant in ("acme", "brick", "cord", "global")}
    with settled.world.workspace() as workspace:
        assert workspace.ledger.check_results(ENTITY, "brick") == before


def test_what_cannot_be_checked_is_as_bad_as_is_configured(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that warns warns of that, too."""
    settled.use(checks={"severity": {"counts": "warn"}})

    def target(*_: Any) -> Any:
        raise StoreRejected("no", service="qdrant")

    monkeypatch.setattr(Workspace, "target", target)
    check_all(settled)
    with settled.world.workspace() as workspace:
        known = {one.check: one.severity for one in workspace.ledger.check_results(ENTITY, "brick")}
    assert (known["counts"], known["identity"]) == ("warning", "error")


def test_what_left_the_configuration_makes_nothing_red(settled: Automated) -> None:
    """A failed run and check of a collection that is not configured any more: reported as left over, and no more. A
    failed check that the entity does not have any more, as one collection alone cannot lack what another has."""
    run = Run("r1", ENTITY, "former", "acme", "full", "failed", NOW, NOW, {}, "STORE_ERROR: no")
    broken = CheckResult(ENTITY, "identity", False, "2 missing", NOW, "former", "acme")
    with settled.world.workspace() as workspace:
        workspace.ledger.record_run(run, [broken, replace(broken, check="collections", collection=ENTITY)])
        seen = overview(workspace, entity=None, tenant=None, days=7)
        told = list(headlines(settled.instance, workspace, ENTITY))
    assert (seen.healthy, [str(one.collection) for one in seen.leftovers]) == (True, ["former"])
    assert [one.left_over for one in seen.partitions if one.outcome == "failed"] == [True]
    assert told
    assert all(one.passed for one in told)


def test_what_a_queued_run_is_to_check_is_left_to_it(settled: Automated) -> None:
    """A sync that ends while "Execute all" waits reports all the rest, and once that run is over also what it never
    made."""
    health = dg.AssetKey([ENTITY, "health"])
    run = dg.DagsterRun(job_name="execute_all", status=dg.DagsterRunStatus.STARTED)
    settled.instance.add_run(run)
    planned = DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        run.job_name,
        event_specific_data=AssetCheckEvaluationPlanned(asset_key=health, check_name="identity"),
    )
    settled.instance.report_dagster_event(planned, run.run_id)
    with settled.world.workspace() as workspace:
        now = datetime.now(UTC)
        broken = [CheckResult(ENTITY, check, False, "no", now, ENTITY, "acme") for check in ("identity", "counts")]
        workspace.ledger.record_checks(broken)
        before = [one.check_name for one in headlines(settled.instance, workspace, ENTITY) if one.asset_key == health]
        settled.instance.report_run_canceled(run)
        after = [one.check_name for one in headlines(settled.instance, workspace, ENTITY) if one.asset_key == health]
    assert ("counts" in before, "identity" in before) == (True, False)
    assert "identity" in after


def test_a_full_run_that_failed_is_not_made_good_by_an_incremental_one(settled: Automated) -> None:
    """Until the next full run what only that does is still to be done: `status` shows the failure, and its alert stays
    open."""
    run = Run("r1", ENTITY, ENTITY, "acme", "full", "failed", NOW, NOW, {}, "STORE_ERROR: no")
    later = NOW + timedelta(seconds=1)
    well = replace(
        run, run_id="r2", mode="incremental", outcome="success", started_at=later, ended_at=later, error=None
    )
    with settled.world.workspace() as workspace:
        for one in (run, well):
            workspace.ledger.record_run(one)
        seen = overview(workspace, entity=None, tenant=None, days=7)
        wrong = [list(problems(settled.world.config, workspace.ledger))]
        workspace.ledger.record_run(replace(well, run_id="r3", mode="full"))
        wrong.append(list(problems(settled.world.config, workspace.ledger)))
    [acme] = [one for one in seen.partitions if one.tenant == "acme"]
    assert (acme.outcome, acme.error, seen.healthy) == ("failed", "STORE_ERROR: no", False)
    assert wrong == [[sync_failed(ENTITY, f"{ENTITY}|acme", "STORE_ERROR: no")], []]


def test_what_left_the_configuration_keeps_no_other_check_red(settled: Automated) -> None:
    """The comparison of everything is made again though a collection that is not configured any more failed its own."""
    compared = {"differences": 1, "in_partitions": 1}
    with settled.world.workspace() as workspace:
        workspace.ledger.record_checks(
            [
                CheckResult(ENTITY, "identity", False, "2 missing", NOW, "former", "acme"),
                CheckResult(ENTITY, "reconciliation", False, "1 differences", NOW, facts=compared),
            ]
        )
        check_again(workspace, settled.world.sync("acme", mode="full"))
        known = {one.check: one for one in workspace.ledger.check_results(ENTITY, "")}
    assert known["reconciliation"].facts["differences"] == 0
