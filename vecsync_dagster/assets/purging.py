"""Deleting Dagster's old runs, which it never does by itself: with their events, check results and output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from sqlalchemy import func, or_, select

from vecsync_dagster.assets.events import asset_key
from vecsync_dagster.automation.partitions import CLI_JOB, STATE_TAG, tenants_name
from vecsync_dagster.checks.evaluations import grid_key, health_key
from vecsync_dagster.config.models import Config
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import STAGES
from vecsync_dagster.words import number_of

__all__ = ["PURGE_JOB", "build_purge_job", "purge"]

PURGE_JOB: Final = "vecsync_purge_job"
_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 500
_E: Final = SqlEventLogStorageTable.c
_C: Final = AssetCheckExecutionsTable.c


def build_purge_job(settings: Config, jobs: Collection[str]) -> dg.JobDefinition:
    """`jobs`: the names of our jobs."""

    @dg.op(name="purge", out=dg.Out(dg.Nothing))
    def purge_op() -> None:
        context = dg.OpExecutionContext.get()
        own = context.run.remote_job_origin
        origin = None if own is None else own.repository_origin
        deleted = purge(context.instance, settings, jobs, origin=origin, tell=context.log.info)
        context.log.info("%s deleted", number_of(deleted, "old run"))

    @dg.job(
        name=PURGE_JOB,
        description="Delete Dagster's runs that are older than retention.dagster_runs, with their events and output",
        executor_def=dg.in_process_executor,
    )
    def vecsync_purge_job() -> None:
        purge_op()

    return vecsync_purge_job


def purge(
    instance: dg.DagsterInstance,
    config: Config,
    jobs: Collection[str],
    *,
    origin: RemoteRepositoryOrigin | None = None,
    most: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """Delete ended runs of `jobs`, of our assets and of the command line: those that are older than
    `retention.dagster_runs`, and of each job those beyond `retention.dagster_runs_per_job`; `most` so many. Returns how
    many. Results of checks that belong to no run go by the same limits.

    `origin`: the code location whose runs they are; others may have jobs and assets of the same names. Without `jobs`
    only runs of the command line go. A run stays if the UI would not know without it what it shows today: the last
    materialization of a partition, its last failure, or the last result of a check. One that cannot be deleted is told
    of, and stays. Nothing is deleted unless the storage is one of Dagster's SQL storages.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    own = {key for entity in config.entities for key in _keys(entity)}
    _forget_headlines(storage, config)

    def is_ours(run: dg.DagsterRun) -> bool:
        if run.job_name == CLI_JOB:
            return run.tags.get(STATE_TAG) in (None, config.project)
        return bool(jobs) and _is_ours(run, origin, jobs, own)

    old = _too_old(instance, config, is_ours)
    kept = _shown(instance, storage, config) if old else set()
    failed = _failed(instance, storage, config) if old else set()
    deleted = 0
    for run_id, status in old.items():
        if run_id in kept or (status is dg.DagsterRunStatus.FAILURE and run_id in failed):
            continue
        if deleted == most:
            break
        try:
            _delete(instance, storage, run_id)
        except OSError as error:
            tell(f"run {run_id} cannot be deleted: {error.strerror or type(error).__name__}")
            continue
        deleted += 1
        if not deleted % _PAGE:
            tell(f"{number_of(deleted, 'old run')} deleted so far")
    return deleted


def _keys(entity: str) -> list[dg.AssetKey]:
    return [*(asset_key(entity, stage) for stage in STAGES), grid_key(entity), health_key(entity)]


def _is_ours(
    run: dg.DagsterRun, origin: RemoteRepositoryOrigin | None, jobs: Collection[str], own: Collection[dg.AssetKey]
) -> bool:
    theirs = None if run.remote_job_origin is None else run.remote_job_origin.repository_origin
    if theirs != origin:
        return False
    selected = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    return run.job_name in jobs or (bool(selected) and selected <= {*own})


def _too_old(
    instance: dg.DagsterInstance, config: Config, is_ours: Callable[[dg.DagsterRun], bool]
) -> dict[str, dg.DagsterRunStatus]:
    """Ended runs by id, newest first."""
    before, per_job = datetime.now(UTC) - config.retention.dagster_runs, config.retention.dagster_runs_per_job
    found: dict[str, dg.DagsterRunStatus] = {}
    counted: Counter[str] = Counter()
    ended, cursor = dg.RunsFilter(statuses=_ENDED), None
    while records := instance.get_run_records(ended, limit=_PAGE, cursor=cursor):
        for record in records:
            run = record.dagster_run
            if is_ours(run):
                counted[run.job_name] += 1
                if counted[run.job_name] > per_job or record.update_timestamp < before:
                    found[run.run_id] = run.status
        cursor = records[-1].dagster_run.run_id
    return found


def _shown(instance: dg.DagsterInstance, storage: SqlEventLogStorage, config: Config) -> set[str]:
    """Runs with the last materialization of a partition, or the last result of a check, of what there is today."""
    materialized = _E.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value
    last = select(func.max(_E.id)).where(materialized).group_by(_E.asset_key, _E.partition)
    checked = select(func.max(_C.id)).group_by(_C.asset_key, _C.check_name, _C.partition)
    with storage.index_connection() as connection:
        rows = [
            *connection.execute(select(_E.run_id, _E.asset_key, _E.partition).where(_E.id.in_(last))),
            *connection.execute(select(_C.run_id, _C.asset_key, _C.partition).where(_C.id.in_(checked))),
        ]
    return _of_today(instance, config, rows)


def _failed(instance: dg.DagsterInstance, storage: SqlEventLogStorage, config: Config) -> set[str]:
    """The last runs that were to materialize each partition, unless one has done so since: one that failed is why the
    UI shows it red."""
    planned = _E.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    materialized = _E.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value
    last = select(func.max(_E.id)).where(or_(planned, materialized)).group_by(_E.asset_key, _E.partition)
    undone = select(_E.run_id, _E.asset_key, _E.partition).where(_E.id.in_(last), planned)
    with storage.index_connection() as connection:
        rows = connection.execute(undone).all()
    return _of_today(instance, config, rows)


def _forget_headlines(storage: SqlEventLogStorage, config: Config) -> None:
    """Results of `health` that were told outside of runs: no run takes them along. The last one of each check stays."""
    before = (datetime.now(UTC) - config.retention.dagster_runs).replace(tzinfo=None)  # as Dagster writes it
    columns = (_C.id, _C.evaluation_event_storage_id, _C.evaluation_event_timestamp)
    for key in [health_key(entity).to_string() for entity in config.entities]:
        of_health = _C.asset_key == key
        last = select(func.max(_C.id)).where(of_health).group_by(_C.check_name)
        told = select(*columns).where(of_health, _C.run_id == RUNLESS_RUN_ID, _C.id.not_in(last))
        with storage.index_connection() as connection:
            newest = select(_C.id).where(of_health, _C.run_id == RUNLESS_RUN_ID).order_by(_C.id.desc())
            beyond = connection.scalar(newest.offset(config.retention.dagster_runs_per_job).limit(1)) or 0
            old = connection.execute(told.where(or_(_C.evaluation_event_timestamp < before, _C.id <= beyond))).all()
        for some in (old[at : at + _PAGE] for at in range(0, len(old), _PAGE)):
            ids, events, times = zip(*some, strict=True)
            with storage.index_connection() as connection:
                connection.execute(SqlEventLogStorageTable.delete().where(_E.id.in_(events)))
                connection.execute(AssetCheckExecutionsTable.delete().where(_C.id.in_(ids)))
            if isinstance(storage, SqliteEventLogStorage):
                # It has them once more, in the file of no run.
                check = _E.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
                with storage.run_connection(RUNLESS_RUN_ID) as connection:
                    connection.execute(SqlEventLogStorageTable.delete().where(check, _E.timestamp.in_(times)))


def _of_today(instance: dg.DagsterInstance, config: Config, rows: Iterable[Sequence[Any]]) -> set[str]:
    """Those of the runs, each with an asset and a partition of it, that say something of what there is today."""
    there = {
        key.to_string(): {GLOBAL, *instance.get_dynamic_partitions(tenants_name(entity))}
        for entity in config.entities
        for key in _keys(entity)
    }
    return {
        run_id
        for run_id, key, partition in rows
        if key in there and (partition is None or partition.partition("|")[2] in there[key])
    }


def _delete(instance: dg.DagsterInstance, storage: SqlEventLogStorage, run_id: str) -> None:
    """The run itself last: should this be cut short, the next time goes on. Another process may do the same."""
    with suppress(FileNotFoundError):
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage.delete_events(run_id)
    with storage.index_connection() as connection:
        connection.execute(AssetCheckExecutionsTable.delete().where(_C.run_id == run_id))
    if isinstance(storage, SqliteEventLogStorage):
        # Each run has a file of its own, which Dagster empties and keeps.
        file = storage.path_for_shard(run_id)
        for path in (file, f"{file}-wal", f"{file}-shm"):
            Path(path).unlink(missing_ok=True)
    instance.run_storage.delete_run(run_id)
