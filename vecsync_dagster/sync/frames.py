"""Figures, documents and changes as DataFrames, for notebooks. Snapshots: `Snapshots.frame`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import Document, DocumentBuilder
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Read, Source
from vecsync_dagster.space import Space
from vecsync_dagster.sync.changes import decide
from vecsync_dagster.sync.options import PartitionResult

__all__ = ["changes_frame", "documents_frame", "figures_frame"]

_DOCUMENT_COLUMNS = ["id", "text", "content_hash", "payload_hash"]


def figures_frame(results: Iterable[PartitionResult]) -> pd.DataFrame:
    """One row for each partition: entity, tenant, collection, mode, outcome, error and all figures."""
    return pd.DataFrame(
        [
            {
                "entity": result.entity,
                "tenant": result.tenant,
                "collection": result.collection,
                "mode": result.mode,
                "outcome": result.outcome,
                "error": f"{result.error.code}: {result.error}" if result.error else None,
                **result.figures.as_dict(),
            }
            for result in results
        ]
    )


def documents_frame(
    name: str, entity: EntityConfig, tenant: str, *, source: Source, collection: str, limit: int | None = None
) -> pd.DataFrame:
    """The valid documents of a tenant as they would be synced: id, text, hashes and the payload's fields."""
    rows = [
        {
            "id": d.document_id,
            "text": d.text,
            "content_hash": d.content_hash,
            "payload_hash": d.payload_hash,
            **d.payload,
        }
        for d in _documents(name, entity, tenant, source, collection, limit)
    ]
    return pd.DataFrame(rows, columns=None if rows else _DOCUMENT_COLUMNS)


def changes_frame(
    name: str, entity: EntityConfig, tenant: str, *, source: Source, ledger: Ledger, collection: str, space: Space
) -> pd.DataFrame:
    """What a full sync would do with each document of a tenant, without doing it: id, change, status, retry_count.

    Documents that would be removed are rows with the change `removed`.
    """
    documents = list(_documents(name, entity, tenant, source, collection, None))
    now = datetime.now(UTC)
    rows = ledger.rows(name, collection, [d.document_id for d in documents], now)
    changes = decide(documents, rows, tenant=tenant, space=str(space), retry_permanent=True)
    found = [
        {
            "id": change.document.document_id,
            "change": str(change.kind),
            "status": change.row.status if change.row else "pending",
            "retry_count": change.row.retry_count if change.row else 0,
        }
        for change in changes
    ]
    seen = {row["id"] for row in found}
    gone = (p for page in ledger.points(name, collection, tenant) for p in page if p.document_id not in seen)
    found += [{"id": p.document_id, "change": "removed", "status": "synced", "retry_count": 0} for p in gone]
    return pd.DataFrame(found, columns=["id", "change", "status", "retry_count"])


def _documents(
    name: str, entity: EntityConfig, tenant: str, source: Source, collection: str, limit: int | None
) -> Iterable[Document]:
    builder = DocumentBuilder(name, entity, tenant, [collection])
    for page in source.read(Read(tenant, limit=limit)):
        yield from builder.build(page.records)[collection].documents
