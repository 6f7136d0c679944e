"""What the ledger says of single records: their state in each collection, the worst of them, and what failed.

The overall state of a record is worked out from all of its entity's collections, as the ledger has them: never
from what one run happened to touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from vecsync_dagster.identity import Key

__all__ = [
    "FORMER",
    "OF_ONE_DOCUMENT",
    "SEVERITY",
    "CollectionState",
    "FailedRow",
    "Failures",
    "RecordState",
    "Status",
    "worst",
]

Status = Literal["pending", "synced", "stale", "failed"]

SEVERITY: Final[Mapping[Status, int]] = {"synced": 0, "pending": 1, "stale": 2, "failed": 3}
"""How bad a status is; a collection that has no row of the record is `pending`."""


FORMER: Final = "NOT_REPLACED"
"""The error code of a document whose record has another document id by now, and is not held under that one yet."""

OF_ONE_DOCUMENT: Final = ("_REJECTED", "VALIDATION_ERROR", "INTERNAL_ERROR")
"""How the codes of errors end that are about the document itself; one with another code met a service that failed."""


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of them; `pending` where there is none."""
    return max(statuses, key=SEVERITY.__getitem__, default="pending")


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One record in one collection. `modified_fields`: what changed in it the last time; None
    where that is not known, as for a record that never changed. `next_attempt_at` None of a failed one: permanent.
    `former`: id of the document that is kept until the store holds the record under its id of today (`FORMER`)."""

    status: Status = "pending"
    vector_version: int = 0
    content_hash: str | None = None
    error_code: str | None = None
    last_error: str | None = None
    retry_count: int = 0
    next_attempt_at: datetime | None = None
    last_synced_at: datetime | None = None
    last_attempt_at: datetime | None = None
    modified_fields: tuple[str, ...] | None = None
    former: str | None = None


@dataclass(frozen=True, slots=True)
class RecordState:
    """One record in all collections of its entity, in their order."""

    tenant: str
    db_id: Key
    document_id: str
    collections: Mapping[str, CollectionState]

    @property
    def overall(self) -> Status:
        return worst(state.status for state in self.collections.values())


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A document that failed, as the retry worker sees it. `next_attempt_at` None: permanent."""

    collection: str
    tenant: str
    document_id: str
    db_id: Key
    error_code: str
    retry_count: int
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class Failures:
    """The failed documents of a partition, counted. `rejected` ones wait for their record to become valid,
    `waiting` ones for their next attempt; `permanent` ones have used up their retries."""

    waiting: int = 0
    permanent: int = 0
    rejected: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.permanent + self.rejected
