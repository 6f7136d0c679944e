"""What counts as a problem: each kind of alert, made from the facts of a sync.

What belongs here: the sentences and keys of alerts. Facts are names, codes and counts; nothing here has seen a
document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vecsync_dagster.config.alerts import AlertKind, Severity
from vecsync_dagster.config.models import Config
from vecsync_dagster.ledger.alerts import Alert, AlertBook
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.words import number_of

__all__ = [
    "PRICE_TAG",
    "check_failed",
    "cost_passed",
    "failed_for_good",
    "kind_of_check",
    "run_died",
    "source_failed",
    "sync_failed",
    "tenants_lost",
]

PRICE_TAG: Final = "vecsync/price_usd"
"""The tag of a Dagster run that says what it paid."""

RECONCILIATION: Final = frozenset({"counts", "identity", "isolation", "reconciliation"})
"""Checks that compare the source, the ledger and the store."""


def kind_of_check(check: str) -> AlertKind:
    return "reconciliation" if check in RECONCILIATION else "check_failure"


def check_failed(
    entity: str,
    partition: str | None,
    check: str,
    message: str,
    *,
    severity: Severity,
    figures: Mapping[str, int | float | str],
    run_id: str = "",
) -> Alert:
    return Alert(kind_of_check(check), entity, message, partition, check, severity, figures, run_id)


def sync_failed(entity: str, partition: str | None, message: str, *, run_id: str = "") -> Alert:
    """A partition was not synced; without one, the run of a whole entity or job did not end well."""
    return Alert("run_failure", entity, message, partition, run_id=run_id)


def run_died(run: Run) -> Alert:
    return sync_failed(run.entity, f"{run.collection}|{run.tenant}", run.error or "")


def source_failed(entity: str, message: str, *, run_id: str = "") -> Alert:
    """The source of an entity cannot be asked which tenants there are, so nothing of it is synced."""
    return Alert("source_failure", entity, message, run_id=run_id)


def cost_passed(entity: str, price_usd: float, limit_usd: float, *, run_id: str = "") -> Alert:
    message = f"one run paid US$ {price_usd:.4f} for embeddings, more than the limit of {limit_usd:.4f}"
    figures = {"price_usd": round(price_usd, 6), "limit_usd": limit_usd}
    return Alert("cost_limit", entity, message, figures=figures, run_id=run_id)


def tenants_lost(entity: str, *, known: int, found: int, run_id: str = "") -> Alert:
    """The source suddenly lists none or far fewer tenants than the ledger knows."""
    message = f"the source lists {found:,} of {number_of(known, 'tenant')}: taken as broken, nothing was removed"
    return Alert("tenants_lost", entity, message, figures={"known": known, "found": found}, run_id=run_id)


def failed_for_good(book: AlertBook, config: Config, entities: Iterable[str], *, run_id: str = "") -> list[Alert]:
    """The partitions of these entities that have documents which are not tried again."""
    alerts = []
    for entity in entities:
        for collection in config.entities[entity].collections:
            for tenant, count in book.permanent_failures(entity, collection).items():
                message = f"{count:,} failed too often, or in a way that does not pass; `vecsync status` says why"
                partition = f"{collection}|{tenant}"
                alerts.append(
                    Alert("permanent_failure", entity, message, partition, figures={"documents": count}, run_id=run_id)
                )
    return alerts
