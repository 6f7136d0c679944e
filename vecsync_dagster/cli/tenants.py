"""Tenants as people type them: by their id, or by the name that `tenancy.name` gives them."""

from __future__ import annotations

from vecsync_dagster.errors import WrongUsage
from vecsync_dagster.sources.names import readable
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import Workspace

__all__ = ["tenant_called"]

_LISTED = 20


def tenant_called(workspace: Workspace, typed: str | None, entity: str | None = None) -> str | None:
    """The id of the tenant: what was typed, unless it is a name that the ledger knows of one tenant (of the entity, or
    of any) and no tenant's id. Raises WrongUsage with the ids where several have it."""
    if typed is None or typed == GLOBAL:
        return typed
    names = workspace.ledger.names(entity)
    name = readable(typed)
    found = sorted({tenant for (_, tenant), called in names.items() if name and called == name})
    if not found or any(tenant == typed for _, tenant in names):
        return typed
    entities = workspace.config.entities if entity is None else [entity]
    if any(typed in workspace.ledger.tenants(one) for one in entities):
        return typed
    if len(found) > 1:
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise WrongUsage(f"{len(found)} tenants are called {name}; give the id: {', '.join(found[:_LISTED])}{more}")
    return found[0]
