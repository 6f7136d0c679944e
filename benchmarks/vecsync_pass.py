"""One pass of vecsync over the source table, through the library call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import vecsync_dagster.ledger.migrate  # noqa: F401 (a first sync needs it, and imports are outside of the clock)
from benchmarks.sink import CountingProvider, DroppingStore
from vecsync_dagster import CollectionConfig, EntityConfig, SqlLedger, SyncConfig, SyncOptions, Tenancy, sync_tenant
from vecsync_dagster.config.models import SqliteSource
from vecsync_dagster.sources import SqlSource, build_source
from vecsync_dagster.sync.compare import compare_collection
from vecsync_dagster.sync.embedders import Embedders
from vecsync_dagster.sync.options import PartitionResult
from vecsync_dagster.sync.reconcile import repair as mend
from vecsync_dagster.sync.target import Target

__all__ = ["ENTITY", "entity", "open_source", "partitions", "repair", "run"]

ENTITY = "records"
Mode = Literal["full", "incremental"]
Verify = Literal["auto", "identity", "counts"]


def entity(*, tenants: bool = False) -> EntityConfig:
    return EntityConfig(
        source="db",
        table="records",
        tenancy=Tenancy(column="tenant_id") if tenants else None,
        updated_at="updated_at",
        required=("name",),
        types={"price": "number"},
        collections={
            "records": CollectionConfig(
                text="{name} {category} {description} {sku}", payload=("name", "category", "price", "sku")
            )
        },
    )


def open_source(path: Path, config: EntityConfig) -> SqlSource:
    return build_source(
        SqliteSource(type="sqlite", path=str(path)), config, name="db", entity_name=ENTITY, path_of=Path
    )


def run(
    source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider, *, mode: Mode, verify: Verify
) -> dict[str, Any]:
    config = entity()
    ledger, opened = SqlLedger.open(f"sqlite:///{ledger_file}"), open_source(source, config)
    results = sync_tenant(
        ENTITY,
        config,
        "global",
        source=opened,
        store=store,
        provider=provider,
        ledger=ledger,
        settings=SyncConfig(verify=verify),
        options=SyncOptions(mode=mode),
    )
    opened.close()
    ledger.close()
    return _told(results)


def partitions(
    source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider, *, mode: Mode, verify: Verify
) -> dict[str, Any]:
    """Every tenant of the table, one after the other, in one process."""
    config = entity(tenants=True)
    ledger, opened = SqlLedger.open(f"sqlite:///{ledger_file}"), open_source(source, config)
    embedders = Embedders([provider], ledger)
    results = [
        result
        for tenant in opened.tenants()
        for result in sync_tenant(
            ENTITY,
            config,
            tenant,
            source=opened,
            store=store,
            provider=embedders,
            ledger=ledger,
            settings=SyncConfig(verify=verify),
            options=SyncOptions(mode=mode),
        )
    ]
    opened.close()
    ledger.close()
    return _told(results)


def repair(source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider) -> dict[str, Any]:
    """`vecsync reconcile --repair`: compare every point with the ledger, and mend what differs."""
    config = entity()
    ledger, opened = SqlLedger.open(f"sqlite:///{ledger_file}"), open_source(source, config)
    embedder = Embedders([provider], ledger).of(ENTITY, ENTITY, pin=False)
    target = Target(ENTITY, config, ENTITY, "global", store, ledger, embedder)
    figures = mend(lambda tenant: replace(target, tenant=tenant), opened, compare_collection(target))
    opened.close()
    ledger.close()
    return {"fetched": figures.upserted + figures.payload_only + figures.removed}


def _told(results: list[PartitionResult]) -> dict[str, Any]:
    for result in results:
        if result.error is not None:
            raise result.error
    failed = [f"{c.name}: {c.message}" for r in results for c in r.checks if not c.passed]
    named = [d.point_id for r in results for c in r.checks for d in c.differences]
    return {"fetched": sum(r.figures.fetched for r in results), "failed_checks": failed, "named": named}
