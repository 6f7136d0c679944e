"""`syncMetadata` on MongoDB documents: what the ledger knows of them, kept apart from business data.

Nothing but this field is ever written, and every write is bounded by its tenant. A change stream's events of such
writes are passed over (mongo_stream.py), and the modification time stays: a write-back is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.identity import native_of
from vecsync_dagster.sources.mongo_exact import collation_of
from vecsync_dagster.sources.mongo_queries import Queries, Query, both
from vecsync_dagster.sources.mongo_stream import SYNC_METADATA

__all__ = ["ensure_indexes", "withdraw", "without_metadata", "write_metadata"]

Document = dict[str, Any]
_OVERALL = f"{SYNC_METADATA}.overallStatus"
_AT_ONCE = 500
_COLLECTIONS = f"{SYNC_METADATA}.collections"


def ensure_indexes(collection: Collection[Document], names: Sequence[str]) -> None:
    """By overall status, and by that of each collection: what an application lists and counts."""
    for field in (_OVERALL, *(f"{_COLLECTIONS}.{name}.status" for name in names)):
        collection.create_index(field)


def write_metadata(
    collection: Collection[Document], queries: Queries, tenant: str, metadata: Mapping[str, Mapping[str, Any]]
) -> int:
    """One bulk write; a document's id -> what `syncMetadata` is to say, its `collections` above all. A document that
    says so already is not written. Returns how many were."""
    now = datetime.now(UTC)
    whose = both(queries.tenant(tenant), queries.live())  # not an old version that has the key as well
    own = _by_own_key(collection, queries, tenant, metadata) if queries.named.flat else None
    collation = collation_of(collection)
    updates = [
        UpdateOne(both(one, {_COLLECTIONS: {"$ne": told["collections"]}}), _update(told, now), collation=collation)
        for key, told in metadata.items()
        if (one := both(queries.among([key]), whose) if own is None else own.get(native_of(key) or key))
    ]
    if not updates:
        return 0
    try:
        return collection.bulk_write(updates, ordered=False).matched_count
    except BulkWriteError as error:
        refused = (error.details or {}).get("writeErrors", [])
        codes = ", ".join(sorted({str(one.get("code")) for one in refused}))
        raise SourceRejected(
            f"collection {collection.name}: {len(refused)} of {len(updates)} documents do not take {SYNC_METADATA} "
            f"({codes})",
            refused=len(refused),
        ) from None  # the driver's error holds documents


def _by_own_key(
    collection: Collection[Document], queries: Queries, tenant: str, keys: Iterable[str]
) -> dict[str, Query]:
    """The documents by their `_id`, for an update cannot ask for a field whose name has a dot."""
    found: dict[str, Query] = {}
    query = both(queries.among(keys), queries.tenant(tenant), queries.live())
    wanted = {**queries.key_projection, "_id": 1}
    for document in queries.named.restored(queries.named.found(collection, query, wanted)):
        key = queries.key(document)
        if key is not None:
            found[key.native or key] = found[key] = {"_id": document["_id"]}
    return found


def _update(told: Mapping[str, Any], now: datetime) -> Document:
    named = {f"{SYNC_METADATA}.{name}": value for name, value in told.items()}
    # The least of what is there and now: the first write's time stays.
    return {"$set": {**named, f"{SYNC_METADATA}.updatedAt": now}, "$min": {f"{SYNC_METADATA}.createdAt": now}}


def withdraw(collection: Collection[Document], queries: Queries, tenant: str) -> int:
    """Documents that are in no collection any more (approval withdrawn) lose what was said of them."""
    dead = {"$nor": [queries.live()]}
    if queries.live() == {}:
        return 0
    told = both(queries.tenant(tenant), {_OVERALL: {"$exists": True}}, dead)
    unset = {"$unset": {SYNC_METADATA: ""}}
    if not queries.named.flat:
        return collection.update_many(told, unset).modified_count
    found = iter(queries.named.found(collection, told, {"_id": 1}))
    withdrawn = 0
    while some := [document["_id"] for document in islice(found, _AT_ONCE)]:
        withdrawn += collection.update_many({"_id": {"$in": some}}, unset).modified_count
    return withdrawn


def without_metadata(
    collection: Collection[Document], queries: Queries, tenant: str, chunk: int
) -> Iterator[list[str]]:
    """Ids of live documents that nothing was ever said of, as they were when the reading began."""
    query: Query = both(queries.tenant(tenant), queries.live(), {_OVERALL: {"$exists": False}})
    with queries.named.found(collection, query, queries.key_projection) as cursor:
        documents = queries.named.restored(cursor)
        keys: Iterator[str] = (key for document in documents if (key := queries.key(document)) is not None)
        while some := list(islice(keys, chunk)):
            yield some
