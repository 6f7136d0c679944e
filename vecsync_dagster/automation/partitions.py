"""Partitions: tenant x collection, one definition for the whole chain of an entity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.errors import InvalidTenant
from vecsync_dagster.sync import Selection, check_tenant

__all__ = ["add_tenants", "partition_key", "partitions_of", "selections", "tenants_name"]


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
    new = [tenant for tenant in dict.fromkeys(tenants) if tenant not in known and _valid(tenant)]
    if new:
        instance.add_dynamic_partitions(tenants_name(entity), new)


def _valid(tenant: str) -> bool:
    try:
        check_tenant(tenant)
    except InvalidTenant:
        return False
    return True
