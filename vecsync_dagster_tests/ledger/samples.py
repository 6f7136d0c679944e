"""What the ledger's tests write, and how they look at a table directly."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event, select

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Confirmed, Failed
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster.space import Space

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SPACE = Space("hash", "words", 4)
OTHER_SPACE = Space("openai", "large/v2", 4)

ENTITY = "materials"
PLACE = (ENTITY, "materials")
A = (*PLACE, "tenant-a")
B = (*PLACE, "tenant-b")


class Clock:
    """A clock that tests set; called, it tells the time."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def point_id(document_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, document_id))


def confirmed(
    document_id: str,
    *,
    content: str = "c1",
    payload: str = "p1",
    vector: bool = True,
    point: str | None = None,
    record: str | None = None,
    text: str | None = "t1",
) -> Confirmed:
    point = point or point_id(document_id)
    return Confirmed(document_id, f"db-{document_id}", point, content, payload, vector, record, text_hash=text)


def failed(
    document_id: str,
    *,
    attempt: str = "a1",
    retry_count: int = 1,
    next_attempt_at: datetime | None = None,
    error: str = "the service said 503",
    error_code: str = "QDRANT_UNAVAILABLE",
) -> Failed:
    return Failed(
        document_id,
        f"db-{document_id}",
        point_id(document_id),
        attempt,
        error_code,
        error,
        retry_count,
        next_attempt_at,
    )


def names(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{number:06d}" for number in range(count)]


def confirm(
    ledger: SqlLedger, where: tuple[str, str, str], ids: Sequence[str], seen_at: datetime = NOON, content: str = "c1"
) -> None:
    ledger.confirm(*where, SPACE, [confirmed(document_id, content=content) for document_id in ids], seen_at)


def state(ledger: SqlLedger, document_id: str, collection: str = "materials") -> dict[str, Any]:
    """The whole row of a document, as the table has it."""
    query = select(index_state).where(index_state.c.collection == collection, index_state.c.document_id == document_id)
    with ledger.database.read() as connection:
        return dict(connection.execute(query).mappings().one())


def plan_of(ledger: SqlLedger, act: Callable[[], object], begins: str) -> str:
    """How the database does the one statement of `act` that begins like this."""
    asked: list[tuple[str, Any]] = []
    event.listen(ledger.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
    act()
    [(statement, values)] = [one for one in asked if one[0].startswith(begins)]
    sqlite = ledger.database.dialect == "sqlite"
    with ledger.database.write() as connection:
        if not sqlite:  # of a table as small as this one it would rather read all
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        return " ".join(str(row) for row in connection.exec_driver_sql(explain + statement, values))
