"""A collection dropped for good: its points, its rows in the ledger and, with the last collection of an entity that
left the configuration, what is left of the entity. Or what one entity left in a collection that another one has by now.

Whether an entity of this ledger left, or is another project's, nobody can tell but the people: it must be named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import ConfigError, NotFound, StoreForeign, StoreRejected, VecsyncError, WrongUsage
from vecsync_dagster.ledger.base import Partition
from vecsync_dagster.stores.base import DOCUMENT_ID, GLOBAL, Droppable, StoredPoint, VectorStore
from vecsync_dagster.sync.absence import is_ruled_out
from vecsync_dagster.sync.forgetting import forget_tenant
from vecsync_dagster.sync.replaced import heir_of, lacks
from vecsync_dagster.sync.taken import has_ids_of_others, way_out
from vecsync_dagster.sync.workspace import Workspace
from vecsync_dagster.words import number_of

__all__ = ["Leaving", "Leftover", "drop", "leaving", "leftovers"]

_LISTED = 5
_APART = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What the ledger has of a collection, or of one scope of it (everybody's records, or those of tenants), that the
    configuration has no more. `shared`: another entity has the collection. `elsewhere`: when somebody else synced it,
    so that it may be another project's. `blocks`: the entity that has the collection and cannot be synced beside it."""

    entity: str
    collection: str
    scope: str | None
    documents: int
    shared: bool = False
    elsewhere: datetime | None = None
    blocks: str | None = None

    def __str__(self) -> str:
        if self.scope is None:
            command = f"vecsync drop {self.collection}{f' --entity {self.entity}' if self.shared else ''}"
            if self.elsewhere is not None:
                return (
                    f"{self.collection} of {self.entity} is not in the configuration, {self._documents}, and "
                    f"{_told_elsewhere(self.elsewhere)}; if nobody syncs it any more, `{command} --force` removes it"
                )
            if self.blocks is not None:
                way = way_out(self.blocks, self.collection, self.entity)
                return (
                    f"{self.collection} of {self.entity} is not in the configuration any more, {self._documents}, with "
                    f"the ids of {self.blocks}, which cannot be synced beside it. {way}"
                )
            synced = "once another full sync has all of it, " if self.shared else ""
            way = f"{synced}`{command}` removes it, unless another project with this ledger syncs it"
            return f"{self.collection} of {self.entity} is not in the configuration any more, {self._documents}; {way}"
        which = "global" if self.scope == GLOBAL else "tenants"
        way = f"`vecsync sync {which} --entity {self.entity} --full` removes them"
        return f"{self.collection} of {self.entity} has no {self.scope} records any more, {self._documents}; {way}"

    @property
    def _documents(self) -> str:
        return f"the ledger has {number_of(self.documents, 'document')} of it"


@dataclass(frozen=True, slots=True)
class Leaving:
    """What would go. `heir`: the entity that has the collection from now on. `whole_collection`: all of it goes;
    otherwise only what these entities left in it, as an heir or another project has the rest. `stores`: configured
    stores that have the collection, with the number of points that would go; `unreachable`: those that could not be
    asked, and why. `entities`: whose rows go, with their documents; `whole`: those of them of which nothing else is
    left. `synced`: when each of them was synced last."""

    collection: str
    heir: str | None
    whole_collection: bool
    stores: dict[str, int]
    unreachable: dict[str, str]
    entities: dict[str, int]
    whole: tuple[str, ...]
    synced: dict[str, datetime]


def leftovers(workspace: Workspace, entity: str | None = None) -> list[Leftover]:
    """What left the configuration and is still there, by the ledger alone."""
    return [one for one in _leftovers(workspace) if entity in (None, one.entity)]


def _leftovers(workspace: Workspace) -> Iterator[Leftover]:
    ledger, entities = workspace.ledger, workspace.config.entities
    configured = {collection: name for name, entity in entities.items() for collection in entity.collections}
    for name, collection in ledger.collections():
        if name not in entities or collection not in entities[name].collections:
            documents = ledger.documents(name, collection)
            elsewhere = _synced_elsewhere(workspace, name, collection)
            user = configured.get(collection)
            blocks = user is not None and has_ids_of_others(ledger, user, entities[user], collection)
            yield Leftover(
                name,
                collection,
                None,
                documents,
                shared=user is not None,
                elsewhere=elsewhere,
                blocks=user if blocks else None,
            )
            continue
        held = [one for one in ledger.with_rows(name, collection) if is_ruled_out(entities[name], one)]
        if rows := sum(ledger.tally(name, collection, one).rows for one in held):
            yield Leftover(name, collection, GLOBAL if held == [GLOBAL] else "tenant", rows)


def _synced_elsewhere(workspace: Workspace, entity: str, collection: str) -> datetime | None:
    """When an entity that is not in the configuration was synced last, if that was of late, and not by this project: no
    snapshot in its state folder is of that time."""
    if entity in workspace.config.entities:
        return None
    runs = (last for key, last in workspace.ledger.last_runs(entity).items() if key.collection == collection)
    synced = max((last.success.started_at for last in runs if last.success is not None), default=None)
    if synced is None or datetime.now(UTC) - synced > workspace.config.checks.freshness.max_age:
        return None
    own = workspace.snapshots.last_written(entity)
    return None if own is not None and synced - own < _APART else synced


def _told_elsewhere(at: datetime) -> str:
    return f"was synced at {at:%Y-%m-%d %H:%M}Z, but not from here: it may be another project's that uses this ledger"


def leaving(
    workspace: Workspace, collection: str, entity: str | None = None, *, everything: bool = False, replaced: bool = True
) -> Leaving:
    """What `drop` would remove: all of a collection that the configuration does not have, or what this `entity` left in
    one that it has. `everything`: the collection also where the configuration has it. `replaced`: only what nobody
    else syncs, and of `entity` only once all its records are found elsewhere.

    Raises WrongUsage for what is in the configuration, not replaced or may be another project's, NotFound for what
    neither the ledger nor a store knows; for `replaced` the errors of the source.
    """
    known = workspace.ledger.collections()
    owners = [name for name, one in known if one == collection]
    users = [name for name, settings in workspace.config.entities.items() if collection in settings.collections]
    heir: str | None = None
    unknown = entity is not None and entity not in owners
    if entity is not None:
        heir = next((name for name in [*users, *owners] if name != entity), None)
        if entity in users:
            told = f"entity {entity} is in the configuration with collection {collection}; take it out first"
            raise WrongUsage(told, entity=entity)
        if unknown and heir is None:
            raise _nothing_of(entity, collection)
        owners = [entity]
    elif users and not everything:
        left = [f"`--entity {name}` removes what {name} left in it" for name in owners if name not in users]
        told = "; ".join(["take it out first, or use --force", *left])
        raise WrongUsage(f"collection {collection} is in the configuration; {told}", collection=collection)
    if replaced:
        _check_nobody_syncs(workspace, collection, owners)
        if users and not unknown:
            _check_replaced(workspace, collection, owners[0])
    held, unreachable = _held(workspace, collection, owners, shared=heir is not None)
    others = {name: count for name, (_, count) in held.items() if count}
    whole_collection = heir is None and (entity is None or not others)
    if whole_collection and others and replaced:
        raise _of_others(collection, owners, others)
    stores = {
        name: points if whole_collection else sum(map(len, _points_of(workspace.store(name), collection, owners)))
        for name, (points, _) in held.items()
    }
    if entity is not None and unknown and not unreachable:
        _check_unknown(collection, entity, sum(stores.values()), allowed=not replaced)
    if not owners and not stores and not unreachable:
        names = ", ".join(sorted({one for _, one in known})) or "none"
        raise NotFound(
            f"no collection {collection!r} in the ledger or a store; the ledger knows: {names}", collection=collection
        )
    entities = workspace.config.entities
    last = {
        name: max(run.last.started_at for run in runs)
        for name in owners
        if (runs := [run for key, run in workspace.ledger.last_runs(name).items() if key.collection == collection])
    }
    return Leaving(
        collection,
        heir,
        whole_collection,
        stores,
        unreachable,
        {name: workspace.ledger.documents(name, collection) for name in owners},
        tuple(
            name
            for name in owners
            if name not in entities and not any(one == name and other != collection for one, other in known)
        ),
        last,
    )


def _held(
    workspace: Workspace, collection: str, owners: Collection[str], *, shared: bool
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """How many points which stores have of the collection, and how many of them were not made for these entities, where
    some name none of them (not looked for where it is `shared`); and which stores could not be asked, and why."""
    held: dict[str, tuple[int, int]] = {}
    unreachable: dict[str, str] = {}
    for name in workspace.config.stores:
        try:
            store = workspace.store(name)
            if store.pinned_space(collection) is not None:
                points = store.count(collection)
                if not shared and points > sum(store.count(collection, entity=owner) for owner in owners):
                    ours = sum(map(len, _points_of(store, collection, owners)))
                    held[name] = points, max(points - ours, 0)
                else:
                    held[name] = points, 0
        except StoreForeign:
            continue  # nothing of it is ours
        except VecsyncError as error:
            unreachable[name] = f"{error.code}: {error}"
    return held, unreachable


def _of_others(collection: str, owners: Sequence[str], others: Mapping[str, int]) -> WrongUsage:
    told = ", ".join(f"store {name} has {number_of(count, 'point')}" for name, count in others.items())
    if owners:
        whose = f"of another entity than {' and '.join(owners)}, or of none"
        way = " or ".join(f"`--entity {name}`" for name in owners)
        way = f"{way} removes only what that entity left; --force removes the whole collection"
    else:
        whose = "and the ledger knows nothing of it"
        way = "--force removes it"
    return WrongUsage(
        f"collection {collection}: {told} {whose}: another project may sync them. {way}", collection=collection
    )


def _check_nobody_syncs(workspace: Workspace, collection: str, owners: Collection[str]) -> None:
    for name in owners:
        if (at := _synced_elsewhere(workspace, name, collection)) is not None:
            raise WrongUsage(
                f"{collection} of {name} {_told_elsewhere(at)}; if nobody syncs it any more, use --force",
                collection=collection,
            )


def _check_replaced(workspace: Workspace, collection: str, entity: str) -> None:
    """Raises WrongUsage where a record would not be found any more."""
    heir = heir_of(workspace, entity, collection)
    lacking = list(lacks(workspace, entity, collection, heir))
    if lacking:
        told = "; ".join(map(str, lacking[:_LISTED]))
        more = f"; and {number_of(len(lacking) - _LISTED, 'more tenant')}" if len(lacking) > _LISTED else ""
        records = number_of(sum(one.records for one in lacking), "record")
        raise WrongUsage(
            f"collection {collection}: {records} that entity {entity} left would not be found any more: {told}{more}; "
            f"sync in full first (`vecsync sync all --entity {heir.entity} --full`), or use --force",
            collection=collection,
        )


def _check_unknown(collection: str, entity: str, points: int, *, allowed: bool) -> None:
    """Of an entity whose points alone are known: where the ledger was lost, or never was this project's."""
    if not points:
        raise _nothing_of(entity, collection)
    if not allowed:
        raise WrongUsage(
            f"collection {collection}: the ledger has nothing of {entity}, a store has {number_of(points, 'point')}: "
            "nothing proves that they are replaced, or that no other project syncs them; if it was renamed, --force "
            "removes them",
            collection=collection,
        )


def _nothing_of(entity: str, collection: str) -> NotFound:
    return NotFound(f"neither the ledger nor a store has anything of {entity} in {collection}", entity=entity)


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
            _look_for_runs(workspace, entity, what.collection)
            holds.enter_context(workspace.ledger.hold_all(entity))
        for name in workspace.config.stores:
            _remove(workspace, name, what)
        for entity in what.entities:
            if entity in what.whole:
                also(entity)
                forget_tenant(workspace.ledger, workspace.snapshots, workspace.rejections, entity, None)
                workspace.ledger.forget_entity(entity)
            workspace.ledger.forget_collection(entity, what.collection, what.heir)


def _remove(workspace: Workspace, name: str, what: Leaving) -> None:
    store = workspace.store(name)
    try:
        store.pinned_space(what.collection)
    except StoreForeign:
        return  # whatever is beside it
    if not what.whole_collection:
        if name in what.stores:
            for ids in _points_of(store, what.collection, what.entities):
                store.delete_foreign(what.collection, ids)
    # Also where it has no points: what an earlier call left half removed is to go.
    elif isinstance(store, Droppable):
        store.drop_collection(what.collection)
    elif name in what.stores:
        raise ConfigError(f"stores.{name} cannot drop a collection", key=f"stores.{name}")


def _points_of(store: VectorStore, collection: str, entities: Collection[str]) -> Iterator[list[str]]:
    """Ids of the points that were made for documents of theirs, also by a run that died before the ledger knew of them.
    What else names them in its payload is somebody else's."""
    for page in store.scan(collection):
        if ids := [point.point_id for point in page if any(_is_made_for(point, entity) for entity in entities)]:
            yield ids


def _is_made_for(point: StoredPoint, entity: str) -> bool:
    document = point.payload.get(DOCUMENT_ID)
    return isinstance(document, str) and point.point_id == point_id(entity, document)


def _look_for_runs(workspace: Workspace, entity: str, collection: str) -> None:
    """Raises PartitionBusy, which names the tenant, where a run is in one of its partitions: it would write into what
    is being dropped."""
    ledger = workspace.ledger
    runs = ledger.last_runs(entity)
    tenants = {*ledger.with_rows_or_marks(entity, collection), *(key.tenant for key in runs if _is_of(key, collection))}
    for tenant in sorted(tenants):
        with ledger.hold(entity, tenant):
            pass


def _is_of(key: Partition, collection: str) -> bool:
    return key.collection == collection
