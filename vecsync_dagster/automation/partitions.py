"""Partitions: tenant x collection, one definition for the whole chain of an entity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import dagster as dg

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.sync import Selection
from vecsync_dagster.sync.options import is_tenant

__all__ = [
    "ALL_JOB",
    "CLI_JOB",
    "COMMAND_TAG",
    "PARTITION_TAG",
    "RANGE_END_TAG",
    "RANGE_TAG",
    "STATE_TAG",
    "add_tenants",
    "partition_key",
    "partitions_of",
    "selections",
    "tenants_name",
]

ALL_JOB: Final = "sync_all_job"
"""The job over all entities."""
CLI_JOB: Final = "vecsync_cli"
"""The job of the runs that record what the command line did."""
PARTITION_TAG: Final = "dagster/partition"
RANGE_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
"""Of a run that was started in the UI: its partition, or the first and the last one of a range."""


STATE_TAG: Final = "vecsync/state"
"""Of a run that records what the command line did: whose (`Config.project`), where several share an instance."""


COMMAND_TAG: Final = "vecsync/command"
"""Of the same runs: the command, and the entities that it synced."""


def tenants_name(entity: str) -> str:
    """Dynamic partitions are global to an instance, across code locations: hence the prefix."""
    return f"vecsync_{entity}_tenants"


def partitions_of(name: str, entity: EntityConfig) -> dg.MultiPartitionsDefinition:
    return dg.MultiPartitionsDefinition(
        {
            "tenant": dg.DynamicPartitionsDefinition(name=tenants_name(name)),
            "collection": dg.StaticPartitionsDefinition(list(entity.collections)),
        }
    )


def partition_key(collection: str, tenant: str) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"collection": collection, "tenant": tenant})


def selections(entity: str, keys: Iterable[str]) -> list[Selection]:
    """Partition keys (`collection|tenant`) as selections: one for each tenant, so that it is exported once."""
    collections: dict[str, list[str]] = {}
    for key in keys:
        collection, _, tenant = str(key).partition("|")
        collections.setdefault(tenant, []).append(collection)
    return [Selection(entity, tenant, tuple(names)) for tenant, names in collections.items()]


def add_tenants(instance: dg.DagsterInstance, entity: str, tenants: Sequence[str]) -> None:
    """Make partitions of tenants that are new. Keys that cannot be one are left out: a `|` in a key would
    silently drop it from the product; their sync fails and says so."""
    known = set(instance.get_dynamic_partitions(tenants_name(entity)))
    # Each once: Dagster inserts what it is given, and a tenant has a result for each of its collections.
    new = [tenant for tenant in dict.fromkeys(tenants) if tenant not in known and is_tenant(tenant)]
    if new:
        instance.add_dynamic_partitions(tenants_name(entity), new)
