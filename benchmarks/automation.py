"""A thousand tenants under Dagster itself: SQLite for source, ledger and Dagster's storage, the embedded Qdrant as the
store, hash vectors. Each function is one thing that is measured; the state folder holds what the next one needs."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

    from vecsync_dagster.config import Config

__all__ = ["changes_tick", "definitions", "first_sync", "tenants_tick", "unchanged_run"]

ENTITY = "records"


def definitions(source: Path, ledger: Path, *_: object) -> dict[str, Any]:
    """Import, configuration, and all that Dagster asks of the definitions when it loads them."""
    import dagster as dg

    loaded = _definitions(source, ledger)
    dg.Definitions.validate_loadable(loaded)
    return _told(jobs=len(list(loaded.resolve_all_job_defs())))


def first_sync(source: Path, ledger: Path, *_: object) -> dict[str, Any]:
    """Without Dagster, whose ten events for each partition take minutes where a disk is slow to sync."""
    from vecsync_dagster.sync import Workspace

    logging.disable(logging.WARNING)
    with Workspace(_config(source, ledger)) as workspace:
        workspace.look_ahead(ENTITY)
        tenants = [selection.tenant for selection in workspace.select([ENTITY]) if workspace.sync(selection)]
        points = workspace.store_of(ENTITY, ENTITY).count(ENTITY)
    _know(ledger.parent / "dagster", tenants)
    return _told(points=points)


def tenants_tick(source: Path, ledger: Path, *_: object) -> dict[str, Any]:
    """Every tenant is new: all become partitions, and one run is asked for."""
    with _instance(ledger.parent / "empty") as instance:
        result = _tick(instance, source, ledger, f"{ENTITY}_tenants")
        for change in result.dynamic_partitions_requests or []:
            instance.add_dynamic_partitions(change.partitions_def_name, list(change.partition_keys))
    return _told(asked=len(result.run_requests or []))


def changes_tick(source: Path, ledger: Path, *_: object) -> dict[str, Any]:
    """Every tenant is looked at, and none has changed."""
    with _instance(ledger.parent / "dagster") as instance:
        result = _tick(instance, source, ledger, f"{ENTITY}_changes")
    return _told(asked=len(result.run_requests or []))


def unchanged_run(source: Path, ledger: Path, *_: object) -> dict[str, Any]:
    """The nightly run: every tenant in full, every point compared."""
    from vecsync_dagster.sync import Workspace

    logging.disable(logging.WARNING)
    job = _definitions(source, ledger).resolve_job_def(f"{ENTITY}_job")
    config = {
        "ops": {f"{ENTITY}_sync": {"config": {"mode": "full"}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    with _instance(ledger.parent / "dagster") as instance:
        job.execute_in_process(instance=instance, run_config=config)
    with Workspace(_config(source, ledger)) as workspace:
        runs = workspace.ledger.runs(ENTITY, limit=100_000)
        points = workspace.store_of(ENTITY, ENTITY).count(ENTITY)
    return _told(points=points, runs=len(runs))


def _know(home: Path, tenants: list[str]) -> None:
    """Tell an instance that all are partitions, materialized and well; made in memory where possible, then copied."""
    import dagster as dg
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

    from benchmarks.vecsync_pass import entity
    from vecsync_dagster.automation.partitions import add_tenants, partition_key
    from vecsync_dagster.checks import grid_key
    from vecsync_dagster.sync import checks_of

    memory = Path("/dev/shm")  # noqa: S108 (only where it exists, and under a name of its own)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        with _instance(Path(folder) / "dagster") as instance:
            add_tenants(instance, ENTITY, tenants)
            for tenant in tenants:
                event = dg.AssetMaterialization(
                    dg.AssetKey([ENTITY, "vectors"]), partition=partition_key(ENTITY, tenant)
                )
                instance.report_runless_asset_event(event)
            # One event each would take minutes; the last one of each check has one, which is the check's headline.
            checks, last = [*checks_of(entity(tenants=True))], tenants[-1]
            passed = [
                {
                    "asset_key": grid_key(ENTITY).to_string(),
                    "check_name": check,
                    "partition": partition_key(ENTITY, tenant),
                    "run_id": "",
                    "execution_status": "SUCCEEDED",
                    "evaluation_event_storage_id": number,
                }
                for number, (tenant, check) in enumerate(product(tenants[:-1], checks), 1)
            ]
            assert isinstance(instance.event_log_storage, SqlEventLogStorage)
            with instance.event_log_storage.index_connection() as connection:
                connection.execute(AssetCheckExecutionsTable.insert(), passed)
            for check in checks:
                key = partition_key(ENTITY, last)
                made = dg.AssetCheckEvaluation(
                    asset_key=grid_key(ENTITY), check_name=check, passed=True, partition=str(key)
                )
                instance.report_runless_asset_event(made)
        shutil.copytree(Path(folder) / "dagster", home)


def _tick(instance: dg.DagsterInstance, source: Path, ledger: Path, name: str) -> dg.SensorResult:
    import dagster as dg

    sensor = _definitions(source, ledger).resolve_sensor_def(name)
    result = sensor(dg.build_sensor_context(instance))
    assert isinstance(result, dg.SensorResult)
    return result


def _definitions(source: Path, ledger: Path) -> dg.Definitions:
    from vecsync_dagster.definitions import build_definitions

    return build_definitions(_config(source, ledger))


def _config(source: Path, ledger: Path) -> Config:
    from benchmarks.vecsync_pass import entity
    from vecsync_dagster.config import Config

    record = entity(tenants=True)
    return Config.model_validate(
        {
            "sources": {"db": {"type": "sqlite", "path": str(source)}},
            "entities": {ENTITY: record.model_dump(mode="json", exclude_unset=True)},
            "embedding": {"chain": [{"provider": "hash", "dimensions": 384}]},
            "stores": {"main": {"type": "qdrant", "path": "qdrant"}},
            "state": ".",
        }
    ).with_folder(ledger.parent)


@contextmanager
def _instance(home: Path) -> Iterator[dg.DagsterInstance]:
    import dagster as dg

    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _told(**found: int) -> dict[str, Any]:
    return {"fetched": 0, "failed_checks": [f"{name}: {number}" for name, number in found.items()]}
