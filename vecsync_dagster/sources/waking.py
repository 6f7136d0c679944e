"""The seam of event-driven sync: what tells at once that somebody's records have changed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

__all__ = ["Stop", "Wake", "Waker"]

Stop = Callable[[], bool]


class Wake(Protocol):
    def __call__(self, entity: str, tenant: str | None, gone: str | None = None, /) -> None:
        """Records of this tenant have changed (`global`: of everybody). None: any tenant may have changed or
        disappeared. `gone`: the key of a record that is not there any more, or nobody's: only tenants that had it are
        concerned."""
        ...


class Waker(Protocol):
    """Listens to one source for the entities it feeds. It is a hint, never the truth: who is woken looks at the
    source, and looks again every now and then, so that an event that was lost costs time and nothing else."""

    name: str
    """What messages call it: the source's name."""

    hears: Collection[str]
    """The entities of whose changes it is told; none until it was connected once."""

    def run(self, wake: Wake, stop: Stop) -> None:
        """Listen until `stop` returns True; asked at least once a second. First of all, and whenever events may have
        been missed, it wakes every entity with None (or `global`, where that is its only tenant). It may return
        early, and is run again. Raises Source* errors when the connection is lost: it is then run again, later and
        later."""
        ...
