"""Old runs of Dagster's go, and what the UI shows as the state of today stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

from vecsync_dagster.assets.purging import PURGE_JOB, purge
from vecsync_dagster.assets.recording import open_instance, record
from vecsync_dagster.checks import grid_key
from vecsync_dagster.config import Config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.sync import SyncOptions, checks_of
from vecsync_dagster_tests.assets.test_assets import ALL, materialized, run
from vecsync_dagster_tests.world import ENTITY, World

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


def test_the_job_and_its_schedule(world: World, instance: dg.DagsterInstance) -> None:
    """By default every day; the log says how many went."""
    definitions = build_definitions(keeping(world.config, days=0))
    schedule = definitions.resolve_schedule_def("purge_daily")
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
