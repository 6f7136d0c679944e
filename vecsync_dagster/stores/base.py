"""The protocol of a vector store, and the fields every point carries.

A store implementation maps its client's errors to `errors.Store*` with its own `service` name, and
owns its retry policy: the client library's own retries are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.space import Space

__all__ = [
    "CONTENT_HASH",
    "DOCUMENT_ID",
    "ENTITY",
    "GLOBAL",
    "PAYLOAD_HASH",
    "RESERVED_KEYS",
    "SCOPE",
    "TENANT_ID",
    "Droppable",
    "Hit",
    "Point",
    "StoredPoint",
    "VectorStore",
]

GLOBAL = "global"
"""The partition key, and the scope, of documents that every tenant may see."""

DOCUMENT_ID = "id"
ENTITY = "entity"
SCOPE = "scope"
TENANT_ID = "tenantId"
CONTENT_HASH = "contentHash"
PAYLOAD_HASH = "payloadHash"
RESERVED_KEYS = frozenset(
    {DOCUMENT_ID, ENTITY, "type", "dbId", TENANT_ID, SCOPE, "isGlobal", CONTENT_HASH, PAYLOAD_HASH}
)
"""Payload keys that vecsync writes itself; a configuration may not use them for its own fields."""


# Not frozen: there is one of these for each document, and a frozen one takes three times as long to make.
@dataclass(slots=True)
class Point:
    """One document as the store keeps it.

    `vector` is a float32 array of shape (dimensions,), or None where only the payload is written.
    `payload` is JSON: it holds all of `RESERVED_KEYS` and the configured fields.
    """

    point_id: str
    payload: Mapping[str, Any]
    vector: NDArray[np.float32] | None = None


@dataclass(slots=True)
class StoredPoint:
    """A point as a scan sees it. `point_id` is text whatever its type in the store (a foreign point
    may have a number); `tenant` is `GLOBAL`, the payload's tenantId, or None where neither is set."""

    point_id: str
    tenant: str | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; a larger score is nearer."""

    point_id: str
    score: float
    payload: Mapping[str, Any]


@runtime_checkable
class VectorStore(Protocol):
    """Where vectors live. `collection` is always the alias; the store resolves the physical name.

    Contract (vecsync_dagster_tests/stores/store_contract.py runs it over every implementation):

    - A write returns only after it can be read and searched (`wait`).
    - Writing the same points again changes nothing. Point ids are UUIDs as lower-case text.
    - Tenants: the partition `GLOBAL` is the points with scope "global" (their tenantId is null); any
      other partition is the points whose tenantId equals it and whose scope is not "global".
    - A vector that has the wrong size or a value that is not finite is refused with `StoreRejected`
      before anything of that call is written.
    - An unknown collection raises `StoreRejected` on writes and searches; `count` is 0 and `scan` empty.
    - Methods may be called from several threads.
    """

    service: str
    """Prefix of this store's error codes: `QDRANT` gives QDRANT_TIMEOUT."""

    def ensure_collection(self, collection: str, space: Space) -> None:
        """Create the physical collection of `space`, its payload indexes and the alias, where missing.

        Raises SpaceMismatch where the alias leads to a physical collection of another space, or to one of its name
        whose vectors have another size or distance.
        """
        ...

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write vectors and whole payloads, replacing what was there."""
        ...

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        """Replace the whole payload of existing points (their `vector` is ignored).

        Returns the ids of points that do not exist (drift); the others are written.
        """
        ...

    def delete(self, collection: str, tenant: str, point_ids: Sequence[str]) -> None:
        """Delete those of `point_ids` that lie in the partition `tenant`; others stay untouched."""
        ...

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        """Delete points by id alone, whatever partition they lie in: the one deletion that no tenant bounds. For points
        that lie in none, or not in the one that they should: orphans and points under a wrong tenant, a run's own
        probe, what it wrote of documents that turned out to be another entity's, or of another model, and what is left
        of a dropped collection.

        Ids are as `scan` gave them; numbers in text are numeric ids.
        """
        ...

    def count(self, collection: str, tenant: str | None = None, entity: str | None = None) -> int:
        """Exact number of points in one partition, or in the whole collection for None. `entity`: of those alone whose
        payload names it."""
        ...

    def scan(self, collection: str, tenant: str | None = None, batch: int = 1000) -> Iterator[list[StoredPoint]]:
        """All points of one partition (or of the collection) with their payloads, in memory of one batch.

        Ordered by point id: numeric ids first, then UUIDs in ascending order.
        """
        ...

    def retrieve(self, collection: str, point_ids: Sequence[str]) -> list[StoredPoint]:
        """Those of `point_ids` that exist, whatever their partition, in any order."""
        ...

    def search(self, collection: str, vector: NDArray[np.float32], tenant: str, limit: int = 10) -> list[Hit]:
        """The nearest points that `tenant` may see: its own and the global ones; for `GLOBAL`
        only the global ones. There is no search over all tenants."""
        ...

    def pinned_space(self, collection: str) -> str | None:
        """The physical collection's name the alias leads to, or None where there is none."""
        ...

    def check(self) -> str:
        """Try the connection. Returns one line that says what answered; raises a Store* error."""
        ...

    def close(self) -> None:
        """Release files, locks and connections. A closed store opens again on its next use."""
        ...


@runtime_checkable
class Droppable(Protocol):
    """A store that can remove a whole collection."""

    def drop_collection(self, collection: str) -> None:
        """Remove every physical collection of it, of whatever space, and its alias; none is no error. A physical
        collection goes first, so that what is cut short is found, and ended, by the next call."""
        ...
