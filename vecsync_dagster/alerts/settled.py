"""What the ledger itself says is over: a failed sync that was made up for, a partition or check that is no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

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

    def made_up_for(place: Partition, raised_at: datetime) -> bool:
        if place not in runs:
            # A run that died before it recorded anything left no trace of a tenant that may be there all the same.
            return not is_tenant(place.tenant)
        last = runs[place]
        return last.undone is None and last.last.ended_at > raised_at

    def over(known: KnownAlert) -> bool:
        alert, places = known.alert, _places(config, known.alert)
        if alert.check is not None:
            return bool(places) and all((*place, alert.check) not in checks for place in places)
        if alert.kind != "run_failure":
            return False
        return bool(places) and all(made_up_for(place, known.raised_at) for place in places)

    return over


def _places(config: Config, alert: Alert) -> Sequence[Partition]:
    """The partitions of which an alert is. Runs over several entities are known by their job's name: the collection
    tells whose it is."""
    collection, tenant = alert.place
    if collection:
        owners = (name for name, entity in config.entities.items() if collection in entity.collections)
        owner = alert.entity if alert.entity in config.entities else next(owners, alert.entity)
        return [Partition(owner, collection, tenant)]
    if not tenant or alert.entity not in config.entities:
        return []
    return [Partition(alert.entity, name, tenant) for name in config.entities[alert.entity].collections]
