"""Alerts in Dagster: two sensors that look at what ended runs found, and one that tells the channels.

Looking and telling are apart: a channel that is down fails the ticks of the third one, which are tried again,
and holds up nobody's looking. What both know is in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from vecsync_dagster.alerts import Alerts
from vecsync_dagster.automation.run_outcomes import is_ours, observe_run
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import Workspace

__all__ = ["DELIVERY", "OBSERVERS", "alert_sensors"]

SECONDS: Final = 15
OBSERVERS: Final = {
    "vecsync_alerts_on_success": dg.DagsterRunStatus.SUCCESS,
    "vecsync_alerts_on_failure": dg.DagsterRunStatus.FAILURE,
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
        description="Keeps what an ended run found wrong, or resolved, for the alerts",
    )
    def observer(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
        if record is None or not is_ours(config, jobs, record.dagster_run):
            return dg.SkipReason(f"run {context.dagster_run.run_id} is none of vecsync's")
        run = record.dagster_run
        ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None
        with Workspace(config) as workspace:
            observed = observe_run(config, workspace.ledger, context.instance, run)
            alerts = Alerts(config.alerts, workspace.ledger)
            # An error leaves the sensor's cursor where it is: the run is looked at again.
            alerts.observe(observed.raised, observed.is_over, run_id=run.run_id, at=ended)
        return None

    return observer


def _delivery(config: Config) -> dg.SensorDefinition:
    @dg.sensor(
        name=DELIVERY,
        minimum_interval_seconds=SECONDS,
        default_status=_status(config),
        description="Tells the channels what they have not been told yet",
    )
    def delivery(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with Workspace(config) as workspace:
            delivered = Alerts(config.alerts, workspace.ledger).deliver()
        if delivered.errors:
            # The tick fails, so that people see it in the UI; what was not told is told by a later one.
            reasons = "; ".join(f"{error.code}: {error}" for error in delivered.errors.values())
            raise dg.Failure(f"alerts were not sent: {reasons}")
        sent = ", ".join(f"{count} to {name}" for name, count in delivered.sent.items())
        return dg.SkipReason(f"sent: {sent}" if sent else "nothing to tell")

    return delivery


def _status(config: Config) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if config.alerts.enabled else dg.DefaultSensorStatus.STOPPED
