"""Whether what an entity left in a collection is found elsewhere: in the collection under the entity's new name or,
where it has other collections now, in those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vecsync_dagster.documents import document_id
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.base import LedgerPoint, Partition
from vecsync_dagster.sources.base import is_certain
from vecsync_dagster.sync.absence import is_suspicious
from vecsync_dagster.sync.owners import at_source, is_in
from vecsync_dagster.sync.workspace import Workspace
from vecsync_dagster.words import number_of, shown

__all__ = ["Heir", "Lack", "heir_of", "lacks"]

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Heir:
    """The entity that has the same records now, and where."""

    entity: str
    collections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lack:
    """Records of a tenant that nothing replaces, and why."""

    tenant: str
    records: int
    reason: str

    def __str__(self) -> str:
        return f"{number_of(self.records, 'record')} of {shown(self.tenant)}: {self.reason}"


def heir_of(workspace: Workspace, entity: str, collection: str) -> Heir:
    """Of what `entity` left in a `collection` that the configuration has."""
    own = workspace.config.entities.get(entity)
    if own is not None:
        return Heir(entity, tuple(own.collections))
    return Heir(workspace.owner_of(collection), (collection,))


def lacks(workspace: Workspace, entity: str, collection: str, heir: Heir) -> Iterator[Lack]:
    """The tenants with records that nothing replaces. A tenant's are replaced once a full sync of the heir succeeded
    after the entity's last one, and each record is in the store as the heir's, or gone at the source: not more of them
    than a full sync would remove. Raises the errors of the source."""
    ledger = workspace.ledger
    for tenant in ledger.with_rows_or_marks(entity, collection):
        held = ledger.tally(entity, collection, tenant).held
        # A run that died may have stored what the ledger never heard of.
        if not held and not ledger.unfinished(entity, collection, tenant):
            continue
        read = _read_since(workspace, heir, tenant, _last_sync(workspace, Partition(entity, collection, tenant)))
        if not read:
            yield Lack(tenant, held, f"no full sync as {heir.entity} has succeeded since")
            continue
        lost, gone = _not_held(workspace, Partition(entity, collection, tenant), Heir(heir.entity, read))
        there = sum(ledger.tally(heir.entity, name, tenant).held for name in read)
        if lost:
            yield Lack(tenant, lost, f"the source has them, and {heir.entity} does not, see `vecsync invalid`")
        elif gone and (not there or is_suspicious(workspace.config.sync.removal_guard, gone, held)):
            yield Lack(tenant, gone, "the source has none of them, which are too many to be believed")


def _last_sync(workspace: Workspace, place: Partition) -> datetime | None:
    """A ledger that was rebuilt has no runs: then when it was rebuilt."""
    runs = workspace.ledger.last_runs(place.entity, place.tenant).get(place)
    if runs is not None:
        return runs.last.ended_at
    totals = workspace.ledger.totals(datetime.now(UTC))
    return next((one.last_synced_at for one in totals if (one.entity, one.collection, one.tenant) == place), None)


def _read_since(workspace: Workspace, heir: Heir, tenant: str, since: datetime | None) -> tuple[str, ...]:
    """The heir's collections of which a full sync of the tenant succeeded that began after that."""
    runs = workspace.ledger.last_runs(heir.entity, tenant)
    full = {
        name: last.full_success for name in heir.collections if (last := runs.get(Partition(heir.entity, name, tenant)))
    }
    return tuple(name for name, run in full.items() if run is not None and (since is None or run.started_at > since))


def _not_held(workspace: Workspace, place: Partition, heir: Heir) -> tuple[int, int]:
    """Of the records that the store has as those of `place`, but not as the heir's: how many the source has, and how
    many are gone."""
    source, config = workspace.source(heir.entity), workspace.entity(heir.entity)
    lost = gone = 0
    for points in workspace.ledger.points(*place, chunk=_CHUNK):
        keys = _without(workspace, points, heir)
        there = (
            at_source(heir.entity, config, source, place.tenant, keys, workspace.config.sync.page) if keys else set()
        )
        kept = sum(is_in(key, there) or not is_certain(source, key) for key in keys)
        lost, gone = lost + kept, gone + len(keys) - kept
    return lost, gone


def _without(workspace: Workspace, points: Sequence[LedgerPoint], heir: Heir) -> list[Key]:
    """The keys of those records that the heir holds nowhere as this tenant's."""
    kind = workspace.entity(heir.entity).type or heir.entity
    keys = {document_id(point.tenant, kind, point.db_id): point for point in points}
    for name in heir.collections:
        rows = workspace.ledger.rows(heir.entity, name, list(keys), datetime.now(UTC))
        for identity, row in rows.items():
            if row.content_hash is not None and row.tenant == keys[identity].tenant:
                del keys[identity]
    return [point.db_id for point in keys.values()]
