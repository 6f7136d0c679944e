"""vecsync: vector stores kept exactly in sync with the databases a company already runs.

As a library: `sync_tenant` brings one entity up to date for one tenant, with any source, store, provider and
ledger that satisfy the protocols in `sources.base`, `stores.base`, `embedding.base` and `ledger.base`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecsync_dagster.config.models import CollectionConfig, EntityConfig, SyncConfig, Tenancy
    from vecsync_dagster.ledger import SqlLedger
    from vecsync_dagster.sync.frames import changes_frame, documents_frame, figures_frame
    from vecsync_dagster.sync.options import PartitionResult, SyncOptions
    from vecsync_dagster.sync.pipeline import sync_tenant
    from vecsync_dagster.sync.workspace import Workspace

__all__ = [
    "CollectionConfig",
    "EntityConfig",
    "PartitionResult",
    "SqlLedger",
    "SyncConfig",
    "SyncOptions",
    "Tenancy",
    "Workspace",
    "changes_frame",
    "documents_frame",
    "figures_frame",
    "sync_tenant",
]

_WHERE = {
    "CollectionConfig": "config.models",
    "EntityConfig": "config.models",
    "PartitionResult": "sync.options",
    "SqlLedger": "ledger",
    "SyncConfig": "config.models",
    "SyncOptions": "sync.options",
    "Tenancy": "config.models",
    "Workspace": "sync.workspace",
    "changes_frame": "sync.frames",
    "documents_frame": "sync.frames",
    "figures_frame": "sync.frames",
    "sync_tenant": "sync.pipeline",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Public names are imported when they are used, so that `vecsync --help` does not load pandas and pyarrow."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
