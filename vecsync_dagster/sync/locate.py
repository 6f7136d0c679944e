"""Where a record is: the tenant that has it in the source, or the one that only the ledger still has it under."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vecsync_dagster.documents import document_id
from vecsync_dagster.documents.columns import Cleaner
from vecsync_dagster.identity import storable
from vecsync_dagster.sources.base import Read
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["holders", "locate"]

_AT_ONCE = 500


def locate(workspace: Workspace, entity: str, ids: Sequence[str], tenant: str | None = None) -> dict[str, list[str]]:
    """Ids by tenant; an id that nobody knows is in none of them. `tenant`: look there only.

    Tenants that have a record in the source come first: a record that moved is then taken over by its new tenant
    before its old one would remove it. Raises Source* errors.
    """
    known = _known(workspace, entity, ids, tenant)
    tenants = [tenant] if tenant is not None else list(dict.fromkeys([*known, *workspace.tenants(entity)]))
    places: dict[str, list[str]] = {}
    # By the keys that the ledger has, where it has them: a text may be that of keys of several types.
    missing = {one: one for one in ids} | {str(one): one for theirs in known.values() for one in theirs}
    for candidate in tenants:
        if not missing:
            break
        found = sorted(
            {one for one in _in_source(workspace, entity, candidate, list(missing.values())) if one in missing}
        )
        if found:
            places[candidate] = [missing.pop(one) for one in found]
    for candidate, theirs in known.items():
        # What the ledger has under this tenant, the source may have under another one by now: both need a look.
        places[candidate] = list(dict.fromkeys([*places.get(candidate, []), *theirs]))
    return places


def _known(workspace: Workspace, entity: str, ids: Sequence[str], tenant: str | None) -> dict[str, list[str]]:
    """What the ledger knows of them: ids by tenant."""
    config = workspace.entity(entity)
    kind = config.type or entity
    documents = [document_id(scope, kind, one) for one in filter(storable, ids) for scope in (GLOBAL, "")]
    names = tuple(config.collections)
    found: dict[str, list[str]] = {}
    for record in workspace.ledger.records(entity, names, tenant=tenant, ids=documents, limit=len(documents)):
        found.setdefault(record.tenant, []).append(record.db_id)
    return found


def holders(workspace: Workspace, entity: str, ids: Sequence[str]) -> set[str]:
    """The tenants that the ledger has any of these records under."""
    chunks = (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
    return {tenant for some in chunks for tenant in _known(workspace, entity, some, None)}


def _in_source(workspace: Workspace, entity: str, tenant: str, ids: Sequence[str]) -> Iterator[str]:
    config = workspace.entity(entity)
    cleaner = Cleaner(entity, config)
    for page in workspace.source(entity).read(Read(tenant, ids=ids), workspace.config.sync.page):
        # A record without a usable id is none of those that were asked for.
        yield from (one for one in cleaner.read(page.records).ids(config.key) if one is not None)
