"""What both Qdrant engines share: who may see which points, what may be written, how a point comes back.

Nothing here talks to an engine. Filters are described as `Terms` and each engine turns them into its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.errors import SpaceMismatch, StoreRejected
from vecsync_dagster.space import Distance
from vecsync_dagster.stores.base import DOCUMENT_ID, ENTITY, GLOBAL, SCOPE, TENANT_ID, Hit, Point, StoredPoint

__all__ = [
    "INDEXED",
    "SERVICE",
    "Shape",
    "Terms",
    "check_shape",
    "counted",
    "engine_id",
    "hit",
    "matrix",
    "partition",
    "query_vector",
    "stored",
    "unknown_collection",
    "visible_to",
]

SERVICE = "QDRANT"

INDEXED = (TENANT_ID, SCOPE, DOCUMENT_ID, ENTITY, "dbId")
"""Payload keys with a keyword index; `tenantId` is the tenant key, by which Qdrant lays out its storage."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection's vectors must look like."""

    dimensions: int
    distance: Distance

    def __str__(self) -> str:
        return f"{self.dimensions} dimensions with distance {self.distance}"


@dataclass(frozen=True, slots=True)
class Terms:
    """A filter as pairs of payload key and keyword.

    Keywords only: a boolean matches nothing in the embedded engine, so `isGlobal` is never filtered by.
    """

    must: tuple[tuple[str, str], ...] = ()
    should: tuple[tuple[str, str], ...] = ()
    must_not: tuple[tuple[str, str], ...] = ()


def partition(tenant: str) -> Terms:
    """The points that belong to `tenant`: for `GLOBAL` those of scope global, else its own that are not global."""
    if tenant == GLOBAL:
        return Terms(must=((SCOPE, GLOBAL),))
    return Terms(must=((TENANT_ID, tenant),), must_not=((SCOPE, GLOBAL),))


def counted(tenant: str | None, entity: str | None) -> Terms:
    """The points of a partition (None: of all), of those that name an entity (None: of all)."""
    terms = Terms() if tenant is None else partition(tenant)
    return terms if entity is None else replace(terms, must=(*terms.must, (ENTITY, entity)))


def visible_to(tenant: str) -> Terms:
    """The points that `tenant` may see: its own and the global ones."""
    if tenant == GLOBAL:
        return partition(GLOBAL)
    return Terms(should=((TENANT_ID, tenant), (SCOPE, GLOBAL)))


def stored(point_id: object, payload: Mapping[str, Any] | None) -> StoredPoint:
    """A point as it came back from an engine, with the partition its payload says."""
    payload = payload or {}
    tenant = payload.get(TENANT_ID)
    if payload.get(SCOPE) == GLOBAL:
        tenant = GLOBAL
    return StoredPoint(str(point_id), tenant if isinstance(tenant, str) else None, payload)


def hit(point_id: object, score: float, payload: Mapping[str, Any] | None, distance: Distance) -> Hit:
    """A search result. Qdrant's score of `euclid` is the distance itself: turned round, larger is nearer."""
    return Hit(str(point_id), -score if distance == "euclid" else score, payload or {})


def engine_id(point_id: str) -> int | str:
    """An id as the engines want it: a foreign point may have a number."""
    return int(point_id) if point_id.isascii() and point_id.isdecimal() else point_id


def matrix(collection: str, points: Sequence[Point], dimensions: int) -> NDArray[np.float32]:
    """The vectors of `points`, shape (number of points, dimensions).

    Raises StoreRejected, naming the first point whose vector is missing, of another size or not finite.
    """
    vectors = np.empty((len(points), dimensions), dtype=np.float32)
    for row, point in enumerate(points):
        reason = _fault(point.vector, dimensions)
        if reason is not None:
            raise StoreRejected(
                f"collection {collection}: point {point.point_id}: its vector {reason}",
                service=SERVICE,
                collection=collection,
                point_id=point.point_id,
                every_document=False,
            )
        vectors[row] = point.vector
    return vectors


def query_vector(collection: str, vector: NDArray[np.float32], dimensions: int) -> list[float]:
    """A vector to search with. Raises StoreRejected if it has another size or is not finite."""
    reason = _fault(vector, dimensions)
    if reason is not None:
        raise StoreRejected(
            f"collection {collection}: the search vector {reason}", service=SERVICE, collection=collection
        )
    return [float(value) for value in vector]


def _fault(vector: NDArray[np.float32] | None, dimensions: int) -> str | None:
    """What is wrong with a vector. The engines take NaN without a word and then never find the point."""
    if vector is None:
        return "is missing"
    if vector.shape != (dimensions,):
        return f"has shape {vector.shape}, wanted is ({dimensions},)"
    if not np.isfinite(vector).all():
        return "holds a value that is not a finite number"
    return None


def check_shape(collection: str, wanted: Shape, found: Shape) -> None:
    """Raises SpaceMismatch where the collection itself is not what its name says: somebody made it anew."""
    if found != wanted:
        raise SpaceMismatch(
            f"collection {collection} takes vectors of {found}, but the configuration's model makes {wanted}: "
            "it was re-created by somebody else; restore it, or delete it and run a full sync",
            collection=collection,
            found=str(found),
            wanted=str(wanted),
        )


def unknown_collection(collection: str) -> StoreRejected:
    return StoreRejected(
        f"collection {collection} does not exist", service=SERVICE, collection=collection, every_document=True
    )
