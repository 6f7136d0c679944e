"""`vecsync ui`: Dagster's own webserver on the same state."""

from __future__ import annotations

import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

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
