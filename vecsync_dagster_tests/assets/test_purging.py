"""Dagster's old runs go, and what the UI shows as the state of today stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import build_failed_and_in_progress_partition_subset
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from vecsync_dagster.assets.purging import PURGE_JOB, purge
from vecsync_dagster.assets.recording import open_instance, record
from vecsync_dagster.automation.partitions import CLI_JOB, STATE_TAG, add_tenants, partitions_of, tenants_name
from vecsync_dagster.checks import grid_key, health_key
from vecsync_dagster.checks.headlines import RUNS, show_runs
from vecsync_dagster.config import Config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import SqlSource
from vecsync_dagster.sync import CheckOutcome, SyncOptions, checks_of
from vecsync_dagster_tests.assets.test_assets import ALL, materialized, run
from vecsync_dagster_tests.world import ENTITY, World

LATER = 10**9  # an event after all of these
JOBS = ["works_job", PURGE_JOB]


@pytest.fixture(autouse=True)
def _own_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@contextmanager
def stored(tmp_path: Path, postgres_url: str | None) -> Iterator[dg.DagsterInstance]:
    """An instance on SQLite files, or on PostgreSQL."""
    storage = {} if postgres_url is None else {"storage": {"postgres": {"postgres_url": postgres_url}}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=storage) as instance:
        yield instance


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    url = None
    if request.param == "postgres":
        url = str(request.getfixturevalue("postgres_database")).replace("postgresql://", "postgresql+psycopg2://")
    home = tmp_path / "home"
    home.mkdir()
    with stored(home, url) as instance:
        yield instance


def keeping(config: Config, *, days: float = 14, per_job: int = 5000) -> Config:
    retention = config.retention.model_copy(
        update={"dagster_runs": timedelta(days=days), "dagster_runs_per_job": per_job}
    )
    return config.model_copy(update={"retention": retention})


def files(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs that have anything on disk: events, or output."""
    root = Path(instance.root_directory)
    events = {path.name.partition(".")[0] for path in (root / "history" / "runs").glob("*.db*")}
    return {*events, *(path.name for path in (root / "storage").glob("*-*-*-*-*"))} - {"index"}


def grid(world: World, instance: dg.DagsterInstance) -> set[tuple[str, str, str]]:
    keys = [dg.AssetCheckKey(grid_key(ENTITY), name) for name in checks_of(world.config.entities[ENTITY])]
    states = instance.event_log_storage.get_asset_check_partition_info(keys)
    return {(one.check_key.name, str(one.partition_key), str(one.latest_execution_status)) for one in states}


def test_old_runs_go_and_the_state_of_today_stays(world: World, kept: dg.DagsterInstance) -> None:
    """Of three full runs the last one told of nothing; the others have what is shown of partitions and checks."""
    runs = [run(world, kept, config={"mode": "full"}).run_id]
    for number in (10, 20):
        world.update(number, name="иначе")
    world.update(11, name="иначе")
    runs += [run(world, kept, config={"mode": "full"}).run_id]
    quiet = run(world, kept, config={"mode": "full"}).run_id
    before = grid(world, kept)
    assert purge(kept, keeping(world.config), JOBS) == 0
    assert purge(kept, keeping(world.config, days=0), JOBS) == 1
    assert {one.run_id for one in kept.get_runs()} == {*runs}
    assert grid(world, kept) == before
    assert {stage: materialized(kept, stage) for stage in ("export", "vectors")} == {"export": ALL, "vectors": ALL}
    assert quiet not in files(kept)
    assert isinstance(kept.event_log_storage, SqlEventLogStorage)
    with kept.event_log_storage.index_connection() as connection:
        assert not connection.execute(
            sa.select(SqlEventLogStorageTable).where(SqlEventLogStorageTable.c.run_id == quiet)
        ).all()


@pytest.mark.parametrize(("limits", "left"), [({}, 5), ({"per_job": 2}, 2), ({"days": 0}, 1)])
def test_headlines_that_no_run_told_go(
    world: World, kept: dg.DagsterInstance, limits: dict[str, Any], left: int
) -> None:
    """By the same limits; the last one of each check stays, and what is no headline of ours."""
    for number in range(5):
        show_runs(kept, ENTITY, CheckOutcome(RUNS, False, f"{number} failed", {}))
        show_runs(kept, "theirs", CheckOutcome(RUNS, False, f"{number} failed", {}))
    purge(kept, keeping(world.config, **limits), [])
    storage = kept.event_log_storage
    told = {
        entity: [
            str(one.evaluation.description)
            for one in storage.get_asset_check_execution_history(dg.AssetCheckKey(health_key(entity), RUNS), limit=9)
            if isinstance(one.evaluation, dg.AssetCheckEvaluation)
        ]
        for entity in (ENTITY, "theirs")
    }
    everything = [f"{number} failed" for number in (4, 3, 2, 1, 0)]
    assert told == {ENTITY: everything[:left], "theirs": everything}
    assert isinstance(storage, SqlEventLogStorage)
    of_no_run = sa.select(SqlEventLogStorageTable).where(SqlEventLogStorageTable.c.run_id == "")
    for connect in (storage.index_connection, lambda: storage.run_connection("")):
        with connect() as connection:
            assert len(connection.execute(of_no_run).all()) == left + 5


def test_only_so_many_runs_of_a_job_are_kept(world: World, instance: dg.DagsterInstance) -> None:
    """The newest; the first of them all has the state of today, and stays as well."""
    first, *later = [run(world, instance, config={"mode": "full"}).run_id for _ in range(5)]
    assert purge(instance, keeping(world.config, per_job=2), JOBS) == 2
    assert {one.run_id for one in instance.get_runs()} == {first, *later[-2:]}


def test_runs_of_others_and_runs_under_way_stay(world: World, instance: dg.DagsterInstance) -> None:
    @dg.job
    def somebody_elses() -> None:
        pass

    theirs = somebody_elses.execute_in_process(instance=instance).run_id
    going = instance.add_run(dg.DagsterRun(job_name="works_job", status=dg.DagsterRunStatus.STARTED)).run_id
    assert purge(instance, keeping(world.config, days=0), JOBS) == 0
    assert {one.run_id for one in instance.get_runs()} == {theirs, going}


def ended(job: str, *assets: str, by: str | None = None) -> dg.DagsterRun:
    """A run of these assets of the entity, of another code location (`by`), if of any."""
    origin = None
    if by is not None:
        location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name=by), by)
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    return dg.DagsterRun(
        job_name=job,
        status=dg.DagsterRunStatus.SUCCESS,
        asset_selection=frozenset(dg.AssetKey([ENTITY, name]) for name in assets) or None,
        remote_job_origin=origin,
    )


def test_runs_of_another_location_stay(world: World, instance: dg.DagsterInstance) -> None:
    """Whatever its jobs and assets are called; and runs of assets that are not all ours."""
    theirs = [ended("works_job", by="theirs"), ended("any", "vectors", by="theirs"), ended("any", "vectors", "raw")]
    theirs.append(ended(CLI_JOB).with_tags({STATE_TAG: "theirs"}))
    for one in [*theirs, ended("any", "vectors"), ended("works_job"), ended(CLI_JOB)]:
        instance.add_run(one)
    assert purge(instance, keeping(world.config, days=0), []) == 1  # as the command line does: its own
    assert purge(instance, keeping(world.config, days=0), JOBS) == 2
    assert {one.run_id for one in instance.get_runs()} == {one.run_id for one in theirs}


def red(world: World, instance: dg.DagsterInstance, stage: str = "vectors") -> set[str]:
    """As the tab *Partitions* of an asset works it out."""
    partitions = partitions_of(ENTITY, world.config.entities[ENTITY])
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        failed, _, _ = build_failed_and_in_progress_partition_subset(
            instance, dg.AssetKey([ENTITY, stage]), partitions, LATER
        )
        return {str(key) for key in failed.get_partition_keys()}


@pytest.mark.parametrize("kept", ["sqlite", pytest.param("postgres", marks=pytest.mark.many)], indirect=True)
def test_a_partition_that_failed_stays_red(world: World, kept: dg.DagsterInstance) -> None:
    assert run(world, kept, config={"mode": "full"}).success
    for tenant in ("acme", "brick"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqlSource, "read", lambda *_: (_ for _ in ()).throw(SourceRejected("no")))
            assert not run(world, kept, partition_key=f"works|{tenant}", config={"mode": "full"}).success
    assert red(world, kept) == {"works|acme", "works|brick"}
    purge(kept, keeping(world.config, days=0), JOBS)
    assert red(world, kept) == {"works|acme", "works|brick"}


@pytest.mark.parametrize("kept", ["sqlite", pytest.param("postgres", marks=pytest.mark.many)], indirect=True)
def test_a_failed_run_goes_once_its_partitions_are_synced(world: World, kept: dg.DagsterInstance) -> None:
    """Nothing is red because of it any more, also where no run was planned for the partition since."""
    assert run(world, kept, config={"mode": "full"}).success
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlSource, "read", lambda *_: (_ for _ in ()).throw(SourceRejected("no")))
        failed = run(world, kept, config={"mode": "full"})
    assert red(world, kept) == ALL
    assert run(world, kept, config={"mode": "full"}).success
    assert red(world, kept) == set()
    purge(kept, keeping(world.config, days=0), JOBS)
    assert failed.run_id not in {one.run_id for one in kept.get_runs()}


def test_runs_of_a_tenant_that_is_gone_go(world: World, instance: dg.DagsterInstance) -> None:
    """The UI has no partition of it any more."""
    assert run(world, instance, config={"mode": "full"}).success
    world.insert([{"id": 500, "tenant_id": "delta"}])
    add_tenants(instance, ENTITY, ["delta"])
    only = {"mode": "full", "partitions": ["works|delta"]}
    gone = run(world, instance, config=only).run_id
    world.delete(500)
    run(world, instance, config={**only, "tenant_gone": True, "allow_removals": True})
    died = dg.DagsterRun(job_name="works_job", status=dg.DagsterRunStatus.FAILURE)
    instance.add_run(died)
    planned = dg.AssetKey([ENTITY, "vectors"]), "works|delta"
    instance.report_dagster_event(
        dg.DagsterEvent.build_asset_materialization_planned_event(
            "works_job", "works_sync", AssetMaterializationPlannedData(planned[0], partition=planned[1])
        ),
        died.run_id,
    )
    instance.delete_dynamic_partition(tenants_name(ENTITY), "delta")
    run(world, instance, config={"mode": "full"})
    purge(instance, keeping(world.config, days=0), JOBS)
    assert not {gone, died.run_id} & {one.run_id for one in instance.get_runs()}


def test_a_run_that_cannot_be_deleted_is_told_of(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays, and the others go. One whose output another purge deleted first is none that failed."""
    _, *quiet = [run(world, instance, config={"mode": "full"}).run_id for _ in range(4)]

    def delete_logs(prefix: list[str]) -> None:
        if prefix == [quiet[0]]:
            raise PermissionError(13, "Permission denied")
        raise FileNotFoundError

    monkeypatch.setattr(instance.compute_log_manager, "delete_logs", delete_logs)
    told: list[str] = []
    assert purge(instance, keeping(world.config, days=0), JOBS, tell=told.append) == 2
    assert told == [f"run {quiet[0]} cannot be deleted: Permission denied"]
    assert {quiet[0]} == {*quiet} & {one.run_id for one in instance.get_runs()}


def test_a_purge_that_fails_costs_no_recording(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sync is recorded before, and the purge is not tried again before tomorrow."""
    tried = []

    def fails(*_: object, **__: object) -> int:
        tried.append(1)
        raise OSError("the disk is gone")

    monkeypatch.setattr("vecsync_dagster.assets.recording.purge", fails)
    for number in range(2):
        world.update(11, name=f"иначе {number}")
        with world.workspace() as workspace:
            [selection] = workspace.select([ENTITY], ["acme"])
            assert record(workspace, workspace.sync(selection, SyncOptions(mode="full"))).run_id
    assert tried == [1]


def test_the_job_and_its_schedule(world: World, instance: dg.DagsterInstance) -> None:
    """By default every hour; the log says how many went."""
    definitions = build_definitions(keeping(world.config, days=0))
    schedule = definitions.resolve_schedule_def("purge_old_runs")
    assert (schedule.job_name, schedule.default_status) == (PURGE_JOB, dg.DefaultScheduleStatus.RUNNING)
    quiet = [run(world, instance, config={"mode": "full"}).run_id for _ in range(3)][1:]
    result = definitions.resolve_job_def(PURGE_JOB).execute_in_process(instance=instance)
    assert result.success
    assert not {one.run_id for one in instance.get_runs()} & {*quiet}
    assert "2 old runs deleted" in {entry.user_message for entry in instance.all_logs(result.run_id)}


def test_the_command_line_forgets_its_own(world: World) -> None:
    """Where nobody runs schedules: once a day, when it records. The first one has the state of some checks still."""
    world.config = keeping(world.config, per_job=1)
    recorded = []
    for number in range(3):
        world.update(11, name=f"иначе {number}")
        with world.workspace() as workspace:
            [selection] = workspace.select([ENTITY], ["acme"])
            recorded.append(record(workspace, workspace.sync(selection, SyncOptions(mode="full"))).run_id)
    with open_instance(world.config) as instance:
        assert {one.run_id for one in instance.get_runs()} == {*recorded}
        mark = Path(instance.root_directory) / "last_purged"
        mark.unlink()
    with world.workspace() as workspace:
        assert not record(workspace, workspace.sync(selection, SyncOptions(mode="full"))).run_id
    with open_instance(world.config) as instance:
        assert {one.run_id for one in instance.get_runs()} == {recorded[0], recorded[2]}
