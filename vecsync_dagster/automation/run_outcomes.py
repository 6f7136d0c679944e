"""What an ended Dagster run found: failing and passing checks, its failed partitions, what it paid.

An unchanged partition has no event, so a run that succeeded says by its extent which failures are over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster_shared.error import SerializableErrorInfo

from vecsync_dagster.alerts import (
    PRICE_TAG,
    KnownAlert,
    Observed,
    cost_passed,
    failed_for_good,
    observe_checks,
    observing,
    source_failed,
    sync_failed,
)
from vecsync_dagster.automation.partitions import ALL_JOB, PARTITION_TAG, RANGE_TAG
from vecsync_dagster.config.models import Config
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync import STAGES
from vecsync_dagster.sync.health import configured

__all__ = ["entities_of", "is_ours", "observe_run"]


def is_ours(config: Config, jobs: Collection[str], run: dg.DagsterRun) -> bool:
    """Whether a run is one of our jobs, or materializes or checks our assets: others may live beside them."""
    return run.job_name in jobs or bool(_selected(config, run))


def entities_of(config: Config, run: dg.DagsterRun) -> list[str]:
    """The entities a run was to sync; none for a job that is known by its checks alone."""
    selected = _selected(config, run)
    everything = run.job_name == ALL_JOB and not selected
    return [name for name in config.entities if name in selected or everything or run.job_name == f"{name}_job"]


def observe_run(config: Config, ledger: SqlLedger, instance: dg.DagsterInstance, run: dg.DagsterRun) -> Observed:
    """Everything the run says, as problems and as what is over."""
    observed = observing(config, ledger)
    entities = entities_of(config, run)
    known = [one for one in configured(ledger.check_results(), config) if one.entity in (entities or config.entities)]
    observe_checks(observed, known, _began(instance, run), run_id=run.run_id)
    ended_well = entities, _names(config, run, entities)
    reached, synced = ended_well if run.is_success else _failures(observed, config, instance, run, entities)
    observed.over.append(_over(run, reached, synced))
    _cost(observed, config, run, entities)
    observed.entities = set(entities or config.entities)
    observed.raised += failed_for_good(ledger, config, sorted(observed.entities), run_id=run.run_id)
    return observed


def _names(config: Config, run: dg.DagsterRun, entities: Sequence[str]) -> Sequence[str]:
    """What alerts of the run may be about: its entities, and its job unless it was over some of the job's alone."""
    return entities if run.job_name == ALL_JOB and {*entities} < {*config.entities} else [*entities, run.job_name]


def _began(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    record = instance.get_run_record_by_id(run.run_id)
    return datetime.fromtimestamp((record.start_time if record else None) or 0, UTC)


def _failures(
    observed: Observed, config: Config, instance: dg.DagsterInstance, run: dg.DagsterRun, entities: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """The entities whose source answered all the same; and what was synced but for partitions that have alerts of their
    own: those entities, and the job where nothing else failed than checks. Of partitions that another run was busy with
    this one knows nothing, and where it ended in another way than by naming what failed, nothing at all."""
    name = next(iter(entities)) if len(entities) == 1 else run.job_name
    causes = list(_data(instance, run, dg.DagsterEventType.STEP_FAILURE))
    for cause in causes:
        named = cause.user_failure_data.metadata if cause.user_failure_data else {}
        if "failed" in named:
            reasons = _reasons(named)
            for key, reason in reasons.items():
                owner = _owner(config, key) or name
                observed.raised.append(sync_failed(owner, key, reason, run_id=run.run_id))
            unsynced: Mapping[str, str] = named["unsynced"].value if "unsynced" in named else {}
            for entity, reason in unsynced.items():
                observed.raised.append(source_failed(entity, reason, run_id=run.run_id))
            reached = [entity for entity in entities if entity not in unsynced]
            if "busy" in named and named["busy"].value:
                return reached, []
            return reached, reached if reasons or unsynced else _names(config, run, reached)
    if run.tags.get(WILL_RETRY_TAG) != "true":
        # Only the error's type: its text is not ours, and may hold anything.
        kinds = ", ".join(dict.fromkeys(_root(cause.error) for cause in causes if cause.error))
        message = f"the run ended with {kinds}" if kinds else "the run's process ended, or it never began"
        # Of a range Dagster names the first partition, too.
        partition = None if RANGE_TAG in run.tags else run.tags.get(PARTITION_TAG)
        observed.raised.append(sync_failed(name, partition, message, run_id=run.run_id))
    return [], []


def _root(error: SerializableErrorInfo) -> str:
    """Dagster wraps what a step raised."""
    while error.cause is not None:
        error = error.cause
    return error.cls_name or "an error"


def _reasons(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, str]:
    known = metadata["reasons"].value if "reasons" in metadata else {}
    return {key: known.get(key, "see the run") for key in metadata["failed"].value}


def _over(run: dg.DagsterRun, reached: Collection[str], synced: Collection[str]) -> Callable[[KnownAlert], bool]:
    """Says which failures are over with this run, if it synced anything at all: a run of checks, or of stages before
    the store, does not. Those of sources that were `reached`; those of whole entities and jobs (`synced`) if it was
    over all their partitions and stages. Those of partitions are over when the ledger says so."""
    if not _syncs(run):
        return lambda _: False
    whole = {*synced} if _is_whole(run) else set()

    def over(known: KnownAlert) -> bool:
        alert = known.alert
        if alert.kind == "source_failure":
            return alert.entity in reached
        return alert.kind == "run_failure" and alert.partition is None and alert.entity in whole

    return over


def _is_whole(run: dg.DagsterRun) -> bool:
    """Whether the run was over all partitions, and all stages, of what it selected."""
    if PARTITION_TAG in run.tags or RANGE_TAG in run.tags:
        return False
    stages: dict[str, set[str]] = defaultdict(set)
    for key in run.asset_selection or ():
        stages[key.path[0]].add(key.path[-1])
    ops = cast("Mapping[str, Any]", run.run_config.get("ops", {}))
    limited = any((op.get("config") or {}).get("partitions") for op in ops.values())
    return not limited and all(some >= {*STAGES} for some in stages.values())


def _syncs(run: dg.DagsterRun) -> bool:
    """Whether the run was to bring the store up to date: it names the last stage, or neither assets nor checks."""
    stages = {key.path[-1] for key in run.asset_selection or ()}
    return STAGES[-1] in stages if stages else not run.asset_check_selection


def _cost(observed: Observed, config: Config, run: dg.DagsterRun, entities: Collection[str]) -> None:
    limit, paid = config.alerts.cost_usd_per_run, run.tags.get(PRICE_TAG)
    if limit is None or paid is None:
        return
    alert = cost_passed(", ".join(entities) or run.job_name, float(paid), limit, run_id=run.run_id)
    if float(paid) > limit:
        observed.raised.append(alert)
    else:
        observed.well.add(alert.key)


def _data(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType) -> Iterator[Any]:
    for record in instance.get_records_for_run(run.run_id, of_type=kind).records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            yield event.event_specific_data


def _selected(config: Config, run: dg.DagsterRun) -> set[str]:
    """Our entities among the assets and checks that the run selects."""
    checks = (check.asset_key for check in run.asset_check_selection or ())
    keys = [*(run.asset_selection or ()), *checks]
    return {key.path[0] for key in keys if len(key.path) == 2 and key.path[0] in config.entities}


def _owner(config: Config, partition: str) -> str | None:
    collection = partition.partition("|")[0]
    return next((name for name, entity in config.entities.items() if collection in entity.collections), None)
