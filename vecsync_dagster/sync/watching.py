"""`vecsync watch`: woken by events, it syncs the tenants that were touched at once; and now and then looks at all.

Wakers run in threads of their own; syncs run in the calling thread, one after the other. An event is only a hint:
what is synced is what differs from what was seen, as for the change sensor, so that the two never do the same twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import InvalidTenant, VecsyncError
from vecsync_dagster.sources import Fingerprinting
from vecsync_dagster.sources.waking import Stop, Waker
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync.due import Due, due_partitions
from vecsync_dagster.sync.options import PartitionResult, SyncOptions, check_tenant
from vecsync_dagster.sync.workspace import Selection, Workspace

__all__ = ["Watch"]

_LOG = logging.getLogger("vecsync.watch")
_LOOK_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_AGAIN_S, _LONGEST_AGAIN_S = 5.0, 300.0

Done = Callable[[Workspace, Sequence[PartitionResult]], None]


class Watch:
    """`entities`: those to look after. `done` is told the results of each round, with the workspace still open."""

    def __init__(
        self, config: Config, entities: Sequence[str], wakers: Sequence[Waker], *, stop: Stop, done: Done
    ) -> None:
        self._config = config
        self._entities = tuple(entities)
        self._wakers = tuple(wakers)
        self._stop = stop
        self._done = done
        self._lock = threading.Lock()
        self._touched: dict[tuple[str, str | None], float] = {}
        self._failures: Counter[tuple[str, str | None]] = Counter()

    def run(self) -> None:
        """Until `stop` returns True; then waits for the batches in flight and for the wakers."""
        threads = [threading.Thread(target=self._listen, args=(waker,), daemon=True) for waker in self._wakers]
        for thread in threads:
            thread.start()
        settings = self._config.automation.watch
        poll_at = time.monotonic()
        while not self._stop():
            if time.monotonic() >= poll_at:
                poll_at = time.monotonic() + settings.poll.total_seconds()
                for entity in self._entities:
                    self.wake(entity, None)
            touched = self._ripe()
            if touched:
                self._round(touched)
            else:
                time.sleep(_LOOK_S)
        for thread in threads:
            thread.join()

    def wake(self, entity: str, tenant: str | None) -> None:
        """Safe in any thread. What comes within the debounce after the first event is synced together with it."""
        self._wake(entity, tenant, self._config.automation.watch.debounce.total_seconds())

    def _wake(self, entity: str, tenant: str | None, after_s: float) -> None:
        at = time.monotonic() + after_s
        with self._lock:
            self._touched[entity, tenant] = min(at, self._touched.get((entity, tenant), at))

    def _again(self, entity: str, tenant: str | None) -> None:
        """It failed: later, and later and later."""
        self._failures[entity, tenant] += 1
        self._wake(entity, tenant, min(_AGAIN_S * 2 ** (self._failures[entity, tenant] - 1), _LONGEST_AGAIN_S))

    def _ripe(self) -> dict[str, set[str | None]]:
        """Once one has waited long enough, all that came since; but not what waits because it failed."""
        now = time.monotonic()
        horizon = now + self._config.automation.watch.debounce.total_seconds()
        with self._lock:
            if not any(at <= now for at in self._touched.values()):
                return {}
            ripe = [key for key, at in self._touched.items() if at <= horizon]
            for key in ripe:
                del self._touched[key]
        found: dict[str, set[str | None]] = {}
        for entity, tenant in ripe:
            found.setdefault(entity, set()).add(tenant)
        return found

    def _listen(self, waker: Waker) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stop():
            begun = time.monotonic()
            try:
                with contained(waker.name):
                    waker.run(self.wake, self._stop)
            except VecsyncError as error:
                if time.monotonic() > begun + _LONGEST_PAUSE_S:
                    pause = _FIRST_PAUSE_S  # it was well for a while
                _LOG.warning("%s; listening again in %.0f s", error, pause)
                until = time.monotonic() + pause
                while time.monotonic() < until and not self._stop():
                    time.sleep(_LOOK_S)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _round(self, touched: dict[str, set[str | None]]) -> None:
        """One workspace a round: between rounds others may have the embedded store."""
        try:
            with contained("a round of syncs"), Workspace(self._config) as workspace:
                results = [
                    result
                    for entity, tenants in touched.items()
                    for selection, full in self._due(workspace, entity, tenants)
                    if not self._stop()
                    for result in workspace.sync(selection, SyncOptions(mode="full" if full else None), stop=self._stop)
                ]
                if results:
                    self._done(workspace, results)
        except VecsyncError as error:  # a source or a ledger that is down: all that was touched is still to be done
            _LOG.warning("%s: %s; trying again", error.code, error)
            for entity, tenants in touched.items():
                for tenant in tenants:
                    self._again(entity, tenant)
            return
        for entity in touched:
            self._failures.pop((entity, None), None)
        for result in results:
            if result.outcome == "failed":
                self._again(result.entity, result.tenant)
            else:
                self._failures.pop((result.entity, result.tenant), None)

    def _due(self, workspace: Workspace, entity: str, tenants: set[str | None]) -> list[tuple[Selection, bool]]:
        source = workspace.source(entity)
        named = [tenant for tenant in tenants if tenant is not None and _valid(tenant)]
        asked = None if None in tenants else named
        if not isinstance(source, Fingerprinting):
            looks = None
        elif asked is None:
            looks = source.fingerprints()
        else:
            looks = {name: look for tenant in asked for name, look in source.fingerprints(tenant).items()}
        if asked is None:
            there = [tenant for tenant in (source.tenants() if looks is None else looks) if _valid(tenant)]
            asked = sorted({*there, *([GLOBAL] if workspace.has_global(entity) else [])})
        after = self._config.automation.changes.due_after
        seen, now, config = workspace.ledger.seen(entity), datetime.now(UTC), workspace.entity(entity)
        due = list(due_partitions(config, sorted(asked), looks, seen, now, after))
        if looks is None:  # there is nothing to compare with: who was named is due, the others by time
            due += due_partitions(config, sorted(named), None, seen, now, timedelta(0))
        return _selections(entity, {(one.collection, one.tenant): one for one in due}.values())


def _selections(entity: str, due: Iterable[Due]) -> list[tuple[Selection, bool]]:
    """One selection a tenant, so that it is read once; in full if any of its collections needs that."""
    by_tenant: dict[str, list[Due]] = {}
    for one in due:
        by_tenant.setdefault(one.tenant, []).append(one)
    return [
        (Selection(entity, tenant, tuple(one.collection for one in some)), any(one.full for one in some))
        for tenant, some in by_tenant.items()
    ]


def _valid(tenant: str) -> bool:
    try:
        check_tenant(tenant)
    except InvalidTenant:
        return False
    return True
