"""What Dagster loads: configuration -> assets, checks, jobs, schedules, sensors.

The configuration is the file that VECSYNC_CONFIG names, else ./vecsync.yaml. Loading needs no secret, no
database and no store: those are opened by the run that uses them.
"""

from __future__ import annotations

import dagster as dg

from vecsync_dagster.assets.factory import build_all_job, build_entity_assets, build_entity_job
from vecsync_dagster.automation import alert_sensors, nightly_schedules
from vecsync_dagster.config import Config, find_config, load_config

__all__ = ["build_definitions", "defs"]


def build_definitions(
    config: Config, *, executor: dg.ExecutorDefinition | None = dg.in_process_executor
) -> dg.Definitions:
    """Everything that follows from one configuration.

    `executor`: of runs that belong to no job, like those the UI's "Materialize" makes; None leaves that to whom the
    definitions are merged into.
    """
    jobs = {name: build_entity_job(name) for name in config.entities}
    everything = build_all_job(config)
    return dg.Definitions(
        assets=[build_entity_assets(config, name) for name in config.entities],
        jobs=[*jobs.values(), everything],
        schedules=nightly_schedules(config, jobs),
        sensors=alert_sensors(config, [everything.name, *(job.name for job in jobs.values())]),
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The entry point of workspace.yaml and of `dagster dev -m vecsync_dagster.definitions`."""
    return build_definitions(load_config(find_config()))
