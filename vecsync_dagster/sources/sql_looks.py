"""What the tenants of a table look like from afar: rows of the statements that ask for it, made into fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection

from vecsync_dagster.sources.base import Fingerprint
from vecsync_dagster.sources.sql_queries import GLOBAL, Queries
from vecsync_dagster.sources.sql_types import DAY, SECOND, Clock

__all__ = ["look_at"]


def look_at(connection: Connection, queries: Queries, tenant: str | None, clock: Clock) -> dict[str, Fingerprint]:
    """The fingerprint of every tenant that has live rows, or of `tenant` alone."""
    now, floors = [clock.of(kind) for kind in queries.dated.values()], queries.floors(clock)
    ahead, width = False, 1 + len(floors)
    rows = connection.execute(queries.fingerprints(tenant, clock)).all()
    if any(one is not None and one > at for row in rows for one, at in zip(row[5::width], now, strict=True)):
        # Few tables hold a time after the clock: only those are looked at twice.
        ahead, width = True, width + 2
        rows = connection.execute(queries.fingerprints(tenant, clock, ahead=True)).all()
    looks = {}
    for shared, key, total, live, checksum, *cells in rows:
        if live and (shared or key not in (None, GLOBAL)):
            times = [cells[start : start + width] for start in range(0, len(cells), width)]
            looks[GLOBAL if shared else str(key)] = Fingerprint(
                live,
                max((newest for newest, *_ in times if newest is not None), default=None),
                checksum or "",
                _ahead(times) if ahead else "",
                total - live,
                _recent(floors, [sums[-len(floors) :] for sums in times]),
                open=bool(floors) and _open([newest for newest, *_ in times], now),
            )
    return looks


def _ahead(times: Sequence[Sequence[Any]]) -> str:
    count = sum(one[1] for one in times)
    return f"{count}.{sum(int(one[2] or 0) for one in times)}" if count else ""


def _recent(floors: Sequence[int], sums: Sequence[Sequence[Any]]) -> tuple[tuple[int, int], ...]:
    """Each floor with the sum of all moments from there on. `sums`: of each column those up to the next floor."""
    between = [sum(int(one[place] or 0) for one in sums) for place in range(len(floors))]
    return tuple(zip(floors, [*accumulate(reversed(between))][::-1], strict=True))


def _open(newest: Sequence[int | None], now: Sequence[int]) -> bool:
    """Whether a later change may get the very time that is the newest one: of a whole second within that second, of a
    date within that day."""
    return any(at < moment + _step(moment) for moment, at in zip(newest, now, strict=True) if moment is not None)


def _step(moment: int) -> int:
    """What the times that an application writes are whole ones of. SQLite does not tell dates from midnights."""
    return next((step for step in (DAY, SECOND) if moment % step == 0), 0)
