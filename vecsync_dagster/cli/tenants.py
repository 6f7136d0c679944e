"""Tenants as people type them: by their id and, where no documents are shown, by their name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from vecsync_dagster.containment import contained
from vecsync_dagster.errors import NotFound, VecsyncError, WrongUsage
from vecsync_dagster.sources.tenant_names import readable
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.words import named, shown

__all__ = ["called_that", "in_ledger", "meant_by", "require_tenant", "tenant_called"]

_LISTED = 20


def tenant_called(workspace: Workspace, typed: str | None) -> str | None:
    """The id of the tenant: what was typed, unless it is the name of one tenant and no tenant's id, whichever entity
    has it. Not for what shows documents: tenants may choose their names, and one may be another's id. Raises WrongUsage
    with the ids where several have the name, and where a source cannot be asked whether it is an id."""
    if typed is None or typed == GLOBAL:
        return typed
    found = _called(workspace, typed)
    if not found or _is_id(workspace, {typed, readable(typed)}, found):
        return typed
    if len(found) > 1:
        raise WrongUsage(f"{len(found)} tenants are called {shown(readable(typed))}; give the id: {_some(found)}")
    return found[0]


def called_that(workspace: Workspace, typed: str) -> str:
    """Behind a message that there is no such tenant: whose name it is."""
    found = _called(workspace, typed)
    if len(found) > 1:
        return f"; {len(found)} tenants are called that: {_some(found)}"
    return f"; a tenant {found[0]} is called that" if found else ""


def meant_by(workspace: Workspace, typed: str) -> str:
    """The same, or else who may have been meant, by ids and names that are nearly this; and what lists all of them."""
    if hint := called_that(workspace, typed):
        return hint
    names = {tenant: name for (_, tenant), name in workspace.ledger.tenant_names().items()}
    tenants = sorted({*in_ledger(workspace)} - {GLOBAL})
    texts = [(text.casefold(), one) for one in tenants for text in (one, names.get(one, "")) if text]
    near = get_close_matches(typed.casefold(), list(dict(texts)))
    found = dict.fromkeys(one for text in near for other, one in texts if other == text)
    if not found:
        return "; `vecsync tenants` lists them"
    guess = ", ".join(named(one, names.get(one, "")) for one in found)
    return f"; did you mean {guess}? `vecsync tenants` lists all"


def in_ledger(workspace: Workspace) -> set[str]:
    """Ids of all tenants that the ledger knows, of whatever entity."""
    ledger = workspace.ledger
    known = {*(tenant for _, tenant in ledger.tenant_names()), *(place.tenant for place in ledger.last_runs())}
    for name, entity in workspace.config.entities.items():
        known.update(ledger.traces(name, entity.collections), ledger.with_rows_or_marks(name))
    return known - {""}


def require_tenant(workspace: Workspace, tenant: str | None, known: Iterable[str], where: str) -> None:
    """Raises NotFound where a tenant is asked for that is none of those that are `known`."""
    if tenant is not None and tenant != GLOBAL and tenant not in known:
        raise NotFound(f"no tenant {shown(tenant)} in {where}{meant_by(workspace, tenant)}", tenant=tenant)


def _called(workspace: Workspace, typed: str) -> list[str]:
    """Ids of the tenants with this name, in any entity."""
    name = readable(typed)
    entities = workspace.config.entities
    known = workspace.ledger.tenant_names().items()
    return sorted({tenant for (entity, tenant), called in known if name and called == name and entity in entities})


def _is_id(workspace: Workspace, texts: set[str], found: list[str]) -> bool:
    """Whether any entity has such a tenant, in the ledger or at the source."""
    if texts & in_ledger(workspace):
        return True
    for entity in workspace.config.entities:
        try:
            with contained(f"{entity}: listing the tenants"):
                if not texts.isdisjoint(workspace.source(entity).tenants()):
                    return True
        except VecsyncError as error:
            raise WrongUsage(
                f"that may be a tenant's id or a name, and {entity} cannot be asked ({error.code}: {error}); "
                f"give the id: {_some(found)}"
            ) from error
    return False


def _some(found: list[str]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{', '.join(found[:_LISTED])}{more}"
