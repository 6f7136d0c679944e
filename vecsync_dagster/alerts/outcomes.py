"""The outcome of a sync, as problems: for a sync that was made without Dagster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Final

from vecsync_dagster.alerts.problems import (
    check_failed,
    cost_passed,
    failed_for_good,
    kind_of_check,
    run_died,
    source_failed,
    sync_failed,
)
from vecsync_dagster.alerts.settled import settled
from vecsync_dagster.config.alerts import Severity
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, PartitionBusy, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import Alert, KnownAlert
from vecsync_dagster.ledger.base import DIED
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster.sync.health import is_configured

__all__ = ["Observed", "Unsynced", "observe_checks", "observe_results", "observing"]


_SEEN_DAILY: Final = timedelta(days=1, hours=1)  # every partition is run in full each night
_OF_RUNS: Final = ("run_failure", "cost_limit")


@dataclass(frozen=True, slots=True)
class Unsynced:
    """What kept an entity, or one of its tenants, from having results at all."""

    entity: str
    tenant: str | None
    error: VecsyncError

    def alert(self, run_id: str = "") -> Alert:
        if self.tenant is None and not isinstance(self.error, LedgerRejected | LedgerUnavailable):
            return source_failed(self.entity, _reason(self.error), run_id=run_id)
        return sync_failed(self.entity, self.tenant, _reason(self.error), run_id=run_id)


@dataclass(slots=True)
class Observed:
    """Problems, and the keys of those that would be open if they were not over."""

    raised: list[Alert] = field(default_factory=list)
    well: set[str] = field(default_factory=set)
    entities: set[str] = field(default_factory=set)
    """Those whose permanent failures were all looked at."""
    over: list[Callable[[KnownAlert], bool]] = field(default_factory=list)
    """Says of further problems that they are over."""

    @property
    def is_over(self) -> Callable[[KnownAlert], bool]:
        def over(known: KnownAlert) -> bool:
            permanent = known.alert.kind == "permanent_failure" and known.alert.entity in self.entities
            return permanent or known.key in self.well or any(one(known) for one in self.over)

        return over


def observing(config: Config, ledger: SqlLedger) -> Observed:
    """What the ledger itself knows: runs that died, and what is over: also problems of what left the configuration,
    which nobody syncs or checks any more. Another project with the same ledger sees its own again, day by day."""
    former = {entity for entity, _ in ledger.collections()} - {*config.entities}
    runs = ledger.last_runs()
    undone = (last.undone for key, last in runs.items() if is_configured(config, key.entity, key.collection))
    # Whoever recorded it (`status`, for one) may have had nobody to tell.
    died = [run_died(run) for run in undone if run is not None and run.error == DIED]
    left = partial(_has_left, config, former, ledger.now() - _SEEN_DAILY)
    return Observed(died, over=[left, settled(config, ledger, runs)])


def _has_left(config: Config, former: Collection[str], before: datetime, known: KnownAlert) -> bool:
    if known.raised_at > before:
        return False
    alert = known.alert
    collection, tenant = alert.place
    if collection:
        return not any(collection in entity.collections for entity in config.entities.values())
    if tenant or alert.kind not in _OF_RUNS:
        return alert.entity not in config.entities
    # What a run found is said of its entities, or of its job, whatever that is called.
    return all(name in former for name in alert.entity.split(", "))


def observe_results(
    config: Config,
    book: SqlLedger,
    results: Sequence[PartitionResult],
    unsynced: Sequence[Unsynced] = (),
    *,
    run_id: str = "",
) -> Observed:
    observed = observing(config, book)
    observed.raised += [one.alert(run_id) for one in unsynced]
    for result in results:
        _result(observed, result, run_id)
    unreached = {one.entity for one in unsynced if one.tenant is None}
    synced: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for result in results:
        if result.synced and result.entity not in unreached:
            synced[result.entity].add((result.collection, result.tenant))
            observed.well.add(sync_failed(result.entity, result.tenant, "").key)
    for entity, places in synced.items():
        observed.well.add(source_failed(entity, "").key)
        if places >= {*product(config.entities[entity].collections, book.with_rows_or_marks(entity))}:
            observed.well.add(sync_failed(entity, None, "").key)
    if results:
        _cost(observed, config, results, run_id)
        observed.entities = {result.entity for result in results}
        observed.raised += failed_for_good(book, config, sorted(observed.entities), run_id=run_id)
    return observed


def _result(observed: Observed, result: PartitionResult, run_id: str) -> None:
    entity, partition = result.entity, f"{result.collection}|{result.tenant}"
    if isinstance(result.error, PartitionBusy):
        return  # another run is syncing it, and tells what it finds
    if result.error is not None:
        observed.raised.append(sync_failed(entity, partition, _reason(result.error), run_id=run_id))
    for check in result.checks:
        if check.passed:
            observed.well.add(Alert(kind_of_check(check.name), entity, "", partition, check.name).key)
        else:
            observed.raised.append(
                check_failed(
                    entity,
                    partition,
                    check.name,
                    check.message,
                    severity="warning" if check.warning else "error",
                    figures=check.facts,
                    run_id=run_id,
                )
            )


def observe_checks(observed: Observed, results: Iterable[CheckResult], since: datetime, *, run_id: str = "") -> None:
    """From the ledger's own record: what failed since then is a problem, and what passes is one no longer, whoever made
    the check."""
    for one in results:
        partition = f"{one.collection}|{one.tenant}" if one.collection else None
        if one.passed:
            observed.well.add(Alert(kind_of_check(one.check), one.entity, "", partition, one.check).key)
        elif one.at >= since:
            severity: Severity = "warning" if one.warning else "error"
            observed.raised.append(
                check_failed(
                    one.entity,
                    partition,
                    one.check,
                    one.message,
                    severity=severity,
                    figures={name: fact for name, fact in one.facts.items() if isinstance(fact, int)},
                    run_id=run_id,
                )
            )


def _cost(observed: Observed, config: Config, results: Sequence[PartitionResult], run_id: str) -> None:
    """One run's price, under the name of its entity, or of its entities together."""
    limit = config.alerts.cost_usd_per_run
    if limit is None:
        return
    name = ", ".join(dict.fromkeys(result.entity for result in results))
    price = sum(result.figures.price_usd for result in results)
    alert = cost_passed(name, price, limit, run_id=run_id)
    if price > limit:
        observed.raised.append(alert)
    else:
        observed.well.add(alert.key)


def _reason(error: VecsyncError) -> str:
    return f"{error.code}: {error}"
