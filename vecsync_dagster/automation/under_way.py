"""Partitions that a queued or running run is about to sync, or is syncing: nobody asks for them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from vecsync_dagster.automation.partitions import ALL_JOB, PARTITION_TAG, RANGE_TAG

__all__ = ["UnderWay", "covering", "runs_under_way", "under_way"]

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
    for _, keys in _syncing(instance, entity):
        if keys is None:
            found.everything = True
        else:
            found.keys.update(keys)
    return found


def covering(instance: dg.DagsterInstance, entity: str) -> Callable[[str], str]:
    """For a partition the id of the run that is syncing it, or all partitions, at this moment; empty if none is."""
    syncing = [(run, keys) for run, keys in _syncing(instance, entity) if run.status is dg.DagsterRunStatus.STARTED]
    return lambda key: next((run.run_id for run, keys in syncing if keys is None or key in keys), "")


def _syncing(instance: dg.DagsterInstance, entity: str) -> Iterator[tuple[dg.DagsterRun, Iterable[str] | None]]:
    """Runs that sync the entity, and which partitions of it; None: all, or a range."""
    for run in runs_under_way(instance):
        op = _op(run, entity)
        if op is not None:
            keys = [run.tags[PARTITION_TAG]] if PARTITION_TAG in run.tags else _configured(run, op)
            yield run, None if RANGE_TAG in run.tags else keys


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
