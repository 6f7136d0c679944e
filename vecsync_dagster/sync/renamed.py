"""Documents whose records have other document ids by now: the settings give them another `type` or another key.

Such a document is the last good version of its record for as long as the store holds no other one. So it goes when the
store holds the record's document of today, or when the source has no such record any more. Until then it is kept, and
the ledger knows it by the record's key of today.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from vecsync_dagster.documents import document_id
from vecsync_dagster.identity import Key, differ
from vecsync_dagster.ledger.base import LedgerRow
from vecsync_dagster.sources.base import Source, is_certain
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.changed_keys import keys_today
from vecsync_dagster.sync.owners import as_found, is_in, live
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.whole import was_read

__all__ = ["WAITS", "Judged", "Renamed"]

WAITS = (
    "by the settings of today the record has another id, and no version of it is stored under that one: "
    "this one stays until then"
)


class Judged(NamedTuple):
    """Ids of documents whose records the store holds under their ids of today; and documents that stay, with the keys
    of today."""

    replaced: set[str]
    waiting: dict[str, Key]


class Renamed:
    """Of one partition in one run."""

    def __init__(self, target: Target, source: Source, started_at: datetime) -> None:
        self._target = target
        self._source = source
        self._started_at = started_at

    def judge(self, ids: Sequence[str], met: Callable[[LedgerRow], bool], *, anyhow: bool) -> Judged:
        """Of documents that a complete read did not meet. `met`: whether it met that one. `anyhow`: look also at those
        whose ids would be the same today: the tenant's column may have come into the key, left it, or moved in it."""
        t = self._target
        is_new = not was_read(t)
        rows = self._rows(ids)
        may_be_new = {i: row for i, row in rows.items() if is_new or self._id_of(row.key) != i}
        looked_at = rows if anyhow else may_be_new
        names = {i: self._names(row) for i, row in looked_at.items()}
        there = self._rows([*chain(*names.values())])
        replaced = {
            i
            for i, keys in names.items()
            if any(
                new in there and met(there[new]) and self._replaces(there[new], rows[i], is_new)
                for new in keys.keys() - {i}
            )
        }
        held = {i: names[i] for i, row in may_be_new.items() if i not in replaced and row.content_hash is not None}
        asked = chain.from_iterable(keys.values() for keys in held.values())
        found = live(t, self._source, t.tenant, asked) if held else set()
        waiting: dict[str, Key] = {}
        for i, keys in held.items():
            now = {new: key for new, key in keys.items() if is_in(key, found)}
            if now and i not in now:
                waiting[i] = next(iter(now.values()))
        waiting = {i: as_found(key, found) for i, key in waiting.items()}
        return Judged(replaced, waiting)

    def there(self, rows: Mapping[str, LedgerRow]) -> set[str]:
        """Which of these documents, of those that are left after `judge`, the source has a record for: that of the id,
        where it may be one of today; else any that what is stored may be the last good version of."""
        t = self._target
        asked: dict[str, list[Key]] = {}
        for i, row in rows.items():
            names = self._names(row)
            if i in names:
                asked[i] = [names[i]]
            elif row.content_hash is not None:
                asked[i] = [*names.values()]
        found = live(t, self._source, t.tenant, chain.from_iterable(asked.values())) if asked else set()
        return {i for i, keys in asked.items() if any(str(key) in found for key in keys)}

    def over(self, gone: Collection[str]) -> list[str]:
        """Of the documents that earlier runs kept those that need not stay: the store holds the record under its id of
        today, here or where it moved, or the record is one of those keys, which were called `gone`, and is."""
        t = self._target
        rows = self._rows(t.ledger.formers(t.entity, t.collection, t.tenant))
        now = {i: self._id_of(row.key) for i, row in rows.items()}
        there = {i: row for i, row in self._rows([*now.values()]).items() if row.content_hash is not None}
        replaced = {i for i, new in now.items() if new != i and new in there and there[new].tenant == t.tenant}
        asked = {
            i: rows[i].key
            for i, new in now.items()
            if i not in replaced and (new in there or rows[i].key in gone) and is_certain(self._source, rows[i].key)
        }
        found = live(t, self._source, t.tenant, asked.values()) if asked else set()
        return sorted(replaced | {i for i, key in asked.items() if not is_in(key, found)})

    def _rows(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        t = self._target
        return t.ledger.rows(t.entity, t.collection, ids, self._started_at) if ids else {}

    def _id_of(self, key: str) -> str:
        t = self._target
        return document_id(t.tenant, t.config.type or t.entity, key)

    def _names(self, row: LedgerRow) -> dict[str, Key]:
        """The ids that the row's record may have today, and its keys."""
        t = self._target
        tenancy = None if t.config.tenancy is None else t.config.tenancy.column
        keys = keys_today(row.key, t.config.key, tenancy, None if t.tenant == GLOBAL else t.tenant)
        return {self._id_of(key): key for key in keys}

    def _replaces(self, new: LedgerRow, old: LedgerRow, is_new: bool) -> bool:
        """Under another key it must say the same, unless the settings are new: "a/1" may be an id of one column."""
        if new.content_hash is None or new.tenant != self._target.tenant:
            return False
        if str(new.key) == str(old.key):
            return not differ(new.key, old.key)
        return is_new or new.content_hash == old.content_hash
