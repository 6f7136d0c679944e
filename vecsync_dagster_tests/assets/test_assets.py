"""The assets through Dagster itself: partitions, ranges, any set of them, subsets of stages, failures, checks."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.checks.headlines import RUNS
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.sync import STAGES, checks_of
from vecsync_dagster.sync.partition import PartitionSync
from vecsync_dagster.sync.standing import check_everything
from vecsync_dagster_tests.assets.conftest import TENANTS
from vecsync_dagster_tests.world import ENTITY, World

ALL = {f"works|{tenant}" for tenant in TENANTS}


def key(stage: str) -> dg.AssetKey:
    return dg.AssetKey([ENTITY, stage])


def run(
    world: World,
    instance: dg.DagsterInstance,
    *,
    job: str = "works_job",
    config: dict[str, Any] | None = None,
    stages: Sequence[str] = (),
    **more: Any,
) -> dg.ExecuteInProcessResult:
    definitions = build_definitions(world.config)
    op = "all_sync" if job == "sync_all_job" else "works_sync"
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config={"ops": {op: {"config": config or {}}}},
        asset_selection=[key(stage) for stage in stages] or None,
        raise_on_error=False,
        **more,
    )


def materialized(instance: dg.DagsterInstance, stage: str = "vectors") -> set[str]:
    return instance.get_materialized_partitions(key(stage))


def evaluations(result: dg.ExecuteInProcessResult, place: str = "checks") -> dict[tuple[str, str | None], bool]:
    return {(e.check_name, e.partition): e.passed for e in checked(result, place)}


def checked(result: dg.ExecuteInProcessResult, place: str = "checks") -> list[dg.AssetCheckEvaluation]:
    found = (event.event_specific_data for event in result.all_events)
    return [e for e in found if isinstance(e, dg.AssetCheckEvaluation) and e.asset_key == key(place)]


def records(value: dg.MetadataValue[Any]) -> list[dg.TableRecord]:
    assert isinstance(value, dg.TableMetadataValue)
    return list(value.records)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step says, with its causes."""
    [event] = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return error.to_string()


def test_definitions_are_loadable(world: World) -> None:
    """Every asset, job, check and schedule of a configuration loads, and loading opens no connection."""
    definitions = build_definitions(world.config)
    dg.Definitions.validate_loadable(definitions)
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    assert {"works_job", "sync_all_job"} <= jobs
    assert not (world.config.state_folder).exists()


@pytest.mark.parametrize("job", ["works_job", "sync_all_job"])
def test_a_run_without_a_partition_covers_every_tenant(world: World, instance: dg.DagsterInstance, job: str) -> None:
    """Tenants become partitions, and all four assets of each are materialized with their checks."""
    result = run(world, instance, job=job, config={"mode": "full"})
    assert result.success
    world.assert_exact()
    for stage in STAGES:
        assert materialized(instance, stage) == ALL
    checks = checks_of(world.config.entities[ENTITY])
    assert evaluations(result) == {(name, partition): True for name in checks for partition in ALL}
    overall = ("runs", "freshness", "reconciliation", "isolation_of_all")
    assert evaluations(result, "health") == {(name, None): True for name in [*checks, *overall]}


@pytest.mark.parametrize("partitions", [[], ["works|global", "works|acme"]])
def test_what_is_gone_is_synced_last(world: World, instance: dg.DagsterInstance, partitions: list[str]) -> None:
    """So that a new owner takes its records over first; whether the run names its partitions or not."""
    assert run(world, instance, config={"mode": "full"}).success
    moved = [row["id"] for row in world.rows() if row["is_global"]]
    world.update(*moved, is_global=False, tenant_id="acme")
    config = {"mode": "full", "allow_removals": True, **({"partitions": partitions} if partitions else {})}
    assert run(world, instance, config=config).success
    with world.workspace() as workspace:
        runs = workspace.ledger.last_runs(ENTITY)
    assert {key.tenant: one.last.figures["embedded"] for key, one in runs.items() if one.last}["acme"] == 0
    world.assert_exact()


def test_one_partition(world: World, instance: dg.DagsterInstance) -> None:
    """A run for one partition syncs it alone."""
    add_tenants(instance, ENTITY, TENANTS)
    assert run(world, instance, partition_key="works|acme").success
    assert materialized(instance) == {"works|acme"}
    assert {payload["tenantId"] for payload in world.stored().values()} == {"acme"}


def test_a_run_that_is_canceled_ends_with_the_batches_in_flight(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As "Terminate" does: what was not begun is not paid for, the ledger knows that it was interrupted, and the next
    run goes on from there."""
    world.insert([{"id": 5000 + n, "name": f"work {n}", "tenant_id": "acme"} for n in range(40)])
    small = {"batch": 5, "page": 10, "parallel": 1}
    world.config = world.config.model_copy(update={"sync": world.config.sync.model_copy(update=small)})
    begin = PartitionSync._work

    def work(self: PartitionSync, batch: Any) -> Any:
        [running] = instance.get_runs()
        if running.status is dg.DagsterRunStatus.STARTED:
            instance.report_run_canceling(running)
        os.kill(os.getpid(), signal.SIGINT)
        return begin(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(PartitionSync, "_work", work)
        assert not run(world, instance, config={"mode": "full", "partitions": ["works|acme"]}).success
    [canceled] = instance.get_runs()
    assert canceled.status is dg.DagsterRunStatus.CANCELED
    with world.workspace() as workspace:
        [last] = [one for key, one in workspace.ledger.last_runs(ENTITY).items() if key.tenant == "acme"]
    assert last.last.outcome == "interrupted"
    assert 0 < len(world.stored()) < 40
    assert run(world, instance, config={"mode": "full", "partitions": ["works|acme"]}).success
    assert len(world.stored()) > 40


@pytest.mark.parametrize("first", [{}, {"collection": "works", "tenant": "acme"}], ids=["an asset", "a job"])
def test_a_range_of_partitions(world: World, instance: dg.DagsterInstance, first: dict[str, str]) -> None:
    """A run with Dagster's range tags covers the range, as a backfill of one run does: from the page of an asset, and
    from that of a job, where the run has the parts of the range's first key as well."""
    add_tenants(instance, ENTITY, sorted(TENANTS))
    tags = {"dagster/asset_partition_range_start": "works|acme", "dagster/asset_partition_range_end": "works|brick"}
    tags |= {f"dagster/partition/{name}": value for name, value in first.items()}
    assert run(world, instance, tags=tags).success
    assert materialized(instance) == {"works|acme", "works|brick"}


def test_the_launchpad_begins_with_all_that_can_be_set(world: World, instance: dg.DagsterInstance) -> None:
    """An empty list of partitions, to be filled in, means all of them, as null does."""
    job = build_definitions(world.config).resolve_job_def("works_job")
    begun = job.run_config_schema.run_config_schema_type
    assert isinstance(begun, dg.Shape)
    assert begun.fields["ops"].default_value["works_sync"]["config"] == {
        "mode": "configured",
        "partitions": [],
        "allow_removals": False,
        "tenant_gone": False,
    }
    all_of_them: list[list[str] | None] = [[], None]
    for keys in all_of_them:
        assert run(world, instance, config={"mode": "full", "partitions": keys}).success
        assert materialized(instance) == ALL


def test_a_scattered_set_of_partitions(world: World, instance: dg.DagsterInstance) -> None:
    """Partitions named in the run's configuration are those that are synced."""
    add_tenants(instance, ENTITY, TENANTS)
    assert run(world, instance, config={"partitions": ["works|global", "works|brick"]}).success
    assert materialized(instance) == {"works|global", "works|brick"}


@pytest.mark.parametrize("wrong", ["acme", "tools|acme", "works|nobody"])
def test_a_partition_that_does_not_exist_is_refused(world: World, instance: dg.DagsterInstance, wrong: str) -> None:
    """A key typed wrongly fails the run with what a key looks like, and makes no tenant."""
    result = run(world, instance, config={"partitions": [wrong]})
    assert not result.success
    assert f"works has no partition '{wrong}'; one looks like 'works|" in failure_of(result)
    assert world.stored() == {}


def test_an_unchanged_partition_gets_no_event(world: World, instance: dg.DagsterInstance) -> None:
    """A second run over everything writes no materialization; one asked for by name still gets its own."""
    assert run(world, instance).success
    again = run(world, instance)
    assert [event for event in again.all_events if event.is_step_materialization] == []
    assert "3 partitions, 3 unchanged" in [entry.user_message for entry in instance.all_logs(again.run_id)]
    stored = instance.get_run_by_id(again.run_id)
    assert stored is not None
    assert not [tag for tag in stored.tags if tag.startswith("vecsync/")]  # a free run: nothing to filter by
    named = run(world, instance, partition_key="works|acme")
    assert len([event for event in named.all_events if event.is_step_materialization]) == len(STAGES)


def test_stages_one_after_the_other(world: World, instance: dg.DagsterInstance) -> None:
    """export alone writes the snapshot, embeddings alone fills the cache, vectors alone reads both."""
    add_tenants(instance, ENTITY, TENANTS)
    assert run(world, instance, stages=["export"], partition_key="works|acme").success
    assert (materialized(instance, "export"), materialized(instance, "documents")) == ({"works|acme"}, set())
    assert world.stored() == {}
    with world.workspace() as workspace:
        assert len(workspace.snapshots.frame(ENTITY, "acme")) == 4

    assert run(world, instance, stages=["documents", "embeddings"], partition_key="works|acme").success
    assert world.stored() == {}

    result = run(world, instance, stages=["vectors"], partition_key="works|acme")
    assert result.success
    [event] = [e for e in result.all_events if e.is_step_materialization]
    assert event.materialization.metadata["upserted"].value == 4
    with world.workspace() as workspace:
        [last] = workspace.ledger.runs(ENTITY, "acme", 1)
    assert (last.figures["cache_hits"], last.figures["embedded"]) == (4, 0)
    assert len(world.stored()) == 4


def test_vectors_without_a_snapshot_fails_and_says_so(world: World, instance: dg.DagsterInstance) -> None:
    """A stage whose upstream was never run names what to run first."""
    add_tenants(instance, ENTITY, TENANTS)
    result = run(world, instance, stages=["vectors"], partition_key="works|acme")
    assert not result.success
    assert "run its export first" in failure_of(result)


def test_an_incremental_snapshot_never_removes(world: World, instance: dg.DagsterInstance) -> None:
    """vectors that read the snapshot of an incremental export do not take it for the whole."""
    assert run(world, instance).success
    world.update(11, name="иначе")
    assert run(world, instance, stages=["export"], partition_key="works|acme").success
    result = run(world, instance, stages=["documents", "embeddings", "vectors"], partition_key="works|acme")
    assert result.success
    world.assert_exact()
    with world.workspace() as workspace:
        workspace.snapshots.drop(ENTITY, "acme")


def test_one_failing_tenant_does_not_stop_the_others(world: World, instance: dg.DagsterInstance) -> None:
    """The run fails at the end and names the tenant; the others are synced and materialized."""
    world.insert([{"id": 99, "tenant_id": "a|b"}])
    result = run(world, instance)
    assert not result.success
    assert materialized(instance) == ALL
    assert "INVALID_TENANT" in failure_of(result)
    assert "'a|b'" in failure_of(result)


def test_a_tenant_that_is_called_global_fails_the_run(world: World, instance: dg.DagsterInstance) -> None:
    """No partition could say that it is not synced; the others are materialized."""
    world.insert([{"id": 99, "tenant_id": "global"}])
    result = run(world, instance)
    assert materialized(instance) == ALL
    assert "works: INVALID_TENANT: a tenant is called 'global'" in failure_of(result)


def test_checks_fail_with_the_ids(world: World, instance: dg.DagsterInstance) -> None:
    """Points deleted behind its back fail the identity check, which lists them, where runs only report."""
    world.only_report()
    assert run(world, instance).success
    with world.workspace() as workspace:
        [points] = list(workspace.store("main").scan(ENTITY, "acme"))
        workspace.store("main").delete(ENTITY, "acme", [points[0].point_id])
    result = run(world, instance, config={"mode": "full"})
    assert "failed checks: counts of works|acme, identity of works|acme" in failure_of(result)
    told = evaluations(result)
    assert (told["identity", "works|acme"], told["counts", "works|acme"]) == (False, False)
    [identity] = [e for e in checked(result) if (e.check_name, e.partition) == ("identity", "works|acme")]
    assert identity.metadata["partition"].value == "works|acme", "the log of a run has no column for it"
    [row] = records(identity.metadata["differences"])
    assert (row.data["kind"], row.data["point"]) == ("missing", points[0].point_id)
    assert not any(isinstance(value, dg.IntMetadataValue) for value in identity.metadata.values()), (
        "Dagster would draw one line through the numbers of all partitions"
    )
    assert identity.severity is dg.AssetCheckSeverity.ERROR


def test_a_run_that_failed_because_of_its_checks_is_named(world: World, instance: dg.DagsterInstance) -> None:
    """`runs` passes, as the partition was synced, and names the checks that are red; until they are so no more."""

    def runs() -> dg.AssetCheckEvaluation:
        shown = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(key("health"), RUNS)]
        )
        [record] = shown.values()
        assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
        return record.evaluation

    world.only_report()
    assert run(world, instance).success
    assert runs().description == "3 partitions, all ended well"
    with world.workspace() as workspace:
        [points] = list(workspace.store("main").scan(ENTITY, "acme"))
        workspace.store("main").delete(ENTITY, "acme", [points[0].point_id])
    assert not run(world, instance, config={"mode": "full"}).success
    told = "3 partitions, all ended; checks failed in the last run of 1 of them: works|acme (counts, identity)"
    assert (runs().passed, runs().description) == (True, told)
    with world.workspace() as workspace:
        for _ in check_everything(workspace, ENTITY):
            pass
        workspace.repair(ENTITY, ENTITY, [*workspace.differences(ENTITY, ENTITY)])
        for _ in check_everything(workspace, ENTITY):
            pass
    assert run(world, instance, config={"partitions": ["works|brick"]}).success
    assert runs().description == "3 partitions, all ended well"


def test_checks_alone(world: World, instance: dg.DagsterInstance) -> None:
    """Executing only checks compares the partition as it is, syncs nothing, and names what is missing."""
    assert run(world, instance, config={"mode": "full"}).success
    with world.workspace() as workspace:
        [points] = list(workspace.store("main").scan(ENTITY, "acme"))
        workspace.store("main").delete(ENTITY, "acme", [points[0].point_id])
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(key("checks"), "identity"))
    definitions = build_definitions(world.config)
    definitions = dg.Definitions.merge(definitions, dg.Definitions(jobs=[dg.define_asset_job("only", selection)]))
    result = definitions.resolve_job_def("only").execute_in_process(instance=instance)
    assert result.success
    told = evaluations(result)
    assert {key: ok for key, ok in told.items() if key[0] == "identity"} == {
        ("identity", f"works|{tenant}"): tenant != "acme" for tenant in TENANTS
    }
    assert {key for key, ok in told.items() if not ok} == {("identity", "works|acme"), ("counts", "works|acme")}
    assert {name for (name, _), ok in evaluations(result, "health").items() if not ok} == {
        *("identity", "counts", "reconciliation")
    }
    assert len(world.stored()) == 11


def test_metadata_has_what_happened_and_no_text(world: World, instance: dg.DagsterInstance) -> None:
    """Figures that are not zero stand on the materialization of their stage, a full run's last runs on the last one; no
    document's text does."""
    first = told(run(world, instance, config={"mode": "full"}))
    counted = {"dagster/row_count": 4}
    assert {stage: numbers(metadata) for stage, metadata in first.items()} == {
        "export": counted | {"read_by_this_run": 4},
        "documents": counted | {"new": 4},
        "embeddings": counted | {"embedded": 4, "tokens": 12},
        "vectors": counted | {"new": 4, "upserted": 4},
    }
    assert len(records(first["vectors"]["last_runs"])) == 1
    world.update(next(row["id"] for row in world.rows() if row["tenant_id"] == "acme"), name="another")
    result = run(world, instance, config={"mode": "incremental"})
    assert not any({"last_runs", "trend"} & metadata.keys() for metadata in told(result).values())
    assert "Работа" not in str(result.all_events)


def told(result: dg.ExecuteInProcessResult) -> dict[str, Mapping[str, dg.MetadataValue]]:
    """Metadata of the materializations of acme, by stage."""
    events = (e for e in result.all_events if e.is_step_materialization and e.partition == "works|acme")
    return {event.materialization.asset_key.path[-1]: event.materialization.metadata for event in events}


def numbers(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, int | None]:
    return {name: one.value for name, one in metadata.items() if isinstance(one, dg.IntMetadataValue)}


def test_row_count_is_the_partitions_not_what_the_run_read(world: World, instance: dg.DagsterInstance) -> None:
    """An incremental run that read one record leaves a partition of four."""
    run(world, instance, config={"mode": "full"})
    world.update(next(row["id"] for row in world.rows() if row["tenant_id"] == "acme"), name="another")
    result = run(world, instance, partition_key="works|acme", config={"mode": "incremental"})
    events = [e.materialization for e in result.all_events if e.is_step_materialization]
    rows = {event.asset_key.path[-1]: event.metadata["dagster/row_count"].value for event in events}
    assert rows == dict.fromkeys(rows, 4)


def test_the_tables_that_are_read_say_what_and_where(world: World) -> None:
    """The source asset has a description, its kind, the columns that are read, and no secret of its connection."""
    graph = build_definitions(world.config).resolve_asset_graph()
    source = world.config.entities[ENTITY].source
    [found] = [graph.get(key) for key in graph.external_asset_keys if key.path[0] == source]
    assert found.description is not None
    assert ENTITY in found.description
    assert "`" not in found.description, "the UI shows it as it is"
    assert {"id", "tenant_id"} <= {column.name for column in found.metadata["dagster/column_schema"].columns}
    assert "://" not in str(found.metadata["connection"])


def test_the_nightly_schedule_asks_for_a_full_run_at_three(world: World, instance: dg.DagsterInstance) -> None:
    """03:00 UTC, running by default, and the run it asks for covers every tenant."""
    schedule = build_definitions(world.config).resolve_schedule_def("works_nightly")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    with dg.build_schedule_context(instance=instance) as context:
        [request] = schedule.evaluate_tick(context).run_requests or []
    assert run(world, instance, config=request.run_config["ops"]["works_sync"]["config"]).success
    assert materialized(instance) == ALL


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_a_source_that_is_away_is_red_until_it_is_back(world: World, instance: dg.DagsterInstance, mode: str) -> None:
    """All checks passed before, and none of them is made: `runs` says that nothing was synced."""
    assert run(world, instance, config={"mode": "full"}).success
    for before, after in (("works", "elsewhere"), ("elsewhere", "works")):
        with world.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {before} RENAME TO {after}"))
        result = run(world, instance, config={"mode": mode, "partitions": sorted(ALL)})
        assert result.success is (after == "works")
        assert evaluations(result, "health") == {("runs", None): after == "works"}
        [shown] = checked(result, "health")
        told, wrong = str(shown.description), after != "works"
        assert all(key in told for key in ALL) is wrong
        assert told.count("SOURCE_ERROR") == 2 * wrong, "once of the source, and once of all partitions together"
        counts = {name: value.value for name, value in shown.metadata.items() if isinstance(value, dg.IntMetadataValue)}
        assert counts == (
            {"partitions": 3, "failed": 3, "sources_failed": 1} if wrong else {"partitions": 3, "failed": 0}
        )
