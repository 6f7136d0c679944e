"""What was refused, or raised what nobody foresaw, while documents are written: is it about single documents, or about
all of them?"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from vecsync_dagster.errors import InternalError, StoreRejected, VecsyncError
from vecsync_dagster.sync.changes import Change

__all__ = ["Failure", "Suspects"]

Failure = tuple[Change, VecsyncError]

_MOST_BEFORE_A_WRITE = 32
"""After so many attempts that failed, and none that did not, it is no single document's fault: enough to find one among
some thousands."""


class Suspects:
    """Documents of one run of one partition that failed alone for a reason that nobody foresaw, or that the store does
    not tell. Until another one was written it is not known whether they are to blame: they are held. May be used by
    several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Failure] = []
        self._missed = 0
        self.worked = False
        """Whether a document was written, so that those that could not be are to blame."""

    def wrote(self) -> None:
        with self._lock:
            self.worked = True

    def missed(self, changes: Sequence[Change], error: Exception) -> bool:
        """One more attempt to write these documents failed. Whether so many did, before any document was written, that
        it is no single one's fault: looking for it would take an attempt for each. What the store says of the documents
        themselves is believed, and so is what an earlier run found."""
        if not _is_open(error) or all(map(_blamed, changes)):
            return False
        with self._lock:
            self._missed += 1
            return self._missed > _MOST_BEFORE_A_WRITE and not self.worked

    def known(self, failures: Sequence[Failure]) -> list[Failure]:
        """Those that are the documents' own, as they are of one that an earlier run found to blame; the others are
        held."""
        with self._lock:
            if self.worked:
                return list(failures)
            held = [failure for failure in failures if _is_open(failure[1]) and not _blamed(failure[0])]
            self._held += held
        return [failure for failure in failures if failure not in held]

    def settle(self) -> tuple[list[Failure], VecsyncError | None]:
        """At the end: what was held, and the error of the whole partition where it is not those documents' own. A
        single one that has failed before, when nothing else was written either, is to blame."""
        with self._lock:
            held, self._held = self._held, []
        own = self.worked or (len(held) == 1 and held[0][0].waited is not None)
        return held, held[0][1] if held and not own else None


def _is_open(error: Exception) -> bool:
    """Whether the error itself does not tell if it is about one document."""
    if isinstance(error, StoreRejected):
        return error.every_document is None
    return isinstance(error, InternalError) or not isinstance(error, VecsyncError)


def _blamed(change: Change) -> bool:
    return change.retry_count > 0
