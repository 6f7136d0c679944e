"""The nightly full run of each entity: it sees removals, and verifies every partition point by point."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from vecsync_dagster.config.models import Config

__all__ = ["nightly_schedules"]


def nightly_schedules(config: Config, jobs: dict[str, UnresolvedAssetJobDefinition]) -> list[dg.ScheduleDefinition]:
    return [_nightly(config, entity, job) for entity, job in jobs.items()]


def _nightly(config: Config, entity: str, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    # The run has no partition key: it asks the source for its tenants when it starts, so that one that came
    # or went since yesterday is covered, and it writes no planned event for each partition.
    running, stopped = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    return dg.ScheduleDefinition(
        name=f"{entity}_nightly",
        job=job,
        cron_schedule=config.schedule.cron,
        execution_timezone=config.schedule.timezone,
        run_config={"ops": {f"{entity}_sync": {"config": {"mode": "full"}}}},
        default_status=running if config.schedule.enabled else stopped,
        description=f"Full sync of every tenant of {entity}, with removals and identity checks",
    )
