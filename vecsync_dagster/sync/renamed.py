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
from vecsync_dagster.sources.base import FindsByRest, Keyed, Rest, Source, is_certain
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.changed_keys import keys_today, records_today
from vecsync_dagster.sync.owners import as_found, is_in, live
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.whole import was_read

__all__ = ["WAITS", "Judged", "Renamed"]

WAITS = (
    "by the settings of today the record has another id, and no version of it is stored under that one: "
    "this one stays until then"
)


class Judged(NamedTuple):
    """Ids of documents whose records the store holds under their ids of today, with the rows of one of these each; and
    documents that stay, with the keys of today. `unstored`: those of which the store never held anything."""

    replaced: dict[str, LedgerRow]
    waiting: dict[str, Key]
    unstored: set[str]


class _Today(NamedTuple):
    """The ids that a row's record may have today, and its keys. `records`: how many live records it may be, if the
    source had to be asked for them."""

    keys: Mapping[str, Key]
    records: int = 0


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
        today = self._today(looked_at)
        there = self._rows([*chain.from_iterable(one.keys for one in today.values())])
        stored = {i: row for i, row in there.items() if row.content_hash is not None and row.tenant == t.tenant}
        replaced: dict[str, LedgerRow] = {}
        for i, one in today.items():
            others = [stored[new] for new in one.keys if new != i and new in stored and met(stored[new])]
            if (new := self._replacement(rows[i], others, one.records, is_new)) is not None:
                replaced[i] = new
        held = {i: today[i] for i, row in may_be_new.items() if i not in replaced and row.content_hash is not None}
        asked = chain.from_iterable(one.keys.values() for one in held.values())
        found = live(t, self._source, t.tenant, asked) if held else set()
        waiting: dict[str, Key] = {}
        for i, one in held.items():
            now = {new: key for new, key in one.keys.items() if is_in(key, found)}
            if now and i not in now:
                key = now[next((new for new in now if new not in stored), next(iter(now)))]
                waiting[i] = as_found(key, found)
        return Judged(replaced, waiting, {i for i, row in rows.items() if row.content_hash is None})

    def there(self, rows: Mapping[str, LedgerRow]) -> set[str]:
        """Which of these documents, of those that are left after `judge`, the source has a record for: that of the id,
        where it may be one of today; else any that what is stored may be the last good version of."""
        t = self._target
        asked: dict[str, list[Key]] = {}
        for i, (keys, _) in self._today(rows).items():
            if i in keys:
                asked[i] = [keys[i]]
            elif rows[i].content_hash is not None:
                asked[i] = [*keys.values()]
        found = live(t, self._source, t.tenant, chain.from_iterable(asked.values())) if asked else set()
        return {i for i, keys in asked.items() if any(str(key) in found for key in keys)}

    def over(self, gone: Collection[str]) -> list[str]:
        """Of the documents that earlier runs kept those that need not stay: the store holds the record under its id of
        today, here or where it moved, or the record is one of those keys, which were called `gone`, and is."""
        t = self._target
        rows = self._rows(t.ledger.formers(t.entity, t.collection, t.tenant))
        now = {i: self._id_of(row.key) for i, row in rows.items()}
        there = {i: row for i, row in self._rows([*now.values()]).items() if row.content_hash is not None}
        stored = {i: new for i, new in now.items() if new != i and new in there and there[new].tenant == t.tenant}
        today = self._today({i: rows[i] for i in stored})
        replaced = {
            i
            for i, new in stored.items()
            if self._replacement(rows[i], [there[new]], today[i].records, is_new=True) is not None
        }
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

    def _today(self, rows: Mapping[str, LedgerRow]) -> dict[str, _Today]:
        t, source = self._target, self._source
        tenancy = t.config.tenancy
        if t.tenant == GLOBAL and tenancy is not None and isinstance(source, FindsByRest):
            columns = source.key() if isinstance(source, Keyed) else t.config.key
            keys = [row.key for row in rows.values()]
            found = records_today(source, t.tenant, keys, columns, tenancy.column)
            known = tenancy.column in columns
            return {i: self._of_records(i, row.key, found.get(row.key, ()), known) for i, row in rows.items()}
        column, tenant = None if tenancy is None else tenancy.column, None if t.tenant == GLOBAL else t.tenant
        return {
            i: _Today({self._id_of(key): key for key in keys_today(row.key, t.config.key, column, tenant)})
            for i, row in rows.items()
        }

    def _of_records(self, identity: str, key: Key, records: Collection[Rest], known: bool) -> _Today:
        """`known`: the key of today tells records apart by their tenants. Else several may share it: which of them the
        store holds, nobody knows, unless the document had that key before as well."""
        keys = {**{str(one.key): one.key for one in records}, str(key): key}
        one_each = {text for text in keys if known or identity.endswith(f"-{text}")}
        texts = [str(one.key) for one in records]
        count = len(one_each.intersection(texts)) + sum(text not in one_each for text in texts)
        return _Today({self._id_of(one): one for one in keys.values()}, count)

    def _replacement(self, old: LedgerRow, stored: Sequence[LedgerRow], records: int, is_new: bool) -> LedgerRow | None:
        """The one of these that replaces it. Under another key it must say the same, unless the settings are new: "a/1"
        may be an id of one column; and unless it may be of a record that is none of these."""
        unclear = records > len(stored)
        for new in stored:
            same_key = str(new.key) == str(old.key)
            same = new.content_hash == old.content_hash
            if not (same_key and differ(new.key, old.key)) and (same or (not unclear and (same_key or is_new))):
                return new
        return None
