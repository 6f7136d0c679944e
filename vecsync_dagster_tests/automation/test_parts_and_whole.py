"""The checks of single partitions and those over all of them say the same: whoever compared last, and whatever was
repaired since."""

from __future__ import annotations

import dagster as dg
import pytest

from vecsync_dagster.alerts import problems
from vecsync_dagster.automation.run_outcomes import seen_in
from vecsync_dagster.checks import last_in_grid
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.sync import Workspace, standing
from vecsync_dagster.sync.drift import Comparison, compare_settled
from vecsync_dagster.sync.health import health, troubles
from vecsync_dagster.sync.standing import check_everything
from vecsync_dagster_tests.automation.test_partition_checks import check_all
from vecsync_dagster_tests.automation.test_standing_checks import foreign_point, run, sync
from vecsync_dagster_tests.automation.ticks import Automated
from vecsync_dagster_tests.sync.test_drift import write_as_stranger
from vecsync_dagster_tests.sync.test_self_repair import change, lose, stored_ids
from vecsync_dagster_tests.world import ENTITY


def red(automated: Automated) -> set[tuple[str, str]]:
    """Checks with their tenants, empty for one over all, that are errors; of those that compare points."""
    with automated.world.workspace() as workspace:
        failed = workspace.ledger.check_results(ENTITY, failed=True)
    compared = {"identity", "isolation", "isolation_of_all", "reconciliation"}
    return {(one.check, one.tenant) for one in failed if one.check in compared and "repaired" not in one.facts}


def leak(automated: Automated, owner: str, to: str) -> None:
    """One document of `owner` lies among those of `to`."""
    change(automated.world, stored_ids(automated.world, owner)[0], tenantId=to)


def write_again(automated: Automated, tenant: str) -> None:
    """By a run of single records, which compares nothing."""
    ids = [row["id"] for row in automated.world.rows() if row["tenant_id"] == tenant]
    automated.world.update(*ids, name="written again")
    automated.world.sync(tenant, ids=tuple(map(str, ids)))


LEAKED = {("isolation", "acme"), ("isolation", "cord")}


def test_a_comparison_leaves_red_who_can_read_what_is_not_theirs(settled: Automated) -> None:
    """A document of one tenant under another: its owner misses it, and the other one finds it."""
    leak(settled, "cord", to="acme")
    check_all(settled)
    assert red(settled) >= LEAKED
    found = run(settled, "reconcile_job")
    assert red(settled) >= LEAKED
    assert str(found["isolation_of_all"].description).startswith("1 difference: ")


def test_a_partition_without_documents_may_be_leaked_to(settled: Automated) -> None:
    """It is known by its checks alone."""
    settled.world.delete(*range(1, 6))
    settled.world.sync("global", mode="full", allow_removals=True)
    change(settled.world, stored_ids(settled.world, "cord")[0], tenantId=None, scope="global")
    both = {("isolation", "global"), ("isolation", "cord")}
    check_all(settled)
    assert red(settled) >= both
    run(settled, "reconcile_job")
    assert red(settled) >= both


def check_parts_and_whole(automated: Automated) -> None:
    """As "Execute all" and `reconcile_job` do."""
    with automated.world.workspace() as workspace:
        for selection in workspace.select([ENTITY]):
            workspace.verify(selection)
        assert len(list(check_everything(workspace, ENTITY))) == 2


@pytest.mark.parametrize("way", ["a run", "the checks of one partition"])
@pytest.mark.parametrize("finder", ["acme", "cord"])
def test_what_one_partition_finds_is_red_in_both(settled: Automated, finder: str, way: str) -> None:
    """The one whose document it is, and the one that can read it; for both it is over with the run that repairs it."""
    settled.world.only_report()
    check_parts_and_whole(settled)
    leak(settled, "cord", to="acme")
    if way == "a run":
        sync(settled, finder)
    else:
        check_all(settled, f"works|{finder}")
    assert red(settled) == {*LEAKED, ("isolation_of_all", "")}
    sync(settled, finder)
    assert red(settled) == {*LEAKED, ("isolation_of_all", "")}
    settled.world.only_report("write")
    sync(settled, "cord")
    assert red(settled) == set()


def test_a_tenant_that_nobody_synced_gets_no_results(settled: Automated) -> None:
    """What lies under it is red for its owner."""
    settled.world.only_report()
    check_parts_and_whole(settled)
    leak(settled, "cord", to="nobody")
    sync(settled, "cord")
    assert red(settled) == {("isolation", "cord"), ("isolation_of_all", "")}


def test_what_a_killed_run_left_ends_for_both_tenants(settled: Automated) -> None:
    """It is repaired before the comparison, which then finds nothing."""
    sync(settled, "brick")  # all checks are made
    leak(settled, "cord", to="acme")
    check_parts_and_whole(settled)
    assert red(settled) == {*LEAKED, ("isolation_of_all", "")}
    with settled.world.workspace() as workspace:
        workspace.ledger.begin_writing(ENTITY, ENTITY, "acme", "a run that was killed", "full")
    sync(settled, "acme")
    assert red(settled) == set()


@pytest.mark.parametrize("then", ["acme", "cord"])
def test_what_was_repaired_before_ends_for_both_tenants(settled: Automated, then: str) -> None:
    """By a run that compared nothing: the next one of either finds nothing, and the other one is checked too."""
    sync(settled, "brick")  # all checks are made
    leak(settled, "cord", to="acme")
    check_parts_and_whole(settled)
    write_again(settled, "cord")
    assert red(settled) == {*LEAKED, ("isolation_of_all", "")}
    sync(settled, then)
    assert red(settled) == set()


def test_what_a_comparison_ends_is_counted_again(settled: Automated) -> None:
    """Runs of single records have written what was lost, and compared nothing."""
    lose(settled.world, 2, "brick")
    check_parts_and_whole(settled)
    write_again(settled, "brick")
    with settled.world.workspace() as workspace:
        failed = {one.check for one in workspace.ledger.failed_checks(ENTITY, ENTITY, "brick")}
        assert failed == {"counts", "identity"}
    run(settled, "reconcile_job")
    with settled.world.workspace() as workspace:
        assert workspace.ledger.failed_checks(ENTITY, ENTITY, "brick") == []


def test_a_comparison_needs_no_source(settled: Automated) -> None:
    """What it would count again stays red."""
    lose(settled.world, 2, "brick")
    check_parts_and_whole(settled)
    write_again(settled, "brick")
    with settled.world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE works RENAME TO elsewhere")
    assert run(settled, "reconcile_job")["reconciliation"].passed
    with settled.world.workspace() as workspace:
        assert {one.check for one in workspace.ledger.failed_checks(ENTITY, ENTITY, "brick")} == {"counts"}


def test_what_runs_repair_ends_for_both_tenants_and_for_the_whole(settled: Automated) -> None:
    """Each check over all partitions is over with the run that repairs the last difference of its kind; and what lay
    under a wrong tenant is over for both, whichever of them is synced."""
    leak(settled, "cord", to="acme")
    lose(settled.world, 2, "brick")
    check_parts_and_whole(settled)
    leaked = {*LEAKED, ("isolation_of_all", "")}
    assert red(settled) == {*leaked, ("identity", "brick"), ("reconciliation", "")}
    sync(settled, "brick")
    assert red(settled) == leaked
    sync(settled, "acme")
    assert red(settled) == set()
    with settled.world.workspace() as workspace:
        assert workspace.ledger.failed_checks(ENTITY, ENTITY, "cord") == []
    leak(settled, "cord", to="acme")
    check_parts_and_whole(settled)
    sync(settled, "cord")
    assert red(settled) == set()


def test_the_whole_is_red_where_a_part_is(settled: Automated) -> None:
    """What "Execute all" or a run that only reports finds, and what it finds no more."""
    settled.world.only_report()
    check_parts_and_whole(settled)
    assert red(settled) == set()
    leak(settled, "cord", to="acme")
    check_all(settled)
    assert red(settled) == {*LEAKED, ("isolation_of_all", "")}
    lose(settled.world, 2, "brick")
    sync(settled, "brick")
    assert red(settled) == {*LEAKED, ("isolation_of_all", ""), ("identity", "brick"), ("reconciliation", "")}
    with settled.world.workspace() as workspace:
        workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
    ran, _ = check_all(settled)
    assert red(settled) == set()
    told = {one.check_name: one.passed for one in ran.get_asset_check_evaluations() if one.partition is None}
    assert told["isolation_of_all"]


def shown_last(automated: Automated, check: str, asset: str = "checks") -> dg.AssetCheckEvaluation:
    """What the Overview of a check shows."""
    key = dg.AssetCheckKey(dg.AssetKey([ENTITY, asset]), check)
    record = automated.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation


def named(evaluation: dg.AssetCheckEvaluation) -> int:
    """Differences in its table."""
    table = evaluation.metadata["differences"]
    assert isinstance(table, dg.TableMetadataValue)
    return len(table.records)


def test_the_partition_with_the_most_differences_is_shown(settled: Automated) -> None:
    """Of several that are as severe; with its table, also after another one was checked later."""
    lose(settled.world, 3, "acme")
    lose(settled.world, 1, "brick")
    check_all(settled)
    worst = shown_last(settled, "identity")
    assert (worst.partition, named(worst)) == ("works|acme", 3)
    assert shown_last(settled, "counts").partition == "works|acme"
    lose(settled.world, 1, "brick")
    lose(settled.world, 4, "cord")
    run(settled, "reconcile_job")
    headline = shown_last(settled, "identity", "health").description
    assert str(headline).startswith("3 of 4 partitions: works|cord: 4 missing")
    worst = shown_last(settled, "identity")
    assert (worst.partition, named(worst)) == ("works|cord", 4)
    brick = last_in_grid(settled.instance, ENTITY, "identity", "works|brick")
    assert brick is not None
    assert named(brick) == 2
    with settled.world.workspace() as workspace:
        workspace.repair(ENTITY, ENTITY, (d for d in workspace.differences(ENTITY, ENTITY) if d.tenant == "cord"))
    run(settled, "reconcile_job")
    worst = shown_last(settled, "identity")
    assert (worst.partition, named(worst)) == ("works|acme", 3)


def test_a_sync_of_all_fails_with_what_is_in_no_partition(settled: Automated) -> None:
    """As a check that failed in a partition fails it: the run says so, and it is one problem, not two."""
    check_parts_and_whole(settled)
    foreign_point(settled.world, "nobody")
    job = settled.definitions.resolve_job_def("works_job")
    config = {"ops": {"works_sync": {"config": {"mode": "full"}}}}
    for _ in range(2):
        ran = job.execute_in_process(instance=settled.instance, run_config=config, raise_on_error=False)
        assert not ran.success
        [failure] = [event.step_failure_data.user_failure_data for event in ran.get_step_failure_events()]
        assert failure is not None
        assert "works: check reconciliation: 1 difference: 1 orphan of works|nobody" in str(failure.description)
        [record] = settled.instance.get_run_records(dg.RunsFilter([ran.run_id]))
        assert list(seen_in(settled.world.config, settled.instance, record).raised) == []
    with settled.world.workspace() as workspace:
        runs = workspace.ledger.last_runs(ENTITY).values()
        assert {last.last.outcome for last in runs} == {"success"}


def test_what_ends_for_another_tenant_hides_no_warning(settled: Automated) -> None:
    """The run that repairs a leaked document says so last: the other tenant, checked again after it, is well."""
    settled.world.only_report()
    check_all(settled)
    leak(settled, "cord", to="acme")
    check_all(settled, "works|cord")
    assert {("isolation", "acme"), ("isolation", "cord")} <= red(settled)
    settled.world.only_report("write")
    job = settled.definitions.resolve_job_def("works_job")
    config = {"ops": {"works_sync": {"config": {"mode": "full", "partitions": ["works|cord"]}}}}
    assert job.execute_in_process(instance=settled.instance, run_config=config).success
    for check in ("isolation", "counts"):
        shown = shown_last(settled, check)
        assert (shown.partition, shown.passed, shown.severity) == ("works|cord", False, dg.AssetCheckSeverity.WARN)


def checked(automated: Automated, tenant: str) -> dict[str, str]:
    """What the checks of one partition say now, point by point."""
    with automated.world.workspace() as workspace:
        [selection] = [one for one in workspace.select([ENTITY]) if one.tenant == tenant]
        [(_, outcomes)] = workspace.verify(selection)
        return {one.name: one.message for one in outcomes}


BY_RUN = "repair: a full run (`mode: full` in the launchpad) or `vecsync reconcile --repair`"
BY_COMMAND = "repair with `vecsync reconcile --repair`"
BY_REMOVAL = (
    "if so many orphans are to go: a full run with `allow_removals` or `vecsync reconcile --repair --allow-removals`"
)


def test_a_red_check_names_what_repairs_it(settled: Automated) -> None:
    """A full run where it would, and otherwise what does."""
    lose(settled.world, 2, "brick")
    told = checked(settled, "brick")
    look = "`vecsync reconcile` names what differs"
    assert told["identity"] == f"2 missing; {BY_RUN}"
    assert told["counts"] == f"the store has 2 points, the ledger says 4; {look}; {BY_RUN}"
    with settled.world.workspace() as workspace:
        [whole, _] = check_everything(workspace, ENTITY)
        assert whole.message.endswith(f"; {BY_RUN}")
    write_as_stranger(settled.world, {str(n): {"tenantId": "acme", "scope": "tenant"} for n in range(4)})
    assert checked(settled, "acme")["identity"] == f"4 orphan; {BY_REMOVAL}"
    [result] = settled.world.sync("acme", mode="full")
    [told_after] = [one.message for one in result.checks if one.name == "identity"]
    assert told_after == f"4 orphan; the orphans are more than 30% of the partition: none was removed; {BY_REMOVAL}"
    settled.world.only_report()
    assert checked(settled, "brick")["identity"] == f"2 missing; {BY_COMMAND}"


def test_a_full_run_is_no_remedy_for_points_in_no_partition(settled: Automated) -> None:
    """None would visit them."""
    write_as_stranger(settled.world, {"1": {"tenantId": "nobody", "scope": "tenant"}})
    with settled.world.workspace() as workspace:
        [whole, _] = check_everything(workspace, ENTITY)
    assert whole.message.endswith(BY_COMMAND)
    assert whole.facts["in_partitions"] == 0


def test_messages_have_one_form_for_a_thing_and_agree_in_number(settled: Automated) -> None:
    """Kinds of differences in words, and verbs of one thing in the singular."""
    leak(settled, "cord", to="acme")
    settled.world.insert([{"id": 20 + 9, "tenant_id": "brick", "name": ""}])
    settled.world.sync("brick", mode="full")
    here, away = (checked(settled, tenant)["isolation"] for tenant in ("acme", "cord"))
    assert here.startswith("1 wrong tenant; 1 point of another tenant lies under this one; repair")
    assert away.startswith("1 wrong tenant; 1 point of this tenant lies under another one; repair")
    assert checked(settled, "brick")["counts"].endswith("; 1 of the source's rows is rejected or failed")
    with settled.world.workspace() as workspace:
        [other, whole] = check_everything(workspace, ENTITY)
        kept = {(one.tenant, one.check): one.message for one in workspace.ledger.check_results(ENTITY, failed=True)}
    assert whole.message.startswith("1 difference: 1 wrong tenant of works|cord; ")
    assert (other.passed, other.message) == (True, "no point is missing, stale or unknown to the ledger")
    assert (kept["acme", "isolation"], kept["cord", "isolation"]) == (here, away), "a comparison of all says the same"


def problems_of(automated: Automated) -> set[tuple[str, str]]:
    with automated.world.workspace() as workspace:
        found = list(problems(automated.world.config, workspace.ledger))
    return {(one.check or one.kind, one.partition or "") for one in found}


def failing_of(automated: Automated) -> int:
    """As monitoring reads it."""
    with automated.world.workspace() as workspace:
        ledger = workspace.ledger
        results = ledger.check_results(failed=True)
        found = health(automated.world.config, ledger.last_runs(), ledger.now(), results)
        assert len(troubles(automated.world.config, ledger.last_runs(), ledger.now(), results)) == found["failing"]
        assert overview(workspace, entity=None, tenant=None, days=7).healthy is not bool(found["failing"])
    return int(found["failing"])


def test_what_partitions_say_is_no_second_problem_whoever_finds_it(settled: Automated) -> None:
    """Also if a comparison of everything does; what is in no partition only that can say."""
    lose(settled.world, 2, "brick")
    run(settled, "reconcile_job")
    assert red(settled) == {("identity", "brick"), ("reconciliation", "")}
    parts = {("counts", "works|brick"), ("identity", "works|brick")}
    assert (problems_of(settled), failing_of(settled)) == (parts, 1)
    check_all(settled)
    assert (problems_of(settled), failing_of(settled)) == (parts, 1)
    write_as_stranger(settled.world, {"1": {"tenantId": "nobody", "scope": "tenant"}})
    run(settled, "reconcile_job")
    assert problems_of(settled) == {*parts, ("reconciliation", "")}
    assert failing_of(settled) == 2


def test_the_whole_is_told_where_its_partitions_only_warn(settled: Automated) -> None:
    """By the configured severities; otherwise `status` would have an error that nobody is told of."""
    settled.use(checks={"severity": {"identity": "warn", "counts": "warn"}})
    with settled.world.workspace() as workspace:
        assert len(list(check_everything(workspace, ENTITY))) == 2
    lose(settled.world, 2, "brick")
    for find in (check_all, lambda _: run(settled, "reconcile_job")):
        find(settled)
        assert ("reconciliation", "") in problems_of(settled)
        assert failing_of(settled) == 1
    sync(settled, "brick")
    assert (red(settled), failing_of(settled)) == (set(), 0)
    settled.use(checks={"severity": {"identity": "warn", "counts": "warn", "reconciliation": "warn"}})
    lose(settled.world, 2, "brick")
    check_all(settled)
    assert ("reconciliation", "") not in problems_of(settled)
    assert failing_of(settled) == 0


def test_what_a_run_repaired_during_a_comparison_is_over(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison had met it before. No partition would say so, and nothing compared everything again."""
    sync(settled, "brick")  # all checks are made
    lose(settled.world, 2, "brick")

    def compare(workspace: Workspace, entity: str, collection: str) -> Comparison:
        found = compare_settled(workspace, entity, collection)
        workspace.close()
        sync(settled, "brick")
        return found

    monkeypatch.setattr(standing, "compare_settled", compare)
    assert run(settled, "reconcile_job")["reconciliation"].passed
    assert red(settled) == set()


def test_a_tenant_that_only_a_killed_run_knows_is_named_by_all(settled: Automated) -> None:
    """A run of single records had written a point of a tenant that was never synced."""
    with settled.world.workspace() as workspace:
        workspace.ledger.begin_writing(ENTITY, ENTITY, "delta", "a run that was killed", "ids")
    write_as_stranger(settled.world, {"1": {"tenantId": "delta", "scope": "tenant"}})
    run(settled, "reconcile_job")
    assert red(settled) == {("identity", "delta"), ("reconciliation", "")}
    assert (problems_of(settled), failing_of(settled)) == ({("identity", "works|delta")}, 1)
    with settled.world.workspace() as workspace:
        seen = overview(workspace, entity=None, tenant=None, days=7)
    assert [one.tenant for one in seen.partitions if one.failed_checks] == ["delta"]
