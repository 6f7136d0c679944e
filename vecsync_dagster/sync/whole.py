"""Which partitions were read completely with the settings of today. Only of those does an id that finds no record mean
that the record is gone: where the key, the table or the filter changed, the ids that the ledger has may mean others."""

from __future__ import annotations

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster.sync.target import Target

__all__ = ["NAMELESS", "NO_RECORD", "UNREAD", "keep_read", "was_read"]

UNREAD = "no full sync with the settings of today has ended yet; the next full sync decides"
NO_RECORD = "the source has no record here at all; full syncs decide"
NAMELESS = "they may be among the records that were rejected without a usable id; the next full sync decides"


def was_read(target: Target) -> bool:
    """Whether a run has met all that the source has of the partition, with the settings of today."""
    t = target
    settings = t.config.synced_as(t.collection)
    marks = (settings, _without_cursor(settings))
    return any(t.ledger.watermark(t.entity, t.collection, t.tenant, mark) is not None for mark in marks)


def keep_read(ledger: Ledger, entity: str, config: EntityConfig, collection: str, tenant: str) -> None:
    """A run has met all of it. The source has no changed rows to go on from, or the cursor would say so."""
    mark = _without_cursor(config.synced_as(collection))
    ledger.set_watermark(entity, collection, tenant, Cursor("", ""), mark)


def _without_cursor(settings: str) -> str:
    return f"{settings} in full"
