"""Alerts: problems of a sync, sent to Slack, by e-mail or to a webhook when they start and when they are resolved."""

from vecsync_dagster.alerts.notifier import Alerts, Delivery, announce, build_channels, nothing_well, send_test
from vecsync_dagster.alerts.outcomes import Observed, Unsynced, observe_checks, observe_results, observing
from vecsync_dagster.alerts.problems import (
    PRICE_TAG,
    check_failed,
    cost_passed,
    failed_for_good,
    kind_of_check,
    run_died,
    source_failed,
    sync_failed,
    tenants_lost,
)
from vecsync_dagster.alerts.settled import settled
from vecsync_dagster.ledger.alerts import Alert, KnownAlert

__all__ = [
    "PRICE_TAG",
    "Alert",
    "Alerts",
    "Delivery",
    "KnownAlert",
    "Observed",
    "Unsynced",
    "announce",
    "build_channels",
    "check_failed",
    "cost_passed",
    "failed_for_good",
    "kind_of_check",
    "nothing_well",
    "observe_checks",
    "observe_results",
    "observing",
    "run_died",
    "send_test",
    "settled",
    "source_failed",
    "sync_failed",
    "tenants_lost",
]
