"""Single records for `vecsync status --entity`: a page of them, and how many are in which state.

Read from the ledger alone. The overall state of a record is the worst over all collections of its entity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vecsync_dagster.documents import document_id
from vecsync_dagster.errors import NotFound
from vecsync_dagster.ledger.record_states import SEVERITY, CollectionState, RecordState, Status
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import Workspace

__all__ = ["RecordPage", "Totals", "letters_of", "record_page"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Records by status. `health`: per cent of them that are synced, rounded down; None where there is no record."""

    counts: Mapping[Status, int]

    @property
    def records(self) -> int:
        return sum(self.counts.values())

    @property
    def health(self) -> float | None:
        return math.floor(1000 * self.counts.get("synced", 0) / self.records) / 10 if self.records else None

    def as_dict(self) -> dict[str, Any]:
        return {**{status: self.counts.get(status, 0) for status in SEVERITY}, "health": self.health}


@dataclass(frozen=True, slots=True)
class RecordPage:
    """`letters`: the badge of each collection. `matching`: how many records the filters let through, over all pages."""

    entity: str
    letters: Mapping[str, str]
    overall: Totals
    collections: Mapping[str, Totals]
    records: Sequence[RecordState]
    matching: int
    page: int
    limit: int
    names: Mapping[tuple[str, str], str]
    """What people call the tenants."""

    def name_of(self, tenant: str) -> str:
        return self.names.get((self.entity, tenant), "")

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.matching / self.limit))

    def as_dict(self) -> dict[str, Any]:
        return {
            "entity": self.entity,
            "letters": dict(self.letters),
            "overall": self.overall.as_dict(),
            "collections": {name: totals.as_dict() for name, totals in self.collections.items()},
            "records": [
                {
                    "id": record.db_id,
                    "document_id": record.document_id,
                    "tenant": record.tenant,
                    "tenant_name": self.name_of(record.tenant),
                    "overall": record.overall,
                    "collections": {name: asdict(state) for name, state in record.collections.items()},
                }
                for record in self.records
            ],
            "matching": self.matching,
            "page": self.page,
            "pages": self.pages,
            "limit": self.limit,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat row for each record and collection."""
        for record in self.records:
            common = {"id": record.db_id, "document_id": record.document_id, "tenant": record.tenant}
            for name, state in record.collections.items():
                yield {**common, "overall": record.overall, "collection": name, **_flat(state)}


def record_page(
    workspace: Workspace,
    entity: str,
    *,
    collection: str | None = None,
    tenant: str | None = None,
    status: Status | None = None,
    identity: str | None = None,
    limit: int = 20,
    page: int = 1,
) -> RecordPage:
    """One page of an entity's records. `identity`: a record's own id, or its document id.

    Raises NotFound for an id that the ledger does not know.
    """
    names = tuple(workspace.entity(entity).collections)
    ids = None if identity is None else _documents(workspace, entity, identity)
    ledger = workspace.ledger
    records = ledger.records(
        entity,
        names,
        tenant=tenant,
        collection=collection,
        status=status,
        ids=ids,
        limit=limit,
        offset=(page - 1) * limit,
    )
    if identity is not None and not records and status is None:
        raise NotFound(
            f"no record {identity!r} of {entity} in the ledger: it was never synced, or is gone again", id=identity
        )
    overall = Totals(ledger.count_records(entity, names, tenant=tenant))
    each = {name: Totals(ledger.count_records(entity, names, tenant=tenant, collection=name)) for name in names}
    counts = (overall if collection is None else each[collection]).counts
    matching = len(records) if ids is not None else counts.get(status, 0) if status else sum(counts.values())
    return RecordPage(
        entity, letters_of(names), overall, each, records, matching, page, limit, ledger.tenant_names(entity)
    )


def letters_of(collections: Sequence[str]) -> dict[str, str]:
    """A letter for each collection, from its name: the first one that no collection before it has; else a number."""
    taken: dict[str, str] = {}
    for name in collections:
        own = [letter for letter in name.upper() if letter.isalnum()]
        numbers = map(str, range(1, len(collections) + 1))
        taken[name] = next(letter for letter in (*own, *numbers) if letter not in taken.values())
    return taken


def _documents(workspace: Workspace, entity: str, identity: str) -> list[str]:
    kind = workspace.entity(entity).type or entity
    return [identity, document_id(GLOBAL, kind, identity), document_id("", kind, identity)]


def _flat(state: CollectionState) -> dict[str, Any]:
    return {
        **asdict(state),
        "modified_fields": None if state.modified_fields is None else ", ".join(state.modified_fields),
    }
