"""What an ended Dagster run knows beside the ledger: what it paid, and that it ended without a word."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster_shared.error import SerializableErrorInfo

from vecsync_dagster import errors
from vecsync_dagster.alerts import PRICE_TAG, Alert, Seen, job_failed, sync_failed
from vecsync_dagster.automation.found_by import found_by
from vecsync_dagster.automation.partitions import ALL_JOB, PARTITION_TAG, RANGE_TAG
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import STAGES

__all__ = ["entities_of", "is_ours", "seen_in"]

_OURS: Final = {*errors.__all__, dg.Failure.__name__} - {errors.InternalError.__name__}
"""What an op of ours ends with where it says what kept it: the names of its errors."""


def is_ours(config: Config, jobs: Collection[str], run: dg.DagsterRun) -> bool:
    """Whether a run is one of our jobs, or materializes or checks our assets: others may live beside them."""
    return run.job_name in jobs or bool(_selected(config, run))


def entities_of(config: Config, run: dg.DagsterRun) -> list[str]:
    """The entities a run was to sync; none for a job that is known by its checks alone."""
    selected = _selected(config, run)
    everything = run.job_name == ALL_JOB and not selected
    return [name for name in config.entities if name in selected or everything or run.job_name == f"{name}_job"]


def seen_in(config: Config, instance: dg.DagsterInstance, record: dg.RunRecord) -> Seen:
    run = record.dagster_run
    names = entities_of(config, run) or [*config.entities]
    partition = _partition(run)

    def is_mine(one: Alert) -> bool:
        return one.entity in names and (None in (partition, one.partition) or partition == one.partition)

    # Another run may have ended just before this one, and is looked at after it.
    seen = Seen(run.run_id, _at(record.start_time), is_mine, run_of=found_by(instance))
    if PRICE_TAG in run.tags:
        seen.cost(config, names, float(run.tags[PRICE_TAG]))
    if run.is_success:
        seen.over += (one for one in _failed(config, run, "", None) if one.check)
    elif run.is_failure and (reason := _unexplained(instance, run)):
        seen.raised += _failed(config, run, reason, _at(record.end_time))
    return seen


def _failed(config: Config, run: dg.DagsterRun, reason: str, at: datetime | None) -> list[Alert]:
    """The problem that the run itself did not end well: of the entities, or of the partition, that it was to bring up
    to date, or that somebody chose by hand; of its job, where it was to sync nothing and is made again."""
    entities = entities_of(config, run)
    if entities and (_syncs(run) or run.job_name == IMPLICIT_ASSET_JOB_NAME):
        return [sync_failed(name, _partition(run), reason, at=at) for name in entities]
    return [job_failed(", ".join(entities or config.entities), run.job_name, reason, at=at)]


def _unexplained(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why the run ended; None where it named what failed, which the ledger knows, or will be tried again; or where
    somebody had checks made by hand, which could not be made for a reason of ours."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    events = [one.event_log_entry.dagster_event for one in records]
    causes = [event.step_failure_data for event in events if event is not None]
    named = any("failed" in cause.user_failure_data.metadata for cause in causes if cause.user_failure_data)
    if named or run.tags.get(WILL_RETRY_TAG) == "true":
        return None
    # Only the error's type: its text is not ours, and may hold anything.
    roots = list(dict.fromkeys(_root(cause.error) for cause in causes if cause.error))
    if roots and run.job_name == IMPLICIT_ASSET_JOB_NAME and not _syncs(run) and set(roots) <= _OURS:
        return None
    kinds = ", ".join(roots)
    return f"the run ended with {kinds}" if kinds else "the run's process ended, or it never began"


def _root(error: SerializableErrorInfo) -> str:
    """Dagster wraps what a step raised."""
    while error.cause is not None:
        error = error.cause
    return error.cls_name or "an error"


def _partition(run: dg.DagsterRun) -> str | None:
    """Of a range Dagster names the first partition, too."""
    return None if RANGE_TAG in run.tags else run.tags.get(PARTITION_TAG)


def _syncs(run: dg.DagsterRun) -> bool:
    """Whether the run was to bring the store up to date: it names the last stage, or neither assets nor checks."""
    stages = {key.path[-1] for key in run.asset_selection or ()}
    return STAGES[-1] in stages if stages else not run.asset_check_selection


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _selected(config: Config, run: dg.DagsterRun) -> set[str]:
    """Our entities among the assets and checks that the run selects."""
    checks = (check.asset_key for check in run.asset_check_selection or ())
    keys = [*(run.asset_selection or ()), *checks]
    return {key.path[0] for key in keys if len(key.path) == 2 and key.path[0] in config.entities}
