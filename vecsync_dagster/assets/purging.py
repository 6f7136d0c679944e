"""Forgetting old runs of Dagster's, which it never does by itself: with their events, check results and output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from sqlalchemy import Connection, func, select

from vecsync_dagster.automation.partitions import CLI_JOB
from vecsync_dagster.automation.run_outcomes import is_ours
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync.compare import in_chunks
from vecsync_dagster.words import number_of

__all__ = ["PURGE_JOB", "build_purge_job", "purge"]

PURGE_JOB: Final = "vecsync_purge_job"
_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 500
_E: Final = SqlEventLogStorageTable.c
_C: Final = AssetCheckExecutionsTable.c


def build_purge_job(settings: Config, jobs: Collection[str]) -> dg.JobDefinition:
    """`jobs`: the names of our other jobs."""

    @dg.op(name="purge", out=dg.Out(dg.Nothing))
    def purge_op() -> None:
        context = dg.OpExecutionContext.get()
        told = purge(context.instance, settings, [*jobs, PURGE_JOB], progress=context.log.info)
        context.log.info("%s deleted", number_of(told, "old run"))

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
    progress: Callable[[str], None] = lambda _: None,
) -> int:
    """Delete ended runs of `jobs`, of our assets and of the command line: those that are older than
    `retention.dagster_runs`, and of each job those beyond `retention.dagster_runs_per_job`. Returns how many.

    A run stays that has the last materialization of a partition, or the last result of a check of one: without it the
    UI would not know what it shows today. Nothing is deleted from a storage that is none of Dagster's own in SQL.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    with storage.index_connection() as connection:
        kept = _shown(connection)
    before = datetime.now(UTC) - config.retention.dagster_runs
    deleted = 0
    for run in _too_old(instance, before, config.retention.dagster_runs_per_job):
        ours = run.job_name == CLI_JOB or is_ours(config, jobs, run)
        if ours and run.run_id not in kept:
            _delete(instance, storage, run.run_id)
            deleted += 1
            if not deleted % _PAGE:
                progress(f"{number_of(deleted, 'old run')} deleted so far")
    return deleted


def _shown(connection: Connection) -> set[str]:
    """Runs with the last materialization of a partition, or the last result of a check."""
    materialized = _E.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value
    last = select(func.max(_E.id)).where(materialized).group_by(_E.asset_key, _E.partition)
    checked = select(func.max(_C.id)).group_by(_C.asset_key, _C.check_name, _C.partition)
    return {
        *connection.scalars(select(_E.run_id).where(_E.id.in_(last)).distinct()),
        *connection.scalars(select(_C.run_id).where(_C.id.in_(checked)).distinct()),
    }


def _too_old(instance: dg.DagsterInstance, before: datetime, per_job: int) -> Iterator[dg.DagsterRun]:
    old = list(instance.get_run_ids(dg.RunsFilter(statuses=_ENDED, updated_before=before)))
    ended: dict[str, list[str]] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=_ENDED)):  # newest first
        ended.setdefault(record.dagster_run.job_name, []).append(record.dagster_run.run_id)
    too_many = [run_id for ids in ended.values() for run_id in ids[per_job:]]
    for some in in_chunks(dict.fromkeys([*old, *too_many])):
        yield from instance.get_runs(dg.RunsFilter(run_ids=some))


def _delete(instance: dg.DagsterInstance, storage: SqlEventLogStorage, run_id: str) -> None:
    """The run itself last: should this be cut short, the next time goes on."""
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
