"""Records of which the ledger learned something since a moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import select

from vecsync_dagster.ledger.part import CHUNK, LedgerPart
from vecsync_dagster.ledger.tables import index_state

__all__ = ["Touched"]


class Touched(LedgerPart):
    """See `base.Ledger` for what each method promises."""

    def touched(self, entity: str, tenant: str, since: datetime | None, chunk: int = CHUNK) -> Iterator[list[str]]:
        row = index_state.c
        query = select(row.document_id).distinct().where(row.entity == entity, row.tenant_id == tenant)
        if since is not None:
            query = query.where(row.updated_at >= since)
        page = query.order_by(row.document_id).limit(chunk)
        while True:
            with self.database.read() as connection:
                ids = list(connection.scalars(page))
            if ids:
                yield ids
            if len(ids) < chunk:
                return
            page = query.where(row.document_id > ids[-1]).order_by(row.document_id).limit(chunk)
