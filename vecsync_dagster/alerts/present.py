"""Which problems there are now, by the ledger alone, and the alerts made equal to that.

Whoever looks finds the same: the end of a sync, a sensor's tick, a run that somebody canceled. So none has to see
every event, and a problem that two of them find is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from vecsync_dagster.alerts.notifier import Alerts
from vecsync_dagster.alerts.problems import (
    check_failed,
    cost_passed,
    failed_for_good,
    is_of_lost_tenant,
    is_of_source,
    run_failed,
    source_failed,
    tenants_lost,
)
from vecsync_dagster.config.models import Config
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import Alert, KnownAlert, Owner
from vecsync_dagster.ledger.base import Partition
from vecsync_dagster.sync import is_tenant
from vecsync_dagster.sync.health import RED_PARTITIONS, configured, counting, is_configured
from vecsync_dagster.sync.listing import UNASKED
from vecsync_dagster.sync.metrics import end_dead_runs

__all__ = ["Seen", "book_of", "observe", "owner_of", "problems"]


@dataclass(slots=True)
class Seen:
    """What a run or a sensor knows beside the ledger: problems of its own, and those that it would have and has not.
    What the ledger learned `since` it began, of places that are its own (`is_mine`), the run has found. `is_gone`: of a
    tenant, whether it is not at the source and left nothing here. `run_of`: which other run has found a problem that is
    new; empty if nobody knows."""

    run_id: str = ""
    since: datetime | None = None
    is_mine: Callable[[Alert], bool] = lambda _: True
    raised: list[Alert] = field(default_factory=list)
    over: list[Alert] = field(default_factory=list)
    is_gone: Callable[[str], bool] = lambda _: False
    run_of: Callable[[Alert], str] = lambda _: ""

    def cost(self, config: Config, names: Collection[str], price: float) -> None:
        """One run's price, under the name of its entity, or of its entities together."""
        limit = config.alerts.cost_usd_per_run
        if limit is not None:
            alert = cost_passed(", ".join(names), price, limit)
            if price > limit:
                self.raised.append(alert)
            else:
                self.over.append(alert)

    def ends(self, config: Config, known: Alert) -> bool:
        """Also a problem of fewer entities, or of one that has left the configuration: no run is of just those now."""
        entities = {name for name in known.entity.split(", ") if name in config.entities}
        return any(
            replace(one, entity=known.entity).key == known.key and entities <= {*one.entity.split(", ")}
            for one in self.over
        )

    def name(self, one: Alert) -> Alert:
        """With the run, if that found it."""
        found = self.since is None or one.at is None or one.at >= self.since
        return replace(one, run_id=self.run_id) if found and self.is_mine(one) else one


def owner_of(config: Config) -> Owner:
    places = ((name, collection) for name, entity in config.entities.items() for collection in entity.collections)
    return Owner(config.project, frozenset(places))


def book_of(config: Config, ledger: SqlLedger) -> Alerts:
    return Alerts(config.alerts, ledger, owner=owner_of(config), now=ledger.now)


def problems(config: Config, ledger: SqlLedger, only: str | None = None) -> Iterator[Alert]:
    """Everything that is wrong now with what is configured, as `status`, `health` and the checks have it. `only`: of
    this entity."""
    now = ledger.now()
    for entity, settings in config.entities.items():
        if only not in (None, entity):
            continue
        there = counting(config, ledger.last_runs_of_undone(entity), now).values()
        undone = [last.undone for last in there if last.undone is not None]
        unasked = [run for run in undone if UNASKED in run.figures or is_of_source(run)]
        if unasked:
            yield source_failed(entity, unasked)
        lost = [run for run in undone if is_of_lost_tenant(run)]
        yield from (run_failed(run) for run in undone if run not in unasked and run not in lost)
        if lost:
            yield tenants_lost(entity, lost)
        for collection in settings.collections:
            for tenant, (documents, at) in ledger.permanent_failures(entity, collection).items():
                yield failed_for_good(entity, collection, tenant, documents, at)
    failed = configured(ledger.check_results(only, failed=True), config)
    # One over all partitions that fails because of theirs has nothing to tell beside them.
    yield from (check_failed(one) for one in failed if RED_PARTITIONS not in one.facts)


def observe(config: Config, ledger: SqlLedger, seen: Seen | None = None, *, only: str | None = None) -> Alerts:
    """Raise what is new, close what is no more. The answer tells the channels (`deliver`). `only`: an entity; what is
    known of the others is left to whoever looks at them."""
    book, seen = book_of(config, ledger), seen or Seen()
    if book.is_silent:
        return book
    end_dead_runs(config, ledger, only)
    at = ledger.now()
    # Of a run that is looked at late, what it found may be over long ago.
    news = (one for one in seen.raised if one.at is None or not _is_over(config, ledger, _as_known(one, one.at), seen))
    opened = book.opened
    before = {known.key for known in opened}
    raised = {one.key: seen.name(one) for one in (*news, *problems(config, ledger, only))}
    others_found = [one for key, one in raised.items() if not one.run_id and key not in before]
    raised |= {one.key: replace(one, run_id=seen.run_of(one)) for one in others_found}
    others = {*config.entities} - {only} if only else set()
    over = {
        known.key
        for known in opened
        if known.key not in raised
        and known.alert.entity not in others
        and (seen.ends(config, known.alert) or _is_over(config, ledger, known, seen))
    }
    book.observe(raised.values(), lambda known: known.key in over, run_id=seen.run_id, at=at)
    return book


def _as_known(one: Alert, at: datetime) -> KnownAlert:
    return KnownAlert(one, 1, at, at, None)


def _is_over(config: Config, ledger: SqlLedger, known: KnownAlert, seen: Seen) -> bool:
    """Whether a problem that the ledger does not have now is over: also one of what left the configuration. A Dagster
    run that died may have told the ledger nothing: what it was to sync must have been synced since."""
    alert = known.alert
    (collection, tenant), entity = alert.place, alert.entity
    if not any(is_configured(config, name, collection) for name in entity.split(", ")):
        return True
    if alert.kind == "cost_limit":
        return config.alerts.cost_usd_per_run is None
    if alert.kind != "run_failure":
        return True
    if alert.check:
        return False  # of a job: its next run says so
    if tenant and not collection:
        return True  # of an earlier version: its partitions have their own
    runs = ledger.last_runs(entity, tenant or None)
    there = counting(config, runs, ledger.now())
    if collection:
        place = Partition(entity, collection, tenant)
        last = there.get(place)
        if last is None:
            return place in runs or not is_tenant(tenant) or seen.is_gone(tenant)
        return last.undone is None and last.last.ended_at >= known.raised_at
    whole = [one.success for key, one in there.items() if key.collection]
    return bool(whole) and all(run is not None and run.ended_at >= known.raised_at for run in whole)
