"""Tenants of which the source has no row now, though the ledger knows documents of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, select

from vecsync_dagster.ledger.base import Missing
from vecsync_dagster.ledger.part import LedgerPart, chunks, insert_into
from vecsync_dagster.ledger.tables import missing_tenant

__all__ = ["MissingTenants"]

_M: Final = missing_tenant.c


class MissingTenants(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def miss(self, entity: str, tenants: Sequence[str]) -> dict[str, Missing]:
        insert = insert_into(missing_tenant, self.database.dialect)
        statement = insert.on_conflict_do_update(
            index_elements=[_M.entity, _M.tenant_id], set_={"looks": _M.looks + 1}
        ).returning(_M.since, _M.looks)
        first = {"entity": entity, "since": self._now(), "looks": 1}
        with self.database.write() as connection:
            return {
                tenant: Missing(*connection.execute(statement, {**first, "tenant_id": tenant}).one())
                for tenant in tenants
            }

    def found(self, entity: str, tenants: Sequence[str]) -> None:
        with self.database.write() as connection:
            for some in chunks(tenants):
                connection.execute(delete(missing_tenant).where(_M.entity == entity, _M.tenant_id.in_(some)))

    def missing(self, entity: str) -> dict[str, Missing]:
        query = select(_M.tenant_id, _M.since, _M.looks).where(_M.entity == entity).order_by(_M.tenant_id)
        with self.database.read() as connection:
            return {tenant: Missing(since, looks) for tenant, since, looks in connection.execute(query)}
