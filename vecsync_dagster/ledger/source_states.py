"""What the source looked like when partitions were last synced: what tells which of them are due."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Boolean, and_, bindparam, case, select, update

from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.ledger.part import Insert, LedgerPart, insert_into
from vecsync_dagster.ledger.tables import source_state
from vecsync_dagster.sources.base import Fingerprint

__all__ = ["States"]

_S: Final = source_state.c


class States(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def set_seen(self, entity: str, collection: str, tenant: str, seen: Seen, *, full: bool = False) -> None:
        values = {
            "entity": entity,
            "collection": collection,
            "tenant_id": tenant,
            "fingerprint": None if seen.fingerprint is None else str(seen.fingerprint),
            "settings": seen.settings,
            "at": seen.at,
            "full": full,
        }
        with self.database.write() as connection:
            connection.execute(_set(self.database.dialect), values)

    def doubt(self, entity: str, collection: str, tenant: str) -> None:
        place = and_(_S.entity == entity, _S.collection == collection, _S.tenant_id == tenant)
        with self.database.write() as connection:
            connection.execute(update(source_state).where(place).values(doubted_at=self._now()))

    def doubted(self, entity: str) -> dict[tuple[str, str], datetime]:
        kept = (_S.collection, _S.tenant_id, _S.doubted_at)
        query = select(*kept).where(_S.entity == entity, _S.doubted_at.is_not(None))
        with self.database.read() as connection:
            return {(collection, tenant): at for collection, tenant, at in connection.execute(query)}

    def seen(self, entity: str) -> dict[tuple[str, str], Seen]:
        kept = (_S.collection, _S.tenant_id, _S.fingerprint, _S.settings, _S.at, _S.doubted_at)
        query = select(*kept).where(_S.entity == entity)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return {
            (collection, tenant): Seen(at, settings, None if text is None else Fingerprint.parse(text), doubted_at)
            for collection, tenant, text, settings, at, doubted_at in rows
        }


@cache
def _set(dialect: str) -> Insert:
    insert = insert_into(source_state, dialect)
    values: dict[str, Any] = {name: insert.excluded[name] for name in ("fingerprint", "settings", "at")}
    is_over = and_(bindparam("full", type_=Boolean), _S.doubted_at <= insert.excluded.at)
    values["doubted_at"] = case((is_over, None), else_=_S.doubted_at)
    return insert.on_conflict_do_update(index_elements=[_S.entity, _S.collection, _S.tenant_id], set_=values)
