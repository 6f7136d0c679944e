"""A collection dropped for good: its points, its rows in the ledger and, with the last collection of an entity that
left the configuration, what is left of the entity. Of one that another entity has by now, what the former one left."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from vecsync_dagster.errors import ConfigError, NotFound, StoreRejected, VecsyncError, WrongUsage
from vecsync_dagster.ledger.base import Partition
from vecsync_dagster.stores.base import GLOBAL, Droppable, VectorStore
from vecsync_dagster.sync.absence import is_ruled_out
from vecsync_dagster.sync.forgetting import forget_tenant
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["Leaving", "Leftover", "drop", "leaving", "leftovers"]

_HELD = 20


@dataclass(frozen=True, slots=True)
class Leftover:
    """What the ledger has of a collection, or of one scope of it (everybody's records, or those of tenants), that the
    configuration has no more."""

    entity: str
    collection: str
    scope: str | None
    documents: int

    def __str__(self) -> str:
        if self.scope is None:
            way = f"`vecsync drop {self.collection}` removes it"
            return f"{self.collection} of {self.entity} is not in the configuration any more, {self._documents}; {way}"
        which = "global" if self.scope == GLOBAL else "tenants"
        way = f"`vecsync sync {which} --entity {self.entity} --full` removes them"
        return f"{self.collection} of {self.entity} has no {self.scope} records any more, {self._documents}; {way}"

    @property
    def _documents(self) -> str:
        return f"the ledger has {self.documents} documents of it"


@dataclass(frozen=True, slots=True)
class Leaving:
    """What would go. `shared`: another entity uses the collection now, and only what former ones left goes. `stores`:
    configured stores that have the collection, with its points, or with those of these entities; `unreachable`: those
    that could not be asked, and why. `entities`: whose rows go, with their documents; `whole`: those of them of which
    nothing else is left."""

    collection: str
    shared: bool
    stores: dict[str, int]
    unreachable: dict[str, str]
    entities: dict[str, int]
    whole: tuple[str, ...]


def leftovers(workspace: Workspace, entity: str | None = None) -> list[Leftover]:
    """What left the configuration and is still there, by the ledger alone."""
    return [one for one in _leftovers(workspace) if entity in (None, one.entity)]


def _leftovers(workspace: Workspace) -> Iterator[Leftover]:
    ledger, entities = workspace.ledger, workspace.config.entities
    for name, collection in ledger.collections():
        if name not in entities or collection not in entities[name].collections:
            yield Leftover(name, collection, None, ledger.documents(name, collection))
            continue
        held = [one for one in ledger.tenants(name, collection) if is_ruled_out(entities[name], one)]
        if rows := sum(ledger.tally(name, collection, one).rows for one in held):
            yield Leftover(name, collection, GLOBAL if held == [GLOBAL] else "tenant", rows)


def leaving(workspace: Workspace, collection: str, *, everything: bool = False) -> Leaving:
    """What `drop` would remove. `everything`: also what the configuration has. Raises WrongUsage where nothing else is
    left, and NotFound for a collection that neither the ledger nor a store knows."""
    known = workspace.ledger.collections()
    users = {name for name, entity in workspace.config.entities.items() if collection in entity.collections}
    shared = bool(users) and not everything
    owners = [entity for entity, one in known if one == collection and not (shared and entity in users)]
    if shared:
        _check_former(workspace, collection, owners, users)
    stores: dict[str, int] = {}
    unreachable: dict[str, str] = {}
    for name in workspace.config.stores:
        try:
            store = workspace.store(name)
            if store.pinned_space(collection) is not None:
                theirs = (len(ids) for ids in _points_of(store, collection, owners))
                stores[name] = sum(theirs) if shared else store.count(collection)
        except VecsyncError as error:
            unreachable[name] = f"{error.code}: {error}"
    if not owners and not stores and not unreachable:
        names = ", ".join(sorted({one for _, one in known})) or "none"
        raise NotFound(
            f"no collection {collection!r} in the ledger or a store; the ledger knows: {names}", collection=collection
        )
    entities = workspace.config.entities
    return Leaving(
        collection,
        shared,
        stores,
        unreachable,
        {entity: workspace.ledger.documents(entity, collection) for entity in owners},
        tuple(
            entity
            for entity in owners
            if entity not in entities and not any(e == entity and c != collection for e, c in known)
        ),
    )


def drop(workspace: Workspace, what: Leaving, also: Callable[[str], None] = lambda _: None) -> None:
    """The store first, the ledger second: where it ends half-way, dropping once more does the rest. `also`: what else
    is to be done about an entity of which nothing is left, before the ledger forgets it.

    Raises PartitionBusy where a run is in a partition of it, and the errors of store and ledger. A store that could
    not be asked is an error: its points would be nobody's.
    """
    if what.unreachable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in what.unreachable.items())
        raise StoreRejected(
            f"collection {what.collection}: nothing was dropped, a store could not be asked: {reasons}",
            service="STORE",
            collection=what.collection,
        )
    with ExitStack() as holds:
        for entity in what.entities:
            _hold(holds, workspace, entity, what.collection)
        for name in workspace.config.stores:
            _remove(name, workspace.store(name), what)
        for entity in what.entities:
            if entity in what.whole:
                also(entity)
                forget_tenant(workspace.ledger, workspace.snapshots, workspace.rejections, entity, None)
                workspace.ledger.forget_entity(entity)
            workspace.ledger.forget_collection(entity, what.collection)


def _remove(name: str, store: VectorStore, what: Leaving) -> None:
    if what.shared:
        if name in what.stores:
            for ids in _points_of(store, what.collection, list(what.entities)):
                store.delete_foreign(what.collection, ids)
    # Also where it has no points: what an earlier call left half removed is to go.
    elif isinstance(store, Droppable):
        store.drop_collection(what.collection)
    elif name in what.stores:
        raise ConfigError(f"stores.{name} cannot drop a collection", key=f"stores.{name}")


def _check_former(workspace: Workspace, collection: str, owners: Sequence[str], users: Container[str]) -> None:
    """Raises WrongUsage where nobody but the configuration's entities has anything of the collection, or somebody else
    may be another project with the same ledger: until a full run of ours, however it ended, came after its last one."""
    if not owners:
        raise WrongUsage(
            f"collection {collection} is in the configuration; take it out first, or use --force", collection=collection
        )
    last: dict[str, datetime] = {}
    for key, runs in workspace.ledger.last_runs().items():
        run = runs.full if key.entity in users else runs.last
        if key.collection == collection and run is not None:
            last[key.entity] = max(run.started_at, last.get(key.entity, run.started_at))
    ours = max((at for entity, at in last.items() if entity in users), default=None)
    for entity in owners:
        if entity in last and (ours is None or last[entity] >= ours):
            raise WrongUsage(
                f"{collection} of {entity} was synced at {last[entity]:%Y-%m-%d %H:%M}Z, after the last full run of "
                "the configuration's own: it may be another project's; sync in full first",
                collection=collection,
            )


def _points_of(store: VectorStore, collection: str, entities: Sequence[str]) -> Iterator[list[str]]:
    """Ids of their points, wherever in the collection they lie. A foreign point's payload may hold anything."""
    for page in store.scan(collection):
        if ids := [point.point_id for point in page if point.payload.get("entity") in entities]:
            yield ids


def _hold(holds: ExitStack, workspace: Workspace, entity: str, collection: str) -> None:
    """Raises PartitionBusy where a run is in one of its partitions: it would write into what is being dropped. Of many
    tenants most are only asked for: each hold takes an open file, or a connection."""
    ledger = workspace.ledger
    runs = ledger.last_runs(entity)
    tenants = {*ledger.tenants(entity, collection), *(key.tenant for key in runs if _is_of(key, collection))}
    listed = sorted(tenants)
    for tenant in listed[:_HELD]:
        holds.enter_context(ledger.hold(entity, tenant))
    for tenant in listed[_HELD:]:
        with ledger.hold(entity, tenant):
            pass


def _is_of(key: Partition, collection: str) -> bool:
    return key.collection == collection
