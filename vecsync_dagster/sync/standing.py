"""Checks over all partitions of an entity at once: those that must fail even if nothing runs any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vecsync_dagster.sync.compare import Difference
from vecsync_dagster.sync.drift import compare_settled
from vecsync_dagster.sync.dropping import leftovers
from vecsync_dagster.sync.verify import MEND, CheckOutcome, graded, kept
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["FRESHNESS", "RECONCILIATION", "check_everything", "check_freshness"]

RECONCILIATION: Mapping[str, str] = {
    "reconciliation": "Every point of every tenant is as the ledger says, and there is no other",
    "isolation_of_all": "No point in the whole collection can be read by a tenant it does not belong to",
}
FRESHNESS = "freshness"
_LISTED = 20
_WRONG_TENANT = "wrong_tenant"


def check_everything(workspace: Workspace, entity: str) -> Iterator[CheckOutcome]:
    """`RECONCILIATION`, by one pass over each collection of the entity."""
    counts: dict[str, dict[str, int]] = {name: {} for name in RECONCILIATION}
    named: dict[str, list[Difference]] = {name: [] for name in RECONCILIATION}
    points = 0
    for collection in workspace.entity(entity).collections:
        compared = compare_settled(workspace, entity, collection)
        points += compared.points
        for (tenant, kind), number in sorted(compared.counts.items()):
            counts[_check_of(kind)][f"{kind} of {collection}|{tenant}"] = number
        for difference in compared.named:
            named[_check_of(difference.kind)].append(difference)
    for name in RECONCILIATION:
        wrong = sum(counts[name].values())
        told = "; ".join(f"{number} {what}" for what, number in list(counts[name].items())[:_LISTED])
        message = f"{wrong} differences: {told}; {MEND}" if wrong else "none found"
        facts = {"points": points, "differences": wrong}
        outcome = CheckOutcome(name, wrong == 0, message, facts, named[name])
        if name == "reconciliation":
            outcome = _with_leftovers(workspace, entity, outcome)
        yield _kept(workspace, entity, outcome)


def _with_leftovers(workspace: Workspace, entity: str, outcome: CheckOutcome) -> CheckOutcome:
    """What left the configuration is nobody's any more; entities that left it are reported with the first one."""
    first = entity == next(iter(workspace.config.entities))
    found = [
        one
        for one in leftovers(workspace)
        if one.entity == entity or (first and one.entity not in workspace.config.entities)
    ]
    if not found:
        return outcome
    told = "; ".join(map(str, found[:_LISTED]))
    return replace(
        outcome,
        passed=False,
        warning=outcome.passed,
        message=told if outcome.passed else f"{outcome.message}; {told}",
        facts={**outcome.facts, "leftovers": len(found)},
    )


def check_freshness(workspace: Workspace, entity: str) -> CheckOutcome:
    """Every partition was synced within `checks.freshness.max_age`, every document seen within `unseen`."""
    limits = workspace.config.checks.freshness
    now = datetime.now(UTC)
    seen = {key: one.at for key, one in workspace.ledger.seen(entity).items()}
    wanted = [(c, tenant) for tenant in workspace.tenants(entity) for c in workspace.entity(entity).collections]
    never = [_named(key) for key in wanted if key not in seen]
    old = {_named(key): now - seen[key] for key in wanted if key in seen and now - seen[key] > limits.max_age}
    unseen = {
        f"{one.collection}|{one.tenant}": one.unseen_since
        for one in workspace.ledger.totals(now - limits.unseen)
        if one.entity == entity and one.unseen_since
    }
    reasons = [
        *([f"{len(never)} partitions were never synced: {_some(never)}"] if never else []),
        *([f"{len(old)} were not synced for {_days(limits.max_age)}: {_some(list(old))}"] if old else []),
        *(
            [f"{sum(unseen.values())} documents were not seen for {_days(limits.unseen)}: {_some(list(unseen))}"]
            if unseen
            else []
        ),
    ]
    facts = {
        "partitions": len(wanted),
        "never_synced": len(never),
        "too_old": len(old),
        "oldest_hours": round(max(((now - at).total_seconds() for at in seen.values()), default=0) / 3600),
        "documents_unseen": sum(unseen.values()),
    }
    message = "; ".join(reasons) or f"{len(wanted)} partitions, all in time"
    return _kept(workspace, entity, CheckOutcome(FRESHNESS, not reasons, message, facts, warning=True))


def _kept(workspace: Workspace, entity: str, outcome: CheckOutcome) -> CheckOutcome:
    outcome = graded(outcome, workspace.config.checks)
    workspace.ledger.record_checks([kept(outcome, entity, "", "", datetime.now(UTC))])
    return outcome


def _check_of(kind: str) -> str:
    return "isolation_of_all" if kind == _WRONG_TENANT else "reconciliation"


def _named(key: tuple[str, str]) -> str:
    return "|".join(key)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _days(limit: timedelta) -> str:
    hours = limit.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"
