"""`vecsync ui`: Dagster's own webserver on the same state."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from vecsync_dagster.cli.kept_up import STARTS, _copy_plain
from vecsync_dagster.cli.ui import _locked
from vecsync_dagster_tests.cli.program import start, vecsync

PATIENCE_S = 120


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 (our own server)
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_a_port_that_is_taken_is_said_at_once(asked: Path) -> None:
    """A taken port is one line that says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = vecsync("ui", "--port", str(port), "--config", asked)
    assert ran.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
    assert "--port" in ran.err


def test_the_ui_comes_up_and_ends_with_a_signal(config: Path) -> None:
    """The page answers at the URL that was printed; SIGTERM ends webserver and daemon, exit code 130."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start("ui", "--port", str(port), "--config", config)
    url = f"http://127.0.0.1:{port}/server_info"
    pause = threading.Event()
    try:
        for _ in range(PATIENCE_S * 4):
            if process.poll() is not None or answers(url):
                break
            pause.wait(0.25)
        assert answers(url)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert f"http://127.0.0.1:{port}" in err
    assert not answers(url)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A `vecsync ui` whose Dagster is a process that waits, and the id of that process."""
    code = (
        "import os, sys; from pathlib import Path; from vecsync_dagster.cli.kept_up import KeptUp\n"
        "from vecsync_dagster.cli.ui import _locked\n"
        "home = Path(sys.argv[1])\n"
        "with _locked(home, if_alone=lambda: None) as lock:\n"
        "    wait = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        "    environment = {**os.environ, 'VECSYNC_CONFIG': str(home / 'x')}\n"
        "    os._exit(KeptUp([sys.executable, '-c', wait], environment, lock, None, lambda: None).run())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    waiting = int(process.stderr.readline())
    yield process, waiting
    process.kill()
    process.communicate()
    with suppress(ProcessLookupError):
        os.killpg(waiting, signal.SIGKILL)


def test_a_terminal_that_is_closed_ends_dagster_as_well(served: tuple[subprocess.Popen[bytes], int]) -> None:
    process, waiting = served
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=PATIENCE_S) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(waiting, 0)


def test_dagster_goes_on_when_nobody_reads_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds would make Dagster wait."""

    def refuse(_: bytes) -> None:
        raise BrokenPipeError

    stderr = SimpleNamespace(buffer=SimpleNamespace(write=refuse, flush=lambda: None))
    code = "for _ in range(50_000): print('line of a process that goes on')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        monkeypatch.setattr(sys, "stderr", stderr)
        _copy_plain(process.stdout)
        assert process.wait(timeout=PATIENCE_S) == 0


def test_dagster_that_dies_is_started_again_a_few_times(served: tuple[subprocess.Popen[bytes], int]) -> None:
    """`dagster dev` ends where its daemon or its webserver dies."""
    process, waiting = served
    assert process.stderr is not None
    for _ in range(STARTS - 1):
        os.kill(waiting, signal.SIGKILL)
        assert b"started again" in process.stderr.readline()
        waiting = int(process.stderr.readline())
    os.kill(waiting, signal.SIGKILL)
    assert b"stays down" in process.stderr.readline()
    assert process.wait(timeout=PATIENCE_S) == 1


def test_dagster_that_was_started_again_ends_when_it_is_asked(served: tuple[subprocess.Popen[bytes], int]) -> None:
    process, waiting = served
    assert process.stderr is not None
    os.kill(waiting, signal.SIGKILL)
    process.stderr.readline()
    waiting = int(process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(waiting, 0)


def test_nobody_ends_the_runs_of_a_dagster_that_was_left_behind(
    served: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    """It outlives a `vecsync ui` that is killed, and so does its lock."""
    process, waiting = served
    process.kill()
    process.wait(timeout=PATIENCE_S)
    assert not is_alone(tmp_path)
    os.kill(waiting, signal.SIGKILL)
    for _ in range(PATIENCE_S * 10):
        if is_alone(tmp_path):
            return
        threading.Event().wait(0.1)
    pytest.fail("the lock was not given back")


def is_alone(home: Path) -> bool:
    """Whether a `vecsync ui` that began now would take itself for the only one."""
    called: list[bool] = []
    with _locked(home, if_alone=lambda: called.append(True)):
        return bool(called)


def test_a_third_ui_ends_no_runs_of_the_second(tmp_path: Path) -> None:
    """The first one has ended; the second still carries out runs."""
    with ExitStack() as second:
        with _locked(tmp_path, if_alone=lambda: None):
            second.enter_context(_locked(tmp_path, if_alone=lambda: pytest.fail("there is another one")))
        assert not is_alone(tmp_path)
    assert is_alone(tmp_path)
