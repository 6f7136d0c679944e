"""What Dagster loads: configuration -> assets, checks, jobs, schedules, sensors.

The configuration is the file that VECSYNC_CONFIG names, else ./vecsync.yaml. Loading needs no secret, no
database and no store: those are opened by the run that uses them.
"""

from __future__ import annotations

import dagster as dg

from vecsync_dagster.assets.factory import build_all_job, build_entity_assets, build_entity_job
from vecsync_dagster.assets.retrying import build_retry_job
from vecsync_dagster.automation import build_retry_sensor, nightly_schedules
from vecsync_dagster.config import Config, find_config, load_config

__all__ = ["build_definitions", "defs"]


def build_definitions(config: Config) -> dg.Definitions:
    """Everything that follows from one configuration."""
    jobs = {name: build_entity_job(name) for name in config.entities}
    retry_job = build_retry_job(config)
    return dg.Definitions(
        assets=[build_entity_assets(config, name) for name in config.entities],
        jobs=[*jobs.values(), build_all_job(config), retry_job],
        schedules=nightly_schedules(config, jobs),
        sensors=[build_retry_sensor(config, retry_job)],
        # Steps are few and streams are shared: a process for each step would only cost its start (3.7 s a run).
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The entry point of workspace.yaml and of `dagster dev -m vecsync_dagster.definitions`."""
    return build_definitions(load_config(find_config()))
