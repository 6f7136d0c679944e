"""Of which tenants there is anything in the ledger, and what goes with a tenant besides."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Select, Table, and_, delete, select

from vecsync_dagster.ledger.last_runs import Newest, each, one_by_one
from vecsync_dagster.ledger.part import CHUNK
from vecsync_dagster.ledger.retention import forget_unneeded
from vecsync_dagster.ledger.tables import (
    check_result,
    index_state,
    invalid_record,
    left_vector,
    missing_tenant,
    partition_seen,
    source_state,
    sync_run,
    tenant_name,
    unfinished_run,
    unshown,
    watermark,
)

__all__ = ["Traces"]

_FEW: Final[tuple[Table, ...]] = (
    watermark,
    source_state,
    partition_seen,
    check_result,
    unshown,
    missing_tenant,
    tenant_name,
)
_MANY: Final[tuple[Table, ...]] = (invalid_record, left_vector)
"""With many rows of a tenant, in whose index it comes right after the entity."""


class Traces(Newest):
    """See `base.Ledger` for what each method promises."""

    def traces(self, entity: str, collections: Collection[str]) -> list[str]:
        marked = _few(unfinished_run, entity).where(unfinished_run.c.collection.in_(collections))
        few = (_few(table, entity) for table in _FEW)
        many = (_each(table, entity) for table in _MANY)
        with self.database.read() as connection:
            found = {tenant for query in (marked, *few, *many) for tenant in connection.scalars(query)}
            for collection in collections:
                held = and_(index_state.c.entity == entity, index_state.c.collection == collection)
                found.update(each(connection, index_state.c.tenant_id, held))
        return sorted(filter(None, found))  # that of a check over all partitions is empty

    def ever_synced(self, entity: str) -> list[str]:
        with self.database.read() as connection:
            return sorted(filter(None, connection.scalars(_each(sync_run, entity))))

    def drop_partition(self, entity: str, collection: str, tenant: str, *, with_vectors: bool = True) -> None:
        if with_vectors:
            self._forget_left_vectors(entity, collection, tenant)
        with self.database.write() as connection:
            for table in (watermark, source_state, partition_seen, check_result, unshown):
                connection.execute(delete(table).where(*_in(table, entity, collection, tenant)))

    def _forget_left_vectors(self, entity: str, collection: str, tenant: str) -> None:
        some = select(left_vector.c.space, left_vector.c.text_hash).where(*_in(left_vector, entity, collection, tenant))
        left = CHUNK
        while left == CHUNK:
            with self.database.write() as connection:
                texts = [(space, text_hash) for space, text_hash in connection.execute(some.limit(CHUNK))]
                forget_unneeded(connection, (entity, collection, tenant), texts)
            left = len(texts)


def _few(table: Table, entity: str) -> Select[str]:
    return select(table.c.tenant_id).distinct().where(table.c.entity == entity)


def _each(table: Table, entity: str) -> Select[str]:
    """Found by an index, however many rows each tenant has."""
    return select(one_by_one(table.c.tenant_id, table.c.entity == entity).c.value)


def _in(table: Table, entity: str, collection: str, tenant: str) -> list[ColumnElement[bool]]:
    return [table.c.entity == entity, table.c.collection == collection, table.c.tenant_id == tenant]
