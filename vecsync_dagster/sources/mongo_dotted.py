"""Names with a dot: `price.usd` is the field of that very name where a document has one, else the path.

MongoDB's own queries, sorting and projections know the path alone. So a pipeline takes the value of the field out, into
a field of its own without a dot, and the conditions ask for both. That costs the index: it is done for names of queries
only where some document has such a field. Before MongoDB 5.0 a name is the path alone.

`meta.price.usd` may be the field `price.usd` of the object `meta` as well, or `usd` of the object `meta.price`. Such a
value is found in documents that are read, not asked for: a name of queries that needs it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import mongo_reading as reading
from vecsync_dagster.sources.mongo_values import value_at

__all__ = ["Named", "dotted", "exact", "flat_names", "path_of", "refuse_flat", "refuse_inner", "takes_names"]

Document = dict[str, Any]
_UNKNOWN = {15999, 168, 31325, 238, 304}  # an operator that the server does not have
_LOOKED_AT = 10_000  # documents at either end, by the server
_READ = 1000  # the same, here


def dotted(names: Iterable[str]) -> tuple[str, ...]:
    """The names that may be a field's as well as a path. `_id.firm` is always a part of the key."""
    return tuple(dict.fromkeys(name for name in names if "." in name and not name.startswith("_id.")))


def path_of(name: str) -> str:
    """What to read of a document for this name: all of the object in which there may be fields with a dot."""
    return name.partition(".")[0] if name.count(".") > 1 else name


def _prefixes(name: str) -> list[str]:
    """The name and what it begins with, where these have a dot: fields of a document whose own names they may be."""
    steps = name.split(".")
    return [".".join(steps[:count]) for count in range(len(steps), 1, -1)]


def exact(name: str) -> Document:
    """An expression: the value of the field with this very name; missing where there is none."""
    return {"$getField": {"$literal": name}}


def takes_names(collection: Collection[Document]) -> bool:
    """Whether the server can look up a field by its very name: MongoDB 5.0 can. Others know the path alone."""
    try:
        reading.aggregated(collection, [{"$limit": 1}, {"$project": {"_id": 0, "it": exact("a.b")}}]).close()
    except OperationFailure as error:
        if error.code not in _UNKNOWN:
            raise
        return False
    return True


def flat_names(collection: Collection[Document], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that are a field's own in any of the first and last documents. Not all are looked at: where
    none has such a field, that would be a scan of the collection for each run."""
    if not names:
        return ()
    taken = {f"f{number}": exact(name) for number, name in enumerate(names)}
    stages: list[Document] = [
        {"$limit": _LOOKED_AT},
        {"$project": {"_id": 0, **taken}},
        {"$group": {"_id": {alias: {"$type": f"${alias}"} for alias in taken}}},
    ]
    found = [
        group["_id"]
        for order in (1, -1)
        for group in reading.aggregated(collection, [{"$sort": {"_id": order}}, *stages])
    ]
    return tuple(
        name for name, alias in zip(names, taken, strict=True) if any(kinds[alias] != "missing" for kinds in found)
    )


def refuse_flat(collection: Collection[Document], names: Sequence[str], entity: str) -> None:
    """For a server that does not take names. Raises SourceRejected if one of the first or last documents has a field
    of such a name: its value could not be read."""
    own = {begun: name for name in names for begun in _prefixes(name)}
    for document in _at_both_ends(collection, None):
        for begun in own.keys() & document.keys():
            raise SourceRejected(
                f"entities.{entity}: {begun!r} is the name of a field with a dot, and this server can look up "
                "no such field; it takes MongoDB 5.0 ($getField)",
                entity=entity,
                field=own[begun],
            )


def refuse_inner(collection: Collection[Document], names: Sequence[str], named: Named, entity: str) -> None:
    """For names of queries. Raises SourceRejected if one of the first or last documents has such a name's value in a
    field with a dot that is inside an object, or an object: no query would find it."""
    deep = [name for name in names if name.count(".") > 1]
    if not deep:
        return
    wanted = named.projection(dict.fromkeys(map(path_of, deep), 1))
    for document in named.restored(_at_both_ends(collection, wanted)):
        for name in deep:
            if name not in document and _is_inner(document, name):
                raise SourceRejected(
                    f"entities.{entity}: some documents have {name!r} in a field inside an object whose own name has a "
                    "dot. MongoDB has no condition for such a field: it can be used in text, payload, required and "
                    "types, not in id, tenancy, filter, updated_at and deleted_at",
                    entity=entity,
                    field=name,
                )


def _at_both_ends(collection: Collection[Document], wanted: Document | None) -> Iterator[Document]:
    for order in (1, -1):
        stages: list[Document] = [{"$sort": {"_id": order}}, {"$limit": _READ}]
        yield from reading.aggregated(collection, stages + ([] if wanted is None else [{"$project": wanted}]))


def _is_inner(document: Document, name: str) -> bool:
    """Whether the value is another one than that at the path, which is what the server finds."""
    value, at_path = value_at(document, name), _at_path(document, name)
    return not (value is at_path or value == at_path)


def _at_path(value: Any, name: str) -> Any:
    first, _, rest = name.partition(".")
    if isinstance(value, list):
        inner = (_at_path(item, name) for item in value if isinstance(item, Mapping))  # not into lists inside lists
        return [found for found in inner if found is not None] or None
    inside = value.get(first) if isinstance(value, Mapping) else None
    return _at_path(inside, rest) if rest else inside


class Named:
    """The dotted names of one entity. `flat`: those of its queries that some document has as a field."""

    def __init__(self, names: Sequence[str] = (), flat: Sequence[str] = ()) -> None:
        own = dict.fromkeys(begun for name in names for begun in _prefixes(name))
        self.aliases = {name: f"vecsync_field_{number}" for number, name in enumerate(own)}
        self.flat = tuple(flat)

    def where(self, name: str, condition: Any) -> Document:
        """Documents whose field fulfils this condition of a query."""
        if name not in self.flat:
            return {name: condition}
        alias = self.aliases[name]
        return {
            "$or": [
                {"$and": [{alias: {"$exists": True}}, {alias: condition}]},
                {alias: {"$exists": False}, name: condition},
            ]
        }

    def restored(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents with what was taken out in its place again."""
        for document in documents:
            for name, alias in self.aliases.items():
                if alias in document:
                    document[name] = document.pop(alias)
            yield document

    def projection(self, paths: Mapping[str, int]) -> Document:
        taken = {alias: 1 if name in self.flat else exact(name) for name, alias in self.aliases.items()}
        return {**paths, **taken}

    @property
    def stages(self) -> list[Document]:
        """What the conditions and the order need of a document."""
        if not self.flat:
            return []
        return [{"$set": {self.aliases[name]: exact(name) for name in self.flat}}]

    def ordered(self, names: Sequence[str]) -> list[Document]:
        """Sorts by these fields."""
        flat = [name for name in names if name in self.flat]
        if not flat:
            return [{"$sort": dict.fromkeys(names, 1)}] if names else []
        orders = {name: f"vecsync_order_{number}" for number, name in enumerate(flat)}
        return [
            {"$set": {order: self._either(name) for name, order in orders.items()}},
            {"$sort": {orders.get(name, name): 1 for name in names}},
        ]

    def value(self, name: str) -> Any:
        """An expression: the value of the field, or at the path."""
        return self._either(name) if name in self.flat else f"${name}"

    def _either(self, name: str) -> Document:
        alias = f"${self.aliases[name]}"
        return {"$cond": [{"$eq": [{"$type": alias}, "missing"]}, f"${name}", alias]}

    def count(self, collection: Collection[Document], query: Document) -> int:
        if not self.flat:
            return collection.count_documents(query)
        stages = [*self.stages, {"$match": query}, {"$count": "count"}]
        counted = reading.aggregated(collection, stages, allowDiskUse=True)
        return int(next(iter(counted), {"count": 0})["count"])

    def found(
        self,
        collection: Collection[Document],
        query: Document,
        projection: Document,
        *,
        order: Sequence[str] = (),
        limit: int = 0,
        offset: int = 0,
        session: ClientSession | None = None,
    ) -> reading.Documents:
        """These documents; `restored` puts their names right."""
        if not self.aliases:
            return reading.found(
                collection,
                query,
                projection,
                sort=[(name, 1) for name in order] or None,
                skip=offset,
                limit=limit,
                allow_disk_use=True,
                session=session,
            )
        cut = [{"$skip": offset}] * bool(offset) + [{"$limit": limit}] * bool(limit)
        stages = [*self.stages, {"$match": query}, *self.ordered(order), *cut, {"$project": projection}]
        return reading.aggregated(collection, stages, allowDiskUse=True, session=session)
