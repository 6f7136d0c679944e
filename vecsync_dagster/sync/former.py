"""What former owners have of the records of one tenant. Once a run has seen that a record is this tenant's, it is not
theirs any more, whatever becomes of it here: written, failed, rejected or called gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from vecsync_dagster.documents import document_id
from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.ledger.base import LedgerRow
from vecsync_dagster.sources.base import Keyed, Source, is_certain
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.apply import remove
from vecsync_dagster.sync.changes import Change
from vecsync_dagster.sync.owners import is_in, live
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.whole import was_read
from vecsync_dagster.sync.writing import leave_mark

__all__ = ["Former"]


class Former:
    """Another tenant's row has the id of the record's document here; in the other scope (a tenant's, or everybody's)
    the document has an id of its own. Where the tenant is a part of the key, a record that moved has another key, and
    what is left under the old one is found by the rest of it. Nothing is asked of the source where there is no such
    row."""

    def __init__(self, target: Target, source: Source, started_at: datetime) -> None:
        self._target = target
        self._source = source
        self._started_at = started_at
        self._others: bool | None = None
        self._by_tenant: bool | None = None

    def in_other_scope(self, key: str) -> str:
        """The id that the record's document has there."""
        other = GLOBAL if self._target.tenant != GLOBAL else ""
        return document_id(other, self._target.config.type or self._target.entity, key)

    def elsewhere(self, keys: Iterable[str]) -> dict[str, LedgerRow]:
        """Rows of the same records in the other scope."""
        t, wanted = self._target, list(keys)
        if not wanted or not self._has_other_scope():
            return {}
        return t.ledger.rows(t.entity, t.collection, list(map(self.in_other_scope, wanted)), self._started_at)

    def replaced(self, written: Sequence[Change]) -> int:
        """Removes the documents in the other scope of records that are new here, as soon as these are written, or
        others would go on seeing them until their own full run; returns how many. Not those of a batch that failed:
        see `leave`."""
        rows = self.elsewhere(c.document.db_id for c in written if c.failure is None and not _is_held(c.row))
        self._remove(rows)
        return len(rows)

    def leave(self, keys: Mapping[str, str], rows: Mapping[str, LedgerRow]) -> dict[str, LedgerRow]:
        """Removes what former owners have of these records (document id -> key) from store and ledger, where the source
        says that they do not have the record now; returns those rows. `rows`: the ledger's of these documents."""
        theirs = {i: row for i in keys if (row := rows.get(i)) is not None and row.tenant != self._target.tenant}
        theirs |= self.elsewhere(key for i, key in keys.items() if i in theirs or not _is_held(rows.get(i)))
        left = self._left(theirs)
        self._remove(left)
        return left | self.leave_namesakes({key: None for i, key in keys.items() if not _is_held(rows.get(i))})

    def namesakes(self, keys: Mapping[str, str | None]) -> dict[str, LedgerRow]:
        """Rows of other tenants whose keys differ from these (key -> content hash, if known) in nothing but the tenant:
        former ones of the same records, or other records that merely have the same number there."""
        t = self._target
        if not keys or not self._has_tenant_in_keys():
            return {}
        found = t.ledger.namesakes(t.entity, t.collection, t.tenant, keys)
        return t.ledger.rows(t.entity, t.collection, found, self._started_at) if found else {}

    def leave_namesakes(self, keys: Mapping[str, str | None]) -> dict[str, LedgerRow]:
        """Removes those of them that the source says are gone; returns those rows. Of each key few are looked at, and
        the next ones where these are gone."""
        left: dict[str, LedgerRow] = {}
        while gone := self._left(self._read(self.namesakes(keys))):
            self._remove(gone)
            left |= gone
        return left

    def _read(self, rows: Mapping[str, LedgerRow]) -> dict[str, LedgerRow]:
        """Those whose keys mean today what they meant when they were written."""
        read = {tenant: was_read(replace(self._target, tenant=tenant)) for tenant in {r.tenant for r in rows.values()}}
        return {i: row for i, row in rows.items() if read[row.tenant]}

    def _has_tenant_in_keys(self) -> bool:
        if self._by_tenant is None:
            config, source = self._target.config, self._source
            key = source.key() if isinstance(source, Keyed) else config.key
            self._by_tenant = config.tenancy is not None and config.tenancy.column in key and len(key) > 1
        return self._by_tenant

    def _left(self, rows: Mapping[str, LedgerRow]) -> dict[str, LedgerRow]:
        """Those whose owners do not have these records for sure; one look-up for each owner."""
        known = {i: row for i, row in rows.items() if is_certain(self._source, row.key)}
        left: dict[str, LedgerRow] = {}
        for tenant in sorted({row.tenant for row in known.values()}):
            some = {i: row for i, row in known.items() if row.tenant == tenant}
            there = live(self._target, self._source, tenant, [row.key for row in some.values()])
            left |= {i: row for i, row in some.items() if not is_in(row.key, there)}
        return left

    def _remove(self, rows: Mapping[str, LedgerRow]) -> None:
        t = self._target
        for tenant in sorted({row.tenant for row in rows.values()}):
            leave_mark(t, tenant)
            theirs = [identity for identity, row in rows.items() if row.tenant == tenant]
            remove(t, tenant, [(identity, point_id(t.entity, identity)) for identity in theirs])

    def _has_other_scope(self) -> bool:
        if self._others is None:
            tenants = self._target.ledger.tenants(self._target.entity, self._target.collection)
            is_global = self._target.tenant == GLOBAL
            self._others = any((tenant == GLOBAL) != is_global for tenant in tenants)
        return self._others


def _is_held(row: LedgerRow | None) -> bool:
    return row is not None and row.content_hash is not None
