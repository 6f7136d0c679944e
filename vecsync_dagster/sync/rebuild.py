"""A ledger that was lost, made anew from the store; and single documents that it lacks, taken in from there.

A point tells by itself whose it is: its id follows from the entity and the document's id, and the hash of its
payload stands in the payload. Under whatever `type` and key it was written: it may be the last good version of its
record, and the next full run replaces or keeps it. A point that does not add up is left alone and counted:

- foreign: its id is not that of a document of this entity.
- altered: it is a document's, but its payload is not what was written. The next full run writes it again.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from types import MappingProxyType
from typing import Literal

from vecsync_dagster.documents import is_document_id
from vecsync_dagster.documents.hashing import is_payload_hash, point_id
from vecsync_dagster.errors import LedgerRejected, SpaceMismatch
from vecsync_dagster.ledger.base import Confirmed, Ledger
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import CONTENT_HASH, DOCUMENT_ID, PAYLOAD_HASH, StoredPoint, VectorStore
from vecsync_dagster.sync.target import Target
from vecsync_dagster.words import number_of

__all__ = ["LeftPoint", "Rebuilt", "rebuild", "take_in"]

Reason = Literal["foreign", "altered"]
_LISTED = 20
_CHUNK = 10_000
"""Points that are kept in memory. Each chunk is written tenant by tenant: small ones would mean many transactions."""


@dataclass(frozen=True, slots=True)
class LeftPoint:
    """A point of the store that the ledger did not take. `tenant`: as its payload says, None where it says none."""

    reason: Reason
    point_id: str
    tenant: str | None


@dataclass(slots=True)
class Rebuilt:
    """What became of one collection. `space` None: the store does not have the collection.

    `taken`: rows written, by tenant. `left`: points that were not taken, by reason; `examples`: the first ones.
    """

    entity: str
    collection: str
    space: str | None = None
    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[Reason] = field(default_factory=Counter)
    examples: list[LeftPoint] = field(default_factory=list)

    def leave(self, reason: Reason, point: StoredPoint) -> None:
        self.left[reason] += 1
        if len(self.examples) < _LISTED:
            self.examples.append(LeftPoint(reason, point.point_id, point.tenant))


def rebuild(
    entity: str,
    collection: str,
    *,
    store: VectorStore,
    ledger: Ledger,
    space: Space,
    force: bool = False,
) -> Rebuilt:
    """Write a row for every point of the collection that is ours, all tenants, and pin `space`.

    `force`: rows and watermarks that the ledger has are forgotten first; without it such a ledger is refused
    with LedgerRejected. Raises SpaceMismatch where the ledger has another space pinned, PartitionBusy where a
    run is under way, and the errors of store and ledger; what was written until then stays. Marks of runs that did
    not finish stay as well.
    """
    known = ledger.with_rows(entity, collection)
    if known and not force:
        raise LedgerRejected(
            f"the ledger has rows of collection {collection}, of {number_of(len(known), 'tenant')}: nothing "
            "was rebuilt. To forget them and take what the store holds, use --force",
            collection=collection,
            tenants=len(known),
        )
    pinned = ledger.pin_space(entity, collection, space)
    if pinned != space:
        raise SpaceMismatch(
            f"collection {collection}: the ledger is pinned to {pinned}, the store holds {space}", collection=collection
        )
    run_id = uuid.uuid4().hex
    for tenant in known:
        _forget(ledger, entity, collection, tenant, run_id)
    rebuilt = Rebuilt(entity, collection, str(space))
    for some in _ours(entity, store, rebuilt):
        for tenant, writes in some.items():
            _write(ledger, rebuilt, tenant, space, writes)
    for tenant in known:
        ledger.finish_writing(entity, collection, tenant, [run_id])
    return rebuilt


def take_in(
    target: Target, ids: Sequence[str], at: datetime, natives: Mapping[str, str | None] = MappingProxyType({})
) -> set[str]:
    """Of these documents, of which the ledger has no row or another version, those whose points lie in the partition
    as they were written: the ledger may be older than the store, or a run was killed before it told the ledger. They
    get a row, seen `at`. `natives`: `identity.Key.native` of their records, as far as it is known. Returns their ids.

    Only for documents whose records the source has: what it has changed since is then found as ever, what it rejects
    keeps its last good version, and nothing is embedded that was paid for."""
    t = target
    points = t.store.retrieve(t.collection, [point_id(t.entity, identity) for identity in ids]) if ids else []
    there = [_confirmed(t.entity, point) for point in points if point.tenant == t.tenant]
    writes = [replace(one, db_key=natives.get(one.document_id)) for one in there if isinstance(one, Confirmed)]
    if writes:
        t.ledger.confirm(t.entity, t.collection, t.tenant, t.space, writes, at)
    return {write.document_id for write in writes}


def _forget(ledger: Ledger, entity: str, collection: str, tenant: str, run_id: str) -> None:
    """Marked until the rebuild has ended: points whose rows were forgotten are still looked for if it does not."""
    with ledger.hold(entity, tenant):
        ledger.begin_writing(entity, collection, tenant, run_id)
        for rows in ledger.unseen(entity, collection, tenant, datetime.max.replace(tzinfo=UTC)):
            ledger.forget(entity, collection, tenant, [identity for identity, _ in rows])
        ledger.drop_partition(entity, collection, tenant, with_vectors=False)


def _ours(entity: str, store: VectorStore, rebuilt: Rebuilt) -> Iterator[dict[str, list[Confirmed]]]:
    """What to write, by tenant, in chunks; the other points are counted on the way."""
    chunk: dict[str, list[Confirmed]] = {}
    size = 0
    for point in chain.from_iterable(store.scan(rebuilt.collection, None)):
        found = _confirmed(entity, point)
        if not isinstance(found, Confirmed):
            rebuilt.leave(found, point)
            continue
        chunk.setdefault(str(point.tenant), []).append(found)
        size += 1
        if size >= _CHUNK:
            yield chunk
            chunk, size = {}, 0
    yield chunk


def _confirmed(entity: str, point: StoredPoint) -> Confirmed | Reason:
    payload = point.payload
    identity, db_id = payload.get(DOCUMENT_ID), payload.get("dbId")
    if not isinstance(identity, str) or point_id(entity, identity) != point.point_id:
        return "foreign"
    content, hashed = payload.get(CONTENT_HASH), payload.get(PAYLOAD_HASH)
    if not isinstance(db_id, str) or point.tenant is None or not is_document_id(identity, point.tenant, db_id):
        return "altered"
    if not isinstance(content, str) or not isinstance(hashed, str) or not is_payload_hash(payload, hashed):
        return "altered"
    return Confirmed(identity, db_id, point.point_id, content, hashed, vector_written=True)


def _write(ledger: Ledger, rebuilt: Rebuilt, tenant: str, space: Space, writes: Sequence[Confirmed]) -> None:
    """One tenant's part of a chunk. Rows that are there by now are a run's own, which knows better."""
    entity, collection = rebuilt.entity, rebuilt.collection
    with ledger.hold(entity, tenant):
        now = ledger.run_start(entity, collection, tenant).at
        if tenant not in rebuilt.taken:
            # Nobody knows how old the store's state is: the next run reads everything.
            ledger.drop_partition(entity, collection, tenant, with_vectors=False)
        there = ledger.rows(entity, collection, [write.document_id for write in writes], now)
        new = [write for write in writes if write.document_id not in there]
        ledger.confirm(entity, collection, tenant, space, new, now)
        rebuilt.taken[tenant] += len(new)
