"""What people call the tenants, as their sources said when they were asked last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import delete, select

from vecsync_dagster.ledger.part import LedgerPart, chunks, insert_into
from vecsync_dagster.ledger.tables import tenant_name

__all__ = ["TenantNames"]

_N: Final = tenant_name.c


class TenantNames(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def tenant_names(self, entity: str | None = None) -> dict[tuple[str, str], str]:
        query = select(_N.entity, _N.tenant_id, _N.name)
        with self.database.read() as connection:
            rows = connection.execute(query if entity is None else query.where(_N.entity == entity)).all()
        return {(owner, tenant): name for owner, tenant, name in rows}

    def tenant_name(self, entity: str, tenant: str) -> str:
        with self.database.read() as connection:
            return connection.scalar(select(_N.name).where(_N.entity == entity, _N.tenant_id == tenant)) or ""

    def set_tenant_names(self, entity: str, names: Mapping[str, str]) -> None:
        insert = insert_into(tenant_name, self.database.dialect)
        statement = insert.on_conflict_do_update(
            index_elements=[_N.entity, _N.tenant_id], set_={"name": insert.excluded.name}
        )
        rows = [{"entity": entity, "tenant_id": tenant, "name": name} for tenant, name in names.items()]
        for some in chunks(rows):
            with self.database.write() as connection:
                connection.execute(statement, some)

    def forget_tenant_names(self, entity: str, tenants: Iterable[str] | None = None) -> None:
        of_entity = delete(tenant_name).where(_N.entity == entity)
        wanted = (
            [of_entity]
            if tenants is None
            else [of_entity.where(_N.tenant_id.in_(some)) for some in chunks(list(tenants))]
        )
        for statement in wanted:
            with self.database.write() as connection:
                connection.execute(statement)
