"""The ledger compared with the store, point by point, in both directions.

Both sides come ordered by point id and are merged, so that memory stays flat. A difference is one of:

- missing: the ledger says it is there, the store does not have it.
- orphan: the store has it, the ledger knows nothing of it.
- stale_hash: both have it, but the stored payload, or the hashes in it, are not what was confirmed.
- wrong_tenant: both have it, under different tenants.
- foreign: an orphan that names another entity; within one partition also one that may be another project's. It may be
  there for somebody, so no run removes it, and no repair removes what names another entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final, Literal, TypeVar

from vecsync_dagster.documents.hashing import is_payload_hash, point_id
from vecsync_dagster.ledger.base import LedgerPoint, LedgerRow
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.stores.base import (
    CONTENT_HASH,
    DOCUMENT_ID,
    ENTITY,
    GLOBAL,
    PAYLOAD_HASH,
    SCOPE,
    TENANT_ID,
    Point,
    StoredPoint,
)
from vecsync_dagster.sync.target import Target

__all__ = [
    "FOREIGN",
    "NAMED",
    "Difference",
    "DifferenceKind",
    "as_of",
    "compare",
    "compare_collection",
    "compare_one",
    "compare_partition",
    "compare_row",
    "in_chunks",
    "is_of",
    "kind_in_partition",
    "lies_elsewhere",
    "maker_of",
    "met_foreign",
    "spoken",
]

T = TypeVar("T")
DifferenceKind = Literal["missing", "orphan", "stale_hash", "wrong_tenant", "foreign"]

FOREIGN: Final = "foreign"
"""What the identity check counts foreign points as."""

NAMED = 2_000
"""At most so many differences of one look are kept, to be named; all are counted. Memory is bounded: a store that lost
everything differs in every point."""

_CHUNK = 500
_NAMES = (DOCUMENT_ID, "dbId", ENTITY)


@dataclass(frozen=True, slots=True)
class Difference:
    """`tenant` is the ledger's, `stored_tenant` the store's; None where that side has no such point."""

    kind: DifferenceKind
    point_id: str
    document_id: str | None
    db_id: str | None
    tenant: str | None
    stored_tenant: str | None
    payload_only: bool = False
    """Of a stale hash, and of a wrong tenant: the text is as confirmed, only the payload is not."""
    entity: str | None = field(default=None, compare=False)
    """Of an orphan: whose it says it is."""


def compare(ledger: Iterable[LedgerPoint], stored: Iterable[StoredPoint]) -> Iterator[Difference]:
    """Merge two streams that are ordered by point id (numeric ids, which are never ours, come first)."""
    points, rows = iter(stored), iter(ledger)
    point, row = next(points, None), next(rows, None)
    while point is not None or row is not None:
        if row is None or (point is not None and (point.point_id.isdigit() or point.point_id < row.point_id)):
            assert point is not None  # noqa: S101 (for the type checker: the loop's condition says so)
            yield _orphan(point)
            point = next(points, None)
            continue
        same = point is not None and point.point_id == row.point_id
        difference = compare_one(row, point if same else None)
        if difference is not None:
            yield difference
        point, row = next(points, None) if same else point, next(rows, None)


def compare_collection(target: Target) -> Iterator[Difference]:
    """The whole collection, all tenants, also points that lie in no partition (the target's tenant is ignored)."""
    t = target
    rows = chain.from_iterable(t.ledger.points(t.entity, t.collection, None))
    for d in compare(rows, chain.from_iterable(t.store.scan(t.collection, None))):
        yield replace(d, kind="foreign") if _is_anothers(t, d) else d


def compare_partition(target: Target, *, wary: bool = False) -> Iterator[Difference]:
    """One partition. A point that is missing here but stands under another tenant, or the reverse, is a
    wrong_tenant; for that the two odd cases are looked up by id.

    `wary`: where the ledger met points that it did not know before it had any of its own, and they are not settled,
    every orphan may be one of those."""
    t = target
    rows = chain.from_iterable(t.ledger.points(t.entity, t.collection, t.tenant))
    for some in in_chunks(compare(rows, chain.from_iterable(t.store.scan(t.collection, t.tenant)))):
        yield from _with_owners(t, list(_with_tenants(t, some)), wary=wary)


def compare_one(row: LedgerPoint, point: StoredPoint | None) -> Difference | None:
    """What the ledger says of a point, and the point itself where there is one."""
    if point is None:
        return Difference("missing", row.point_id, row.document_id, row.db_id, row.tenant, None)
    payload = point.payload
    same_text = payload.get(CONTENT_HASH) == row.content_hash
    same_payload = payload.get(PAYLOAD_HASH) == row.payload_hash and is_payload_hash(payload, row.payload_hash)
    if row.tenant == point.tenant and same_text and same_payload:
        return None
    ids = (row.point_id, row.document_id, row.db_id, row.tenant, point.tenant)
    if row.tenant != point.tenant or (row.tenant != GLOBAL and payload.get("isGlobal")):
        return Difference("wrong_tenant", *ids, payload_only=same_text)  # or everybody may read what is one tenant's
    return Difference("stale_hash", *ids, payload_only=same_text)


def compare_row(row: LedgerRow, point_id: str, point: StoredPoint | None) -> Difference | None:
    """The same of a row of a document; None also where the store never held it."""
    if row.content_hash is None or row.payload_hash is None:
        return None
    held = LedgerPoint(point_id, row.document_id, row.key, row.tenant, row.content_hash, row.payload_hash)
    return compare_one(held, point)


def _orphan(point: StoredPoint) -> Difference:
    named = (value if isinstance(value, str) else None for value in map(point.payload.get, _NAMES))
    identity, db_id, entity = named
    return Difference("orphan", point.point_id, identity, db_id, None, point.tenant, entity=entity)


def _with_tenants(target: Target, some: Sequence[Difference]) -> Iterator[Difference]:
    t = target
    missing = [d.point_id for d in some if d.kind == "missing"]
    elsewhere = {p.point_id: p for p in t.store.retrieve(t.collection, missing)} if missing else {}
    claimed = [d.document_id for d in some if d.kind == "orphan" and d.document_id is not None]
    rows = t.ledger.rows(t.entity, t.collection, claimed, datetime.now(UTC)) if claimed else {}
    for d in some:
        if d.point_id in elsewhere:
            other = elsewhere[d.point_id].tenant
            yield Difference("wrong_tenant", d.point_id, d.document_id, d.db_id, d.tenant, other)
        elif d.kind == "orphan" and d.document_id in rows and is_of(t, d, rows[d.document_id]):
            yield replace(d, kind="wrong_tenant", tenant=rows[d.document_id].tenant)
        else:
            yield d


def _with_owners(target: Target, some: Sequence[Difference], *, wary: bool) -> Iterator[Difference]:
    t = target
    if wary and any(d.kind == "orphan" for d in some):
        wary = bool(met_foreign(t.ledger.failed_checks(t.entity, t.collection, t.tenant)))
    for d in some:
        kind = FOREIGN if _is_anothers(t, d) else kind_in_partition(d.kind, wary=wary)
        yield d if kind == d.kind else replace(d, kind=kind)


def met_foreign(results: Iterable[CheckResult]) -> set[tuple[str, str]]:
    """Collections and tenants of whose checks one says that points were met that may be another project's."""
    return {(one.collection, one.tenant) for one in results if one.check == "identity" and FOREIGN in one.facts}


def kind_in_partition(kind: DifferenceKind, *, wary: bool) -> DifferenceKind:
    """`wary`: the partition has met such points. Then every orphan may be one."""
    return FOREIGN if wary and kind == "orphan" else kind


def _is_anothers(target: Target, difference: Difference) -> bool:
    return difference.kind == "orphan" and difference.entity not in (None, target.entity)


def spoken(kind: str) -> str:
    """The kind of a difference as messages have it; JSON and tables of ids have the kind itself."""
    return kind.replace("_", " ")


def lies_elsewhere(difference: Difference) -> bool:
    """Whether it is a document of one tenant in the partition of another one: it differs in both."""
    d = difference
    return d.kind == "wrong_tenant" and d.stored_tenant is not None and d.stored_tenant != d.tenant


def maker_of(difference: Difference) -> str | None:
    """The entity for whose document the point was made, as its id says; None where it was made by somebody else."""
    d = difference
    if d.entity is None or d.document_id is None or point_id(d.entity, d.document_id) != d.point_id:
        return None
    return d.entity


def is_of(target: Target, difference: Difference, row: LedgerRow) -> bool:
    """Whether the point is really that document's, not a foreign one that carries its id."""
    return point_id(target.entity, row.document_id) == difference.point_id and row.content_hash is not None


def as_of(tenant: str, point: StoredPoint) -> Point | None:
    """The point as it would lie in the tenant's partition, if that is how it was written: somebody else gave it to
    another tenant. None where it was not."""
    is_global = tenant == GLOBAL
    whose = {TENANT_ID: None if is_global else tenant, SCOPE: "global" if is_global else "tenant"}
    payload = {**point.payload, **whose, "isGlobal": is_global}
    hashed = payload.get(PAYLOAD_HASH)
    return Point(point.point_id, payload) if isinstance(hashed, str) and is_payload_hash(payload, hashed) else None


def in_chunks(items: Iterable[T]) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
