"""What is left of a tenant outside the store and the ledger's documents, and how it goes."""

from __future__ import annotations

from collections.abc import Iterable

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.identity import as_storable
from vecsync_dagster.ledger.base import Ledger, Partition
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.absence import is_ruled_out
from vecsync_dagster.sync.options import Selection, is_tenant
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster.sync.snapshots import Snapshots
from vecsync_dagster.sync.writeback import WRITTEN_BACK

__all__ = ["forget_if_gone", "forget_tenant", "forget_unusable"]


def forget_unusable(ledger: Ledger, entity: str, at_source: Iterable[str], runs: Iterable[Partition]) -> None:
    """A key that can be no partition fails as long as the source has it, and no run could ever say that it is gone.
    `runs`: the partitions that the ledger has runs of."""
    kept = {*map(as_storable, at_source), *ledger.with_rows_or_marks(entity)}
    for place in runs:
        if place.collection and not is_tenant(place.tenant) and place.tenant not in kept:
            ledger.forget_partition(*place)


def forget_if_gone(
    ledger: Ledger,
    snapshots: Snapshots,
    rejections: RejectionLog,
    selection: Selection,
    config: EntityConfig,
    *,
    written_back: bool,
) -> None:
    """A tenant without rows in source and ledger, or a `global` that is no more, leaves nothing but the figures of its
    runs. What a run of some collections alone leaves of the others keeps it among `Ledger.traces`, as does what is left
    where this ends half-way, and what is still to be written back: that not `written_back`."""
    entity, tenant = selection.entity, selection.tenant
    if tenant == GLOBAL and not is_ruled_out(config, tenant):
        return
    left = {name for name in config.collections if ledger.tally(entity, name, tenant).rows}
    over = {*selection.collections} - left
    if not left:
        forget_tenant(ledger, snapshots, rejections, entity, tenant)
        over |= {name for owner, name in ledger.collections() if owner == entity and name not in config.collections}
        over |= {WRITTEN_BACK} if written_back else set()
    for name in over:
        ledger.drop_partition(entity, name, tenant)
    if not left:
        ledger.forget_tenant_names(entity, [tenant])
        ledger.found(entity, [tenant])


def forget_tenant(
    ledger: Ledger, snapshots: Snapshots, rejections: RejectionLog, entity: str, tenant: str | None
) -> None:
    """Its snapshot, and its rejected records in the files and in the ledger; of all tenants where `tenant` is None.

    Raises OutputUnwritable, and the ledger's errors; calling it again goes on from there.
    """
    snapshots.drop(entity, tenant)
    rejections.forget(entity, tenant)
    ledger.forget_rejected(entity, tenant)
