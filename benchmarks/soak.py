"""Left running: `vecsync ui` over a PostgreSQL table that changes all the time, and what became of it.

    python -m benchmarks.soak --minutes 10
    python -m benchmarks.soak --minutes 3 --looks      # without triggers: the sensors look
    python -m benchmarks.soak --storage postgres       # Dagster's history in PostgreSQL instead of SQLite

Rows come, change, are marked as deleted and deleted, tenants come and go; the processes are killed once, and the
database is away for a while. At the end the store is compared with the table point by point; a difference fails the
command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import dagster as dg
import psycopg
import yaml

from vecsync_dagster.config import load_config
from vecsync_dagster.config.models import RetentionConfig
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.servers.postgres import new_database, postgres_server

__all__ = ["main"]

ENTITY = "items"
TABLE = f"""
CREATE TABLE {ENTITY} (
  id bigint PRIMARY KEY, tenant_id text NOT NULL, name text NOT NULL, description text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), deleted_at timestamptz
);
CREATE INDEX ON {ENTITY} (tenant_id, updated_at)
"""
GOALS_S = {False: (5.0, 15.0), True: (12.0, 30.0)}
"""p50 and p99 from a change to its being in the index: with a listener, and by looks alone."""
MONTH_GIB, STOP_S, LISTENER_SHARE = 4.0, 3.0, 0.15
_TICK = os.sysconf("SC_CLK_TCK")
_QUIET_S = 300.0


@dataclass
class Soak:
    """One run. `history`: the database that has Dagster's history, None if SQLite has. `changed`: of each record that
    was written last when, until the ledger has it."""

    folder: Path
    url: str
    rate: float
    tenants: int
    random: random.Random
    next_id: int
    history: str | None = None
    changed: dict[int, datetime] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def config(self) -> Path:
        return self.folder / "vecsync.yaml"

    def execute(self, statement: str, *values: object) -> list[tuple[int, datetime]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def change(self) -> None:
        """One statement: seven of ten are updates."""
        kind, tenant = self.random.random(), f"t{self.random.randrange(self.tenants):03}"
        one = f"(SELECT id FROM {ENTITY} WHERE tenant_id = %s AND deleted_at IS NULL ORDER BY random() LIMIT 1)"
        now = "updated_at = clock_timestamp()"
        back = "RETURNING id, clock_timestamp()"
        if kind < 0.7:
            text = f"UPDATE {ENTITY} SET description = %s, {now} WHERE id = {one} {back}"
            self.note(self.execute(text, f"changed {self.random.random()}", tenant))
        elif kind < 0.9:
            if self.random.random() < 0.1:
                tenant = f"new{self.next_id}"
            text = f"INSERT INTO {ENTITY} (id, tenant_id, name, description) VALUES (%s, %s, %s, 'new') {back}"
            self.note(self.execute(text, self.next_id, tenant, f"item {self.next_id}"))
            self.next_id += 1
        elif kind < 0.95:
            self.execute(f"UPDATE {ENTITY} SET deleted_at = clock_timestamp(), {now} WHERE id = {one} {back}", tenant)
        else:
            self.execute(f"DELETE FROM {ENTITY} WHERE id = {one} {back}", tenant)

    def note(self, rows: list[tuple[int, datetime]]) -> None:
        with self.lock:
            self.changed.update(rows)

    def look(self) -> int:
        """Take in what the ledger has synced since; returns how many changes it has not."""
        with self.lock:
            waiting = dict(self.changed)
        if not waiting:
            return 0
        marks = ",".join("?" * len(waiting))
        query = f"SELECT db_id, last_synced_at FROM index_state WHERE db_id IN ({marks}) AND last_synced_at IS NOT NULL"
        with contextlib.closing(sqlite3.connect(f"file:{self.folder}/state/ledger.sqlite?mode=ro", uri=True)) as ledger:
            found = ledger.execute(query, [str(key) for key in waiting]).fetchall()
        for db_id, synced in found:
            key, at = int(db_id), datetime.fromisoformat(synced)
            if at >= waiting[key]:
                self.delays.append((at - waiting[key]).total_seconds())
                with self.lock:
                    if self.changed.get(key) == waiting[key]:
                        del self.changed[key]
        return len(self.changed)

    def differences(self) -> list[str]:
        """The store compared with the table, point by point."""
        rows = self.rows()
        with Workspace(load_config(self.config)) as workspace:
            stored = {
                str(point.payload["dbId"]): (point.tenant, point.payload["name"], point.payload["description"])
                for page in workspace.store_of(ENTITY, ENTITY).scan(ENTITY)
                for point in page
            }
        return [key for key in sorted(rows.keys() | stored.keys()) if rows.get(key) != stored.get(key)]

    def rows(self) -> dict[str, tuple[str, str, str]]:
        with psycopg.connect(self.url) as connection:
            query = f"SELECT id, tenant_id, name, description FROM {ENTITY} WHERE deleted_at IS NULL"
            return {str(key): (tenant, name, text) for key, tenant, name, text in connection.execute(query.encode())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2.0, help="changes a second")
    parser.add_argument("--looks", action="store_true", help="without triggers: the sensors look")
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite", help="of Dagster's history")
    parser.add_argument("--calm", action="store_true", help="nothing is killed and nothing goes away")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server() as server,
        new_database(server) as url,
        contextlib.ExitStack() as databases,
    ):
        soak = Soak(Path(folder), url, asked.rate, asked.tenants, random.Random(1), asked.rows)
        os.environ |= {"SOURCE_URL": url}
        os.environ.pop("DAGSTER_HOME", None)
        if asked.storage == "postgres":
            soak.history = databases.enter_context(new_database(server))
            keep_history(soak, soak.history)
        fill(soak, asked.rows)
        first = timed(lambda: vecsync(soak, "sync", "all", "--no-record"))
        if not asked.looks:
            vecsync(soak, "install-triggers")
        ui = start_ui(soak)
        time.sleep(30)  # it comes up
        began, history, cpu = time.monotonic(), size_of(soak), cpu_of(soak)
        ui = load(soak, ui, asked.minutes * 60, calm=asked.calm)
        waited = wait_until_quiet(soak)
        hours = (time.monotonic() - began) / 3600
        grown, spent, runs = size_of(soak) - history, cpu_of(soak) - cpu, runs_of(soak)
        ui.send_signal(signal.SIGTERM)
        stopped = timed(ui.wait)
        time.sleep(5)
        left = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-200:] for pid in processes(soak)]
        different = soak.differences()
    print(f"Dagster's runs: {', '.join(f'{count} of {job}' for job, count in runs.items())}")
    run = grown / 2**30 / max(1, runs.total())
    kept = [kept_of(count / hours * 24) for count in runs.values()]
    show(soak, asked.looks, first, waited, run * sum(kept), spent / hours / 3600, stopped)
    problems = [f"{len(different)} records differ: {different[:5]}"] * bool(different)
    problems += [f"these are left: {left}"] * bool(left) + ["not all was synced"] * (waited is None)
    if problems:
        sys.exit("; ".join(problems))
    print("the store equals the table, point by point")


def fill(soak: Soak, rows: int) -> None:
    with psycopg.connect(soak.url) as connection:
        connection.execute(TABLE.encode())
        with connection.cursor().copy(f"COPY {ENTITY} (id, tenant_id, name, description) FROM STDIN".encode()) as copy:
            for number in range(rows):
                copy.write_row((number, f"t{number % soak.tenants:03}", f"item {number}", f"what item {number} is"))
    settings = {
        "state": "state",
        "sources": {"db": {"type": "postgres", "url": {"env": "SOURCE_URL"}}},
        "stores": {"main": {"type": "qdrant", "path": "state/qdrant"}},
        "embedding": {"chain": [{"provider": "hash", "dimensions": 64}]},
        "automation": {"tenants": {"missing_for": 60}},
        "entities": {
            ENTITY: {
                "source": "db",
                "table": ENTITY,
                "tenancy": {"column": "tenant_id"},
                "updated_at": "updated_at",
                "deleted_at": "deleted_at",
                "collections": {ENTITY: {"text": "{name} {description}", "payload": ["name", "description"]}},
            }
        },
    }
    soak.config.write_text(yaml.safe_dump(settings), encoding="utf-8")


def keep_history(soak: Soak, url: str) -> None:
    """Dagster's instance as it is shipped, but for its storage."""
    home = soak.folder / "state" / "dagster"
    home.mkdir(parents=True)
    settings = yaml.safe_load(files("vecsync_dagster").joinpath("dagster.yaml").read_text(encoding="utf-8"))
    settings["storage"] = {"postgres": {"postgres_url": url}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def vecsync(soak: Soak, *arguments: str) -> None:
    command = [sys.executable, "-m", "vecsync_dagster.cli", *arguments, "--config", str(soak.config)]
    subprocess.run(command, check=True, capture_output=True)


def start_ui(soak: Soak) -> subprocess.Popen[bytes]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vecsync_dagster.cli", "ui", "--port", str(port), "--config", str(soak.config)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(soak.folder / "ui.log").open("ab"))


def load(soak: Soak, ui: subprocess.Popen[bytes], seconds: float, *, calm: bool) -> subprocess.Popen[bytes]:
    """The changes; a third in everything is killed, at two thirds the database is away for a tenth of the time."""
    end, killed, away = time.monotonic() + seconds, calm, calm
    following = threading.Thread(target=follow, args=(soak, end), daemon=True)
    following.start()
    while (left := end - time.monotonic()) > 0:
        if not killed and left < seconds * 2 / 3:
            killed = True
            for pid in processes(soak):
                os.kill(pid, signal.SIGKILL)
            ui.wait()
            ui = start_ui(soak)
        if not away and left < seconds / 3:
            away = True
            with closed(soak.url):
                time.sleep(seconds / 10)
        soak.change()
        time.sleep(soak.random.expovariate(soak.rate))
    following.join()
    return ui


def follow(soak: Soak, end: float) -> None:
    while time.monotonic() < end:
        soak.look()
        time.sleep(1)


@contextlib.contextmanager
def closed(url: str) -> Iterator[None]:
    """Nobody is let into the database."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    server = psycopg.conninfo.make_conninfo(url, dbname="template1")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


def wait_until_quiet(soak: Soak) -> float | None:
    """Seconds until the store is as the table is, for whatever came last; None if that never came."""
    began = time.monotonic()
    while time.monotonic() < began + _QUIET_S:
        soak.look()
        with contextlib.suppress(VecsyncError):  # somebody else has the store
            if not soak.differences():
                return time.monotonic() - began
        time.sleep(5)
    return None


def processes(soak: Soak) -> Iterator[int]:
    """All that run for this folder."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            named = str(soak.folder).encode()
            command = path.with_name("cmdline").read_bytes()
            if path.parent.name != str(os.getpid()) and (named in path.read_bytes() or named in command):
                yield int(path.parent.name)


def cpu_of(soak: Soak) -> float:
    """Seconds of CPU that the listener has used, with the processes that it waited for."""
    for pid in processes(soak):
        with contextlib.suppress(OSError):
            if b"--events-only" in Path(f"/proc/{pid}/cmdline").read_bytes():
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                return sum(int(value) for value in values[11:15]) / _TICK
    return 0.0


def size_of(soak: Soak) -> int:
    """Bytes of Dagster's history on disk: runs, events and the logs of processes."""
    held = 0
    if soak.history is not None:
        with psycopg.connect(soak.history) as connection:
            [(held,)] = connection.execute("SELECT pg_database_size(current_database())").fetchall()
    home = soak.folder / "state" / "dagster"
    return held + sum(path.stat().st_blocks * 512 for path in home.rglob("*") if path.is_file())


def runs_of(soak: Soak) -> Counter[str]:
    """How many runs Dagster has, by job."""
    with dg.DagsterInstance.from_config(str(soak.folder / "state" / "dagster")) as instance:
        return Counter(run.job_name for run in instance.get_runs())


def kept_of(a_day: float) -> float:
    """How many runs of a job are left after a month, just before the nightly deletion."""
    settings = RetentionConfig()
    return min(a_day * settings.dagster_runs.days, settings.dagster_runs_per_job) + a_day


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def show(
    soak: Soak, looks: bool, first: float, waited: float | None, month: float, share: float, stopped: float
) -> None:
    half, most = GOALS_S[looks]
    ordered = sorted(soak.delays) or [float("nan")]
    lines = [
        ("first sync of all tenants, s", first, None),
        ("changes followed", len(soak.delays), None),
        ("change to index, p50, s", statistics.median(ordered), half),
        ("change to index, p99, s", ordered[int(len(ordered) * 0.99)], most),
        ("quiet after the last change, s", float("nan") if waited is None else waited, None),
        ("Dagster's history after a month, GiB", month, MONTH_GIB),
        ("of a core for the listener", share, None if looks else LISTENER_SHARE),
        ("vecsync ui after SIGTERM, s", stopped, STOP_S),
    ]
    print("| | measured | goal |\n|---|---|---|")
    for what, value, goal in lines:
        print(f"| {what} | {value:.2f} | {'' if goal is None else f'<= {goal:g}'} |")


if __name__ == "__main__":
    main()
