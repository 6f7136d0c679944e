"""Dagster as it runs in production, for tests: a code server, the webserver and the daemon as processes of their own.

Started on an ephemeral home; asked over the webserver's GraphQL, as the UI does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import yaml

from vecsync_dagster_tests.world import ENTITY

__all__ = ["Deployment", "deployment", "wait_for"]

PATIENCE_S = 120.0
LOCATION = "vecsync"
_AT = ("-h", "127.0.0.1", "-p")
T = TypeVar("T")

_PARTITIONS = """
query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeysByDimension { name partitionKeys } } }
}"""
_RUNS = """{
  runsOrError(limit: 500) { ... on Runs { results { runId status jobName startTime endTime tags { key value } } } }
}"""
_DRY_RUN = """
mutation($selector: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $selector, timestamp: $at) {
    ... on DryRunInstigationTick { evaluationResult { runRequests { runConfigYaml tags { key value } } } }
  }
}"""
_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""


def wait_for(what: str, look: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
    """The first answer of `look` that is true. Raises AssertionError that says what never came."""
    pause = threading.Event()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        pause.wait(0.3)
    raise AssertionError(f"it never came: {what}")


@dataclass
class Deployment:
    """`home`: DAGSTER_HOME. `environment`: what all processes get."""

    home: Path
    environment: Mapping[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_all(self) -> None:
        self._start_code()
        self._start_web()
        self.start_daemon()
        wait_for("the webserver", lambda: self._listens("web"))

    def start_pages(self) -> None:
        """What shows, and not what runs: the webserver without the daemon."""
        self._start_code()
        self._start_web()
        wait_for("the webserver", lambda: self._listens("web"))

    def _start_code(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as code, socket.create_server(("127.0.0.1", 0)) as web:
            self.ports = {"code": code.getsockname()[1], "web": web.getsockname()[1]}
        server = {"grpc_server": {"host": "127.0.0.1", "port": self.ports["code"], "location_name": LOCATION}}
        (self.home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [server]}))
        self._start("code", "dagster", "api", "grpc", "-m", "vecsync_dagster.definitions", *_AT, self._port("code"))
        wait_for("the code server", lambda: self._listens("code"))

    def _start_web(self) -> None:
        self._start("web", "dagster_webserver", "-w", "workspace.yaml", *_AT, self._port("web"))

    def start_daemon(self) -> None:
        self._start("daemon", "dagster._daemon", "run", "-w", "workspace.yaml")

    def kill_daemon(self) -> None:
        process = self.processes.pop("daemon")
        process.kill()
        process.wait()

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def log(self) -> str:
        """The ends of what the processes said."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.home.glob("*.log")))

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer's data. Raises AssertionError with what the webserver found wrong with the question."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['web']}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def partitions(self) -> set[str]:
        """The tenants, as the asset's page has them."""
        node = self.ask(_PARTITIONS, key={"path": [ENTITY, "vectors"]})["assetNodeOrError"]
        by_name = {one["name"]: one["partitionKeys"] for one in node["partitionKeysByDimension"]}
        return set(by_name["tenant"])

    def runs(self) -> list[dict[str, Any]]:
        """All runs: their id, status, job, times, and `tags` as a dictionary."""
        found = self.ask(_RUNS)["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def run_schedule(self, name: str, job: str) -> str:
        """What the schedule asks for now, launched: as its page does at a click. Returns the run's id."""
        place = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
        tick = self.ask(_DRY_RUN, selector={**place, "scheduleName": name}, at=time.time())["scheduleDryRun"]
        [request] = tick["evaluationResult"]["runRequests"]
        tags = [{"key": tag["key"], "value": tag["value"]} for tag in request["tags"]]
        params = {
            "selector": {**place, "jobName": job},
            "runConfigData": request["runConfigYaml"],
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        launched = self.ask(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def _port(self, name: str) -> str:
        return str(self.ports[name])

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.home,
                env={**os.environ, **self.environment, "DAGSTER_HOME": str(self.home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _listens(self, name: str) -> bool:
        assert self.processes[name].poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
        except OSError:
            return False
        return True


def _make_storage(home: Path) -> None:
    """Before several processes begin at once: those that make the same tables may wait for each other for ever."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
        instance.get_dynamic_partitions("")


@contextmanager
def deployment(home: Path, config: Path, storage: Mapping[str, Any] | None = None) -> Iterator[Deployment]:
    """Our own dagster.yaml, but for `storage` and how often the queue is looked at."""
    shipped = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text(encoding="utf-8"))
    settings = {**shipped, "run_queue": {"dequeue_interval_seconds": 1}}
    if storage is not None:
        settings["storage"] = dict(storage)
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    _make_storage(home)
    running = Deployment(home, {"VECSYNC_CONFIG": str(config)})
    try:
        running.start_all()
        yield running
    except (AssertionError, urllib.error.URLError) as error:
        error.add_note(running.log())
        raise
    finally:
        running.stop_all()
