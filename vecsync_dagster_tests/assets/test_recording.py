"""What a command-line sync leaves in the Dagster instance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.utils import make_new_run_id

from vecsync_dagster.assets.recording import CLI_JOB, dagster_home, end_orphans, is_ours, open_instance, record
from vecsync_dagster.automation.partitions import add_tenants, tenants_name
from vecsync_dagster.cli.reporting import is_recorded
from vecsync_dagster.errors import ConfigError, LedgerUnavailable
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync import CHECKS, STAGES, SyncOptions
from vecsync_dagster_tests.world import ENTITY, World, file_of

EVENTS = len(STAGES) + len(CHECKS) - 1  # one collection alone has no check `collections`
VECTORS = dg.AssetKey([ENTITY, "vectors"])


def sync_and_record(world: World, mode: str) -> int:
    with world.workspace() as workspace:
        results = []
        for selection in workspace.select([ENTITY]):
            results += workspace.sync(selection, SyncOptions(mode="full" if mode == "full" else None))
        return record(workspace, results).events


@pytest.fixture(autouse=True)
def _own_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def test_a_sync_is_recorded_as_a_run(world: World) -> None:
    """Partitions, materializations and checks are in the instance, under one successful run; again and again."""
    assert sync_and_record(world, "full") == 3 * EVENTS
    assert sync_and_record(world, "full") == 0  # unchanged: no event
    world.update(11, name="иначе")
    assert sync_and_record(world, "full") == EVENTS  # a second evaluation of the same check and partition
    with open_instance(world.config) as instance:
        assert instance.get_materialized_partitions(VECTORS) == {"works|global", "works|acme", "works|brick"}
        runs = instance.get_runs()
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2


def test_a_run_lasts_as_long_as_its_sync(world: World) -> None:
    """Not as long as it took to record it."""
    with world.workspace() as workspace:
        results = [one for chosen in workspace.select([ENTITY]) for one in workspace.sync(chosen, SyncOptions())]
        began = min(one.started_at for one in results)
        run_id = record(workspace, results).run_id
    with open_instance(world.config) as instance:
        run = instance.get_run_record_by_id(run_id)
        assert run is not None
        assert run.start_time == pytest.approx(began.timestamp(), abs=0.01)


def test_a_sync_that_failed_is_a_run_that_failed(world: World) -> None:
    """The UI shows the failure that the command line showed."""
    world.insert([{"id": 99, "tenant_id": "a|b"}])
    sync_and_record(world, "full")
    with open_instance(world.config) as instance:
        [run] = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE
        assert len(instance.get_materialized_partitions(VECTORS)) == 3


def test_first_syncs_at_once_leave_a_sound_instance(tmp_path: Path, world: World) -> None:
    """Processes that make the instance's storage at the same moment wait for each other."""
    config = file_of(world.config, tmp_path)
    code = (
        "import sys; from pathlib import Path; from vecsync_dagster.config import load_config; "
        "from vecsync_dagster.assets.recording import prepare_instance; "
        "prepare_instance(load_config(Path(sys.argv[1])))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(config)]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    sync_and_record(world, "full")
    with open_instance(world.config) as instance:
        assert len(instance.get_materialized_partitions(VECTORS)) == 3


def test_a_dagster_home_that_is_no_folder_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong DAGSTER_HOME is an error of the configuration, with its value."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"DAGSTER_HOME.*nowhere"):
        dagster_home(world.config)


def test_a_dagster_home_is_trimmed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like every other value of the environment; of nothing but blanks nothing is left."""
    monkeypatch.setenv("DAGSTER_HOME", f" {tmp_path}\n")
    assert (dagster_home(world.config), is_ours(), is_recorded(world.config)) == (tmp_path, False, True)
    monkeypatch.setenv("DAGSTER_HOME", " \n")
    assert (is_ours(), is_recorded(world.config)) == (True, False)
    assert dagster_home(world.config) == world.config.state_folder / "dagster"


def test_a_tenant_of_several_collections_is_added_once(world: World) -> None:
    """Each of its collections has a result, and the first of them makes the partition."""
    with open_instance(world.config) as instance:
        for _ in range(2):
            add_tenants(instance, "tools", ["global", "global", "acme", "global"])
        assert instance.get_dynamic_partitions(tenants_name("tools")) == ["global", "acme"]


def test_runs_whose_process_is_gone_are_ended(world: World) -> None:
    """They hold no slot of a pool any more, and Dagster may start them again, but not what the command line recorded;
    what has not begun, begins."""
    states = {
        ("works_job", "STARTED"): "FAILURE",
        ("works_job", "STARTING"): "FAILURE",
        ("works_job", "CANCELING"): "CANCELED",
        ("works_job", "NOT_STARTED"): "NOT_STARTED",
        (CLI_JOB, "STARTED"): "CANCELED",
    }
    with open_instance(world.config) as instance:
        ids = {}
        for job, status in states:
            run = DagsterRun(job_name=job, run_id=make_new_run_id(), status=dg.DagsterRunStatus[status])
            ids[job, status] = instance.add_run(run).run_id
        storage = instance.event_log_storage
        storage.set_concurrency_slots("pool", 1)
        storage.claim_concurrency_slot("pool", ids["works_job", "STARTED"], "sync")
        assert end_orphans(instance) == 4
        found = {place: instance.get_run_by_id(run_id) for place, run_id in ids.items()}
        assert {place: run.status.value for place, run in found.items() if run is not None} == states
        assert storage.get_concurrency_info("pool").active_slot_count == 0


def test_a_recording_that_was_killed_ends_with_the_next_one(world: World) -> None:
    """Four of them would take all the places in Dagster's queue."""
    with open_instance(world.config) as instance:
        killed = instance.add_run(
            DagsterRun(job_name=CLI_JOB, run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED)
        )
    sync_and_record(world, "full")
    with open_instance(world.config) as instance:
        [ended] = instance.get_runs(dg.RunsFilter(run_ids=[killed.run_id]))
        assert ended.status is dg.DagsterRunStatus.CANCELED


def test_a_sync_whose_check_failed_is_a_run_that_failed(world: World) -> None:
    """Its log ends with the check's name, as the logs of Dagster's own runs do."""
    world.only_report()
    sync_and_record(world, "full")
    with world.workspace() as workspace:
        store = workspace.store("main")
        [point, *_] = next(iter(store.scan(ENTITY, "acme")))
        store.delete(ENTITY, "acme", [point.point_id])
    sync_and_record(world, "full")
    with open_instance(world.config) as instance:
        last, first = instance.get_runs()
        assert (first.status, last.status) == (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
        said = [entry.user_message for entry in instance.all_logs(last.run_id)]
        assert any(line.startswith("failed checks of this run: ") and "identity of works|acme" in line for line in said)


def test_a_ledger_that_is_lost_after_some_partitions_leaves_a_failed_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was synced cannot be told; that the sync failed can."""
    with world.workspace() as workspace:
        [first, *_] = workspace.select([ENTITY])
        results = workspace.sync(first, SyncOptions(mode="full"))

        def away(*_: object, **__: object) -> None:
            raise LedgerUnavailable("away")

        monkeypatch.setattr(SqlLedger, "runs", away)
        monkeypatch.setattr(SqlLedger, "check_results", away)
        assert record(workspace, results, {ENTITY: LedgerUnavailable("away")}).run_id
    with open_instance(world.config) as instance:
        [run] = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_a_sync_that_was_interrupted_is_no_success(world: World) -> None:
    """Also where it was stopped before anything was worth an event."""
    sync_and_record(world, "full")
    with world.workspace() as workspace:
        assert record(workspace, [], interrupted=True).run_id
    with open_instance(world.config) as instance:
        last, _ = instance.get_runs()
        assert last.status is dg.DagsterRunStatus.FAILURE
