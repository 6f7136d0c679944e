"""What counts as a problem: each kind of alert, made from the facts of a sync.

What belongs here: the sentences and keys of alerts. Facts are names, codes and counts; nothing here has seen a
document.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from vecsync_dagster.config.alerts import AlertKind, Severity
from vecsync_dagster.ledger.alerts import Alert
from vecsync_dagster.ledger.base import LISTING, LOST, Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.words import number_of

__all__ = [
    "PRICE_TAG",
    "check_failed",
    "cost_passed",
    "failed_for_good",
    "is_of_lost_tenant",
    "is_of_source",
    "job_failed",
    "kind_of_check",
    "run_failed",
    "source_failed",
    "sync_failed",
    "tenants_lost",
]

PRICE_TAG: Final = "vecsync/price_usd"
"""The tag of a Dagster run that says what it paid."""

RECONCILIATION: Final = frozenset({"counts", "identity", "isolation", "reconciliation", "isolation_of_all"})
"""Checks that compare the source, the ledger and the store."""


def kind_of_check(check: str) -> AlertKind:
    return "reconciliation" if check in RECONCILIATION else "check_failure"


def check_failed(one: CheckResult) -> Alert:
    partition = f"{one.collection}|{one.tenant}" if one.collection else None
    severity: Severity = "warning" if one.warning else "error"
    figures = {name: fact for name, fact in one.facts.items() if isinstance(fact, int)}
    return Alert(kind_of_check(one.check), one.entity, one.message, partition, one.check, severity, figures, at=one.at)


def sync_failed(entity: str, partition: str | None, message: str, *, at: datetime | None = None) -> Alert:
    """A partition was not synced; without one, a run over an entity did not end well."""
    return Alert("run_failure", entity, message, partition, at=at)


def job_failed(entities: str, job: str, message: str, *, at: datetime | None = None) -> Alert:
    """A run of a job that syncs nothing did not end well: of retries, or of checks."""
    return Alert("run_failure", entities, message, check=job, at=at)


def is_of_source(run: Run) -> bool:
    """Whether it is the run of an entity whose source cannot be asked for its tenants."""
    return run.mode == LISTING and not (run.error or "").startswith(LOST)


def is_of_lost_tenant(run: Run) -> bool:
    """Whether it failed because its entity's source lacks far too many tenants: that of the entity's tenants, or of a
    partition."""
    return (run.error or "").startswith(LOST)


def run_failed(run: Run) -> Alert:
    """The ledger's last run of a partition."""
    return sync_failed(run.entity, f"{run.collection}|{run.tenant}", _error_of(run), at=run.ended_at)


def tenants_lost(entity: str, runs: Sequence[Run]) -> Alert:
    """One alert for an entity whose source lacks far too many tenants, and for the partitions that were refused for it:
    until the last of them is synced, however early the tenants are back."""
    for run in runs:
        if run.mode == LISTING:
            message = _error_of(run).removeprefix(f"{LOST}: {entity}: ")
            return Alert("tenants_lost", entity, message, figures=run.figures)
    left = number_of(len(runs), "partition")
    message = f"the source lists its tenants again; still to be synced since it did not: {left}"
    return Alert("tenants_lost", entity, message, figures={"partitions": len(runs)})


def source_failed(entity: str, runs: Sequence[Run]) -> Alert:
    """One alert for an entity whose source cannot be asked for its tenants, and for the partitions that it failed:
    until the last of them is synced, however early the source answers again."""
    partitions = [run for run in runs if not is_of_source(run)]
    figures = {"partitions": len(partitions)} if partitions else {}
    for run in runs:
        if is_of_source(run):
            return Alert("source_failure", entity, _error_of(run), figures=figures)
    in_full = " in full" * all(run.mode == "full" for run in partitions)
    left = number_of(len(partitions), "partition")
    message = f"the source answers again; still to be synced{in_full} since it was unavailable: {left}"
    return Alert("source_failure", entity, message, figures=figures, at=max(run.ended_at for run in partitions))


def _error_of(run: Run) -> str:
    return run.error or f"the last run was {run.outcome}"


def cost_passed(entity: str, price_usd: float, limit_usd: float) -> Alert:
    message = f"one run paid US$ {price_usd:.4f} for embeddings, more than the limit of {limit_usd:.4f}"
    figures = {"price_usd": round(price_usd, 6), "limit_usd": limit_usd}
    return Alert("cost_limit", entity, message, figures=figures)


def failed_for_good(entity: str, collection: str, tenant: str, documents: int, at: datetime | None) -> Alert:
    """Documents of a partition that are not tried again; the last one failed at the time `at`."""
    message = f"{documents:,} failed too often, or in a way that does not pass; `vecsync status` says why"
    figures = {"documents": documents}
    return Alert("permanent_failure", entity, message, f"{collection}|{tenant}", figures=figures, at=at)
