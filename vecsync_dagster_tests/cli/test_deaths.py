"""Left running: whatever of `vecsync ui` dies, it goes on; and a disk that is full for a while costs nothing."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.utils import make_new_run_id

from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.config.automation import AutomationConfig
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.automation.test_runs_by_itself import exact, fill
from vecsync_dagster_tests.cli.program import start, vecsync
from vecsync_dagster_tests.cli.test_listening import ui
from vecsync_dagster_tests.world import World, config_of, file_of

QUICK = {"tenants": {"interval": 5, "missing_for": 2}, "changes": {"interval": 3}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant", "lock_timeout_s": 30},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    fill(world)
    file_of(config.model_copy(update={"automation": AutomationConfig.model_validate(QUICK)}), tmp_path)
    return world


def parts_of(ui: int) -> Iterator[tuple[str, int]]:
    """Dagster's processes below it, by what they are."""
    names = {"grpc": "code server", "dagster._daemon": "daemon", "dagster_webserver": "webserver"}
    for process in psutil.Process(ui).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield from ((name, process.pid) for word, name in names.items() if word in process.cmdline())


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "who",
    ["code server", pytest.param("daemon", marks=pytest.mark.many), pytest.param("webserver", marks=pytest.mark.many)],
)
def test_the_ui_goes_on_whoever_dies(world: World, tmp_path: Path, who: str) -> None:
    """A part of Dagster is killed: sensors look again, a run that was cut short is ended, and in the end all processes
    are."""
    with ui(tmp_path) as process:
        wait_for("the first sync", lambda: exact(world))
        before = dict(parts_of(process.pid))
        run_id = cut_short(world)
        os.kill(before[who], signal.SIGKILL)
        wait_for("another one", lambda: dict(parts_of(process.pid)).get(who, before[who]) != before[who])
        world.insert([{"id": 100, "tenant_id": "acme"}])
        wait_for("what changed since", lambda: exact(world))
        with open_instance(world.config) as instance:
            run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.FAILURE
        known = psutil.Process(process.pid).children(recursive=True)
    assert process.returncode == 130
    assert not [one for one in known if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def cut_short(world: World) -> str:
    """A run whose process is gone."""
    with open_instance(world.config) as instance:
        run = DagsterRun(job_name="works_job", run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED)
        return instance.add_run(run).run_id


@pytest.mark.parametrize("room_kib", [0, 1024])
def test_a_full_disk_costs_nothing(world: World, tmp_path: Path, room_kib: int) -> None:
    """No file can become larger: the sync fails with a word of what is wrong and no traceback; with room it is made up
    for, and no file is left behind that is none."""
    config = tmp_path / "vecsync.yaml"
    limit = room_kib * 1024
    process = start("sync", "all", "--config", config, "--no-record")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, err = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in err) == (1, False), err
    ran = vecsync("sync", "all", "--full", "--no-record", "--config", config)
    assert ran.code == 0, ran.err
    assert exact(world)
