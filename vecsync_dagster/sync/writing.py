"""Between the store's answer and the ledger's entry a run can end. What is known of that: who began, who finished.

The ledger's rows cannot tell: where the source has changed back since, they and the source agree, and only the
store is different. So a run says that it begins before it tells the store anything, and that it ends once the
ledger knows it all; where one did not, the next full run compares the partition point by point.
"""

from __future__ import annotations

from vecsync_dagster.sync.target import Target

__all__ = ["Writing"]


class Writing:
    """The writing of one partition by one run. `left`: runs before it that began and did not finish."""

    def __init__(self, target: Target, run_id: str) -> None:
        self._ledger = target.ledger
        self._collection = (target.entity, target.collection)
        self._tenant = target.tenant
        self._run_id = run_id
        self._begun: set[str] = set()
        self.left = self._ledger.unfinished(*self._collection, self._tenant)

    def begin(self, tenant: str | None = None) -> None:
        """Before the store is told anything about this partition, or about another tenant's."""
        tenant = tenant or self._tenant
        if tenant not in self._begun:
            self._ledger.begin_writing(*self._collection, tenant, self._run_id)
            self._begun.add(tenant)

    def finish(self) -> None:
        """The ledger knows all that was written."""
        for tenant in sorted(self._begun):
            self._ledger.finish_writing(*self._collection, tenant, [self._run_id])

    def finish_left(self) -> None:
        """What the runs before it had left is put right."""
        self._ledger.finish_writing(*self._collection, self._tenant, self.left)
        self.left = []
