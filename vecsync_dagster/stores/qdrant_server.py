"""Qdrant as a server, through its REST client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vecsync_dagster.errors import StoreForeign, StoreRejected
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
    visible_to,
)
from vecsync_dagster.stores.qdrant_connection import Connection
from vecsync_dagster.stores.qdrant_errors import too_large_alone
from vecsync_dagster.stores.request_size import (
    DEFAULT_MAX_BYTES,
    AnswerSize,
    by_ids,
    is_too_large,
    point_bytes,
    portions,
)
from vecsync_dagster.words import number_of

__all__ = ["QdrantServerStore"]

T = TypeVar("T")

LOOKS = 5
"""How often `set_payload` looks which points exist, while other processes go on deleting some of them."""

_LOOK_AGAIN_S = 30.0
_DISTANCES: dict[Distance, models.Distance] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclid": models.Distance.EUCLID,
}
_DISTANCE_NAMES = {theirs: ours for ours, theirs in _DISTANCES.items()}


class QdrantServerStore:
    """Contract: `VectorStore`. Attempts are ours alone: the client itself never tries twice.

    `url` and `api_key` are used from the first call on. `client` is a ready one instead of a URL; it stays
    its owner's, `close` leaves it open. `max_request_bytes` bounds every write; answers are kept to about that.
    """

    service = SERVICE

    def __init__(
        self,
        url: str = "",
        *,
        api_key: str | None = None,
        prefix: str = "",
        timeout_s: float = 60.0,
        attempts: int = 5,
        max_request_bytes: int = DEFAULT_MAX_BYTES,
        client: QdrantClient | None = None,
    ) -> None:
        self._prefix = prefix
        self._max_bytes = max_request_bytes
        self._connection = Connection(url, api_key, timeout_s, attempts, client)
        self._shapes: dict[str, Shape] = {}
        self._wanted: dict[str, Shape] = {}
        self._looked_at: dict[str, float] = {}
        self._own: set[str] = set()

    def ensure_collection(self, collection: str, space: Space) -> None:
        pinned = self.pinned_space(collection)
        check_space(collection, space, pinned)
        self._wanted[collection] = Shape(space.dimensions, space.distance)
        if pinned is not None:
            if time.monotonic() - self._looked_at.get(collection, -_LOOK_AGAIN_S) >= _LOOK_AGAIN_S:
                self._shapes.pop(collection, None)  # whoever watches for days meets collections that were made anew
            self._shape(collection)
            return
        physical = self._prefix + space.physical_name(collection)
        self._create(collection, physical, space)
        for key in INDEXED:
            self._index(collection, physical, key)
        # Last, so that an alias always leads to a finished collection.
        alias = models.CreateAlias(collection_name=physical, alias_name=self._prefix + collection)
        operation = models.CreateAliasOperation(create_alias=alias)
        self._call(collection, "create the alias", lambda c: c.update_collection_aliases([operation]))
        self._shapes.pop(collection, None)
        # Another process may have pinned another space meanwhile.
        check_space(collection, space, self.pinned_space(collection))
        self._shape(collection)  # one that was there without an alias may be anybody's

    def _create(self, collection: str, physical: str, space: Space) -> None:
        params = models.VectorParams(size=space.dimensions, distance=_DISTANCES[space.distance])
        try:
            self._call(collection, "create", lambda c: c.create_collection(physical, vectors_config=params))
        except StoreRejected:
            # It may be there already: from a run that was cut short, another process, or an attempt whose
            # answer was lost.
            if not self._call(collection, "create", lambda c: c.collection_exists(physical)):
                raise

    def _index(self, collection: str, physical: str, key: str) -> None:
        schema = models.KeywordIndexParams(
            type=models.KeywordIndexType.KEYWORD, is_tenant=True if key == TENANT_ID else None
        )
        self._write(collection, f"index {key}", lambda c: [c.create_payload_index(physical, key, schema, wait=True)])

    def pinned_space(self, collection: str) -> str | None:
        """As the contract has it. Raises StoreForeign where the name is somebody else's: of a collection, or of an
        alias that leads to one that is not ours."""
        self._own.discard(collection)
        name, physical = self._prefix + collection, self._physical(collection)
        if physical is None:
            listed = self._call(collection, "list the collections", lambda c: c.get_collections()).collections
            if any(one.name == name for one in listed):
                raise self._not_ours(collection, f"the server has a collection {name}")
            return None
        if not self._is_ours(physical, collection):
            raise self._not_ours(collection, f"the server has an alias {name} that leads to the collection {physical}")
        self._own.add(collection)
        return physical.removeprefix(self._prefix)

    def _is_ours(self, physical: str, collection: str) -> bool:
        own = physical.removeprefix(self._prefix)
        return physical.startswith(self._prefix) and Space.is_physical_name(own, collection)

    def _physical(self, collection: str) -> str | None:
        aliases = self._call(collection, "read the aliases", lambda c: c.get_aliases()).aliases
        return next((one.collection_name for one in aliases if one.alias_name == self._prefix + collection), None)

    @staticmethod
    def _not_ours(collection: str, what: str) -> StoreForeign:
        return StoreForeign(
            f"collection {collection}: {what}, which vecsync did not make. Nothing of it is read or changed: give one "
            "of the two another name, or the store a `prefix`",
            service=SERVICE,
            collection=collection,
            every_document=True,
        )

    def _name(self, collection: str) -> str:
        """The alias, by which all points are asked for: of a collection that is ours, or is not there."""
        if collection not in self._own:
            self.pinned_space(collection)
        return self._prefix + collection

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        if not points:
            return
        dimensions = self._shape(collection).dimensions
        vectors = matrix(collection, points, dimensions).tolist()
        # Built without validation: it would walk through every number again.
        structs = [
            models.PointStruct.model_construct(id=point.point_id, vector=vector, payload=dict(point.payload))
            for point, vector in zip(points, vectors, strict=True)
        ]
        sizes = (point_bytes(point.payload, dimensions) for point in points)
        for some in portions(structs, sizes, self._max_bytes):
            self._upsert(collection, list(some))

    def _upsert(self, collection: str, structs: list[models.PointStruct]) -> None:
        name = self._name(collection)
        sizes = (point_bytes(one.payload or {}, self._shape(collection).dimensions) for one in structs)
        action = f"upsert {number_of(len(structs), 'point')}"
        self._write(collection, action, lambda c: [c.upsert(name, structs, wait=True)], sizes)

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        ids = [point.point_id for point in points]
        existing = set(ids)
        for look in range(LOOKS):
            existing = self._existing(collection, sorted(existing))
            there = [point for point in points if point.point_id in existing]
            try:
                for some in portions(there, (point_bytes(point.payload) for point in there), self._max_bytes):
                    self._set_payload(collection, some)
                break
            except StoreRejected as error:
                # Another process deleted one since we looked; the server has written the others, or not.
                if error.fields.get("status") != HTTPStatus.NOT_FOUND or look == LOOKS - 1:
                    raise
        return [point_id for point_id in ids if point_id not in existing]

    def _existing(self, collection: str, ids: Sequence[str]) -> set[str]:
        ask = partial(self._records, collection, with_payload=False)
        return {str(record.id) for records in by_ids(ids, self._max_bytes, ask) for record in records}

    def _set_payload(self, collection: str, points: Sequence[Point]) -> None:
        name = self._name(collection)
        operations: list[models.UpdateOperation] = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=dict(point.payload), points=[point.point_id])
            )
            for point in points
        ]
        action = f"set {len(operations)} payloads"
        sizes = (point_bytes(point.payload) for point in points)
        self._write(collection, action, lambda c: c.batch_update_points(name, operations, wait=True), sizes)

    def delete(self, collection: str, tenant: str, point_ids: Sequence[str]) -> None:
        def delete(some: Sequence[str]) -> None:
            self._delete(collection, models.FilterSelector(filter=_filter(partition(tenant), some)))

        by_ids(point_ids, self._max_bytes, delete)

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        def delete(some: Sequence[str]) -> None:
            self._delete(collection, models.PointIdsList(points=[engine_id(point_id) for point_id in some]))

        by_ids(point_ids, self._max_bytes, delete)

    def _delete(self, collection: str, selector: models.PointsSelector) -> None:
        name = self._name(collection)
        self._write(collection, "delete", lambda c: [c.delete(name, selector, wait=True)])

    def drop_collection(self, collection: str) -> None:
        listed = self._call(collection, "list the collections", lambda c: c.get_collections()).collections
        for name in [one.name for one in listed if self._is_ours(one.name, collection)]:
            self._call(collection, "delete", partial(QdrantClient.delete_collection, collection_name=name))
        physical = self._physical(collection)
        # A server takes the alias away with what it leads to. One that leads elsewhere is somebody else's.
        if physical is not None and self._is_ours(physical, collection):
            alias = models.DeleteAlias(alias_name=self._prefix + collection)
            operation = models.DeleteAliasOperation(delete_alias=alias)
            self._call(collection, "delete the alias", lambda c: c.update_collection_aliases([operation]))
        self._shapes.pop(collection, None)
        self._own.discard(collection)

    def count(self, collection: str, tenant: str | None = None, entity: str | None = None) -> int:
        name = self._name(collection)
        chosen = None if tenant is None and entity is None else _filter(counted(tenant, entity))
        try:
            return self._call(collection, "count", lambda c: c.count(name, count_filter=chosen, exact=True)).count
        except StoreRejected as error:
            if not self._is_unknown(collection, error):
                raise
            return 0

    def scan(self, collection: str, tenant: str | None = None, batch: int = 1000) -> Iterator[list[StoredPoint]]:
        chosen = None if tenant is None else _filter(partition(tenant))
        offset: models.ExtendedPointId | None = None
        page = AnswerSize(batch, self._max_bytes)
        while True:
            try:
                records, offset = self._page(collection, chosen, page.limit, offset)
            except StoreRejected as error:
                # Later on, a collection that vanished is no end of the data.
                if offset is not None or not self._is_unknown(collection, error):
                    raise
                return
            if records:
                page.learn([record.payload for record in records])
                yield [stored(record.id, record.payload) for record in records]
            if offset is None:
                return

    def _page(
        self, collection: str, chosen: models.Filter | None, limit: int, offset: models.ExtendedPointId | None
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        name = self._name(collection)
        records, following = self._call(
            collection,
            "scan",
            lambda c: c.scroll(name, scroll_filter=chosen, limit=limit, offset=offset, with_payload=True),
        )
        return records, following if isinstance(following, (int, str)) or following is None else str(following)

    def retrieve(self, collection: str, point_ids: Sequence[str]) -> list[StoredPoint]:
        found: list[StoredPoint] = []
        page, start = AnswerSize(len(point_ids), self._max_bytes), 0
        while start < len(point_ids):
            some = [engine_id(point_id) for point_id in point_ids[start : start + page.limit]]
            try:
                records = self._records(collection, some, with_payload=True)
            except StoreRejected as error:
                if is_too_large(error) and len(some) > 1:
                    page.refused(len(some))
                    continue
                if not self._is_unknown(collection, error):
                    raise
                return []
            start += len(some)
            page.learn([record.payload for record in records])
            found += [stored(record.id, record.payload) for record in records]
        return found

    def _records(
        self, collection: str, ids: Sequence[models.ExtendedPointId], *, with_payload: bool
    ) -> list[models.Record]:
        name = self._name(collection)
        return self._call(collection, "retrieve", lambda c: c.retrieve(name, ids, with_payload=with_payload))

    def search(self, collection: str, vector: NDArray[np.float32], tenant: str, limit: int = 10) -> list[Hit]:
        name = self._name(collection)
        shape = self._shape(collection)
        query = query_vector(collection, vector, shape.dimensions)
        chosen = _filter(visible_to(tenant))
        answer = self._call(
            collection,
            "search",
            lambda c: c.query_points(name, query=query, query_filter=chosen, limit=limit, with_payload=True),
        )
        return [hit(point.id, point.score, point.payload, shape.distance) for point in answer.points]

    def check(self) -> str:
        """One attempt, so that a wrong address is told at once."""
        at = f" at {self._connection.address}" if self._connection.address else ""
        version = self._connection.once(f"connection{at}", lambda c: c.info()).version
        # Asked as well, because it needs the API key; the version does not.
        aliases = self._connection.once(f"connection{at}", lambda c: c.get_aliases()).aliases
        ours = sum(alias.alias_name.startswith(self._prefix) for alias in aliases)
        return f"Qdrant {version}{at}, {ours} collections"

    def close(self) -> None:
        self._shapes.clear()
        self._own.clear()
        self._connection.close()

    def _call(self, collection: str, action: str, use: Callable[[QdrantClient], T]) -> T:
        return self._connection.call(f"collection {collection}: {action}", use)

    def _write(
        self,
        collection: str,
        action: str,
        use: Callable[[QdrantClient], Sequence[models.UpdateResult]],
        sizes: Iterable[int] = (),
    ) -> None:
        """`sizes`: those of the documents in the request, worked out where it is refused as too large."""
        action = f"collection {collection}: {action}"
        try:
            self._connection.write(action, use)
        except StoreRejected as error:
            known = list(sizes) if is_too_large(error) else []
            if len(known) != 1:
                raise
            raise too_large_alone(action, error, known[0]) from None

    def _shape(self, collection: str) -> Shape:
        """Size and distance, asked once in a while. Raises StoreRejected for an unknown collection, SpaceMismatch for
        one that is not what was ensured."""
        known = self._shapes.get(collection)
        if known is None:
            name = self._name(collection)
            info = self._call(collection, "read the configuration", lambda c: c.get_collection(name))
            params = info.config.params.vectors
            if not isinstance(params, models.VectorParams):
                raise StoreRejected(
                    f"collection {collection} has named vectors; vecsync writes to a default vector",
                    service=SERVICE,
                    collection=collection,
                    every_document=True,
                )
            known = Shape(params.size, _DISTANCE_NAMES[params.distance])
            check_shape(collection, self._wanted.get(collection, known), known)
            self._shapes[collection] = known
            self._looked_at[collection] = time.monotonic()
        return known

    def _is_unknown(self, collection: str, error: StoreRejected) -> bool:
        """Whether a call was refused because there is no such collection (a local client has no status)."""
        return error.fields.get("status", 404) == 404 and self.pinned_space(collection) is None


def _filter(terms: Terms, point_ids: Sequence[str] | None = None) -> models.Filter:
    def conditions(pairs: Sequence[tuple[str, str]]) -> list[models.Condition]:
        return [models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in pairs]

    must = conditions(terms.must)
    if point_ids is not None:
        must.append(models.HasIdCondition(has_id=list(point_ids)))
    # An empty `should` could be read as "none of these fits": absent is clear.
    return models.Filter(
        must=must or None, should=conditions(terms.should) or None, must_not=conditions(terms.must_not) or None
    )
