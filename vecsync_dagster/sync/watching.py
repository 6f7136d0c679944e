"""`vecsync watch`: woken by events, it syncs the tenants that were touched at once; and now and then looks at all.

Wakers run in threads of their own; syncs run in the calling thread, one after the other. An event is only a hint:
what is synced is what differs from what was seen, as for the change sensor, so that what one of the two has synced the
other leaves alone. What failed each of them tries again, with delays of its own.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import LedgerUnavailable, StoreLocked, VecsyncError
from vecsync_dagster.sources import Fingerprinting, Source
from vecsync_dagster.sources.waking import Stop, Waker
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync.due import Due, due_partitions, undone_partitions
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.sync.locate import holders
from vecsync_dagster.sync.options import PartitionResult, SyncOptions, is_tenant
from vecsync_dagster.sync.workspace import Selection, Workspace

__all__ = ["Round", "Watch"]

_LOG = logging.getLogger("vecsync.watch")
_LOOK_S = 0.2
_ALL_TIMES = 2  # a poll, every tenant: for what happened before somebody listened, and for what is told then
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STORE_S = 1.0
"""After so long a store is asked for again that another process has: that is no failure."""
_AGAIN_S, _LONGEST_AGAIN_S = 5.0, 300.0


@dataclass(slots=True)
class Round:
    """What came of one round. `problems`: what kept an entity, or one of its tenants, from being synced; `reached`:
    entities that were kept from it before, and no longer are."""

    started_at: datetime
    results: list[PartitionResult] = field(default_factory=list)
    problems: list[tuple[str, str | None, VecsyncError]] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)

    @property
    def is_news(self) -> bool:
        return bool(self.results or self.problems or self.reached)

    @property
    def lacks_ledger(self) -> bool:
        return any(isinstance(error, LedgerUnavailable) for *_, error in self.problems)


class _Event(NamedTuple):
    """See `Wake`. `poll`: nobody told of it, it is time to look at all tenants."""

    entity: str
    tenant: str | None = None
    gone: str | None = None
    poll: bool = False


Done = Callable[[Workspace, Round], None]


class Watch:
    """`entities`: those to look after. `done` is told what came of each round, with the workspace still open; `rest` is
    called again and again while there is nothing to do. Without `looks` only what wakers tell is synced; where they
    cannot say whose it is, of tenants that were synced before: somebody else looks at all now and then."""

    def __init__(
        self,
        config: Config,
        entities: Sequence[str],
        wakers: Sequence[Waker],
        *,
        stop: Stop,
        done: Done,
        rest: Callable[[], None] = lambda: None,
        looks: bool = True,
    ) -> None:
        self._config = config
        self._entities = tuple(entities)
        self._wakers = tuple(wakers)
        self._stop = stop
        self._done = done
        self._rest = rest
        self._looks = looks
        self._lock = threading.Lock()
        self._touched: dict[_Event, float] = {}
        self._failures: Counter[_Event] = Counter()
        self._all_at = {entity: deque([-math.inf] * _ALL_TIMES, maxlen=_ALL_TIMES) for entity in entities}
        self._deaf: dict[int, str] = {}
        self._down: set[str] = set()
        self._lacks_ledger = False

    def run(self) -> None:
        """Until `stop` returns True; then waits for the batches in flight and for the wakers."""
        threads = [threading.Thread(target=self._listen, args=(waker,), daemon=True) for waker in self._wakers]
        for thread in threads:
            thread.start()
        settings = self._config.automation.watch
        poll_at = time.monotonic()
        while not self._stop():
            if self._looks and time.monotonic() >= poll_at:
                poll_at = time.monotonic() + settings.poll.total_seconds()
                for entity in self._entities:
                    self._wake(_Event(entity, poll=True), settings.debounce.total_seconds())
            touched = self._ripe()
            if touched:
                self._round(touched)
            else:
                self._rest()
                time.sleep(_LOOK_S)
        for thread in threads:
            thread.join()

    def wake(self, entity: str, tenant: str | None, gone: str | None = None, /) -> None:
        """Safe in any thread. What comes within the debounce after the first event is synced together with it."""
        event, settings = _Event(entity, tenant, gone), self._config.automation.watch
        after_s = settings.debounce.total_seconds()
        if event == _Event(entity):  # where every tenant was synced for such a one: not all the time
            after_s = max(after_s, self._all_at[entity][0] + settings.poll.total_seconds() - time.monotonic())
        self._wake(event, after_s)

    def _wake(self, event: _Event, after_s: float) -> None:
        at = time.monotonic() + after_s
        with self._lock:
            self._touched[event] = min(at, self._touched.get(event, at))

    def _again(self, event: _Event) -> None:
        """It failed: later, and later and later."""
        self._failures[event] += 1
        doublings = min(self._failures[event] - 1, 16)  # a float cannot hold 2 ** 1024
        self._wake(event, min(_AGAIN_S * 2**doublings, _LONGEST_AGAIN_S))

    def _ripe(self) -> dict[str, set[_Event]]:
        """Once one has waited long enough, all that came since; but not what waits because it failed."""
        now = time.monotonic()
        horizon = now + self._config.automation.watch.debounce.total_seconds()
        with self._lock:
            if not any(at <= now for at in self._touched.values()):
                return {}
            ripe = [event for event, at in self._touched.items() if at <= horizon]
            for event in ripe:
                del self._touched[event]
        found: dict[str, set[_Event]] = {}
        for event in ripe:
            found.setdefault(event.entity, set()).add(event)
        return found

    def heard(self) -> dict[str, str | None]:
        """The entities of whose changes somebody tells; with what keeps us from hearing it now. Safe in any thread."""
        return {name: self._deaf.get(id(waker)) for waker in self._wakers for name in waker.hears}

    def _listen(self, waker: Waker) -> None:
        def woken(entity: str, tenant: str | None, gone: str | None = None, /) -> None:
            self._deaf.pop(id(waker), None)
            self.wake(entity, tenant, gone)

        pause = _FIRST_PAUSE_S
        while not self._stop():
            begun = time.monotonic()
            try:
                with contained(waker.name):
                    waker.run(woken, self._stop)
            except VecsyncError as error:
                self._deaf[id(waker)] = f"{error.code}: {error}"
                if time.monotonic() > begun + _LONGEST_PAUSE_S:
                    pause = _FIRST_PAUSE_S  # it was well for a while
                _LOG.warning("%s; listening again in %.0f s", error, pause)
                until = time.monotonic() + pause
                while time.monotonic() < until and not self._stop():
                    time.sleep(_LOOK_S)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                time.sleep(_LOOK_S)

    def _round(self, touched: dict[str, set[_Event]]) -> None:
        """One workspace a round: between rounds others may have the embedded store."""
        found = Round(datetime.now(UTC))
        try:
            with contained("a round of syncs"), Workspace(self._config) as workspace:
                for entity, events in touched.items():
                    self._sync_entity(workspace, entity, events, found)
                # While the ledger is away nothing remembers what was told: once is enough.
                if found.is_news and not (found.lacks_ledger and self._lacks_ledger):
                    self._done(workspace, found)
        except VecsyncError as error:  # what had to be synced is kept by `_sync_entity`
            _LOG.warning("%s: %s", error.code, error)
        self._lacks_ledger = found.lacks_ledger

    def _sync_entity(self, workspace: Workspace, entity: str, events: set[_Event], found: Round) -> None:
        """An entity whose source is down keeps no other one waiting: all that it was woken for is still to be done."""
        if not _has_stores(workspace, entity):
            for event in events:
                self._wake(event, _STORE_S)
            return
        try:
            with asking(workspace, entity, refresh=False), contained(f"{entity}: looking for changes"):
                due = self._due(workspace, entity, events)
        except VecsyncError as error:
            self._failed(found, entity, None, error)
            self._down.add(entity)
            for event in events:
                self._again(event)
            return
        for event in events:
            if event.tenant is None or event.tenant not in {selection.tenant for selection, _ in due}:
                self._failures.pop(event, None)
        if entity in self._down:
            self._down.remove(entity)
            found.reached.append(entity)
        for selection, options in due:
            if not self._stop():
                self._sync(workspace, selection, options, found)

    def _sync(self, workspace: Workspace, selection: Selection, options: SyncOptions, found: Round) -> None:
        event = _Event(selection.entity, selection.tenant)
        try:
            results = workspace.sync(selection, options, stop=self._stop)
        except VecsyncError as error:
            self._failed(found, *event[:2], error)
            self._again(event)
            return
        found.results += results
        if any(result.outcome == "failed" for result in results):
            self._again(event)
        else:
            self._failures.pop(event, None)
        if any(result.figures.removals_waiting for result in results) and selection.tenant != GLOBAL:
            self._wake(event, self._config.automation.tenants.missing_for.total_seconds())

    def _failed(self, found: Round, entity: str, tenant: str | None, error: VecsyncError) -> None:
        _LOG.warning("%s: %s: %s; trying again", tenant or entity, error.code, error)
        found.problems.append((entity, tenant, error))

    def _due(
        self, workspace: Workspace, entity: str, events: Collection[_Event]
    ) -> list[tuple[Selection, SyncOptions]]:
        source, named = workspace.source(entity), self._named(workspace, entity, events)
        everybody = any(event.tenant is None and event.gone is None for event in events)
        if not isinstance(source, Fingerprinting):
            looks = None
        elif everybody:
            looks = source.fingerprints()
        else:
            looks = {name: look for tenant in named for name, look in source.fingerprints(tenant).items()}
        after = self._config.automation.changes.due_after
        seen, now, config = workspace.seen(entity), datetime.now(UTC), workspace.entity(entity)
        asked = {*named, *(_there(workspace, entity, source, looks) if everybody else ())}
        if not self._looks:
            asked = {tenant for tenant in asked if tenant in named or (next(iter(config.collections)), tenant) in seen}
        due = list(due_partitions(config, sorted(asked), looks, seen, now, after))
        if looks is None:  # there is nothing to compare with: who was named is due, the others by time
            due += due_partitions(config, sorted(named), None, seen, now, timedelta(0))
        if everybody and self._looks:
            due += undone_partitions(config, asked, workspace.ledger.last_runs_of_undone(entity))
        found = _selections(entity, due)
        gone = _gone(workspace, entity) if everybody and self._looks else []
        return [one for one in found if one[0].tenant not in {selection.tenant for selection, _ in gone}] + gone

    def _named(self, workspace: Workspace, entity: str, events: Collection[_Event]) -> set[str]:
        """The tenants that the events are about: all, where nobody can say which."""
        named = {event.tenant for event in events if event.tenant is not None}
        keys = [event.gone for event in events if event.gone is not None]
        if keys:
            named |= holders(workspace, entity, keys)
        if _Event(entity) in events and not isinstance(workspace.source(entity), Fingerprinting):
            self._all_at[entity].append(time.monotonic())
            named.update(workspace.believable_tenants(entity)[0])
        return {tenant for tenant in named if is_tenant(tenant)}


def _has_stores(workspace: Workspace, entity: str) -> bool:
    """Whether no other process has an embedded one of them; who has it has only a moment's work most of the time. What
    else is wrong with a store the sync finds."""
    try:
        for name, collection in workspace.entity(entity).collections.items():
            if workspace.config.stores[collection.store].is_embedded:
                workspace.store_of(entity, name).pinned_space(name)
    except StoreLocked:
        return False
    except VecsyncError:
        return True
    return True


def _there(workspace: Workspace, entity: str, source: Source, looks: Mapping[str, object] | None) -> Iterator[str]:
    yield from (tenant for tenant in (source.tenants() if looks is None else looks) if is_tenant(tenant))
    if workspace.has_global(entity):
        yield GLOBAL


def _gone(workspace: Workspace, entity: str) -> list[tuple[Selection, SyncOptions]]:
    """Tenants that have been missing for long enough: this look is one of those that must miss them."""
    known = workspace.traces(entity)
    missing = workspace.look_for_missing(entity, workspace.call_the_roll(entity, known), known)
    now, collections = workspace.ledger.now(), tuple(workspace.entity(entity).collections)
    return [
        (Selection(entity, tenant, collections), SyncOptions(mode="full", tenant_gone=True))
        for tenant, absence in missing.items()
        if absence.confirmed(now)
    ]


def _selections(entity: str, due: Iterable[Due]) -> list[tuple[Selection, SyncOptions]]:
    """One selection a tenant, so that it is read once; in full if any of its collections needs that."""
    by_tenant: dict[str, list[Due]] = {}
    for one in due:
        by_tenant.setdefault(one.tenant, []).append(one)
    return [
        (
            Selection(entity, tenant, tuple(dict.fromkeys(one.collection for one in some))),
            SyncOptions(mode="full" if any(one.full for one in some) else None),
        )
        for tenant, some in by_tenant.items()
    ]
