"""The Dagster instance that UI and CLI share: where it lives, and how a sync made without Dagster is recorded."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import dagster as dg
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable
from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from vecsync_dagster.assets.events import (
    Event,
    events_of,
    failure_of,
    log_failed_checks,
    mark_shown,
    show_failed,
    told_before,
)
from vecsync_dagster.assets.purging import purge
from vecsync_dagster.automation.partitions import CLI_JOB, COMMAND_TAG, STATE_TAG, add_tenants
from vecsync_dagster.checks import failing_last, headlines, over_in_grid, red_checks, to_tell
from vecsync_dagster.config.models import Config
from vecsync_dagster.config.values import environment
from vecsync_dagster.errors import (
    ChecksFailed,
    ConfigError,
    LedgerRejected,
    LedgerUnavailable,
    OutputUnwritable,
    VecsyncError,
)
from vecsync_dagster.private import private_file, private_folder
from vecsync_dagster.sync import PartitionResult, Workspace

__all__ = [
    "CLI_JOB",
    "Recorded",
    "dagster_home",
    "end_orphans",
    "is_ours",
    "open_instance",
    "prepare_instance",
    "record",
    "record_checks",
]


_DAY_S: Final = 24 * 3600
_PURGED_AT_ONCE: Final = 200
_log = logging.getLogger(__name__)
_UNDER_WAY: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def dagster_home(config: Config) -> Path:
    """DAGSTER_HOME where it is set, else `dagster` in the state folder, made with our dagster.yaml.

    Raises ConfigError where DAGSTER_HOME is no folder, OutputUnwritable where ours cannot be made.
    """
    if named := environment("DAGSTER_HOME"):
        if not Path(named).is_dir():
            raise ConfigError(
                f"the environment variable DAGSTER_HOME names {named}, which is no folder", env="DAGSTER_HOME"
            )
        return Path(named).resolve()
    home = config.state_folder / "dagster"
    settings = home / "dagster.yaml"
    if not settings.exists() or not settings.stat().st_size:
        try:
            private_folder(home)
            private_file(settings)
            settings.write_text(files("vecsync_dagster").joinpath("dagster.yaml").read_text(encoding="utf-8"))
        except OSError as error:
            raise OutputUnwritable(f"{home} cannot be written: {error.strerror}", path=str(home)) from error
    return home


def is_ours() -> bool:
    """Whether the instance is the one in the state folder, in which nobody else runs anything."""
    return not environment("DAGSTER_HOME")


@contextmanager
def open_instance(config: Config) -> Iterator[dg.DagsterInstance]:
    """One process at a time: two that open a new instance at once leave its SQLite storage broken for good."""
    home = dagster_home(config)
    with FileLock(home / "vecsync.lock", mode=0o600), dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def prepare_instance(config: Config) -> Path:
    """Make the instance's storage before Dagster's own processes, which start together, do. Returns its folder."""
    with open_instance(config) as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
        instance.get_dynamic_partitions("")
    return dagster_home(config)


def end_orphans(instance: dg.DagsterInstance, *, job: str | None = None) -> int:
    """Report runs whose process is gone as ended: Dagster would wait for them for ever, and block its queue. It starts
    those again that may be tried again. `job`: only the runs of this job. Returns how many.

    Nobody may be carrying out a run of this instance; `open_instance` sees to that for those of the command line.
    """
    ended = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY, job_name=job)):
        if run.job_name == CLI_JOB or run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run)
        else:
            instance.report_run_failed(run, "its process ended before the run was finished")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended += 1
    return ended


class Recorded(NamedTuple):
    """`run_id` is empty where there was nothing to record, and so no run."""

    events: int
    run_id: str = ""


def record(
    workspace: Workspace,
    results: Sequence[PartitionResult],
    unsynced: Mapping[str, VecsyncError] | None = None,
    *,
    found: Iterable[ChecksFailed] = (),
    command: str = "",
    interrupted: bool = False,
) -> Recorded:
    """Record a sync that was made without Dagster, as one run of the job `vecsync_cli`: materializations, check
    results, and its failure if partitions or checks failed (`found`: over all partitions), or entities could not be
    synced at all. `command`: what made it.

    A run of its own, because Dagster 1.13 keeps only one evaluation of a check and partition outside runs: the
    second one violates a unique index.
    """
    failure = failure_of(results, unsynced, found=found, interrupted=interrupted)
    with _recording(workspace) as instance:
        try:
            told = _events(workspace, results, instance)
        except (LedgerRejected, LedgerUnavailable):
            if failure is None:
                raise
            told = []  # that the sync failed is known without the ledger
        of_whole = [name for name in workspace.config.entities if name in (unsynced or {})]
        entities = dict.fromkeys([*(result.entity for result in results), *of_whole])
        events = [*chain.from_iterable(events for _, events in told)]
        if not events and failure is None and not _is_news(instance, workspace, entities):
            return Recorded(0)
        began = min((result.started_at for result in results), default=datetime.now(UTC))
        told_all = _told(instance, workspace, entities, events, began)
        job = _job(told_all, results, failure, lambda context: show_failed(context, workspace, results, of_whole))
        run_id = _execute(job, instance, workspace.config, command, entities)
        if results:
            _set_start(instance, run_id, began)
        for result, its_events in told:
            mark_shown(workspace, result, its_events)
        return Recorded(len(events), run_id)


def record_checks(workspace: Workspace, command: str, failed: Mapping[str, str] | None = None) -> str:
    """Record the checks that were made without Dagster and without a sync: by a comparison or a repair. `failed`: why
    the command failed, by place, and so does its run. The run's id; empty where it did not fail and Dagster shows all
    of its checks already."""
    failure = None
    if failed:
        told = "; ".join(f"{place}: {reason}" for place, reason in failed.items())
        failure = dg.Failure(told, metadata={"failed": [*failed]}, allow_retries=False)
    with _recording(workspace) as instance:
        if failure is None and not _is_news(instance, workspace, workspace.config.entities):
            return ""
        headed = _told(instance, workspace, workspace.config.entities, (), datetime.now(UTC))
        job = _job(headed, (), failure)
        return _execute(job, instance, workspace.config, command)


@contextmanager
def _recording(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    with open_instance(workspace.config) as instance:
        if is_ours():
            end_orphans(instance, job=CLI_JOB)  # one that was killed here would take a place in Dagster's queue
        yield instance
        if is_ours():
            _purge_daily(instance, workspace.config)


def _purge_daily(instance: dg.DagsterInstance, config: Config) -> None:
    """Also where nobody runs Dagster's schedules. Only so many runs, as others wait for the instance; what goes wrong
    is tried again tomorrow."""
    mark = Path(instance.root_directory) / "last_purged"
    if mark.exists() and time.time() - mark.stat().st_mtime <= _DAY_S:
        return
    try:
        private_file(mark)
        os.utime(mark)
        purge(instance, config, [], most=_PURGED_AT_ONCE, tell=_log.warning)
    except (dg.DagsterError, SQLAlchemyError, OSError) as error:
        _log.warning("old runs were not deleted: %s", type(error).__name__)


def _is_news(instance: dg.DagsterInstance, workspace: Workspace, entities: Iterable[str]) -> bool:
    return any(to_tell(instance, workspace, entity) for entity in entities)


def _events(
    workspace: Workspace, results: Sequence[PartitionResult], instance: dg.DagsterInstance
) -> list[tuple[PartitionResult, list[Event]]]:
    found: list[tuple[PartitionResult, list[Event]]] = []
    for entity in dict.fromkeys(result.entity for result in results):
        own = [result for result in results if result.entity == entity]
        add_tenants(instance, entity, [result.tenant for result in own])
        before = told_before(instance, workspace, entity)
        found += [(result, list(events_of(workspace, result, result.stages, before))) for result in own]
    return found


def _execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, config: Config, command: str, entities: Iterable[str] = ()
) -> str:
    """The run's id."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    tags = {STATE_TAG: config.project}
    if command:
        tags[COMMAND_TAG] = " ".join(filter(None, (command, ", ".join(entities))))
    return job.execute_in_process(instance=instance, run_config=quiet, tags=tags, raise_on_error=False).run_id


def _set_start(instance: dg.DagsterInstance, run_id: str, at: datetime) -> None:
    """The sync began before it was recorded: its duration is not the recording's."""
    storage = instance.run_storage
    if isinstance(storage, SqlRunStorage):
        began = RunsTable.update().where(RunsTable.c.run_id == run_id).values(start_time=at.timestamp())
        with storage.connect() as connection:
            connection.execute(began)


def _told(
    instance: dg.DagsterInstance,
    workspace: Workspace,
    entities: Iterable[str],
    events: Sequence[Event],
    since: datetime,
) -> Iterator[Event]:
    own = {event.partition for event in events if event.partition is not None}
    over = (over_in_grid(instance, workspace, entity, since, own) for entity in entities)
    red = {key for entity in entities for key in red_checks(workspace, entity)}
    yield from failing_last(chain(events, chain.from_iterable(over)), red)
    for entity in entities:
        yield from headlines(instance, workspace, entity)


def _job(
    events: Iterator[Event],
    results: Sequence[PartitionResult],
    failure: dg.Failure | None,
    at_end: Callable[[dg.OpExecutionContext], None] = lambda _: None,
) -> dg.JobDefinition:
    """`at_end`: what a run does that fails."""

    @dg.op(name="sync", out=dg.Out(dg.Nothing))
    def sync() -> Iterator[Event]:
        try:
            yield from events
            if failure is not None:
                at_end(dg.OpExecutionContext.get())
        except (LedgerRejected, LedgerUnavailable):
            if failure is None:
                raise
        if results:
            log_failed_checks(dg.OpExecutionContext.get().log, results)
        if failure is not None:
            raise failure

    @dg.job(name=CLI_JOB)
    def vecsync_cli() -> None:
        sync()

    return vecsync_cli
