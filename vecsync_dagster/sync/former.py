"""What former owners have of the records of one tenant. Once a run has seen that a record is this tenant's, it is not
theirs any more, whatever becomes of it here: written, failed, rejected or called gone.

Of a record whose id no other one can have, that is certain. Of all others it is not: tenants may count by themselves,
and a former owner whose record is not there may be between the DELETE and the INSERT of an import, or behind a broken
view. So nothing of theirs goes where the source lacks all of them, or more than the removal guard lets go; and what
goes makes them due in full, by which it comes back if it was there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from vecsync_dagster.documents import document_id
from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.identity import differ
from vecsync_dagster.ledger.base import LedgerRow, Owned
from vecsync_dagster.sources.base import FindsOfAnybody, FindsRepeated, Keyed, Source, is_certain
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.apply import remove
from vecsync_dagster.sync.changes import Change
from vecsync_dagster.sync.guard import believes
from vecsync_dagster.sync.owners import Claim, is_in, live
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.whole import was_read
from vecsync_dagster.sync.writing import leave_mark
from vecsync_dagster.words import number_of

__all__ = ["Former", "is_stored"]

_log = logging.getLogger(__name__)

_FEW = 20
"""Of a number that more documents of others have, none is looked at where a partition is read for the first time, or
as a whole: if tenants count by themselves, that would be all of them for each record that is not stored here."""


class Former:
    """`in_full`: the run was asked to be a full one; `complete`: it reads all records, also if it was not.

    Another tenant's row has the id of the record's document here; in the other scope (a tenant's, or everybody's)
    the document has an id of its own. Where the tenant is a part of the key, a record that moved has another key, and
    what is left under the old one is found by the rest of it. Nothing is asked of the source where there is no such
    row."""

    def __init__(self, target: Target, source: Source, started_at: datetime, *, in_full: bool, complete: bool) -> None:
        self._target = target
        self._source = source
        self._started_at = started_at
        self._in_full = in_full
        self._complete = complete
        self._read: dict[str, bool] = {}
        self._others: bool | None = None
        self._unique: bool | None = None
        self._by_tenant: bool | None = None

    def take_over(self, claims: Iterable[Claim]) -> None:
        """These documents become this tenant's: the source does not have them as their owners'. Where the key was
        another one when an owner was read, its records may be there under other ids, and it is due in full."""
        t = self._target
        counted = Counter(claim.tenant for claim in claims if claim.tenant != t.tenant)
        for tenant, count in sorted(counted.items()):
            if self._was_read(tenant):
                continue
            t.ledger.doubt(t.entity, t.collection, tenant)
            told = "which was not read with the settings of today: it is due in full"
            _log.warning("%s: %s of %s taken over, %s", t, number_of(count, "document"), tenant, told)

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
        others would go on seeing them until their own full run; and what another tenant has of them under a former id.
        Returns how many. Not those of a batch that failed: see `leave`."""
        keys = [c.document.key for c in written if c.failure is None and not is_stored(c.row)]
        elsewhere = _owned(self.elsewhere(keys))
        try:
            same = self._same(elsewhere, keys)
            if same:  # it may have moved on while it was written
                t = self._target
                here = live(t, self._source, t.tenant, [one.key for one in same.values()])
                same = {i: one for i, one in same.items() if is_in(one.key, here)}
                self._remove(same)
            others = {i: one for i, one in elsewhere.items() if i not in same}
            return len(same) + len(self._leave(self._absent(others | self._formers(keys)), keys))
        except VecsyncError:
            for tenant in {one.tenant for one in elsewhere.values()}:  # nobody will look at these records again
                self._target.ledger.doubt(self._target.entity, self._target.collection, tenant)
            raise

    def leave(self, keys: Mapping[str, str], rows: Mapping[str, LedgerRow]) -> set[str]:
        """Removes what former owners have of these records (document id -> key) from store and ledger, where the source
        says that they do not have the record now; returns the ids of that. `rows`: the ledger's of these documents."""
        theirs = {i: row for i in keys if (row := rows.get(i)) is not None and row.tenant != self._target.tenant}
        new = [key for i, key in keys.items() if i in theirs or not is_stored(rows.get(i))]
        left = self._leave(self._absent(_owned(theirs | self.elsewhere(new)) | self._formers(new)), new)
        return left | self.leave_namesakes(key for i, key in keys.items() if not is_stored(rows.get(i)))

    def has_namesakes(self, keys: Iterable[str]) -> bool:
        """Whether other tenants have documents whose keys differ from one of these in nothing but the tenant: former
        ones of the same records, or other records that merely have the same number there."""
        return any(self._namesakes(keys, only_few=self._is_first()))

    def leave_namesakes(self, keys: Iterable[str]) -> set[str]:
        """Removes those of them that the source says are gone; returns their ids. Not in a full run that reads the
        partition for the first time: most likely so do those of the others, and each removes its own."""
        wanted = dict.fromkeys(keys)
        gone: set[str] = set()
        if not wanted or (self._in_full and self._is_first()):
            return gone
        # Where all is read, that is every record that is not stored here, however often it was looked at before.
        for some in self._namesakes(wanted, only_few=self._complete or self._is_first()):
            gone |= self._leave(self._nowhere(some), are_same=self._is_unique_without_tenant())
        return gone

    def _namesakes(self, keys: Iterable[str], *, only_few: bool) -> Iterator[dict[str, Owned]]:
        t = self._target
        if not self._has_tenant_in_keys():
            return iter(())
        return t.ledger.namesakes(t.entity, t.collection, t.tenant, keys, most=_FEW if only_few else None)

    def _nowhere(self, theirs: dict[str, Owned]) -> dict[str, Owned]:
        """Without those that are there, which most are, whoever's: one look-up for all owners."""
        if not isinstance(self._source, FindsOfAnybody):
            return self._absent(theirs)
        there = self._source.there(sorted(one.key for one in theirs.values()))
        return {i: one for i, one in theirs.items() if one.key not in there}

    def _formers(self, keys: Sequence[str]) -> dict[str, Owned]:
        """What other tenants have of these records under ids of former settings."""
        t = self._target
        return t.ledger.formers_of(t.entity, t.collection, t.tenant, keys) if keys else {}

    def _is_first(self) -> bool:
        """Whether nobody has read the partition before, with the settings of today."""
        return not self._was_read(self._target.tenant)

    def _was_read(self, tenant: str) -> bool:
        """Whether the tenant's keys mean today what they meant when they were written."""
        if tenant not in self._read:
            self._read[tenant] = was_read(replace(self._target, tenant=tenant))
        return self._read[tenant]

    def _has_tenant_in_keys(self) -> bool:
        if self._by_tenant is None:
            config, source = self._target.config, self._source
            key = source.key() if isinstance(source, Keyed) else config.key
            self._by_tenant = config.tenancy is not None and config.tenancy.column in key and len(key) > 1
        return self._by_tenant

    def _absent(self, theirs: Mapping[str, Owned]) -> dict[str, Owned]:
        """Those whose owners do not have these records now, as far as that can be known."""
        known = {i: one for i, one in theirs.items() if is_certain(self._source, one.key)}
        known = {i: one for i, one in known.items() if self._was_read(one.tenant)}
        absent: dict[str, Owned] = {}
        for tenant in sorted({one.tenant for one in known.values()}):
            some = {i: one for i, one in known.items() if one.tenant == tenant}
            there = live(self._target, self._source, tenant, [one.key for one in some.values()])
            absent |= {i: one for i, one in some.items() if not is_in(one.key, there)}
        return absent

    def _leave(self, absent: Mapping[str, Owned], keys: Iterable[str] = (), *, are_same: bool = False) -> set[str]:
        """Removes those of them that may go; returns their ids. `keys`: of this tenant's records, where a former
        owner's may be the same one; `are_same`: each surely is. Others are looked up once more, after their owners:
        see `_is_there`."""
        same = absent if are_same else self._same(absent, keys)
        others = {i: one for i, one in absent.items() if i not in same}
        there = {tenant for tenant in sorted({one.tenant for one in others.values()}) if self._is_there(tenant)}
        gone = self._absent({i: one for i, one in others.items() if one.tenant in there})
        self._remove(same)
        self._remove(gone, doubted=True)
        return same.keys() | gone.keys()

    def _same(self, theirs: Mapping[str, Owned], keys: Iterable[str]) -> dict[str, Owned]:
        """Those that are of the very records with these keys: no other one can have the key."""
        own = {str(key): key for key in keys} if theirs else {}
        same = {i: one for i, one in theirs.items() if one.key in own and not differ(one.key, own[str(one.key)])}
        return same if same and self._is_unique() else {}

    def _is_unique(self) -> bool:
        if self._unique is None:
            self._unique = isinstance(self._source, FindsRepeated) and self._source.unique()
        return self._unique

    def _is_unique_without_tenant(self) -> bool:
        """Whether a record that differs from another one in nothing of its key but the tenant is that other one."""
        tenancy, source = self._target.config.tenancy, self._source
        return tenancy is not None and isinstance(source, FindsRepeated) and source.unique(tenancy.column)

    def _is_there(self, tenant: str) -> bool:
        """Whether the source has enough of the tenant to be believed about single records."""
        return believes(replace(self._target, tenant=tenant), self._source, self._source.count(tenant))

    def _remove(self, theirs: Mapping[str, Owned], *, doubted: bool = False) -> None:
        t = self._target
        for tenant in sorted({one.tenant for one in theirs.values()}):
            ids = [identity for identity, one in theirs.items() if one.tenant == tenant]
            leave_mark(t, tenant)
            is_doubted = doubted or not self._was_read(tenant)
            if is_doubted:
                t.ledger.doubt(t.entity, t.collection, tenant)  # also where this run dies on the way
            remove(t, tenant, [(identity, point_id(t.entity, identity)) for identity in ids])
            if is_doubted:
                t.ledger.doubt(t.entity, t.collection, tenant)  # a full run that began meanwhile may have met them

    def _has_other_scope(self) -> bool:
        if self._others is None:
            t = self._target
            self._others = t.ledger.has_scope(t.entity, t.collection, is_global=t.tenant != GLOBAL)
        return self._others


def _owned(rows: Mapping[str, LedgerRow]) -> dict[str, Owned]:
    return {identity: Owned(row.tenant, row.key) for identity, row in rows.items()}


def is_stored(row: LedgerRow | None) -> bool:
    """Whether the store holds the document, whoever's it is."""
    return row is not None and row.content_hash is not None
