"""Results of a sync as Dagster events; what the assets yield and what the CLI records is the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from vecsync_dagster.assets.metadata import materialization_metadata, rows_of
from vecsync_dagster.automation.partitions import partition_key, partitions_of
from vecsync_dagster.checks import evaluation, grid_key, last_in_grid, severity
from vecsync_dagster.errors import ChecksFailed, PartitionBusy, VecsyncError
from vecsync_dagster.sync import CHECKS, STAGES, CheckOutcome, PartitionResult, Workspace, is_tenant
from vecsync_dagster.sync.listing import UNASKED
from vecsync_dagster.words import number_of

__all__ = [
    "Event",
    "Told",
    "asset_key",
    "events_of",
    "failure_of",
    "log_failed_checks",
    "mark_shown",
    "show_failed",
    "told_before",
]

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_SHOWN_RUNS = 10
_SHOWN_FAILURES = 20
_SYNCS = ("full", "incremental")
"""Modes of runs that sync a partition: the ledger, too, says nothing of it after one of single records that failed."""
_PLANNED = 200
"""Partitions that a run shows as failed, at most: each takes an event for each stage. The next run shows the others."""


def asset_key(entity: str, stage: str) -> dg.AssetKey:
    return dg.AssetKey([entity, stage])


@dataclass(frozen=True, slots=True)
class Told:
    """What Dagster has of an entity's partitions: which were materialized, and which it shows as failed (`red`); checks
    and partitions by result. `unshown`: those that runs wrote to since all their stages were materialized."""

    instance: dg.DagsterInstance
    materialized: frozenset[str]
    red: frozenset[str]
    passed: frozenset[tuple[str, str]]
    failed: frozenset[tuple[str, str]]
    unshown: frozenset[str]

    def says(self, entity: str, check: CheckOutcome, key: str) -> bool:
        """Whether it shows this result. Of one that passed only that it did: the next full run brings its figures."""
        if check.passed:
            return (check.name, key) in self.passed
        if (check.name, key) not in self.failed:
            return False
        shown = last_in_grid(self.instance, entity, check.name, key)
        return shown is not None and (shown.severity, _untitled(shown.metadata)) == (
            severity(check),
            _untitled(evaluation(entity, "", "", check).metadata),
        )


def _untitled(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, dg.MetadataValue[Any]]:
    """Without what names the partition."""
    return {name: value for name, value in metadata.items() if name not in ("partition", "tenant_name")}


def told_before(instance: dg.DagsterInstance, workspace: Workspace, entity: str) -> Told:
    checks = [dg.AssetCheckKey(grid_key(entity), name) for name in CHECKS]
    by_status: dict[AssetCheckExecutionRecordStatus, set[tuple[str, str]]] = defaultdict(set)
    for state in instance.event_log_storage.get_asset_check_partition_info(checks):
        by_status[state.latest_execution_status].add((state.check_key.name, str(state.partition_key)))
    return Told(
        instance,
        frozenset(instance.get_materialized_partitions(asset_key(entity, STAGES[-1]))),
        _shown_red(instance, workspace, entity),
        frozenset(by_status[AssetCheckExecutionRecordStatus.SUCCEEDED]),
        frozenset(by_status[AssetCheckExecutionRecordStatus.FAILED]),
        frozenset(str(partition_key(*place)) for place in workspace.ledger.unshown(entity)),
    )


def _shown_red(instance: dg.DagsterInstance, workspace: Workspace, entity: str) -> frozenset[str]:
    """As the UI does: what it once found failed stays red until it is materialized, whatever runs were planned since,
    such as the one that asks here."""
    partitions = partitions_of(entity, workspace.entity(entity))
    found: set[str] = set()
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        for stage in STAGES:
            status = get_and_update_asset_status_cache_value(instance, asset_key(entity, stage), partitions)
            if status is not None:
                found.update(map(str, status.deserialize_failed_partition_subsets(partitions).get_partition_keys()))
    return frozenset(found)


def events_of(
    workspace: Workspace, result: PartitionResult, stages: Sequence[str], before: Told | None
) -> Iterator[Event]:
    """What a partition's result is worth in Dagster: materializations of the stages that were run, in order, then the
    evaluations of their checks. `before`: None where people asked for this very partition and wait for its events.

    Events are dear (each is stored twice, and 30 to 90 ms where Dagster's storage is SQLite on a slow disk). So an
    unchanged partition gets none: the ledger knows when it was last verified. An incremental run tells what it wrote,
    on the last stage, and which checks have another result now; the next full run shows all of it. One that failed or
    was interrupted is not materialized at all (`show_failed`), and the sync that follows shows all of it.
    """
    if result.outcome != "success":
        return
    key = str(partition_key(result.collection, result.tenant))
    touched = result.figures.touched
    whole = (
        before is None
        or key not in before.materialized
        or (key in before.red and result.mode in _SYNCS)
        or (result.mode == "full" and (touched or key in before.unshown))
        or bool(_errors(result))
        or _was_empty(result)
    )
    tells = [stage for stage in STAGES if stage in stages and (whole or (touched and stage == STAGES[-1]))]
    checks = [
        check
        for check in result.checks
        if CHECKS[check.name][0] in stages and (whole or not (before and before.says(result.entity, check, key)))
    ]
    if not tells and not checks:
        return
    runs = workspace.ledger.runs(result.entity, result.tenant, _SHOWN_RUNS, collection=result.collection)
    name = workspace.ledger.tenant_name(result.entity, result.tenant)
    snapshot = str(workspace.snapshots.path(result.entity, result.tenant))
    for stage in tells:
        rows = rows_of(result, stage)
        metadata = materialization_metadata(result, stage, runs, snapshot, rows, name, alone=not whole)
        yield dg.AssetMaterialization(asset_key(result.entity, stage), partition=key, metadata=metadata)
    for check in checks:
        yield evaluation(result.entity, result.collection, result.tenant, check, name)


def mark_shown(workspace: Workspace, result: PartitionResult, events: Sequence[Event]) -> None:
    """To be called when Dagster has these events of a result: if they are of all stages, the ledger knows it."""
    if sum(isinstance(event, dg.AssetMaterialization) for event in events) == len(STAGES):
        workspace.ledger.shown(result.entity, result.collection, result.tenant, result.ended_at)


def show_failed(
    context: dg.OpExecutionContext,
    workspace: Workspace,
    results: Iterable[PartitionResult],
    unsynced: Iterable[str],
    stages: Sequence[str] = STAGES,
) -> None:
    """Make Dagster show the partitions as failed that this run, which is going to fail, could not sync: also those of
    entities whose source could not be asked (`unsynced`). To Dagster a partition failed if the last run that was to
    materialize it failed, and a run that was started without partitions is to materialize none."""
    places = {(one.entity, one.collection, one.tenant) for one in results if _is_failed(one) and one.mode in _SYNCS}
    for entity in unsynced:
        last = workspace.ledger.last_runs(entity)
        places |= {(*key,) for key, runs in last.items() if UNASKED in runs.last.figures and not runs.last.ok}
    by_entity: dict[str, set[str]] = defaultdict(set)
    for entity, collection, tenant in places:
        if is_tenant(tenant) and collection in workspace.config.entities[entity].collections:
            by_entity[entity].add(str(partition_key(collection, tenant)))
    for entity, keys in by_entity.items():
        for stage in stages:
            shown = _red(context.instance, entity, stage, context.run_id)
            for key in sorted(keys - shown)[:_PLANNED]:
                data = AssetMaterializationPlannedData(asset_key(entity, stage), partition=key)
                event = dg.DagsterEvent.build_asset_materialization_planned_event(
                    context.job_name, context.op.name, data
                )
                context.instance.report_dagster_event(event, context.run_id)


def _is_failed(result: PartitionResult) -> bool:
    return result.outcome == "failed" and not isinstance(result.error, PartitionBusy)


def _red(instance: dg.DagsterInstance, entity: str, stage: str, run_id: str) -> frozenset[str]:
    """The partitions that Dagster shows as failed, or will once the run fails."""
    storage = instance.event_log_storage
    tried = storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset_key(entity, stage)
    )
    ids = {one for one, _ in tried.values()}
    failed = {run_id}
    if ids:
        found = instance.get_runs(dg.RunsFilter(run_ids=[*ids], statuses=[dg.DagsterRunStatus.FAILURE]))
        failed |= {run.run_id for run in found}
    return frozenset(key for key, (one, _) in tried.items() if one in failed)


def _was_empty(result: PartitionResult) -> bool:
    """Whether all that the partition has is new: its stages may say that it was removed."""
    return bool(result.figures.new) and rows_of(result, STAGES[-1]) == result.figures.new


def _errors(result: PartitionResult) -> list[str]:
    return [check.name for check in result.checks if not check.passed and not check.warning]


def failure_of(
    results: Sequence[PartitionResult],
    problems: Mapping[str, VecsyncError] | None = None,
    *,
    found: Iterable[ChecksFailed] = (),
    interrupted: bool = False,
) -> dg.Failure | None:
    """What a run raises at its end: names the partitions that failed, the checks that found an error, also those over
    all partitions (`found`), and what could not be synced at all (`problems`). What was materialized stays. Documents
    that will be tried again are a check's warning, and fail no run."""
    failed = [result for result in results if result.outcome == "failed"]
    # One that is busy is being synced by another run, which tells what it finds.
    ours = [result for result in failed if _is_failed(result)]
    checks = _failed_checks(results)
    unsynced = {what: f"{error.code}: {error}" for what, error in (problems or {}).items()}
    told = ["interrupted before everything was synced"] if interrupted else []
    told += [f"{len(failed)} of {len(results)} partitions failed: {_named(failed)}"] if failed else []
    told += [f"failed checks: {_some(checks)}"] if checks else []
    told += [f"{what}: {reason}" for what, reason in unsynced.items()]
    told += map(str, found)
    if not told:
        return None
    return dg.Failure(
        description="; ".join(told),
        metadata={
            "failed": [f"{result.collection}|{result.tenant}" for result in ours],
            "reasons": {
                f"{result.collection}|{result.tenant}": f"{result.error.code}: {result.error}"
                for result in ours[:_SHOWN_FAILURES]
                if result.error
            },
            "busy": [f"{one.collection}|{one.tenant}" for one in failed if isinstance(one.error, PartitionBusy)],
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
        warned = sum(check.warning and not check.passed for result in results for check in result.checks)
        log.info("failed checks of this run: none%s", f" ({number_of(warned, 'warning')})" if warned else "")


def _failed_checks(results: Sequence[PartitionResult]) -> list[str]:
    return [f"{check} of {result.collection}|{result.tenant}" for result in results for check in _errors(result)]


def _some(names: Sequence[str]) -> str:
    """The first of the names, and how many there are beside them."""
    more = f" and {len(names) - _SHOWN_FAILURES} more" if len(names) > _SHOWN_FAILURES else ""
    return ", ".join(names[:_SHOWN_FAILURES]) + more


def _named(failed: Sequence[PartitionResult]) -> str:
    named = [f"{r.collection}|{r.tenant} ({r.error.code}: {r.error})" for r in failed[:5] if r.error]
    return "; ".join(named) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
