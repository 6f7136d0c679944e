"""Which Dagster run found a problem that somebody else saw in the ledger first: a message links to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import dagster as dg

from vecsync_dagster.alerts import Alert
from vecsync_dagster.automation.under_way import covering
from vecsync_dagster.checks import run_in_grid
from vecsync_dagster.sync import STAGES

__all__ = ["found_by"]


def found_by(instance: dg.DagsterInstance) -> Callable[[Alert], str]:
    """For a problem of a partition the id of the run that Dagster has it of, or else of the one that is syncing it now;
    empty if there is none: others than Dagster sync, too. What Dagster has is asked for once for each entity."""
    failed_by = cache(lambda entity: _failed_by(instance, entity))
    started = cache(lambda entity: covering(instance, entity))

    def run_of(one: Alert) -> str:
        if one.partition is None:
            return ""
        if one.check is not None:
            told = run_in_grid(instance, one.entity, one.check, one.partition, one.message)
        else:
            told = failed_by(one.entity).get(one.partition, "") if one.kind == "run_failure" else ""
        return told or started(one.entity)(one.partition)

    return run_of


def _failed_by(instance: dg.DagsterInstance, entity: str) -> dict[str, str]:
    """Partition -> the run that failed to sync it last, where no run has since."""
    tried = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        dg.AssetKey([entity, STAGES[-1]])
    )
    ids = {run_id for run_id, _ in tried.values()}
    if not ids:
        return {}
    runs = instance.get_runs(dg.RunsFilter(run_ids=[*ids], statuses=[dg.DagsterRunStatus.FAILURE]))
    failed = {run.run_id for run in runs}
    return {key: run_id for key, (run_id, _) in tried.items() if run_id in failed}
