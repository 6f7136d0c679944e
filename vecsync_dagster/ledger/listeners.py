"""Who listens to the changes of the entities' sources: a process says so again and again, as long as it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select

from vecsync_dagster.ledger.base import Listener
from vecsync_dagster.ledger.part import LedgerPart, insert_into
from vecsync_dagster.ledger.tables import listener

__all__ = ["Listeners"]

_L: Final = listener.c


class Listeners(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def listens(self, entities: Mapping[str, str | None], since: datetime) -> None:
        if not entities:
            return
        insert = insert_into(listener, self.database.dialect)
        said = {column.name: insert.excluded[column.name] for column in (_L.since, _L.at, _L.problem)}
        now = self._now()
        rows = [{"entity": name, "since": since, "at": now, "problem": why} for name, why in entities.items()]
        with self.database.write() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=[_L.entity], set_=said), rows)

    def listens_no_more(self, entities: Iterable[str], since: datetime) -> None:
        if not (entities := list(entities)):
            return
        with self.database.write() as connection:
            connection.execute(delete(listener).where(_L.entity.in_(entities), _L.since == since))

    def listeners(self) -> dict[str, Listener]:
        with self.database.read() as connection:
            return {
                row.entity: Listener(row.since, row.at, row.problem) for row in connection.execute(select(listener))
            }
