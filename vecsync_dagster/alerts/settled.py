"""What the ledger itself says is over: a failed sync that was made up for, a partition or check that is no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vecsync_dagster.config.models import Config
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import Alert, KnownAlert
from vecsync_dagster.ledger.base import LastRuns, Partition
from vecsync_dagster.sync import is_tenant

__all__ = ["settled"]


def settled(config: Config, ledger: SqlLedger, runs: Mapping[Partition, LastRuns]) -> Callable[[KnownAlert], bool]:
    """Says of an open problem of a partition that it is over, whichever run looked at it: its last sync succeeded,
    and ended after the problem was seen, and so did its last full one, which does more; or what it was said of is there
    no more."""
    checks = {(one.entity, one.collection, one.tenant, one.check) for one in ledger.check_results()}

    def over(known: KnownAlert) -> bool:
        alert = known.alert
        place = _place(config, alert)
        if place is None:
            return False
        if alert.check is not None:
            return (*place, alert.check) not in checks
        if alert.kind != "run_failure":
            return False
        if place not in runs:
            # A run that died before it recorded anything left no trace of a tenant that may be there all the same.
            return not is_tenant(place.tenant)
        last, full = runs[place].last, runs[place].full
        undone = full is not None and full.outcome != "success"
        return last.outcome == "success" and not undone and last.ended_at > known.raised_at

    return over


def _place(config: Config, alert: Alert) -> Partition | None:
    """Runs over several entities are known by their job's name: the collection tells whose it is."""
    collection, bar, tenant = (alert.partition or "").partition("|")
    if not bar:
        return None
    owners = (name for name, entity in config.entities.items() if collection in entity.collections)
    owner = alert.entity if alert.entity in config.entities else next(owners, alert.entity)
    return Partition(owner, collection, tenant)
