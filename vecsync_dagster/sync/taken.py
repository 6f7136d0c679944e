"""Documents of an entity whose ids the ledger has as those of another one that left them in the collection: an entity
that was renamed and kept its `type`. None of them could be written, so it is found out before any is."""

from __future__ import annotations

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import document_id
from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Source
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.owners import at_source

__all__ = ["has_ids_of_others", "require_own_ids", "way_out"]

_SAMPLE = 100


def require_own_ids(ledger: Ledger, entity: str, config: EntityConfig, collection: str, source: Source) -> None:
    """Raises LedgerRejected where the source has records whose documents another entity has left in the collection.
    Some of them are asked for: what a `type` in common means for one it means for most. Raises the source's errors."""
    by_place: dict[tuple[str, str], list[Key]] = {}
    for owner, tenant, key in ledger.left_by_others(entity, collection, _beginnings(entity, config), _SAMPLE):
        by_place.setdefault((owner, tenant), []).append(key)
    for (owner, tenant), keys in by_place.items():
        if at_source(entity, config, source, tenant, keys, _SAMPLE):
            raise LedgerRejected(
                f"collection {collection}: the documents of entity {entity} have the ids of those that {owner} left in "
                f"it, as the `type` is the same: none can be synced. {way_out(entity, collection, owner)}",
                entity=entity,
                collection=collection,
                owner=owner,
            )


def has_ids_of_others(ledger: Ledger, entity: str, config: EntityConfig, collection: str) -> bool:
    """The same by the ledger alone, of an entity of which the store holds nothing yet."""
    if any(ledger.tally(entity, collection, tenant).held for tenant in ledger.with_rows(entity, collection)):
        return False
    return bool(ledger.left_by_others(entity, collection, _beginnings(entity, config), 1))


def way_out(entity: str, collection: str, owner: str) -> str:
    return (
        f"If {owner} was renamed, `vecsync drop {collection} --entity {owner} --force` removes them, and a full sync "
        f"writes them again; or give {entity} another `type`: then searches find the former ones until all are synced. "
        "If not, give the collection another name"
    )


def _beginnings(entity: str, config: EntityConfig) -> list[str]:
    return [document_id(tenant, config.type or entity, "") for tenant in ("", GLOBAL)]
