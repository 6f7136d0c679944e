"""What the source looked like when partitions were last synced: what tells which of them are due."""

from __future__ import annotations

from functools import cache
from typing import Final

from sqlalchemy import select

from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.ledger.part import Insert, LedgerPart, insert_into
from vecsync_dagster.ledger.tables import source_state
from vecsync_dagster.sources.base import Fingerprint

__all__ = ["States"]

_S: Final = source_state.c


class States(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def set_seen(self, entity: str, collection: str, tenant: str, seen: Seen) -> None:
        values = {
            "entity": entity,
            "collection": collection,
            "tenant_id": tenant,
            "fingerprint": None if seen.fingerprint is None else str(seen.fingerprint),
            "settings": seen.settings,
            "at": seen.at,
        }
        with self.database.write() as connection:
            connection.execute(_set(self.database.dialect), values)

    def seen(self, entity: str) -> dict[tuple[str, str], Seen]:
        query = select(_S.collection, _S.tenant_id, _S.fingerprint, _S.settings, _S.at).where(_S.entity == entity)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return {
            (collection, tenant): Seen(at, settings, None if text is None else Fingerprint.parse(text))
            for collection, tenant, text, settings, at in rows
        }


@cache
def _set(dialect: str) -> Insert:
    insert = insert_into(source_state, dialect)
    values = {name: insert.excluded[name] for name in ("fingerprint", "settings", "at")}
    return insert.on_conflict_do_update(index_elements=[_S.entity, _S.collection, _S.tenant_id], set_=values)
