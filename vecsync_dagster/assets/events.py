"""Results of a sync as Dagster events; what the assets yield and what the CLI records is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from vecsync_dagster.assets.metadata import materialization_metadata
from vecsync_dagster.automation.partitions import partition_key
from vecsync_dagster.checks import evaluation
from vecsync_dagster.sync import CHECKS, STAGES, PartitionResult, Workspace

__all__ = ["Event", "asset_key", "events_of", "failure_of", "worth_an_event"]

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_SHOWN_RUNS = 10


def asset_key(entity: str, stage: str) -> dg.AssetKey:
    return dg.AssetKey([entity, stage])


def worth_an_event(result: PartitionResult, materialized: frozenset[str]) -> bool:
    """Events are dear (30 to 90 ms each where Dagster's storage is SQLite on a slow disk), so an unchanged
    partition that was materialized before gets none: the ledger knows when it was last verified. One that
    failed or was interrupted is not materialized at all.

    `materialized`: partition keys of the entity's vectors that have been materialized.
    """
    # Documents that failed are told by the run in which they did: as long as nothing is tried, nothing is new.
    found = any(not check.passed for check in result.checks if check.name != "statuses")
    if result.outcome != "success":
        return False
    key = str(partition_key(result.collection, result.tenant))
    return result.figures.touched or key not in materialized or found


def events_of(workspace: Workspace, result: PartitionResult, stages: Sequence[str] = STAGES) -> Iterator[Event]:
    """Materializations of the stages that were run, in order, then the evaluations of their checks."""
    key = partition_key(result.collection, result.tenant)
    runs = [
        run
        for run in workspace.ledger.runs(result.entity, result.tenant, limit=_SHOWN_RUNS * 4)
        if run.collection == result.collection
    ][:_SHOWN_RUNS]
    snapshot = str(workspace.snapshots.path(result.entity, result.tenant))
    for stage in STAGES:
        if stage in stages:
            metadata = materialization_metadata(result, stage, runs, snapshot)
            yield dg.AssetMaterialization(asset_key(result.entity, stage), partition=key, metadata=metadata)
    for check in result.checks:
        if CHECKS[check.name][0] in stages:
            yield evaluation(result.entity, result.collection, result.tenant, check)


def failure_of(results: Sequence[PartitionResult]) -> dg.Failure | None:
    """What a run raises at its end, naming the partitions that failed; the others stay materialized."""
    failed = [result for result in results if result.outcome == "failed"]
    if not failed:
        return None
    return dg.Failure(
        description=f"{len(failed)} of {len(results)} partitions failed: {_named(failed)}",
        metadata={"failed": [f"{result.collection}|{result.tenant}" for result in failed]},
        allow_retries=False,
    )


def _named(failed: Sequence[PartitionResult]) -> str:
    named = [f"{r.collection}|{r.tenant} ({r.error.code}: {r.error})" for r in failed[:5] if r.error]
    return "; ".join(named) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
