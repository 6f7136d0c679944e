"""Collections as the ledger knows them, also those that left the configuration, and how they are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, update

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.last_runs import Newest
from vecsync_dagster.ledger.tables import (
    alert,
    check_result,
    collection_place,
    collection_space,
    index_state,
    invalid_record,
    left_vector,
    listener,
    missing_tenant,
    partition_seen,
    source_state,
    sync_run,
    tenant_name,
    unfinished_run,
    unshown,
    watermark,
)

__all__ = ["Leaving"]

_T: Final = index_state.c
_CHUNK: Final = 5_000
_STATE: Final[tuple[Table, ...]] = (
    watermark,
    source_state,
    partition_seen,
    unfinished_run,
    unshown,
    left_vector,
    invalid_record,
    sync_run,
    check_result,
)


class Leaving(Newest):
    """See `base.Ledger` for what each method promises."""

    def collections(self) -> list[tuple[str, str]]:
        pinned = select(collection_space.c.entity, collection_space.c.collection)
        with self.database.read() as connection:
            known = {(entity, collection) for entity, collection in connection.execute(pinned)}
        return sorted(known | {place for place in self._collections(None) if place[1]})

    def left_by_others(
        self, entity: str, collection: str, beginnings: Sequence[str], most: int
    ) -> list[tuple[str, str, Key]]:
        pinned = select(collection_space.c.entity).where(collection_space.c.collection == collection)
        columns = (_T.entity, _T.tenant_id, _T.db_id, _T.db_key)
        with self.database.read() as connection:
            owner = connection.scalar(pinned)
            if owner in (None, entity):
                return []
            # Within the index first; then exactly: a `type` may begin as another one does.
            begins = or_(
                *(
                    and_(_T.document_id >= one, _T.document_id < _after(one), _T.document_id == one + _T.db_id)
                    for one in beginnings
                )
            )
            theirs = select(*columns).where(_T.entity == owner, _T.collection == collection, begins).limit(most)
            return [(name, tenant, Key(*key)) for name, tenant, *key in connection.execute(theirs)]

    def documents(self, entity: str, collection: str) -> int:
        query = select(func.count()).select_from(index_state)
        with self.database.read() as connection:
            return int(connection.scalar(query.where(_T.entity == entity, _T.collection == collection)) or 0)

    def forget_collection(self, entity: str, collection: str, heir: str | None = None) -> None:
        some = select(_T.number).where(_T.collection == collection, _T.entity == entity).limit(_CHUNK)
        forget = delete(index_state).where(_T.number.in_(some.scalar_subquery()))
        left = True
        while left:
            with self.database.write() as connection:
                left = connection.execute(forget).rowcount == _CHUNK
        with self.database.write() as connection:
            for table in _STATE:
                connection.execute(delete(table).where(table.c.entity == entity, table.c.collection == collection))
            self._close_alerts(connection, entity, alert.c.partition.startswith(f"{collection}|", autoescape=True))
            # Last: as long as it is there, the collection is known, and can be dropped once more.
            pinned = and_(collection_space.c.entity == entity, collection_space.c.collection == collection)
            if heir is None:
                connection.execute(delete(collection_place).where(collection_place.c.collection == collection))
                connection.execute(delete(collection_space).where(pinned))
            else:
                connection.execute(update(collection_space).where(pinned).values(entity=heir))

    def forget_partition(self, entity: str, collection: str, tenant: str) -> None:
        with self.database.write() as connection:
            for table in _STATE:
                place = and_(table.c.entity == entity, table.c.collection == collection, table.c.tenant_id == tenant)
                connection.execute(delete(table).where(place))

    def forget_entity(self, entity: str) -> None:
        with self.database.write() as connection:
            # Also of collections that never were any: a check of the whole entity, how far it was written back.
            for table in (*_STATE, missing_tenant, tenant_name, listener):
                connection.execute(delete(table).where(table.c.entity == entity))
            self._close_alerts(connection, entity)

    def _close_alerts(self, connection: Connection, entity: str, *where: ColumnElement[bool]) -> None:
        """Not deleted: whoever was told of one is to hear that it is over."""
        now = self._now()
        opened = update(alert).where(alert.c.entity == entity, alert.c.closed_at.is_(None), *where)
        connection.execute(opened, {"closed_at": now, "observed_at": now})


def _after(beginning: str) -> str:
    """The first text behind all those that begin so."""
    return beginning[:-1] + chr(ord(beginning[-1]) + 1)
