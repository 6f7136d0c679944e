"""What `vecsync watch` has synced and Dagster has not been told of yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from vecsync_dagster.sync import PartitionResult

__all__ = ["Batch"]

_MOST = 500


class Batch:
    """Results of several rounds, to be recorded together: each recording is a run in Dagster, and takes longer than
    most of these syncs. A process that is killed before leaves them to the next full run, which shows every partition
    that was written since it was last shown."""

    def __init__(self, every: timedelta) -> None:
        self._every_s = every.total_seconds()
        self._results: list[PartitionResult] = []
        self._since = 0.0
        self._failing: set[tuple[str, str, str]] = set()

    @property
    def is_due(self) -> bool:
        full = len(self._results) >= _MOST
        return bool(self._results) and (full or time.monotonic() >= self._since + self._every_s)

    def add(self, results: Iterable[PartitionResult]) -> bool:
        """Whether one of them is news that people are waiting for: a failure, or the end of one."""
        if not self._results:
            self._since = time.monotonic()
        news = False
        for result in results:
            self._results.append(result)
            key = (result.entity, result.collection, result.tenant)
            news = news or not result.ok or key in self._failing
            (self._failing.discard if result.ok else self._failing.add)(key)
        return news

    def take(self) -> Sequence[PartitionResult]:
        """All of them, once. Dagster takes one result of a check and partition in a run: the last one's."""
        last = {(one.entity, one.collection, one.tenant): one for one in self._results}.values()
        kept = {id(one) for one in last}
        taken = [one if id(one) in kept else replace(one, checks=()) for one in self._results]
        self._results = []
        return taken
