"""What Dagster shows of an entity's checks, made equal to what the ledger knows: the headline of each check, which is
the worst result over all partitions, and the grid of partitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from vecsync_dagster.automation.under_way import runs_under_way
from vecsync_dagster.checks.evaluations import check_metadata, evaluation, grid_key, health_key, severity
from vecsync_dagster.ledger.base import LOST, LastRuns, Partition
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import CHECKS, CheckOutcome, Workspace
from vecsync_dagster.sync.compare import Difference
from vecsync_dagster.sync.health import configured, counting, health
from vecsync_dagster.words import by_reason, number_of

__all__ = [
    "RUNS",
    "failing_last",
    "grid_evaluation",
    "headline",
    "headlines",
    "last_in_grid",
    "over_in_grid",
    "red_checks",
    "run_in_grid",
    "runs_are_red",
    "runs_outcome",
    "show_headlines",
    "show_runs",
    "to_tell",
]

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
E = TypeVar("E", bound=Event)
Names = Mapping[tuple[str, str], str]
"""What people call the tenants, by entity and tenant."""
Differing = Mapping[tuple[str, str, str, str], Sequence[Difference]]
"""By entity, collection, tenant and check."""

RUNS: Final = "runs"
"""The check of `health` that no run and no comparison makes: the ledger knows it."""
_NAMED = 20
_ROUNDS = 3
_REPEATED = 5
_RANK = {"passed": 0, "warning": 1, "error": 2}
_COUNTED = {"missing", "orphan", "stale_hash", "wrong_tenant", "foreign", "invalid", "blocked", "failed", "truncated"}
"""Facts of the checks that say how many differences or records are bad."""


def headlines(instance: dg.DagsterInstance, workspace: Workspace, entity: str) -> Iterator[dg.AssetCheckEvaluation]:
    """What Dagster has to be told so that it shows what the ledger knows; nothing where it does already.

    To be yielded by an op: asked for the next one, this looks again at what has been stored. Two runs that end at
    the same time may each have read the ledger before the other wrote to it; the one that stores last looks once more.
    """
    for _ in range(_ROUNDS):
        news = to_tell(instance, workspace, entity)
        if not news:
            return
        yield from news


def to_tell(
    instance: dg.DagsterInstance, workspace: Workspace, entity: str, *, grid: bool = True
) -> list[dg.AssetCheckEvaluation]:
    """The same as it is now. Without the `grid` the headlines alone: what it costs then does not grow with history."""
    results = configured(workspace.ledger.check_results(entity), workspace.config)
    names = workspace.ledger.tenant_names(entity)
    runs = runs_outcome(workspace, entity, names)
    return list(failing_last(_news(instance, results, entity, names, runs, workspace.differing, grid=grid)))


def runs_outcome(workspace: Workspace, entity: str, names: Names) -> CheckOutcome:
    """Whether the last run of each partition, and the last full one, ended well: what failed leaves the results of
    earlier checks as they are, and they may all have passed. Of a run that ended, and failed because of what its checks
    found, those checks are red: it is named, and no more."""
    runs, now = workspace.ledger.last_runs(entity), datetime.now(UTC)
    found = health(workspace.config, runs, now)
    failing = sorted(
        (one for one in found["last_runs"] if one["failing"]), key=lambda one: (one["collection"] or "", one["tenant"])
    )
    listings = sum(not one["collection"] for one in failing)  # no partition: that of the entity's tenants
    facts = {"partitions": found["partitions"], "failed": found["failing"] - listings}
    if listings:
        facts["sources_failed"] = listings
    if not failing:
        told_of = number_of(found["partitions"], "partition")
        bad = _with_failed_checks(workspace, entity, counting(workspace.config, runs, now))
        if not bad:
            return CheckOutcome(RUNS, True, f"{told_of}, all ended well", facts)
        some = [f"{place_of(*key, names)} ({', '.join(checks)})" for key, checks in [*bad.items()][:_NAMED]]
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        message = f"{told_of}, all ended; checks failed in the last run of {len(bad)} of them: {'; '.join(some)}{more}"
        return CheckOutcome(RUNS, True, message, facts)
    told: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for one in failing[:_NAMED]:
        what, where, why = _ended(one, names)
        told[what].append((where, why))
    message = "; ".join(f"{what}: {'; '.join(by_reason(places))}" for what, places in told.items())
    more = f"; and {found['failing'] - _NAMED} more" if found["failing"] > _NAMED else ""
    return CheckOutcome(RUNS, False, message + more, facts)


def _with_failed_checks(
    workspace: Workspace, entity: str, there: Mapping[Partition, LastRuns]
) -> dict[Partition, list[str]]:
    """Partitions in whose last run checks found an error that there is still; their names."""
    said = {key: last.last.failed_checks for key, last in sorted(there.items()) if last.last.failed_checks}
    if not said:
        return {}
    failed = configured(workspace.ledger.check_results(entity, failed=True), workspace.config)
    now = {(one.collection, one.tenant, one.check) for one in failed if not one.warning}
    still = {key: [name for name in names if (key.collection, key.tenant, name) in now] for key, names in said.items()}
    return {key: names for key, names in still.items() if names}


def runs_are_red(instance: dg.DagsterInstance, entity: str) -> bool:
    """Whether Dagster shows that a run of the entity has failed."""
    key = dg.AssetCheckKey(health_key(entity), RUNS)
    shown, _ = _shown(instance, [key])
    return key in shown and not shown[key].passed


def show_runs(instance: dg.DagsterInstance, entity: str, outcome: CheckOutcome) -> None:
    """Tell Dagster outside of a run how the runs of an entity are (`runs_outcome`), where it shows anything else."""
    key = dg.AssetCheckKey(health_key(entity), RUNS)
    shown, awaited = _shown(instance, [key])
    if key not in awaited and not _says(shown.get(key), _severity(outcome), outcome.message):
        instance.report_runless_asset_event(_evaluation(key.asset_key, outcome))


def show_headlines(instance: dg.DagsterInstance, workspace: Workspace, entity: str) -> None:
    """Tell Dagster outside of a run what no run has told it: one that was killed had recorded nothing. The grid has to
    wait for the next run: outside of runs Dagster takes one result of a check and partition, and no second one."""
    for one in to_tell(instance, workspace, entity, grid=False):
        instance.report_runless_asset_event(one)


def _ended(one: Mapping[str, Any], names: Names) -> tuple[str, str, str]:
    """What failed, where, and why. `one`: of the `last_runs` of sync_metrics.json."""
    if not one["collection"]:
        lost = (one["error"] or "").startswith(LOST)
        what = "the source lacks tenants" if lost else "the source failed"
        return what, "", one["error"] or one["outcome"]
    only_full = one["outcome"] == "success"
    bad = one["last_full"] if only_full else one
    place = place_of(one["entity"], one["collection"], one["tenant"], names)
    ended = "was interrupted" if bad["outcome"] == "interrupted" else "failed"
    return f"the last {'full ' * only_full}run {ended}", place, bad["error"] or ""


def grid_evaluation(
    result: CheckResult, tenant_name: str, differing: Differing | None = None
) -> dg.AssetCheckEvaluation:
    """What the ledger has of one check of one partition, with what a comparison has just named of it (`differing`)."""
    outcome = _outcome(result)
    if not result.passed:
        place = (result.entity, result.collection, result.tenant, result.check)
        outcome = replace(outcome, differences=(differing or {}).get(place, ()))
    return evaluation(result.entity, result.collection, result.tenant, outcome, tenant_name)


def failing_last(events: Iterator[E], red: set[dg.AssetCheckKey] | None = None) -> Iterator[E]:
    """The same events; failed checks at the end, the worst ones last: what Dagster shows as the state of a
    partitioned check is the result that was stored last. A run stores one result of a check and partition, so it
    cannot be repeated at the end. `red`: checks that are known to fail, see `red_checks`, also while events are made;
    of such ones, and once one has failed, what passes waits too: the check would be shown as passed until the end. What
    waits is kept in memory; of a process that is killed the next one tells, as `headlines` compares with the ledger."""
    red = set() if red is None else red
    held: list[dg.AssetCheckEvaluation] = []
    try:
        for event in events:
            if not isinstance(event, dg.AssetCheckEvaluation) or (event.passed and event.asset_check_key not in red):
                yield event
            else:
                red.add(event.asset_check_key)
                held.append(event)
    except (Exception, DagsterExecutionInterruptedError):
        yield from _by_check(held)
        raise
    yield from _by_check(held)


def _by_check(held: list[dg.AssetCheckEvaluation]) -> Iterator[Any]:
    """Of each check what failed right after what passed."""
    yield from sorted(held, key=lambda event: (event.check_name, _badness(event)))


def red_checks(workspace: Workspace, entity: str) -> set[dg.AssetCheckKey]:
    """The checks of which the ledger knows a partition that fails."""
    failed = configured(workspace.ledger.check_results(entity, failed=True), workspace.config)
    return {dg.AssetCheckKey(grid_key(entity), one.check) for one in failed if one.collection}


def headline(check: str, results: Sequence[CheckResult], names: Names) -> CheckOutcome:
    """The worst of the results of one check, and the partitions that have it. `results`: one for each partition."""
    bad = sorted((one for one in results if not one.passed), key=lambda one: (one.collection, one.tenant))
    bad.sort(key=_badness_of, reverse=True)
    warned = sum(one.warning for one in bad)
    facts = {"partitions": len(results), "failed": len(bad) - warned, **({"warned": warned} if warned else {})}
    if not bad:
        message = f"{number_of(len(results), 'partition')}, all passed" if results else "no partition was checked"
        return CheckOutcome(check, True, message, facts)
    named = "; ".join(
        f"{place_of(one.entity, one.collection, one.tenant, names)}: {one.message}" for one in bad[:_NAMED]
    )
    more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    mild = f" ({warned} of them with a warning)" if 0 < warned < len(bad) else ""
    message = f"{len(bad)} of {len(results)} partitions{mild}: {named}{more}"
    return CheckOutcome(check, False, message, facts, warning=bad[0].warning)


def place_of(entity: str, collection: str, tenant: str, names: Names) -> str:
    """The partition's key, as Dagster has it, and what people call the tenant."""
    name = names.get((entity, tenant))
    return f"{collection}|{tenant}{f' ({name})' if name else ''}"


def _news(
    instance: dg.DagsterInstance,
    results: Sequence[CheckResult],
    entity: str,
    names: Names,
    runs: CheckOutcome,
    differing: Differing,
    *,
    grid: bool,
) -> Iterator[dg.AssetCheckEvaluation]:
    by_check: dict[str, list[CheckResult]] = defaultdict(list)
    overall = {RUNS: runs}
    for one in results:
        if one.collection:
            by_check[one.check].append(one)
        else:
            overall[one.check] = _outcome(one)
    overall |= {check: headline(check, theirs, names) for check, theirs in by_check.items()}
    overview, partitions = health_key(entity), grid_key(entity)
    checks = {*CHECKS, *overall}
    assets = (overview, partitions) if grid else (overview,)
    keys = [dg.AssetCheckKey(asset, check) for asset in assets for check in sorted(checks)]
    shown, awaited = _shown(instance, keys)
    for check in sorted(checks - overall.keys()):
        headed = dg.AssetCheckKey(overview, check)
        if headed in shown and not shown[headed].passed:
            overall[check] = headline(check, [], names)  # all that had a result is gone
    if grid:
        yield from _grid_news(instance, results, entity, names, differing)
    for check, outcome in overall.items():
        headed = dg.AssetCheckKey(overview, check)
        if headed not in awaited and not _says(shown.get(headed), _severity(outcome), outcome.message):
            yield _evaluation(overview, outcome)
        # Where people look at the grid alone, its last result is its headline: the worst partition comes last.
        last = shown.get(dg.AssetCheckKey(partitions, check))
        if check in by_check and last is not None:
            worst = max(by_check[check], key=_badness_of)
            if _badness(last) < _badness_of(worst):
                before = _last_of(instance, worst)  # with the table of what differs, which the ledger does not have
                name = names.get((entity, worst.tenant), "")
                # A blocking one, as earlier versions made them, would fail the run of another partition.
                same = before is not None and not before.blocking and _says(before, worst.severity, worst.message)
                yield before if before is not None and same else grid_evaluation(worst, name, differing)


def _grid_news(
    instance: dg.DagsterInstance, results: Sequence[CheckResult], entity: str, names: Names, differing: Differing
) -> Iterator[dg.AssetCheckEvaluation]:
    """Partitions that failed in Dagster and not in the ledger, or the other way round: no run of its own reported them.
    What passes is reported where Dagster has it as failed; a partition that it never heard of needs no event."""
    keys = [dg.AssetCheckKey(grid_key(entity), check) for check in CHECKS]
    states = instance.event_log_storage.get_asset_check_partition_info(keys)
    failed = {
        (state.check_key.name, state.partition_key)
        for state in states
        if state.latest_execution_status is AssetCheckExecutionRecordStatus.FAILED
    }
    known = {(one.check, f"{one.collection}|{one.tenant}"): one for one in results if one.collection}
    for place, one in known.items():
        # A run tells what it found itself; of other checks that failed (no run's) the result may be another one now.
        if (place in failed) is one.passed or not (one.passed or one.run_id or _is_in_grid(instance, one)):
            yield grid_evaluation(one, names.get((entity, one.tenant), ""), differing)
    for check, partition in sorted(failed - known.keys(), key=str):
        collection, _, tenant = str(partition).partition("|")
        yield evaluation(entity, collection, tenant, CheckOutcome(check, True, "nothing of it is synced any more"))


def over_in_grid(
    instance: dg.DagsterInstance, workspace: Workspace, entity: str, since: datetime, but: Collection[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the grid shows as failed and was found to be over `since`: to be told before what fails, see
    `failing_last`. Not of the partitions of which the run itself tells (`but`)."""
    results = configured(workspace.ledger.check_results(entity), workspace.config)
    over = [one for one in results if one.passed and one.at >= since and f"{one.collection}|{one.tenant}" not in but]
    if not any(one.collection for one in over):
        return
    known = {(one.check, f"{one.collection}|{one.tenant}") for one in over}
    told = _grid_news(instance, over, entity, workspace.ledger.tenant_names(entity), {})
    yield from (one for one in told if (one.check_name, one.partition) in known)


def last_in_grid(
    instance: dg.DagsterInstance, entity: str, check: str, partition: str
) -> dg.AssetCheckEvaluation | None:
    """The last result of a partition's check that Dagster has."""
    found = _history(instance, entity, check, partition, 1)
    return found[0][0] if found else None


def run_in_grid(instance: dg.DagsterInstance, entity: str, check: str, partition: str, message: str) -> str:
    """The run that told Dagster of this last result of a partition's check first: others may have repeated it. Empty if
    its last one is another one."""
    told = ""
    for shown, run_id in _history(instance, entity, check, partition, _REPEATED):
        if shown is None or shown.description != message:
            break
        told = run_id
    return told


def _history(
    instance: dg.DagsterInstance, entity: str, check: str, partition: str, limit: int
) -> list[tuple[dg.AssetCheckEvaluation | None, str]]:
    """The last results, and the runs that told of them, the last one first."""
    found = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(grid_key(entity), check), limit=limit, partition_filter=PartitionKeyFilter(key=partition)
    )
    own = ((record.evaluation, record.run_id) for record in found)
    return [(shown if isinstance(shown, dg.AssetCheckEvaluation) else None, run_id) for shown, run_id in own]


def _last_of(instance: dg.DagsterInstance, result: CheckResult) -> dg.AssetCheckEvaluation | None:
    return last_in_grid(instance, result.entity, result.check, f"{result.collection}|{result.tenant}")


def _is_in_grid(instance: dg.DagsterInstance, result: CheckResult) -> bool:
    return _says(_last_of(instance, result), result.severity, result.message)


def _says(shown: dg.AssetCheckEvaluation | None, severity: str, message: str) -> bool:
    return shown is not None and (_severity_of(shown), shown.description or "") == (severity, message)


def _shown(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> tuple[Mapping[dg.AssetCheckKey, dg.AssetCheckEvaluation], frozenset[dg.AssetCheckKey]]:
    """The evaluation that Dagster has as the last one of each check; and the checks that a run
    under way is to make. Those are left to it: whatever is stored after its start would hide what it finds."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys) if keys else {}
    shown: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation] = {}
    awaited = set()
    for key, record in found.items():
        if isinstance(record.evaluation, dg.AssetCheckEvaluation):
            shown[key] = record.evaluation
        elif runs_under_way(instance, run_id=record.run_id):
            awaited.add(key)
    return shown, frozenset(awaited)


def _badness(event: Event) -> tuple[int, int]:
    """Errors are worse than warnings, then the more is bad."""
    facts: dict[str, int | str] = {}
    for name, value in event.metadata.items():
        if isinstance(value, dg.TextMetadataValue | dg.IntMetadataValue):
            text = str(value.value).replace(",", "")
            facts[name] = int(text) if text.isdecimal() else text
    return _graded(_severity_of(event), facts)


def _badness_of(result: CheckResult) -> tuple[int, int]:
    return _graded(result.severity, result.facts)


def _graded(severity: str, facts: Mapping[str, int | str]) -> tuple[int, int]:
    return _RANK[severity], 0 if severity == "passed" else _how_many(facts)


def _how_many(facts: Mapping[str, int | str]) -> int:
    """Differences or records; of `counts`, by how much its numbers disagree."""
    of = {name: fact for name, fact in facts.items() if isinstance(fact, int)}
    if "source" in of:
        known = of["ledger"] + of.get("not_stored", 0) + of.get("unidentified", 0) - of.get("former", 0)
        return abs(of["store"] - of["ledger"]) + abs(of["source"] - known)
    return sum(number for name, number in of.items() if name in _COUNTED)


def _severity_of(evaluation: Event) -> str:
    if isinstance(evaluation, dg.AssetMaterialization) or evaluation.passed:
        return "passed"
    return "warning" if evaluation.severity is dg.AssetCheckSeverity.WARN else "error"


def _severity(outcome: CheckOutcome) -> str:
    return "passed" if outcome.passed else "warning" if outcome.warning else "error"


def _outcome(result: CheckResult) -> CheckOutcome:
    return CheckOutcome(result.check, result.passed, result.message, result.facts, warning=result.warning)


def _evaluation(asset: dg.AssetKey, outcome: CheckOutcome) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=outcome.name,
        passed=outcome.passed,
        metadata=check_metadata(outcome),
        severity=severity(outcome),
        description=outcome.message,
    )
