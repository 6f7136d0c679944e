"""Signals: a real process in the middle of a sync, held there by a provider that is slow to answer."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import config_of, replace_in_config, start, vecsync
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer

PATIENCE_S = 60


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimensions=32) as server:
        yield server


@pytest.fixture
def slow(fresh: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo whose provider answers only when the test does; batches of ten, one at a time."""
    monkeypatch.setenv("TEST_KEY", "not-a-key")
    replace_in_config(
        fresh,
        "- {provider: hash, dimensions: 64}",
        f"- {{provider: openai, base_url: '{server.base_url}', api_key: {{env: TEST_KEY}}, dimensions: 32}}",
    )
    replace_in_config(
        fresh,
        "# sync: {mode: incremental, batch: 200, parallel: 3, skip_invalid: true}",
        "sync: {batch: 10, parallel: 1}",
    )
    return fresh


def begun(config: Path, server: OpenAIServer) -> tuple[subprocess.Popen[str], threading.Barrier]:
    """A sync that waits for the answer to its first batch."""
    gate = threading.Barrier(2)
    server.meet = gate
    process = start("sync", "all", "--no-record", "--config", config)
    waiting = threading.Event()
    for _ in range(PATIENCE_S * 20):
        if server.requests or process.poll() is not None:
            break
        waiting.wait(0.05)
    assert server.requests, process.communicate()
    return process, gate


def say(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal and wait until the process says that it has it."""
    process.send_signal(number)
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_sync_after_the_batch_in_flight(
    slow: Path, server: OpenAIServer, number: signal.Signals
) -> None:
    """A signal in mid-sync: the batch in flight is finished and known, the exit code is 130, and the next run
    goes on from there without a second payment."""
    process, gate = begun(slow, server)
    assert "stopping" in say(process, number)
    server.meet = None
    gate.wait(PATIENCE_S)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    paid = len(server.answered)
    assert paid == 10
    with Workspace(config_of(slow.parent), read_only=True) as workspace:
        ledger = workspace.ledger
        held = [ledger.tally("materials", "materials", one).held for one in ledger.with_rows("materials", "materials")]
    assert held == [paid], "nothing else was begun"

    again = vecsync("sync", "all", "--no-record", "--json", "--config", slow)
    assert again.code == 0, again.err
    assert len(server.answered) == len(set(server.answered)) == 272
    with Workspace(config_of(slow.parent)) as workspace:
        assert workspace.store("main").count("materials") + workspace.store("main").count("works") == 272


def test_a_second_signal_ends_a_sync_at_once(slow: Path, server: OpenAIServer) -> None:
    """Somebody who cannot wait for a provider that hangs says so twice."""
    process, gate = begun(slow, server)
    assert "stopping" in say(process, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 130
    process.communicate()
    server.meet = None
    gate.abort()
