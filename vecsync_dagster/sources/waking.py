"""The seam of event-driven sync: what tells at once that somebody's records have changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Stop", "Wake", "Waker"]

Stop = Callable[[], bool]
Wake = Callable[[str, str | None], None]
"""Called with an entity and a tenant (`global` for everybody's records); None: any tenant may have changed."""


class Waker(Protocol):
    """Listens to one source for the entities it feeds. It is a hint, never the truth: who is woken looks at the
    source, and looks again every now and then, so that an event that was lost costs time and nothing else."""

    name: str
    """What messages call it: the source's name."""

    def run(self, wake: Wake, stop: Stop) -> None:
        """Listen until `stop` returns True; asked at least once a second. First of all, and whenever events may have
        been missed, it wakes every entity with None. Raises Source* errors when the connection is lost: it is
        then run again, later and later."""
        ...
