"""Qdrant inside this process: the engine itself (qdrant-edge), on disk, for one process at a time.

What the engine acknowledged is in its write-ahead log and survives a killed process. The log is replayed when
a collection is opened; flushing now and then keeps it, and with it the time to open, short.
`optimize()` is never called: it holds the interpreter's lock for seconds to minutes.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from vecsync_dagster.errors import StoreRejected, VecsyncError
from vecsync_dagster.private import private_folder
from vecsync_dagster.space import Distance, Space, check_space
from vecsync_dagster.stores.base import TENANT_ID, Hit, Point, StoredPoint
from vecsync_dagster.stores.qdrant_common import (
    INDEXED,
    SERVICE,
    Shape,
    Terms,
    check_shape,
    counted,
    engine_id,
    hit,
    matrix,
    partition,
    query_vector,
    stored,
    unknown_collection,
    visible_to,
)
from vecsync_dagster.stores.qdrant_folder import MIB, Alias, Folder, shape_in, sync_folder, writing
from vecsync_dagster.stores.request_size import DEFAULT_MAX_BYTES, AnswerSize, id_portions, point_bytes, portions
from vecsync_dagster.words import number_of

__all__ = ["QdrantEmbeddedStore"]

FLUSH_AFTER_FLOATS = 8_000_000
"""32 MiB of vectors: one segment of the write-ahead log. A flush takes about 50 ms then."""

RESERVE_BYTES = 256 * MIB
_UNFINISHED = ".creating"

_DISTANCES: dict[Distance, edge.Distance] = {
    "cosine": edge.Distance.Cosine,
    "dot": edge.Distance.Dot,
    "euclid": edge.Distance.Euclid,
}


@dataclass(slots=True)
class _Open:
    """A collection that is open: `unflushed` counts the numbers written since the last flush."""

    shard: edge.EdgeShard
    space: Space
    unflushed: int = 0


class QdrantEmbeddedStore:
    """Contract: `VectorStore`. Opened at first use; the folder stays locked from then on until `close`.

    Raises StoreLocked where another process has the folder open for longer than `lock_timeout_s`, and
    OutputUnwritable where it cannot be written or less than `reserve_bytes` of its disk are free.
    Reading creates nothing. A write-ahead record holds at most `max_request_bytes`; answers are kept to about that.
    """

    service = SERVICE

    def __init__(
        self,
        path: Path,
        prefix: str = "",
        lock_timeout_s: float = 10.0,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        max_request_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._prefix = prefix
        self._max_bytes = max_request_bytes
        self._folder = Folder(path, lock_timeout_s, reserve_bytes)
        self._open: dict[str, _Open] = {}
        # One call at a time: opening and closing must not cross a write, and a call takes milliseconds.
        self._mutex = threading.RLock()

    def ensure_collection(self, collection: str, space: Space) -> None:
        with self._mutex:
            pinned = self.pinned_space(collection)
            check_space(collection, space, pinned)
            physical = self._prefix + space.physical_name(collection)
            folder = self._folder.path / physical
            if pinned is None:
                self._folder.open()
                self._folder.check_free()
                # A folder without an alias is whole: a run ended between the two.
                if not folder.is_dir():
                    self._create(collection, physical, space)
            found = shape_in(folder)
            if found is not None:
                check_shape(collection, Shape(space.dimensions, space.distance), found)
            if pinned is None:
                self._folder.set_alias(self._prefix + collection, Alias(physical, space))

    def _create(self, collection: str, physical: str, space: Space) -> None:
        """Under another name until it is finished, so that what a killed run left behind is seen as such."""
        building = self._folder.path / f"{physical}{_UNFINISHED}"
        with writing(self._folder.path):
            if building.exists():
                shutil.rmtree(building)
            private_folder(building)
        params = edge.EdgeVectorParams(size=space.dimensions, distance=_DISTANCES[space.distance])
        with _engine(collection, "create"):
            shard = edge.EdgeShard.create(str(building), edge.EdgeConfig(vectors=params))
            for key in INDEXED:
                index = edge.KeywordIndexParams(is_tenant=True if key == TENANT_ID else None)
                shard.update(edge.UpdateOperation.create_field_index(key, index))
            shard.flush()
            shard.close()
        with writing(self._folder.path):
            building.rename(self._folder.path / physical)
            sync_folder(self._folder.path)

    def pinned_space(self, collection: str) -> str | None:
        with self._mutex:
            alias = self._alias(collection)
            return None if alias is None else alias.physical.removeprefix(self._prefix)

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        if not points:
            return
        with self._mutex:
            target = self._known(collection)
            dimensions = target.space.dimensions
            pairs = list(zip(points, matrix(collection, points, dimensions).tolist(), strict=True))
            sizes = (point_bytes(point.payload, dimensions) for point in points)
            with _engine(collection, f"upsert {number_of(len(points), 'point')}"):
                for some in portions(pairs, sizes, self._max_bytes):
                    new = [edge.Point(point.point_id, vector, dict(point.payload)) for point, vector in some]
                    self._update(target, edge.UpdateOperation.upsert_points(new), len(new))

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        if not points:
            return []
        with self._mutex, _engine(collection, f"set {len(points)} payloads"):
            target = self._known(collection)
            existing = {
                str(record.id)
                for some in id_portions(points, self._max_bytes)
                for record in target.shard.retrieve([point.point_id for point in some], False, False)
            }
            for point in points:
                if point.point_id in existing:
                    write = edge.UpdateOperation.overwrite_payload([point.point_id], dict(point.payload))
                    self._update(target, write, 1)
            return [point.point_id for point in points if point.point_id not in existing]

    def delete(self, collection: str, tenant: str, point_ids: Sequence[str]) -> None:
        if not point_ids:
            return
        with self._mutex, _engine(collection, f"delete {number_of(len(point_ids), 'point')}"):
            target = self._known(collection)
            for some in id_portions(point_ids, self._max_bytes):
                chosen = _filter(partition(tenant), some)
                self._update(target, edge.UpdateOperation.delete_points_by_filter(chosen), len(some))

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        if not point_ids:
            return
        with self._mutex, _engine(collection, f"delete {number_of(len(point_ids), 'point')}"):
            target = self._known(collection)
            for some in id_portions(point_ids, self._max_bytes):
                ids: list[edge.PointId] = [engine_id(point_id) for point_id in some]
                self._update(target, edge.UpdateOperation.delete_points(ids), len(ids))

    def _update(self, target: _Open, operation: edge.UpdateOperation, points: int) -> None:
        self._folder.check_free()
        target.shard.update(operation)
        target.unflushed += points * target.space.dimensions
        if target.unflushed >= FLUSH_AFTER_FLOATS:
            target.shard.flush()
            target.unflushed = 0

    def count(self, collection: str, tenant: str | None = None, entity: str | None = None) -> int:
        with self._mutex, _engine(collection, "count"):
            target = self._find(collection)
            if target is None:
                return 0
            chosen = None if tenant is None and entity is None else _filter(counted(tenant, entity))
            return target.shard.count(edge.CountRequest(exact=True, filter=chosen))

    def scan(self, collection: str, tenant: str | None = None, batch: int = 1000) -> Iterator[list[StoredPoint]]:
        chosen = None if tenant is None else _filter(partition(tenant))
        offset: edge.PointId | None = None
        page = AnswerSize(batch, self._max_bytes)
        while True:
            # Taken for each page: what reads a page slowly must not keep writers waiting.
            with self._mutex, _engine(collection, "scan"):
                # Later on, a collection that vanished is no end of the data.
                target = self._find(collection) if offset is None else self._known(collection)
                if target is None:
                    return
                request = edge.ScrollRequest(
                    offset=offset, limit=page.limit, filter=chosen, with_payload=True, with_vector=False
                )
                records, offset = target.shard.scroll(request)
            if records:
                page.learn([record.payload for record in records])
                yield [stored(record.id, record.payload) for record in records]
            if offset is None:
                return

    def retrieve(self, collection: str, point_ids: Sequence[str]) -> list[StoredPoint]:
        with self._mutex, _engine(collection, "retrieve"):
            target = self._find(collection) if point_ids else None
            if target is None:
                return []
            records = target.shard.retrieve([engine_id(point_id) for point_id in point_ids], True, False)
            return [stored(record.id, record.payload) for record in records]

    def search(self, collection: str, vector: NDArray[np.float32], tenant: str, limit: int = 10) -> list[Hit]:
        with self._mutex:
            target = self._known(collection)
            nearest = edge.Query.Nearest(query_vector(collection, vector, target.space.dimensions))
            with _engine(collection, "search"):
                request = edge.QueryRequest(
                    limit=limit, query=nearest, filter=_filter(visible_to(tenant)), with_payload=True
                )
                found = target.shard.query(request)
        return [hit(point.id, point.score, point.payload, target.space.distance) for point in found]

    def drop_collection(self, collection: str) -> None:
        with self._mutex:
            if not self._folder.exists:
                return
            self._folder.open()
            self._forget(collection)
            with writing(self._folder.path):
                for folder in list(self._folder.path.iterdir()):
                    name = folder.name.removeprefix(self._prefix).removesuffix(_UNFINISHED)
                    if folder.name.startswith(self._prefix) and Space.is_physical_name(name, collection):
                        _remove(folder)
            self._folder.drop_alias(self._prefix + collection)

    def check(self) -> str:
        with self._mutex:
            self._folder.open()
            ours = sum(name.startswith(self._prefix) for name in self._folder.names())
            engine = f"qdrant-edge-py {version('qdrant-edge-py')}"
            return f"embedded Qdrant ({engine}) at {self._folder.path}, {ours} collections"

    def close(self) -> None:
        with self._mutex:
            try:
                for name, target in self._open.items():
                    with _engine(name, "close"):
                        target.shard.flush()
                        target.shard.close()
            finally:
                self._open.clear()
                self._folder.close()

    def _alias(self, collection: str) -> Alias | None:
        """Where the alias leads; None where there is no such collection, and then nothing is created."""
        if not self._folder.exists:
            return None
        self._folder.open()
        return self._folder.alias(self._prefix + collection)

    def _find(self, collection: str) -> _Open | None:
        """The collection, opened; None where there is none."""
        alias = self._alias(collection)
        if alias is None:
            self._forget(collection)
            return None
        if collection not in self._open:
            with _engine(collection, "open"):
                shard = edge.EdgeShard.load(str(self._folder.path / alias.physical))
            self._open[collection] = _Open(shard, alias.space)
        return self._open[collection]

    def _forget(self, collection: str) -> None:
        """A shard that is merely let go of keeps its files and its memory until Python collects it."""
        target = self._open.pop(collection, None)
        if target is not None:
            with _engine(collection, "close"):
                target.shard.close()

    def _known(self, collection: str) -> _Open:
        target = self._find(collection)
        if target is None:
            raise unknown_collection(collection)
        return target


def _remove(folder: Path) -> None:
    """Under the name of an unfinished one first: a shard that is half deleted can neither be opened nor counted."""
    unfinished = folder.with_name(folder.name.removesuffix(_UNFINISHED) + _UNFINISHED)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    if folder.exists():
        folder.rename(unfinished)
        sync_folder(folder.parent)
        shutil.rmtree(unfinished)


@contextmanager
def _engine(collection: str, action: str) -> Iterator[None]:
    """The one place that catches what the engine raises: a ValueError or TypeError for what it cannot read of a point,
    and a plain `Exception` for whatever else went wrong."""
    try:
        yield
    except VecsyncError:
        raise
    except Exception as error:
        raise StoreRejected(
            f"collection {collection}: {action}: refused by the embedded engine ({type(error).__name__})",
            service=SERVICE,
            collection=collection,
            every_document=False if isinstance(error, (ValueError, TypeError, OverflowError)) else None,
        ) from error


def _filter(terms: Terms, point_ids: Sequence[str] | None = None) -> edge.Filter:
    def conditions(pairs: Sequence[tuple[str, str]]) -> list[edge.ConditionType]:
        return [edge.FieldCondition(key=key, match=edge.MatchValue(value)) for key, value in pairs]

    must = conditions(terms.must)
    if point_ids is not None:
        must.append(edge.HasIdCondition(set(point_ids)))
    return edge.Filter(
        must=must or None, should=conditions(terms.should) or None, must_not=conditions(terms.must_not) or None
    )
