"""A vector store in memory: the protocol in its plainest form, fast enough for thousands of syncs in one test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.space import Space, check_space
from vecsync_dagster.stores import GLOBAL, Hit, Point, StoredPoint
from vecsync_dagster.stores.base import ENTITY
from vecsync_dagster.stores.qdrant_common import matrix, stored, unknown_collection

__all__ = ["MemoryStore"]


class MemoryStore:
    """Contract: `VectorStore`, for one collection of one space at a time and points with UUIDs."""

    service = "MEMORY"

    def __init__(self) -> None:
        self.points: dict[str, dict[str, Any]] = {}
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self._spaces: dict[str, Space] = {}
        self._lock = threading.Lock()

    def ensure_collection(self, collection: str, space: Space) -> None:
        check_space(collection, space, self.pinned_space(collection))
        self._spaces[collection] = space

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        with self._lock:
            vectors = matrix(collection, points, self._space(collection).dimensions)
            for point, vector in zip(points, vectors, strict=True):
                self.points[point.point_id] = dict(point.payload)
                self.vectors[point.point_id] = vector

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        with self._lock:
            self._space(collection)
            there = [point for point in points if point.point_id in self.points]
            self.points.update({point.point_id: dict(point.payload) for point in there})
            return [point.point_id for point in points if point.point_id not in self.points]

    def delete(self, collection: str, tenant: str, point_ids: Sequence[str]) -> None:
        with self._lock:
            self._space(collection)
            for point_id in point_ids:
                if point_id in self.points and stored(point_id, self.points[point_id]).tenant == tenant:
                    del self.points[point_id], self.vectors[point_id]

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        with self._lock:
            for point_id in point_ids:
                self.points.pop(point_id, None)
                self.vectors.pop(point_id, None)

    def count(self, collection: str, tenant: str | None = None, entity: str | None = None) -> int:
        points = (point for page in self.scan(collection, tenant) for point in page)
        return sum(entity in (None, point.payload.get(ENTITY)) for point in points)

    def scan(self, collection: str, tenant: str | None = None, batch: int = 1000) -> Iterator[list[StoredPoint]]:
        found = [stored(point_id, payload) for point_id, payload in sorted(self.points.items())]
        chosen = [point for point in found if tenant is None or point.tenant == tenant]
        for start in range(0, len(chosen), batch):
            yield chosen[start : start + batch]

    def retrieve(self, collection: str, point_ids: Sequence[str]) -> list[StoredPoint]:
        return [stored(point_id, self.points[point_id]) for point_id in point_ids if point_id in self.points]

    def search(self, collection: str, vector: NDArray[np.float32], tenant: str, limit: int = 10) -> list[Hit]:
        hits = [
            Hit(point.point_id, float(self.vectors[point.point_id] @ vector), point.payload)
            for page in self.scan(collection)
            for point in page
            if point.tenant in (tenant, GLOBAL)
        ]
        return sorted(hits, key=lambda found: -found.score)[:limit]

    def pinned_space(self, collection: str) -> str | None:
        space = self._spaces.get(collection)
        return None if space is None else space.physical_name(collection)

    def drop_collection(self, collection: str) -> None:
        if self._spaces.pop(collection, None) is not None:
            self.points.clear()
            self.vectors.clear()

    def check(self) -> str:
        return f"{len(self.points)} points in memory"

    def close(self) -> None:
        """Nothing is held."""

    def _space(self, collection: str) -> Space:
        if collection not in self._spaces:
            raise unknown_collection(collection)
        return self._spaces[collection]
