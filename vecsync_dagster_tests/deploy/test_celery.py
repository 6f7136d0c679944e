"""Runs on Celery workers: a backfill that Dagster cuts into runs, carried out by two worker processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration

from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync import STAGES
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.world import ENTITY, World, config_of, file_of

DEPLOY = Path(__file__).parents[2] / "deploy"
RANGES = 3  # a worker has one run, and keeps one more at most: the other one gets the third
PATIENCE_S = 240

# The module of deploy/, with a broker of files in place of a server.
WORKER_CONFIG = """
broker_url = "filesystem://"
result_backend = "file://{folder}/results"
worker_prefetch_multiplier = 1
broker_transport_options = {transport}
"""


@pytest.fixture
def databases(postgres_url: str) -> Iterator[tuple[str, str]]:
    """Dagster's and the ledger's."""
    with new_database(postgres_url) as storage, new_database(postgres_url) as ledger:
        SqlLedger.open(ledger).close()
        yield storage, ledger


@pytest.fixture
def home(tmp_path: Path, databases: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME with deploy/dagster-celery.yaml; runs go to the launcher at once, without a queue's daemon."""
    home = tmp_path / "home"
    for folder in ("queue", "done", "results", "python"):
        (home / folder).mkdir(parents=True)
    transport = {f"data_folder_{way}": str(home / "queue") for way in ("in", "out")}
    transport |= {"processed_folder": str(home / "done"), "control_folder": str(home / "control")}
    settings = yaml.safe_load((DEPLOY / "dagster-celery.yaml").read_text(encoding="utf-8"))
    settings["run_launcher"]["config"]["config_source"] = {"broker_transport_options": transport}
    settings["run_coordinator"] = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    del settings["concurrency"]["runs"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    config = WORKER_CONFIG.format(folder=home, transport=transport)
    (home / "python" / "dagster_celery_config.py").write_text(config, encoding="utf-8")
    for name, value in environment(home, databases).items():
        monkeypatch.setenv(name, value)
    return home


def environment(home: Path, databases: tuple[str, str]) -> dict[str, str]:
    storage, ledger = databases
    url = storage.removeprefix("postgresql://")
    user, _, rest = url.partition("@")
    address, _, name = rest.partition("/")
    host, _, port = address.partition(":")
    return {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_HOST": host,
        "DAGSTER_PG_PORT": port,
        "DAGSTER_PG_USER": user.partition(":")[0],
        "DAGSTER_PG_PASSWORD": user.partition(":")[2],
        "DAGSTER_PG_DB": name,
        "DAGSTER_COMPUTE_LOGS": str(home / "logs"),
        "CELERY_BROKER_URL": "filesystem://",
        "CELERY_RESULT_BACKEND": f"file://{home}/results",
        "LEDGER_URL": ledger,
        "VECSYNC_CONFIG": str(home.parent / "vecsync.yaml"),
    }


@contextmanager
def workers(home: Path, count: int) -> Iterator[list[Path]]:
    """Worker processes of one run at a time, as deploy/docker-compose.celery.yaml starts them; their logs."""
    path = os.pathsep.join([str(home / "python"), str(Path(__file__).parents[2])])
    logs = [home / f"worker{number}.log" for number in range(count)]
    with ExitStack() as stack:
        processes = []
        for number, log in enumerate(logs):
            command = [sys.executable, "-m", "celery", "-A", "dagster_celery.app", "worker", "-Q", "dagster"]
            command += ["--concurrency=1", "--loglevel=INFO", "-n", f"worker{number}@%h"]
            output = stack.enter_context(log.open("wb"))
            environment = {**os.environ, "PYTHONPATH": path}
            processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
        try:
            yield logs
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def backfill(workspace: WorkspaceProcessContext, tenants: list[str]) -> None:
    """What the UI's "Materialize" does with a choice of partitions, and after it the daemon."""
    instance = workspace.instance
    chosen = PartitionBackfill.from_asset_partitions(
        backfill_id="chosen",
        asset_graph=workspace.create_request_context().asset_graph,
        partition_names=[f"{ENTITY}|{tenant}" for tenant in tenants],
        asset_selection=[dg.AssetKey([ENTITY, stage]) for stage in STAGES],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config={"ops": {"works_sync": {"config": {"mode": "full"}}}},
    )
    instance.add_backfill(chosen)
    errors = [error for error in execute_backfill_iteration(workspace, logging.getLogger("backfill")) if error]
    assert not errors, errors


def ended(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs, when all of them have ended, or those there are when patience has."""
    pause = threading.Event()
    for _ in range(PATIENCE_S):
        runs = list(instance.get_runs())
        if all(run.is_finished for run in runs):
            return runs
        pause.wait(1)
    return runs


# Dagster's own backfill calls what it has deprecated itself; its launcher makes its Celery task anew for each run.
@pytest.mark.filterwarnings("ignore:Task name 'execute_job' is already registered")
@pytest.mark.timeout(400)  # workers start and import everything: on a busy machine that takes its time
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("partitions", [12, pytest.param(51, marks=pytest.mark.many)])
def test_two_workers_come_to_the_same_result_as_one_process(tmp_path: Path, home: Path, partitions: int) -> None:
    """A backfill of so many partitions on two workers leaves in store, ledger and UI what one process would."""
    tenants = [f"t{number:02d}" for number in range(partitions + RANGES - 1)]
    chosen = [
        tenant for number, tenant in enumerate(tenants) if number % (partitions // RANGES + 1) < partitions // RANGES
    ]
    with QdrantRest() as server:
        config = config_of(
            tmp_path,
            source={"type": "sqlite", "path": "source.db"},
            store={"type": "qdrant", "url": server.url},
            ledger={"url": {"env": "LEDGER_URL"}},
        )
        file_of(config, tmp_path)
        world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
        world.insert({"id": 10 * n + m, "tenant_id": tenant} for n, tenant in enumerate(chosen) for m in range(4))
        with workers(home, 2) as logs, dg.DagsterInstance.get() as instance:
            add_tenants(instance, ENTITY, tenants)
            target = ModuleTarget("vecsync_dagster.definitions", None, None, "vecsync")
            with WorkspaceProcessContext(instance, target) as workspace:
                backfill(workspace, chosen)
            runs = ended(instance)
            done = instance.get_materialized_partitions(dg.AssetKey([ENTITY, "vectors"]))
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}, [log.read_text() for log in logs]
        assert len(runs) == RANGES
        assert done == {f"{ENTITY}|{tenant}" for tenant in chosen}
        assert all("succeeded" in log.read_text() for log in logs), "a worker had nothing to do"
        world.assert_exact()
        again = world.sync(mode="full")
    assert len(again) == len(chosen) + 1
    assert not any(result.figures.touched for result in again)
