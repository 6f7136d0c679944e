"""What the parts of the ledger share: the database, the clock, chunks, and inserts that update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from vecsync_dagster.errors import MAX_MESSAGE
from vecsync_dagster.ledger.database import Database

__all__ = ["CHUNK", "Insert", "LedgerPart", "chunks", "clean", "insert_into", "utc_now"]

CHUNK: Final = 500
"""Rows of one statement, however many there are to write."""

T = TypeVar("T")
Insert = sqlite.Insert | postgresql.Insert
"""Both know `on_conflict_do_update`, in the same words."""


class LedgerPart:
    """Base of the mixins that make up `SqlLedger`."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self.database = database
        self._now = clock

    def _require_held(self, entity: str, tenant: str) -> None:
        """Raises LedgerUnavailable where the right to sync the tenant was held here and was lost: another run may have
        it, and knows better than this one what the store has."""

    def now(self) -> datetime:
        return self._now()


def utc_now() -> datetime:
    return datetime.now(UTC)


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_into(table: Table, dialect: str) -> Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def clean(text: str) -> str:
    """A message as both databases can store it: no NUL, no lone surrogates, not too long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:MAX_MESSAGE]
