"""The sensor that looks for failed documents whose next attempt is due."""

from __future__ import annotations

from typing import Final

import dagster as dg

from vecsync_dagster.automation.under_way import runs_under_way
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import Workspace, due_rows

__all__ = ["RETRY_SENSOR", "build_retry_sensor"]

RETRY_SENSOR: Final = "vecsync_retry"


def build_retry_sensor(settings: Config, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Asks for a run of `job` when anything is due, and never for a second one while one is under way."""

    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=RETRY_SENSOR,
        job=job,
        minimum_interval_seconds=round(settings.sync.retry.interval.total_seconds()),
        default_status=running if settings.sync.retry.enabled else stopped,
        description="Tries failed documents again when they are due, the oldest attempt first",
    )
    def vecsync_retry(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if runs_under_way(context.instance, job=job.name):
            return dg.SkipReason("the last retry has not ended yet")
        with Workspace(settings, read_only=True) as workspace:
            due = any(due_rows(workspace, entity) for entity in settings.entities)
        return dg.RunRequest() if due else dg.SkipReason("no failed document is due")

    return vecsync_retry
