"""Alerts in Dagster: sensors that look at what is wrong when a run has ended, and one that tells the channels.

Looking and telling are apart: a channel that is down makes the third one try again, later and later, and holds up
nobody's looking. What both know is in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from vecsync_dagster.alerts import book_of, observe
from vecsync_dagster.automation.run_outcomes import is_ours, seen_in
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import Workspace

__all__ = ["DELIVERY", "OBSERVERS", "alert_sensors"]

SECONDS: Final = 15
LONGEST: Final = 900
"""Seconds between two attempts to reach a channel that does not answer."""
OBSERVERS: Final = {
    "vecsync_alerts_on_success": dg.DagsterRunStatus.SUCCESS,
    "vecsync_alerts_on_failure": dg.DagsterRunStatus.FAILURE,
    "vecsync_alerts_on_cancel": dg.DagsterRunStatus.CANCELED,
}
DELIVERY: Final = "vecsync_alerts_delivery"


def alert_sensors(config: Config, jobs: Collection[str]) -> list[dg.SensorDefinition]:
    """The sensors; none without a channel. `jobs`: the names of our jobs, whose runs are looked at beside every
    run that selects our assets."""
    if not config.alerts.channels:
        return []
    return [*(_observer(config, jobs, name, status) for name, status in OBSERVERS.items()), _delivery(config)]


def _observer(config: Config, jobs: Collection[str], name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=name,
        minimum_interval_seconds=SECONDS,
        default_status=_status(config),
        description="Keeps what is wrong, or resolved, when a run has ended, for the alerts",
    )
    def observer(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
        if record is None or not is_ours(config, jobs, record.dagster_run):
            return dg.SkipReason(f"run {context.dagster_run.run_id} is none of vecsync's")
        with Workspace(config) as workspace:
            # An error leaves the sensor's cursor where it is: the run is looked at again.
            observe(config, workspace.ledger, seen_in(config, context.instance, record))
        return None

    return observer


def _delivery(config: Config) -> dg.SensorDefinition:
    @dg.sensor(
        name=DELIVERY,
        minimum_interval_seconds=SECONDS,
        default_status=_status(config),
        description="Tells the channels what they have not been told yet",
    )
    def delivery(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _deliver(config, context.cursor, datetime.now(UTC))

    return delivery


def _deliver(config: Config, cursor: str | None, now: datetime) -> dg.SensorResult:
    """A channel that takes nothing fails no tick, which would log the same long trace over and over: the tick says
    why, in one line, and the next attempts come later and later. The cursor: how many failed, and when the next one is
    due."""
    failures, due = (cursor or "0 0").split()
    if now.timestamp() < float(due):
        at = datetime.fromtimestamp(float(due), UTC)
        return dg.SensorResult(skip_reason=f"alerts wait for the next attempt, at {at:%H:%M:%S}Z", cursor=cursor)
    with Workspace(config) as workspace:
        delivered = book_of(config, workspace.ledger).deliver()
    if not delivered.errors:
        sent = ", ".join(f"{count} to {name}" for name, count in delivered.sent.items())
        return dg.SensorResult(skip_reason=f"sent: {sent}" if sent else "nothing to tell", cursor="0 0")
    times = int(failures) + 1
    wait = min(SECONDS * 2**times, LONGEST)
    reasons = "; ".join(f"{error.code}: {error}" for error in delivered.errors.values())
    told = f"alerts were not sent: {reasons}; the next attempt is in {wait} s"
    return dg.SensorResult(skip_reason=told, cursor=f"{times} {now.timestamp() + wait:.0f}")


def _status(config: Config) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if config.alerts.enabled else dg.DefaultSensorStatus.STOPPED
