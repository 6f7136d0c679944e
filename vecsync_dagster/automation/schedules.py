"""Schedules: the nightly full run of each entity, which sees removals and verifies every partition point by point; the
weekly comparison of everything; the look whether everything is fresh; and the deletion of Dagster's old runs."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from vecsync_dagster.config.models import Config

__all__ = ["nightly_schedules", "standing_schedules"]

Job = UnresolvedAssetJobDefinition


def nightly_schedules(config: Config, jobs: Mapping[str, Job]) -> list[dg.ScheduleDefinition]:
    # The run has no partition key: it asks the source for its tenants when it starts, so that one that came
    # or went since yesterday is covered, and it writes no planned event for each partition.
    return [
        dg.ScheduleDefinition(
            name=f"{entity}_nightly",
            job=job,
            cron_schedule=config.schedule.cron,
            execution_timezone=config.schedule.timezone,
            run_config={"ops": {f"{entity}_sync": {"config": {"mode": "full"}}}},
            default_status=_status(config),
            description=f"Full sync of every tenant of {entity}, with removals and identity checks",
        )
        for entity, job in jobs.items()
    ]


def standing_schedules(
    config: Config, reconcile: Job, freshness: Job, purge: dg.JobDefinition
) -> list[dg.ScheduleDefinition]:
    return [
        dg.ScheduleDefinition(
            name=name,
            job=job,
            cron_schedule=cron,
            execution_timezone=config.schedule.timezone,
            default_status=_status(config),
            description=description,
        )
        for name, job, cron, description in (
            ("reconcile_weekly", reconcile, config.schedule.reconcile_cron, "Every point of every collection compared"),
            ("freshness", freshness, config.schedule.freshness_cron, "Whether every partition was synced in time"),
            ("purge_old_runs", purge, config.schedule.purge_cron, "Dagster's old runs deleted"),
        )
    ]


def _status(config: Config) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if config.schedule.enabled else dg.DefaultScheduleStatus.STOPPED
