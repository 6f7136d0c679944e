"""The Dagster instance that UI and CLI share: where it lives, and how a sync made without Dagster is recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import dagster as dg

from vecsync_dagster.assets.events import asset_key, events_of, worth_an_event
from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.sync import PartitionResult, Workspace

__all__ = ["dagster_home", "open_instance", "record"]


def dagster_home(config: Config) -> Path:
    """DAGSTER_HOME where it is set, else `dagster` in the state folder, made with our dagster.yaml.

    Raises OutputUnwritable where the folder cannot be made.
    """
    if os.environ.get("DAGSTER_HOME"):
        return Path(os.environ["DAGSTER_HOME"])
    home = config.state_folder / "dagster"
    settings = home / "dagster.yaml"
    if not settings.exists():
        try:
            home.mkdir(parents=True, exist_ok=True)
            settings.write_text(files("vecsync_dagster").joinpath("dagster.yaml").read_text(encoding="utf-8"))
        except OSError as error:
            raise OutputUnwritable(f"{home} cannot be written: {error.strerror}", path=str(home)) from error
    return home


def open_instance(config: Config) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(dagster_home(config)))


def record(workspace: Workspace, results: Iterable[PartitionResult]) -> int:
    """Report materializations and check results of a sync as runless events. Returns how many."""
    reported = 0
    by_entity: dict[str, list[PartitionResult]] = {}
    for result in results:
        by_entity.setdefault(result.entity, []).append(result)
    with open_instance(workspace.config) as instance:
        for entity, some in by_entity.items():
            add_tenants(instance, entity, [result.tenant for result in some])
            materialized = frozenset(instance.get_materialized_partitions(asset_key(entity, "vectors")))
            for result in some:
                if worth_an_event(result, materialized):
                    for event in events_of(workspace, result, result.stages):
                        instance.report_runless_asset_event(event)
                        reported += 1
    return reported
