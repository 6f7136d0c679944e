"""Partitions that a queued or running run is about to sync, or is syncing: nobody asks for them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from vecsync_dagster.automation.partitions import ALL_JOB, PARTITION_TAG, RANGE_TAG

__all__ = ["UnderWay", "runs_under_way", "under_way"]

_UNDER_WAY: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,  # it finishes its batches, and holds its tenants until then
]
_SILENT: Final = timedelta(days=1)


@dataclass(slots=True)
class UnderWay:
    """`everything`: a run over all partitions, or over a range of them, is among the runs."""

    everything: bool = False
    keys: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return self.everything or key in self.keys


def runs_under_way(
    instance: dg.DagsterInstance, *, job: str | None = None, run_id: str | None = None
) -> Sequence[dg.DagsterRun]:
    """Runs that have not ended, of this job or with this id. Where nothing monitors runs, one whose process died is
    under way for ever: after a day without news it is not waited for."""
    wanted = dg.RunsFilter(run_ids=None if run_id is None else [run_id], job_name=job, statuses=_UNDER_WAY)
    return [one.dagster_run for one in instance.get_run_records(wanted) if _is_heard_of(instance, one)]


def _is_heard_of(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """The record itself is of its last status or tag: a long run has logged something since."""
    since = datetime.now(UTC) - _SILENT
    if record.update_timestamp > since:
        return True
    last = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    return any(one.event_log_entry.timestamp > since.timestamp() for one in last)


def under_way(instance: dg.DagsterInstance, entity: str) -> UnderWay:
    """From the runs that have not ended: of the entity's job, of the job over all entities, and from the UI."""
    found = UnderWay()
    for run in runs_under_way(instance):
        op = _op(run, entity)
        if op is None:
            continue
        keys = [run.tags[PARTITION_TAG]] if PARTITION_TAG in run.tags else _configured(run, op)
        if keys is None or RANGE_TAG in run.tags:
            found.everything = True
        else:
            found.keys.update(keys)
    return found


def _op(run: dg.DagsterRun, entity: str) -> str | None:
    """The op of the run that syncs the entity; None if it has none."""
    if run.job_name == ALL_JOB:
        return "all_sync"
    ours = any(key.path[0] == entity for key in run.asset_selection or ())
    return f"{entity}_sync" if ours or run.job_name == f"{entity}_job" else None


def _configured(run: dg.DagsterRun, op: str) -> Iterable[str] | None:
    place: Any = run.run_config
    for name in ("ops", op, "config", "partitions"):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, list) else None
