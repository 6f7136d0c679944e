"""What Dagster loads: configuration -> assets, checks, jobs, schedules, sensors.

The configuration is the file that VECSYNC_CONFIG names, else ./vecsync.yaml. Loading needs no secret, no
database and no store: those are opened by the run that uses them.
"""

from __future__ import annotations

import dagster as dg
from stamina.instrumentation import set_on_retry_hooks

from vecsync_dagster.assets.factory import (
    build_all_job,
    build_entity_assets,
    build_entity_job,
    build_source_assets,
    pool_of,
)
from vecsync_dagster.assets.purging import PURGE_JOB, build_purge_job
from vecsync_dagster.assets.retrying import build_retry_job
from vecsync_dagster.automation.alerting import alert_sensors
from vecsync_dagster.automation.changes import change_sensor
from vecsync_dagster.automation.retries import build_retry_sensor
from vecsync_dagster.automation.schedules import nightly_schedules, standing_schedules
from vecsync_dagster.automation.tenants import tenants_sensor
from vecsync_dagster.checks.partitions import build_check_assets, build_partition_checks
from vecsync_dagster.checks.standing import build_standing_checks, build_standing_jobs
from vecsync_dagster.config import Config, find_config, load_config
from vecsync_dagster.pauses import log_pause

__all__ = ["build_definitions", "defs"]


def build_definitions(
    config: Config,
    *,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """Everything that follows from one configuration.

    `executor`: of runs that belong to no job, like those the UI's "Materialize" makes; None leaves that to whom the
    definitions are merged into. Steps are few and streams are shared: a process for each step would only cost its
    start (3.7 s a run).
    """
    jobs = {name: build_entity_job(name) for name in config.entities}
    everything = build_all_job(config)
    retry = build_retry_job(config)
    reconcile, freshness = build_standing_jobs(config)
    with_tenants = [name for name, entity in config.entities.items() if entity.tenancy is not None]
    watched = [everything.name, retry.name, reconcile.name, freshness.name, *(job.name for job in jobs.values())]
    watched.append(PURGE_JOB)
    purge = build_purge_job(config, watched)
    return dg.Definitions(
        assets=[
            *build_source_assets(config),
            *(build_entity_assets(config, name) for name in config.entities),
            *(asset for name in config.entities for asset in build_check_assets(config, name)),
        ],
        asset_checks=[
            check
            for name in config.entities
            for check in (
                build_partition_checks(config, name, pool_of(config)),
                *build_standing_checks(config, name, pool_of(config)),
            )
        ],
        jobs=[*jobs.values(), everything, retry, reconcile, freshness, purge],
        schedules=[*nightly_schedules(config, jobs), *standing_schedules(config, reconcile, freshness, purge)],
        sensors=[
            *(tenants_sensor(config, name, jobs[name]) for name in with_tenants),
            *(change_sensor(config, name, job) for name, job in jobs.items()),
            build_retry_sensor(config, retry),
            *alert_sensors(config, watched),
        ],
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The entry point of workspace.yaml and of `dagster dev -m vecsync_dagster.definitions`."""
    set_on_retry_hooks([log_pause])
    return build_definitions(load_config(find_config()))
