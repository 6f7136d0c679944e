"""Partitions to which a run has written, and whose stages Dagster does not all show as they are now: it was told of the
last one alone, or of nothing, because the run was killed before it told anybody."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, select

from vecsync_dagster.ledger.part import Insert, LedgerPart, insert_into
from vecsync_dagster.ledger.tables import unshown

__all__ = ["Unshown", "mark_unshown"]

_S: Final = unshown.c


class Unshown(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def unshown(self, entity: str) -> set[tuple[str, str]]:
        with self.database.read() as connection:
            rows = connection.execute(select(_S.collection, _S.tenant_id).where(_S.entity == entity))
            return {(collection, tenant) for collection, tenant in rows}

    def shown(self, entity: str, collection: str, tenant: str, until: datetime) -> None:
        place = and_(_S.entity == entity, _S.collection == collection, _S.tenant_id == tenant)
        with self.database.write() as connection:
            connection.execute(delete(unshown).where(place, _S.written_at <= until))


def mark_unshown(connection: Connection, dialect: str, place: dict[str, Any], at: datetime) -> None:
    """Within the transaction in which a run of the partition (`place`: its columns) begins to write."""
    connection.execute(_mark(dialect), {**place, "written_at": at})


@cache
def _mark(dialect: str) -> Insert:
    insert = insert_into(unshown, dialect)
    return insert.on_conflict_do_update(
        index_elements=[_S.entity, _S.collection, _S.tenant_id], set_={"written_at": insert.excluded.written_at}
    )
