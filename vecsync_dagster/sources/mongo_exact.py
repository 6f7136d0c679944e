"""Collections that were made with a collation: their queries take some different texts for equal, such as the keys of
two tenants. They are asked by the bytes of texts all the same, for which an index of theirs is of no use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.collation import Collation
from pymongo.collection import Collection
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor, RawBatchCursor
from pymongo.errors import OperationFailure
from pymongo.results import UpdateResult

from vecsync_dagster.sources.mongo_errors import REFUSED

__all__ = ["ExactCollection", "collation_of", "own_collation"]

Document = dict[str, Any]
_SIMPLE = Collation("simple")


class ExactCollection(Collection[Document]):
    """Every query and command that compares texts does so by their bytes, but for single writes (`collation_of`)."""

    def find(self, *args: Any, **kwargs: Any) -> Cursor[Document]:
        return super().find(*args, collation=_SIMPLE, **kwargs)

    def aggregate(self, *args: Any, **kwargs: Any) -> CommandCursor[Document]:
        return super().aggregate(*args, collation=_SIMPLE, **kwargs)

    def find_raw_batches(self, *args: Any, **kwargs: Any) -> RawBatchCursor[Document]:
        return super().find_raw_batches(*args, collation=_SIMPLE, **kwargs)

    def aggregate_raw_batches(self, *args: Any, **kwargs: Any) -> RawBatchCursor[Document]:
        return super().aggregate_raw_batches(*args, collation=_SIMPLE, **kwargs)

    def count_documents(self, *args: Any, **kwargs: Any) -> int:
        return super().count_documents(*args, collation=_SIMPLE, **kwargs)

    def update_many(self, *args: Any, **kwargs: Any) -> UpdateResult:
        return super().update_many(*args, **{**kwargs, "collation": _SIMPLE})


def collation_of(collection: Collection[Document]) -> Collation | None:
    """What a single write of a bulk has to say so that it compares as the collection's queries do."""
    return _SIMPLE if isinstance(collection, ExactCollection) else None


def own_collation(collection: Collection[Document]) -> Mapping[str, Any]:
    """The options of a collection that has a collation of its own; empty for others, and where we may not know."""
    try:
        options = collection.options()
    except OperationFailure as error:
        if error.code not in REFUSED:
            raise
        return {}
    locale = (options.get("collation") or {}).get("locale", "simple")
    return {} if locale == "simple" else options
