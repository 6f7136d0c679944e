"""What a sensor asked for and has not seen done yet: kept in its cursor, so that nothing is asked for twice, and what
failed is asked for again, later and later.

A request is done when the ledger has seen a sync of the partition that began after it. What Dagster's runs ended
with is not asked: a run may fail for one partition of a thousand, or vanish with its machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from vecsync_dagster.config.automation import RequestBackoff

__all__ = ["Requests"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """`first`, `last`: seconds since 1970; `times`: how often it was asked for without being done; 0: it is only known
    to be wanted."""

    first: float
    last: float
    times: int


class Requests:
    """The requests of one sensor. Read from its cursor, changed within a tick, written back by `cursor`."""

    def __init__(self, cursor: str | None, backoff: RequestBackoff, now: datetime) -> None:
        self._backoff = backoff
        self.now = now
        self._asked = _read(cursor)

    def keep(self, wanted: Iterable[str]) -> None:
        """Forget what is not wanted any more: it was done, or is gone."""
        still = set(wanted)
        self._asked = {key: asked for key, asked in self._asked.items() if key in still}

    def may_ask(self, key: str, done_at: datetime | None) -> bool:
        """`done_at`: when the partition's last successful sync began."""
        asked = self._asked.get(key)
        if asked is not None and done_at is not None and done_at.timestamp() >= asked.last:
            del self._asked[key]
            asked = None
        if asked is None or not asked.times:
            return True
        return self.now.timestamp() >= asked.last + self._wait(asked.times).total_seconds()

    def wanted_for(self, key: str, time: timedelta) -> bool:
        """Whether each tick of so long a time wanted it; from now on they do."""
        now = self.now.timestamp()
        return now - self._asked.setdefault(key, _Asked(now, now, 0)).first >= time.total_seconds()

    def ask(self, key: str, state: str) -> str:
        """Note that it is asked for. Returns the run key: it has the state, and is another one for every attempt."""
        now = self.now.timestamp()
        before = self._asked.get(key)
        asked = _Asked(now, now, 1) if before is None else _Asked(before.first, now, before.times + 1)
        self._asked[key] = asked
        digest = hashlib.sha256(state.encode()).hexdigest()[:16]
        return f"{key}@{digest}#{datetime.fromtimestamp(asked.first, UTC):%Y%m%dT%H%M%S.%f}-{asked.times}"

    def attempts(self, key: str) -> int:
        asked = self._asked.get(key)
        return 0 if asked is None else asked.times

    def cursor(self) -> str:
        return json.dumps({key: list(asdict(asked).values()) for key, asked in self._asked.items()})

    def _wait(self, times: int) -> timedelta:
        b = self._backoff
        # The exponent is bounded so that a large multiplier cannot overflow before the cap applies.
        return min(b.base * min(b.multiplier ** min(times - 1, 64), b.cap / b.base), b.cap)


def _read(cursor: str | None) -> dict[str, _Asked]:
    """What is no cursor of ours (somebody typed one into the UI) is an empty one: the worst of it is a run too many."""
    try:
        asked = json.loads(cursor or "{}").items()
        return {str(key): _Asked(float(first), float(last), int(times)) for key, (first, last, times) in asked}
    except (ValueError, TypeError, AttributeError):
        return {}
