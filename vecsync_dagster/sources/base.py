"""The protocol of a source: where the records of one entity come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from vecsync_dagster.identity import Key

__all__ = [
    "REPEATED_LIMIT",
    "Cursor",
    "Filtered",
    "FindsByRest",
    "FindsOfAnybody",
    "FindsRepeated",
    "Fingerprint",
    "Fingerprinting",
    "Keyed",
    "Knowing",
    "Losable",
    "NamesTenants",
    "Page",
    "Read",
    "Repeated",
    "Rest",
    "Source",
    "WritesBack",
    "is_certain",
]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an incremental read has come: the modification time (as the source writes it) and id
    of the last row. Opaque to everyone but the source that made it."""

    value: str
    id: str


@dataclass(frozen=True, slots=True)
class Read:
    """What to read of one tenant.

    - `since` None reads every live row (a full read); otherwise rows modified at or after the cursor
      less the configured overlap, and tombstones. Rows without a modification time are always read.
    - `ids` reads just those rows (live ones only), by the text of their keys; where one is an
      `identity.Key` that has its own notation, by that too. With `dead` also those that are marked as deleted or
      kept out by the filter: as tombstones.
    - `dead` alone reads just the tombstones of all those.
    - `limit` and `offset` bound the read; such a read is never complete.
    """

    tenant: str
    since: Cursor | None = None
    ids: Sequence[str] | None = None
    limit: int | None = None
    offset: int = 0
    dead: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the next read can begin where this one ends: it leaves out nothing before that."""
        return self.ids is None and self.offset == 0 and (self.complete or self.dead or self.since is not None)

    @property
    def complete(self) -> bool:
        """Whether a read that ends without an error has seen every live row of the tenant."""
        return self.since is None and self.ids is None and self.limit is None and self.offset == 0 and not self.dead


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, one row each.

    Column names are the source's own. A record's key is in the column `identity.KEY_TEXT`, or else in the one of the
    entity's `id`, which may be of any type; the documents stage makes text of it. `identity.KEY_NATIVE`, where it is
    there, has the key as the source writes it. A field's Arrow metadata
    `{b"vecsync": b"json"}` marks text that holds JSON. Batches of one read may differ in a column's type:
    one that holds a value its declared type cannot (SQLite) has text or JSON text there, in which every
    value is what it would be in any other batch. A batch may be empty beside tombstones.
    `tombstones` are ids (as text, or `identity.Key`) of rows that the source says are gone once the page's records
    were there: one that came back within the page has none.
    `cursor` is the place to go on from once this page and all before it are applied (None if the
    source has no modification time, or if the read was by ids or a part of a full read). A full read is
    not in the order of time: there only the last page's cursor may be kept, after the read has ended.
    """

    records: pa.RecordBatch
    tombstones: tuple[str, ...] = field(default=())
    cursor: Cursor | None = None


@runtime_checkable
class Source(Protocol):
    """Contract (vecsync_dagster_tests/sources/source_contract.py runs it over every implementation):

    - `read` streams in bounded memory and ends normally only after the last row: a fetch that fails
      raises, it never looks like the end.
    - A full read is ordered by id, so that limit and offset are stable, and comes in one snapshot of the
      database; where that cannot be held for as long as a read takes (MongoDB), every row that is there all
      the while comes once. An incremental read is ordered by (modification time, id), one of a change stream
      by id.
    - The tenant `global` is the rows whose global flag is set, whatever their tenant column says; any
      other tenant is its rows whose flag is not set. Rows that have neither a tenant nor the flag
      belong to nobody and are not read; `unassigned` counts them.
    - A cursor never lies after the source's clock at the start of the read: a row dated in the future
      does not hide those that come after it.
    """

    id_field: str
    incremental: bool
    """Whether the source has a modification column: without one, every read is a full one."""

    def fields(self) -> tuple[str, ...]:
        """The names of the columns a record will have. Raises SourceRejected / SourceUnavailable."""
        ...

    def tenants(self) -> list[str]:
        """Keys of all tenants that have live rows, in order, without `global`."""
        ...

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        """Pages of at most `page` records. An empty tenant gives no page."""
        ...

    def count(self, tenant: str) -> int:
        """Exact number of live rows of the tenant."""
        ...

    def unassigned(self) -> int:
        """Number of live rows that belong to no tenant and are not global."""
        ...

    def check(self) -> str:
        """Try the connection, table and columns. Returns one line for people; raises Source* errors."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class WritesBack(Protocol):
    """A source whose records can hold what the ledger knows of them, apart from their own data."""

    def write_metadata(
        self,
        tenant: str,
        metadata: Mapping[str, Mapping[str, Any]],
        meant: Callable[[pa.RecordBatch], int | None] = ...,
    ) -> int:
        """Write to the tenant's records by their ids what is not there yet; returns to how many. `meant`: which of
        several records that have one id, in the order of a full read, it is said of; None: of none. The others lose
        what was said of them."""
        ...

    def withdraw_metadata(self, tenant: str) -> int:
        """Take it from records that are live no longer; returns from how many."""
        ...

    def withdraw_from(self, keys: Iterable[str] | None) -> int:
        """Take it from those of these records (None: of all), whoever's they were, that are nobody's now, or live no
        longer; returns from how many."""
        ...

    def without_metadata(self, tenant: str, chunk: int = 500) -> Iterator[list[str]]:
        """Ids of live records that have none, in chunks."""
        ...


@runtime_checkable
class Filtered(Protocol):
    """A source that can tell whether a filter is why a read had no record."""

    def kept_out(self, tenant: str | None) -> bool:
        """Whether there are records of the tenant (None: of anybody) that the filter alone keeps out. Cheap: looks for
        one. False where the entity has no filter."""
        ...


@runtime_checkable
class NamesTenants(Protocol):
    """A source that knows what people call the tenants (`tenancy.name`)."""

    def tenant_names(self, tenants: Iterable[str]) -> dict[str, str]:
        """Of those of the tenants that have one, by one query: a line of at most 60 characters. Where rows of one
        tenant differ, the one that sorts last. Raises Source* errors, also where the column or table is missing."""
        ...


@runtime_checkable
class Losable(Protocol):
    """A source whose cursors may be worth nothing: the server forgot them (change streams), or its clock was wrong."""

    def lost(self, what: Read, known: Callable[[Sequence[Key]], bool] = ...) -> str | None:
        """Why an incremental read from `what.since` would miss something, so that only a full one will do; None
        where it would not. Asked before `read`, which raises what keeps this from knowing. `known`: whether all of
        these are keys of records that were synced, whoever's they are."""
        ...


@runtime_checkable
class Knowing(Protocol):
    """A source that cannot find every record by the text of its key."""

    def certain(self, key: str) -> bool:
        """Whether a read by this key that does not find the record means that it is not there."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """A source that may know records by other fields than the entity's `id` says."""

    def key(self) -> Sequence[str]:
        """The fields that the key is made of. Raises Source* errors."""
        ...


REPEATED_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Repeated:
    """Ids that more than one live record has: how many (at most `REPEATED_LIMIT`), and one of them. `primary`: the key
    that the source declares, where it is another one. `enforced`: the source itself makes sure that there are none."""

    count: int = 0
    example: str = ""
    primary: tuple[str, ...] = ()
    enforced: bool = False


@runtime_checkable
class FindsRepeated(Protocol):
    """A source that can look for ids that are not unique, over the records of all tenants."""

    def repeated(self) -> Repeated: ...

    def unique(self, without: str | None = None) -> bool:
        """Whether it lets no two records have one id. Where it does, they come in the same order in every read by
        ids and in every full one. `without`: whether no two even have the same in the other columns of their ids."""
        ...


@runtime_checkable
class FindsOfAnybody(Protocol):
    """A source that can look records of many tenants up at once."""

    def there(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys, as they were given, that live records have, whoever's these are."""
        ...


class Rest(NamedTuple):
    """A live record: what the columns of its key say without one of these, in the notation of a key of so many columns;
    what that one says; and the whole key."""

    rest: str
    part: str | None
    key: Key


@runtime_checkable
class FindsByRest(Protocol):
    """A source that can look records up by all columns of their keys but one."""

    def by_rest(self, tenant: str, column: str, rests: Sequence[str]) -> list[Rest]:
        """The tenant's live records whose key says one of these without `column`, whether that is a part of it or
        not. The key must have another column."""
        ...


def is_certain(source: Source, key: str) -> bool:
    """Whether a read by this key that does not find the record means that it is not there: by its text, unless the
    source says otherwise."""
    return source.certain(key) if isinstance(source, Knowing) else True


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a tenant's rows look like from afar; two that are equal mean that nothing is known to have changed.

    `rows`: live ones. `latest`: the newest modification or deletion that is not after the source's clock, microseconds
    since 1970, None where there is none. `checksum`: over all fields of all live rows, empty where it is not asked
    for. `ahead`: how many times lie after the clock, and a sum of these; empty where there are none. They are apart so
    that a row dated in the future does not hide what is dated before it. `dead`: rows that are marked as deleted or
    that the filter keeps out; None in looks of versions that did not count them. It tells a row that was marked from
    one that is gone, and is no change by itself: what is purged was removed before.

    `recent`: moments, two or none, each with a sum of all modifications and deletions from there up to the clock. Rows
    that are dated before the newest one, and were committed after it was seen, change them. `open`: the newest
    modification is of a second, or a day, that is not over by the source's clock: a row may be changed again and keep
    its time. Both are empty with a checksum, and in looks of versions that had none.
    """

    rows: int = 0
    latest: int | None = None
    checksum: str = ""
    ahead: str = ""
    dead: int | None = field(default=None, compare=False)
    recent: tuple[tuple[int, int], ...] = ()
    open: bool = False

    def differs_from(self, before: Fingerprint) -> bool:
        """Whether something may have changed since the look `before`, or since it was taken within the second or the
        day of the newest change. The clock alone makes no other difference."""
        return self.outline != before.outline or self._moved(before) or (before.open and not self.open)

    def state(self, before: Fingerprint | None) -> str:
        """What differs from `before`, as text that stays the same while nothing changes."""
        if before is None or self.outline != before.outline:
            return str(self.outline)
        return str(replace(self, open=False)) if self._moved(before) else f"{self.outline} is over"

    @property
    def outline(self) -> Fingerprint:
        """Without what only rows that are dated lately can change."""
        return replace(self, recent=(), open=False)

    def _moved(self, before: Fingerprint) -> bool:
        """Where they have no moment in common, what was recent then is not any more."""
        sums = dict(before.recent)
        return any(sums.get(moment, total) != total for moment, total in self.recent)

    def __str__(self) -> str:
        recent = "~".join(f"{moment}={total}" for moment, total in self.recent)
        times = self.ahead + (f"~{recent}" if recent else "") + ("!" if self.open else "")
        latest = f"{'' if self.latest is None else self.latest}{f'+{times}' if times else ''}"
        return f"{self.rows}{'' if self.dead is None else f'+{self.dead}'}/{latest}/{self.checksum}"

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """The inverse of `str`."""
        rows, times, checksum = text.split("/", 2)
        latest, _, others = times.partition("+")
        ahead, *recent = others.removesuffix("!").split("~")
        live, _, dead = rows.partition("+")
        return cls(
            int(live),
            int(latest) if latest else None,
            checksum,
            ahead,
            int(dead) if dead else None,
            tuple((int(moment), int(total)) for moment, _, total in (one.partition("=") for one in recent)),
            open=others.endswith("!"),
        )


@runtime_checkable
class Fingerprinting(Protocol):
    """What a source may offer beside `Source`: to say, cheaply, which tenants may have changed."""

    def fingerprints(self, tenant: str | None = None) -> dict[str, Fingerprint]:
        """Of every tenant that has live rows, and of `global` where there are such; or of one tenant alone. One
        snapshot, computed by the database: what is committed when it starts."""
        ...
