"""`vecsync ui` also listens: what changes is synced at once, whoever dies, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from vecsync_dagster.cli.beside import Beside
from vecsync_dagster.config.automation import AutomationConfig
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.automation.test_runs_by_itself import exact
from vecsync_dagster_tests.cli.program import Ran, start, vecsync
from vecsync_dagster_tests.cli.test_watch import listeners, triggers, world
from vecsync_dagster_tests.world import World, file_of

__all__ = ["world"]

SLOW = {
    "tenants": {"interval": 3600},
    "changes": {"interval": 3600},
    "watch": {"poll": 3600, "debounce": 0.1, "record": 1},
}
pytestmark = pytest.mark.timeout(400)


@contextmanager
def ui(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Its log goes to a file: a pipe that nobody reads would stop Dagster when it is full."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "vecsync_dagster.cli", "ui", "--port", port]
    with (folder / "ui.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--config", str(folder / "vecsync.yaml")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def watching(folder: Path) -> list[int]:
    """The processes that listen for this folder's configuration."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes()
            if b"watch" in command and str(folder).encode() in command:
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """All is synced, the triggers are there, and no sensor looks within the hour."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    config = world.config.model_copy(update={"automation": AutomationConfig.model_validate(SLOW)})
    file_of(config, tmp_path)
    assert vecsync("sync", "all", "--no-record", "--config", tmp_path / "vecsync.yaml").code == 0
    assert triggers(world).code == 0
    return world


def test_a_change_is_synced_at_once_whoever_dies(told: World, tmp_path: Path, postgres_database: str) -> None:
    """By the listener that `vecsync ui` keeps alive; `status` knows of it; nobody is left when `ui` has ended."""
    with ui(tmp_path) as process:
        wait_for("the listener", lambda: listeners(postgres_database))
        told.insert([{"id": 100, "tenant_id": "acme"}])
        wait_for("a new row", lambda: exact(told))
        wait_for("its word", lambda: "works: listening to its changes since" in status(tmp_path).err, 10)
        [first] = watching(tmp_path)
        os.kill(first, signal.SIGKILL)
        wait_for("another listener", lambda: watching(tmp_path) not in ([], [first]) and listeners(postgres_database))
        told.insert([{"id": 101, "tenant_id": "acme"}])
        wait_for("a row of which the second one was told", lambda: exact(told))
    assert process.returncode == 130
    assert watching(tmp_path) == []
    assert status(tmp_path, "--json").json["listening"] == []


def status(folder: Path, *options: str) -> Ran:
    return vecsync("status", *options, "--config", folder / "vecsync.yaml")


@contextmanager
def listening(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "vecsync_dagster.cli", "watch", "--events-only", "--until-stdin-ends"]
    process = subprocess.Popen(
        [*command, "--config", str(folder / "vecsync.yaml")], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_for("the listener", lambda: listeners(url))
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_ends_in_order(told: World, tmp_path: Path, postgres_database: str) -> None:
    """While who started it still holds its standard input open."""
    with listening(tmp_path, postgres_database) as process:
        wait_for("its word", lambda: status(tmp_path, "--json").json["listening"], 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert b"Fatal" not in process.stderr.read()
    assert status(tmp_path, "--json").json["listening"] == []


def test_it_looks_for_what_came_before_it_listened(told: World, tmp_path: Path, postgres_database: str) -> None:
    """Of tenants that were synced before; new ones are the sensors', who make partitions of them."""
    told.insert([{"id": 100, "tenant_id": "acme"}, {"id": 101, "tenant_id": "new"}])
    with listening(tmp_path, postgres_database), told.workspace() as workspace:
        wait_for("the known tenant's", lambda: workspace.ledger.tally("works", "works", "acme").held == 5)
        assert workspace.ledger.with_rows("works") == ["acme", "global"]


def test_nobody_is_heard_without_triggers(told: World, tmp_path: Path, postgres_database: str) -> None:
    """Somebody listens, and will never be told anything."""
    assert triggers(told, "--remove").code == 0
    process = start("watch", "--no-record", "--config", tmp_path / "vecsync.yaml")
    try:
        wait_for("the listener", lambda: listeners(postgres_database))
        time.sleep(3)
        assert status(tmp_path, "--json").json["listening"] == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_process_beside_is_asked_to_end_once() -> None:
    """A second signal would cut it short; and it is given the time it needs."""
    slow = (
        "import signal, sys, time\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "print('up', flush=True)\n"
        "while not asked: time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "sys.exit(7 if len(asked) == 1 else 1)\n"
    )
    beside = Beside([sys.executable, "-c", slow], dict(os.environ))
    beside.tend()
    process = beside._process
    assert process is not None
    time.sleep(1)
    beside.ask()
    beside.ask()
    beside.end(20)
    assert process.returncode == 7


def test_nobody_listens_for_a_ui_that_was_killed(told: World, tmp_path: Path, postgres_database: str) -> None:
    with ui(tmp_path) as process:
        wait_for("the listener", lambda: listeners(postgres_database))
        assert len(watching(tmp_path)) == 1
        children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        process.kill()
        wait_for("its end", lambda: not watching(tmp_path))
        for child in children:  # Dagster goes on by itself
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
