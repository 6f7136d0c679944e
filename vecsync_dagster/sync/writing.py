"""Between the store's answer and the ledger's entry a run can end. What is known of that: marks in the ledger.

The ledger's rows cannot tell: where the source has changed back since, they and the source agree, and only the
store is different. So a run marks a partition before it tells the store anything, and takes the mark away once the
ledger knows it all. Where a mark is left, the next full run compares the partition point by point; until then no
run trusts a vector in it, and writes a document whole where its payload alone would do.

The same holds where two runs may cross: what one tenant's run does to a document that lies with another tenant,
while that one is synced too, can reach store and ledger in different orders. Such a mark stays in any case.
"""

from __future__ import annotations

import uuid

from vecsync_dagster.sync.target import Target

__all__ = ["Writing", "leave_mark"]


class Writing:
    """The writing of one partition by one run. `doubted`: a mark was there when the run began; `cut_short`: one that
    explains what differs."""

    def __init__(self, target: Target, run_id: str, mode: str) -> None:
        self._ledger = target.ledger
        self._partition = (target.entity, target.collection, target.tenant)
        self._run_id = run_id
        self._mode = mode
        self._left = self._ledger.unfinished(*self._partition)
        self._over: list[str] = []
        self.doubted = bool(self._left)
        self.cut_short = self.doubted and self._ledger.is_cut_short(*self._partition)

    def begin(self) -> None:
        """Before the store is told anything about the partition; later calls do nothing."""
        if not self._over:
            self._ledger.begin_writing(*self._partition, self._run_id, self._mode)
            self._over.append(self._run_id)

    def repaired(self) -> None:
        """Nothing differs any more of what the marks that were there stood for."""
        self._over.extend(self._left)

    def finish(self) -> None:
        """The ledger knows all that was written: after the right to sync the tenant was held to the very end."""
        if self._over:
            self._ledger.finish_writing(*self._partition, self._over)


def leave_mark(target: Target, tenant: str) -> None:
    """A mark in this tenant's partition that only its next full run takes away.

    It has a name of its own: a run of that tenant which is under way takes away those alone that it found.
    """
    target.ledger.begin_writing(target.entity, target.collection, tenant, uuid.uuid4().hex)
