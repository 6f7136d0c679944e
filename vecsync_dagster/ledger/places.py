"""Where each collection lies, and what it means that it lies elsewhere than before: nothing is known of its points."""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy import Select, Table, literal, null, select, true, union, update

from vecsync_dagster.ledger import partition_statements as statements
from vecsync_dagster.ledger.part import LedgerPart, insert_into
from vecsync_dagster.ledger.tables import (
    Moment,
    collection_place,
    index_state,
    source_state,
    unfinished_run,
    watermark,
)

__all__ = ["Places"]

_C: Final = collection_place.c
_MARK: Final = ("entity", "collection", "tenant_id", "run_id", "began_at", "mode", "moved")


class Places(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def place_of(self, collection: str) -> str | None:
        with self.database.read() as connection:
            return connection.scalar(select(_C.place).where(_C.collection == collection))

    def come_to(self, collection: str, place: str) -> bool:
        if self.place_of(collection) == place:
            return False
        insert = insert_into(collection_place, self.database.dialect).on_conflict_do_nothing()
        here = update(collection_place).where(_C.collection == collection, _C.place != place)
        with self.database.write(durable=True) as connection:
            connection.execute(insert, {"collection": collection, "place": place})
            # None where the place is new to the ledger, or where somebody else was here first.
            if not connection.execute(here.values(place=place)).rowcount:
                return False
            known = union(*(_partitions(table, collection) for table in (index_state, watermark))).subquery()
            now = literal(self._now(), Moment)
            marks = select(*known.c, literal(uuid.uuid4().hex), now, null(), true())
            connection.execute(insert_into(unfinished_run, self.database.dialect).from_select(_MARK, marks))
            unseen = update(source_state).where(source_state.c.collection == collection)
            connection.execute(unseen.values(settings=""))
            return True

    def is_moved(self, entity: str, collection: str, tenant: str) -> bool:
        with self.database.read() as connection:
            return bool(connection.scalar(statements.MOVED, statements.place(entity, collection, tenant)))


def _partitions(table: Table, collection: str) -> Select[str, str, str]:
    c = table.c
    return select(c.entity, c.collection, c.tenant_id).distinct().where(c.collection == collection)
