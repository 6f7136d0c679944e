"""What documents of MongoDB say of the names of tenants: a field of the entity's own, or another collection."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Any

from pymongo.collection import Collection

from vecsync_dagster.config.entities import NameTable
from vecsync_dagster.sources.mongo_dotted import Named, dotted, flat_names, takes_names
from vecsync_dagster.sources.mongo_queries import Queries
from vecsync_dagster.sources.mongo_reading import aggregated, found
from vecsync_dagster.sources.mongo_values import id_text, owner_text, value_at
from vecsync_dagster.sources.tenant_names import READ

__all__ = ["names_of_documents", "names_of_table"]

Document = dict[str, Any]
Names = Iterator[tuple[str | None, str]]


def names_of_documents(
    collection: Collection[Document], queries: Queries, column: str, name: str, tenants: Set[str]
) -> Names:
    """One of each value in the tenant's field."""
    if dotted([name]) and takes_names(collection):
        names = dotted([*queries.asked, name])
        queries = replace(queries, named=Named(names, flat_names(collection, names)))
    for group in aggregated(collection, queries.tenant_names(column, name, tenants), allowDiskUse=True):
        yield owner_text(group["_id"]), group["name"] or ""


def names_of_table(collection: Collection[Document], table: NameTable) -> Names:
    """One of each document that has both; nothing but these two fields is read, where no name has a dot."""
    wanted = None if dotted([table.id, table.column]) else {"_id": 0, table.id: 1, table.column: 1}
    for document in found(collection, {}, wanted):
        text = id_text(value_at(document, table.column))
        if text is not None:
            yield owner_text(value_at(document, table.id)), text[:READ]
