"""How far a read of MongoDB has come: its cursor, and what the tenants of one run share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Generic, TypeVar

from vecsync_dagster.identity import as_storable
from vecsync_dagster.sources.base import Cursor, Read
from vecsync_dagster.sources.mongo_queries import moment
from vecsync_dagster.sources.mongo_stream import Token, cursor_with
from vecsync_dagster.sources.mongo_values import Fields, value_at
from vecsync_dagster.sources.sql_types import moment_of, text_of

__all__ = ["Progress", "Shared"]

T = TypeVar("T")


class Progress:
    """The cursor as the pages go by: the latest moment so far that is not after the server's clock at the start (the
    clock, where all are), and the resume token that was taken then. `counts`: whether this read has cursors at all."""

    def __init__(self, what: Read, updated_at: str | None) -> None:
        self.token: Token | None = None
        self.counts = what.goes_on
        self._limited = what.limit is not None
        self._updated_at = updated_at
        self._by_events = False
        self._clock = 0
        self._latest: int | None = None
        self._ahead = False
        self._id = ""
        if what.since is not None and updated_at is not None:
            self._latest, self._id = moment_of(what.since.value), what.since.id

    def begin(self, now: datetime, *, by_events: bool) -> None:
        self._clock = moment(now) or 0
        self._by_events = by_events

    def after(self, documents: Iterable[tuple[Fields, str | None]]) -> Cursor | None:
        """The cursor once these documents, each with its key, are applied too; None where the read has none yet, or
        none at all."""
        if not self.counts:
            return None
        for document, key in documents if self._updated_at is not None else ():
            when = moment(value_at(document, self._updated_at or ""))
            if when is not None and when > self._clock:
                self._ahead = True
            elif when is not None and (self._latest is None or when >= self._latest):
                self._latest, self._id = when, as_storable(str(key or ""))
        return None if self._by_events else self._cursor()

    def end(self) -> Cursor | None:
        """The cursor of a read by events, which are in no order that could be left in the middle."""
        return None if self._limited else self._cursor()

    def _cursor(self) -> Cursor | None:
        latest = self._clock if self._latest is None else min(self._latest, self._clock)
        reached = text_of(latest, zone=True)
        if self.token is not None:
            return cursor_with(reached, self.token)
        return Cursor(reached, self._id) if self._latest is not None or self._ahead else None


class Shared(Generic[T]):
    """What is asked of the server once for all tenants of a run, though each asks for itself. A tenant that comes
    a second time is in another run: it is asked anew."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[T, set[str]]] = {}

    def look(self, tenant: str, key: str, make: Callable[[], T]) -> T:
        """The value under this key, which this tenant may still take."""
        known = self._known.get(key)
        if known is None or tenant in known[1]:
            self._known = {key: (make(), set())} if len(self._known) > 8 else {**self._known, key: (make(), set())}
        return self._known[key][0]

    def take(self, tenant: str, key: str, make: Callable[[], T]) -> T:
        value = self.look(tenant, key, make)
        self._known[key][1].add(tenant)
        return value
