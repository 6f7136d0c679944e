"""Make the pictures of docs/ui.md again: `python docs/pictures.py`, with the development dependencies and a Chromium.

The demo in a temporary folder, `vecsync ui` over it, and two things broken on purpose. It takes about two minutes.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vecsync_dagster.config import load_config
from vecsync_dagster.demo import CONFIG, DATABASE
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.chromium import Window, chromium

IMAGES = Path(__file__).parent / "images"
REJECTED = "11111111-1111-4111-8111-111111111111"
LOST = "22222222-2222-4222-8222-222222222222"
_SETTINGS = """
checks: {max_invalid_share: 0.2}
automation: {changes: {backoff: {base: PT1H}}}  # what failed is not tried again while the pictures are taken
"""
_COMMAND = (sys.executable, "-m", "vecsync_dagster.cli")
_RUNS = "{ runsOrError(limit: 20) { ... on Runs { results { runId status jobName } } } }"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / CONFIG
        _vecsync("demo", "--folder", folder)
        with file.open("a", encoding="utf-8") as config:
            config.write(_SETTINGS)
        with _ui(file) as url, chromium(url) as window:
            _lose_points(file)
            window.open_checks("materials", "checks").get_by_role("button", name="Execute all").click()
            _ended(url, "__ASSET_JOB")
            _lose_names(folder)
            _photograph(window, _ended(url, "materials_job"))


def _photograph(window: Window, failed: str) -> None:
    page = window.open("/assets", height=720)
    page.get_by_text("4 partitions").last.wait_for()
    _save(window, "catalog")

    page = window.open("/locations/vecsync/asset-groups/materials", width=2150, height=520)
    page.get_by_text("Passed").first.wait_for()
    _save(window, "asset-graph")

    window.open_checks("materials", "health", "identity")
    _save(window, "health")

    page = window.open_checks("materials", "checks", "identity")
    page.get_by_text("tenant-material").first.wait_for()
    _save(window, "check")

    page = window.open_grid("materials", "checks", "identity", width=1700)
    page.locator(f"[data-tooltip='{LOST}']").click()
    page.mouse.move(0, 0)
    page.get_by_text("Latest execution").wait_for()
    _save(window, "grid")

    page = window.open("/assets/materials/vectors?view=partitions", height=700)
    page.locator(f"[data-tooltip='{REJECTED}']").click()
    page.mouse.move(0, 0)
    page.get_by_text("Failed (1)").wait_for()
    _save(window, "partitions")

    page = window.open(f"/runs/{failed}", height=640)
    page.get_by_placeholder("Filter…").fill("failed checks")
    page.get_by_text("failed checks of this run:").first.wait_for()
    _save(window, "run")

    page = window.open("/automation", height=620)
    page.get_by_text("works_tenants").wait_for()
    _save(window, "automation")


def _save(window: Window, name: str) -> None:
    window.page.wait_for_load_state("networkidle")
    window.page.wait_for_timeout(1000)  # for what moves to come to rest
    window.page.screenshot(path=IMAGES / f"{name}.png")


# -- what is broken ------------------------------------------------------------------------------------


def _lose_names(folder: Path) -> None:
    """Of half a firm's materials. The next sync rejects them all and writes nothing."""
    changed = "UPDATE materials SET name = '', updated_at = datetime('now') WHERE tenant_id = ? AND id % 2"
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute(changed, (REJECTED,))


def _lose_points(file: Path) -> None:
    """Six points of another firm, outside vecsync. No sync needs to see it: "Execute all" does."""
    with Workspace(load_config(file)) as workspace:
        store = workspace.store("main")
        points = sorted(
            (point for page in store.scan("materials", LOST) for point in page), key=lambda one: one.payload["id"]
        )
        store.delete("materials", LOST, [point.point_id for point in points[:6]])


# -- `vecsync ui` --------------------------------------------------------------------------------------


@contextmanager
def _ui(file: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([*_COMMAND, "ui", "--port", str(port), "--config", str(file)]) as process:
        try:
            wait_for("the webserver", lambda: _answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5):
            return True
    except OSError:
        return False


def _ended(url: str, job: str) -> str:
    """The id of a run of the job, once it has ended."""

    def look() -> str | None:
        for run in _ask(url, _RUNS)["runsOrError"]["results"]:
            if run["jobName"] == job and run["status"] in ("SUCCESS", "FAILURE"):
                return str(run["runId"])
        return None

    return wait_for(f"the end of a run of {job}", look)


def _ask(url: str, query: str) -> Any:
    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["data"]


def _vecsync(*arguments: str | Path) -> None:
    subprocess.run([*_COMMAND, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
