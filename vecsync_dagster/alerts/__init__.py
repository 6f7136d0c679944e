"""Alerts: problems of a sync, sent to Slack, by e-mail or to a webhook when they start and when they are resolved."""

from vecsync_dagster.alerts.notifier import Alerts, Delivery, announce, build_channels, send_test
from vecsync_dagster.alerts.present import Seen, book_of, observe, owner_of, problems
from vecsync_dagster.alerts.problems import PRICE_TAG, check_failed, cost_passed, job_failed, run_failed, sync_failed
from vecsync_dagster.ledger.alerts import Alert, KnownAlert

__all__ = [
    "PRICE_TAG",
    "Alert",
    "Alerts",
    "Delivery",
    "KnownAlert",
    "Seen",
    "announce",
    "book_of",
    "build_channels",
    "check_failed",
    "cost_passed",
    "job_failed",
    "observe",
    "owner_of",
    "problems",
    "run_failed",
    "send_test",
    "sync_failed",
]
