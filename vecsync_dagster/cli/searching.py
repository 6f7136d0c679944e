"""A search for the command line: the question in the collection's own space, the answer for one tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vecsync_dagster.cli.tenants import called_that, in_ledger, require_tenant
from vecsync_dagster.errors import ConfigError, NotFound, WrongUsage
from vecsync_dagster.stores.base import DOCUMENT_ID, GLOBAL, SCOPE, TENANT_ID, Hit
from vecsync_dagster.sync import Workspace
from vecsync_dagster.words import shown

__all__ = ["Answer", "Found", "find", "only_collection"]


@dataclass(frozen=True, slots=True)
class Found:
    """One document. `name` is its first text field that stands in the payload, else its id."""

    document_id: str
    score: float
    scope: str
    tenant: str | None
    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """`semantic` False: only equal words were compared. `known` False: the tenant has no documents of its own."""

    collection: str
    tenant: str
    space: str
    semantic: bool
    known: bool
    hits: tuple[Found, ...]
    tenant_name: str = ""
    """What people call the tenant."""


def only_collection(workspace: Workspace) -> str:
    """The configuration's collection, if it has just one. Raises WrongUsage that lists them otherwise."""
    names = [name for entity in workspace.config.entities.values() for name in entity.collections]
    if len(names) != 1:
        raise WrongUsage(f"say which collection with --collection; there are: {', '.join(names)}")
    return names[0]


def find(workspace: Workspace, text: str, *, tenant: str, collection: str, limit: int) -> Answer:
    """The nearest documents that `tenant` may see.

    Raises ConfigError for a collection that does not exist or was never synced, NotFound for a tenant that the ledger
    does not know (one without documents of its own in this collection has the global ones), StoreLocked while another
    process has the embedded store, and the errors of provider and store.
    """
    entity = workspace.owner_of(collection)
    if workspace.ledger.space_of(collection) is None:
        raise ConfigError(
            f"the collection {collection} was never synced; run `vecsync sync all --collection {collection}` first",
            collection=collection,
        )
    known = tenant == GLOBAL or tenant in workspace.ledger.with_rows_or_marks(entity, collection)
    if not known and (whose := called_that(workspace, tenant)):
        raise NotFound(f"{shown(tenant)} is no tenant's id, and a search takes no names{whose}", tenant=tenant)
    if not known:
        require_tenant(workspace, tenant, in_ledger(workspace), "the ledger: it was never synced, or is gone")
    embedder = workspace.embedders.of(entity, collection, pin=False)
    vector = embedder.embed_query(text)
    hits = workspace.store_of(entity, collection).search(collection, vector, tenant, limit)
    fields = workspace.entity(entity).collections[collection].text_fields
    return Answer(
        collection=collection,
        tenant=tenant,
        space=str(embedder.provider.space),
        semantic=embedder.provider.semantic,
        known=known,
        hits=tuple(_found(hit, fields) for hit in hits),
        tenant_name=workspace.ledger.tenant_name(entity, tenant),
    )


def _found(hit: Hit, fields: tuple[str, ...]) -> Found:
    identity = str(hit.payload.get(DOCUMENT_ID) or hit.point_id)
    named = next((hit.payload[field] for field in fields if hit.payload.get(field)), identity)
    return Found(
        document_id=identity,
        score=hit.score,
        scope=str(hit.payload.get(SCOPE)),
        tenant=hit.payload.get(TENANT_ID),
        name=str(named),
        payload=hit.payload,
    )
