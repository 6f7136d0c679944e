"""What a column's type means to us, and the clock and cursors of an incremental read.

A moment is microseconds since 1970; that of a column without a time zone counts as if it were UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from vecsync_dagster.errors import SourceRejected

__all__ = [
    "BEYOND",
    "DAY",
    "EPOCH",
    "SECOND",
    "Clock",
    "Column",
    "Kind",
    "ahead_of_clock",
    "earlier",
    "integers",
    "moment_of",
    "text_of",
    "uuids",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
DAY = 86_400 * SECOND
_EARLIEST = -62_135_510_400_000_000  # 0001-01-02: a time zone's offset still leads to a year Python knows
_LATEST = 253_402_214_400_000_000  # 9999-12-31
BEYOND = _LATEST
"""The moment of every time that Python cannot count to, infinity too: after any clock."""
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_SMALL_STEP = timedelta(minutes=1)
"""Clocks are set, and those of several servers differ."""
_IN_BETWEEN = timedelta(seconds=1)
"""Between the clock's answer and its use."""


class Kind(Enum):
    """How values of a column come from the driver, and what becomes of them in Arrow (sql_records.py)."""

    INTEGER = auto()
    FLOAT = auto()
    NUMERIC = auto()
    """Decimal digits as text."""
    BOOLEAN = auto()
    TEXT = auto()
    FOLDED = auto()
    """Text that the database compares by a collation which takes some different texts for equal."""
    UUID = auto()
    TIMESTAMPTZ = auto()
    """ISO text, in UTC, without an offset."""
    TIMESTAMP = auto()
    DATE = auto()
    JSON = auto()
    INTEGERS = auto()
    FLOATS = auto()
    TEXTS = auto()
    NUMBERS = auto()
    """Array of decimal numbers, as JSON text."""
    ARRAY = auto()
    """Array of anything else, as JSON text."""
    OBJECT = auto()
    """The name of an object of the database itself, with its schema."""
    OBJECTS = auto()
    """Array of such names, as JSON text."""
    OTHER = auto()
    """Anything else, as the database writes it as text."""

    @property
    def array(self) -> bool:
        return self in (Kind.INTEGERS, Kind.FLOATS, Kind.TEXTS, Kind.NUMBERS, Kind.ARRAY, Kind.OBJECTS)

    @property
    def temporal(self) -> bool:
        return self in (Kind.TIMESTAMPTZ, Kind.TIMESTAMP, Kind.DATE)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a record. The id keeps its text whatever it is made of: int64 or string, nothing else."""

    name: str
    kind: Kind
    identity: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """The database's clock at the start of a read: as an absolute time, and as its local wall shows it."""

    absolute: int
    local: int

    def of(self, kind: Kind) -> int:
        """The clock that columns of this kind are written by."""
        return self.absolute if kind is Kind.TIMESTAMPTZ else self.local


def moment_of(text: str) -> int:
    """The inverse of `text_of`. Raises SourceRejected where the text is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SourceRejected("the stored cursor is not a time; run a full sync") from None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def ahead_of_clock(cursor: str, clock: int, overlap: timedelta) -> str | None:
    """Why nothing is read from a cursor that lies after the source's clock, which was wrong when it was made: what
    changed since may lie before it. None where it does not, or by so little that the overlap makes up for it."""
    tolerance = min(overlap, _SMALL_STEP) + _IN_BETWEEN
    if moment_of(cursor) <= clock + tolerance // timedelta(microseconds=1):
        return None
    return f"it would begin at {cursor}, and the source's clock is not there yet"


def text_of(moment: int, *, zone: bool) -> str:
    """ISO 8601, with the offset +00:00 if `zone`."""
    when = EPOCH + timedelta(microseconds=min(max(moment, _EARLIEST), _LATEST))
    return (when if zone else when.replace(tzinfo=None)).isoformat()


def earlier(moment: int, by: timedelta) -> datetime:
    """The moment less `by`, in UTC; never before year 1."""
    return EPOCH + timedelta(microseconds=max(moment - by // timedelta(microseconds=1), _EARLIEST))


def integers(keys: Iterable[str]) -> list[int]:
    """The keys that are the very text of a 64-bit integer: "7", not "07" nor " 7"."""
    return [int(key) for key in keys if _INTEGER.fullmatch(key) and -(2**63) <= int(key) < 2**63]


def uuids(keys: Iterable[str]) -> list[str]:
    """The keys that are the very text of a UUID as databases write it: lower case, with hyphens."""
    return [key for key in keys if _UUID.fullmatch(key)]
