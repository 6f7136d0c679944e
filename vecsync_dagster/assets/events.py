"""Results of a sync as Dagster events; what the assets yield and what the CLI records is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from vecsync_dagster.assets.metadata import materialization_metadata, rows_of
from vecsync_dagster.automation.partitions import partition_key
from vecsync_dagster.checks import evaluation, grid_key
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.sync import CHECKS, STAGES, PartitionResult, Workspace

__all__ = [
    "Event",
    "asset_key",
    "events_of",
    "failure_of",
    "log_failed_checks",
    "settled_partitions",
    "worth_an_event",
]

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_SHOWN_RUNS = 10
_SHOWN_FAILURES = 20


def asset_key(entity: str, stage: str) -> dg.AssetKey:
    return dg.AssetKey([entity, stage])


def settled_partitions(instance: dg.DagsterInstance, entity: str) -> frozenset[str]:
    """Partitions that were materialized and whose checks all passed when they were last evaluated."""
    vectors = asset_key(entity, "vectors")
    checks = [dg.AssetCheckKey(grid_key(entity), name) for name in CHECKS]
    states = instance.event_log_storage.get_asset_check_partition_info(checks)
    failed = AssetCheckExecutionRecordStatus.FAILED
    unwell = {state.partition_key for state in states if state.latest_execution_status is failed}
    return frozenset(instance.get_materialized_partitions(vectors)) - unwell


def worth_an_event(result: PartitionResult, settled: frozenset[str]) -> bool:
    """Events are dear (30 to 90 ms each where Dagster's storage is SQLite on a slow disk), so an unchanged
    partition that is settled gets none: the ledger knows when it was last verified. One whose check failed before
    gets some, so that people see that it is well again. One that failed or was interrupted is not materialized at
    all.

    `settled`: see `settled_partitions`.
    """
    # Documents that failed are told by the run in which they did: as long as nothing is tried, nothing is new.
    found = any(not check.passed for check in result.checks if check.name != "statuses")
    if result.outcome != "success":
        return False
    key = str(partition_key(result.collection, result.tenant))
    return result.figures.touched or key not in settled or found


def events_of(workspace: Workspace, result: PartitionResult, stages: Sequence[str] = STAGES) -> Iterator[Event]:
    """Materializations of the stages that were run, in order, then the evaluations of their checks."""
    key = partition_key(result.collection, result.tenant)
    runs = workspace.ledger.runs(result.entity, result.tenant, _SHOWN_RUNS, collection=result.collection)
    name = workspace.ledger.tenant_name(result.entity, result.tenant)
    snapshot = str(workspace.snapshots.path(result.entity, result.tenant))
    for stage in STAGES:
        if stage in stages:
            metadata = materialization_metadata(result, stage, runs, snapshot, rows_of(result, stage), name)
            yield dg.AssetMaterialization(asset_key(result.entity, stage), partition=key, metadata=metadata)
    for check in result.checks:
        if CHECKS[check.name][0] in stages:
            yield evaluation(result.entity, result.collection, result.tenant, check, name)


def failure_of(
    results: Sequence[PartitionResult], problems: Mapping[str, VecsyncError] | None = None
) -> dg.Failure | None:
    """What a run raises at its end: names the partitions that failed, the checks that found an error, and what could
    not be synced at all (`problems`). What was materialized stays. Documents that will be tried again are a check's
    warning, and fail no run."""
    failed = [result for result in results if result.outcome == "failed"]
    checks = _failed_checks(results)
    unsynced = {what: f"{error.code}: {error}" for what, error in (problems or {}).items()}
    told = [f"{len(failed)} of {len(results)} partitions failed: {_named(failed)}"] if failed else []
    told += [f"failed checks: {_some(checks)}"] if checks else []
    told += [f"{what}: {reason}" for what, reason in unsynced.items()]
    if not told:
        return None
    return dg.Failure(
        description="; ".join(told),
        metadata={
            "failed": [f"{result.collection}|{result.tenant}" for result in failed],
            "reasons": {
                f"{result.collection}|{result.tenant}": f"{result.error.code}: {result.error}"
                for result in failed[:_SHOWN_FAILURES]
                if result.error
            },
            "failed_checks": checks[:_SHOWN_FAILURES],
            "unsynced": unsynced,
        },
        allow_retries=False,
    )


def log_failed_checks(log: dg.DagsterLogManager, results: Sequence[PartitionResult]) -> None:
    """The last line of a run's log, whoever made the run."""
    failed = _failed_checks(results)
    if failed:
        log.error("failed checks of this run: %s", _some(failed))
    else:
        log.info("failed checks of this run: none")


def _failed_checks(results: Sequence[PartitionResult]) -> list[str]:
    return [
        f"{check.name} of {result.collection}|{result.tenant}"
        for result in results
        for check in result.checks
        if not check.passed and not check.warning
    ]


def _some(names: Sequence[str]) -> str:
    """The first of the names, and how many there are beside them."""
    more = f" and {len(names) - _SHOWN_FAILURES} more" if len(names) > _SHOWN_FAILURES else ""
    return ", ".join(names[:_SHOWN_FAILURES]) + more


def _named(failed: Sequence[PartitionResult]) -> str:
    named = [f"{r.collection}|{r.tenant} ({r.error.code}: {r.error})" for r in failed[:5] if r.error]
    return "; ".join(named) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
