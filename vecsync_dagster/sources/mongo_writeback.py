"""`syncMetadata` on MongoDB documents: what the ledger knows of them, kept apart from business data.

Nothing but this field is ever written, and every write is bounded by its tenant; only from what is nobody's, or live
no longer, the field is taken whoever's it was. A change stream's events of such
writes are passed over (mongo_stream.py), and the modification time stays: a write-back is no change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.identity import differ, native_of
from vecsync_dagster.sources.mongo_exact import collation_of
from vecsync_dagster.sources.mongo_keys import with_keys, written
from vecsync_dagster.sources.mongo_queries import Queries, Query, both
from vecsync_dagster.sources.mongo_stream import SYNC_METADATA
from vecsync_dagster.sources.mongo_values import record_batch, unreadable_in

__all__ = ["ensure_indexes", "withdraw", "withdraw_from", "without_metadata", "write_metadata"]

Document = dict[str, Any]
Meant = Callable[[pa.RecordBatch], int | None]
_OVERALL = f"{SYNC_METADATA}.overallStatus"
_AT_ONCE = 500
_KEYS_AT_ONCE = 100  # see `mongo.IDS_PER_QUERY`
_UNSET = {"$unset": {SYNC_METADATA: ""}}
_COLLECTIONS = f"{SYNC_METADATA}.collections"


def ensure_indexes(collection: Collection[Document], names: Sequence[str]) -> None:
    """By overall status, and by that of each collection: what an application lists and counts."""
    for field in (_OVERALL, *(f"{_COLLECTIONS}.{name}.status" for name in names)):
        collection.create_index(field)


def write_metadata(
    collection: Collection[Document],
    queries: Queries,
    tenant: str,
    metadata: Mapping[str, Mapping[str, Any]],
    meant: Meant,
) -> int:
    """One bulk write; a document's id -> what `syncMetadata` is to say, its `collections` above all. A document that
    says so already is not written. Returns how many were. `meant`: see `WritesBack`."""
    now = datetime.now(UTC)
    # Neither an old version that has the key as well, nor one of many tenants.
    whose = both(queries.tenant(tenant), queries.owned(), queries.live())
    collation = collation_of(collection)
    found = _by_unique_key(queries, metadata)
    others: list[Any] = []
    if rest := [key for key in metadata if key not in found]:
        ids, others = _by_own_key(collection, queries, whose, rest, meant)
        found |= {key: {"_id": one} for key, one in ids.items()}
    # An update cannot ask for a field whose name has a dot.
    bound = {} if queries.named.flat else whose
    updates = [
        UpdateOne(
            both(one, bound, {_COLLECTIONS: {"$ne": told["collections"]}}), _update(told, now), collation=collation
        )
        for key, told in metadata.items()
        if (one := found.get(key))
    ]
    updates += [UpdateOne({"_id": one, _OVERALL: {"$exists": True}}, _UNSET, collation=collation) for one in others]
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


def _by_unique_key(queries: Queries, keys: Iterable[str]) -> dict[str, Query]:
    """Where no two documents have one key, the key itself finds its document; an array that holds it is another."""
    if not queries.unique or queries.named.flat:
        return {}
    arrays = [{name: {"$type": "array"}} for name in queries.entity.key if name != "_id"]
    scalar: Query = {"$nor": arrays} if arrays else {}
    return {key: both(queries.among([key]), scalar) for key in keys if native_of(key) is not None}


def _by_own_key(
    collection: Collection[Document], queries: Queries, whose: Query, keys: Sequence[str], meant: Meant
) -> tuple[dict[str, Any], list[Any]]:
    """The `_id` of the document that each key means; and those of the others that have one of these keys."""
    given = {str(key): key for key in keys}
    same: dict[str, dict[str, Any]] = defaultdict(dict)
    wanted = {**queries.key_projection, "_id": 1}
    for document in queries.named.restored(queries.named.found(collection, both(queries.among(keys), whose), wanted)):
        key = queries.key(document)
        if key is not None and key in given and not differ(given[key], key) and _can_be_asked(document):
            same[key][written(document["_id"])] = document["_id"]
    repeated = {key: ids for key, ids in same.items() if len(ids) > 1}
    found = {key: one for key, ids in same.items() if key not in repeated for one in ids.values()}
    records = _records(collection, queries, [one for ids in repeated.values() for one in ids.values()])
    others = []
    for text, ids in repeated.items():
        documents = [records[name] for name in sorted(ids) if name in records]
        row = _row(queries, documents, meant)
        if row is not None:
            found[text] = documents.pop(row)["_id"]
        others += [document["_id"] for document in documents]
    return found, others


def _can_be_asked(document: Document) -> bool:
    """Whether a query can ask for this `_id`: what cannot be read cannot be sent either."""
    return unreadable_in(document["_id"]) is None


def _records(collection: Collection[Document], queries: Queries, ids: Sequence[Any]) -> dict[str, Document]:
    if not ids:
        return {}
    documents = queries.named.found(collection, {"_id": {"$in": ids}}, {**queries.projection, "_id": 1})
    return {written(document["_id"]): document for document in queries.named.restored(documents)}


def _row(queries: Queries, documents: Sequence[Document], meant: Meant) -> int | None:
    """Which of these documents of one key is meant; None where their keys are of different types."""
    keys = [queries.key(document) for document in documents]
    if len({None if key is None else key.native for key in keys}) != 1:
        return None
    return meant(with_keys(record_batch(queries.fields, documents), keys))


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
    if not queries.named.flat:
        return collection.update_many(told, _UNSET).modified_count
    found = filter(_can_be_asked, queries.named.found(collection, told, {"_id": 1}))
    withdrawn = 0
    while some := [document["_id"] for document in islice(found, _AT_ONCE)]:
        withdrawn += collection.update_many({"_id": {"$in": some}}, _UNSET).modified_count
    return withdrawn


def withdraw_from(collection: Collection[Document], queries: Queries, keys: Iterable[str] | None) -> int:
    """Of these documents (None: of all) those that are nobody's, or live no longer: whoever had them says no more."""
    if keys is None:
        return _withdraw_orphans(collection, queries, {})
    given = iter(keys)
    withdrawn = 0
    while some := list(islice(given, _KEYS_AT_ONCE)):
        withdrawn += _withdraw_orphans(collection, queries, queries.among(some))
    return withdrawn


def _withdraw_orphans(collection: Collection[Document], queries: Queries, some: Query) -> int:
    told = both(some, {_OVERALL: {"$exists": True}})
    withdrawn = 0
    with queries.named.found(collection, told, {**queries.projection, "_id": 1}) as cursor:
        orphans = (
            document["_id"]
            for document in queries.named.restored(cursor)
            if (queries.owner(document) is None or not queries.is_live(document)) and _can_be_asked(document)
        )
        while ids := list(islice(orphans, _AT_ONCE)):
            withdrawn += collection.update_many({"_id": {"$in": ids}}, _UNSET).modified_count
    return withdrawn


def without_metadata(
    collection: Collection[Document], queries: Queries, tenant: str, chunk: int
) -> Iterator[list[str]]:
    """Ids of live documents that nothing was ever said of, as they were when the reading began."""
    query: Query = both(queries.tenant(tenant), queries.owned(), queries.live(), {_OVERALL: {"$exists": False}})
    with queries.named.found(collection, query, queries.key_projection) as cursor:
        documents = queries.named.restored(cursor)
        keys: Iterator[str] = (key for document in documents if (key := queries.key(document)) is not None)
        while some := list(islice(keys, chunk)):
            yield some
