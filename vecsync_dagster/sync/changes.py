"""What has to change: documents compared with the ledger's rows. Pure; `apply.py` does it.

The words, used with this meaning everywhere:

- new: the store never held the document.
- changed: its text, template, vector space or tenant differs from what the store confirmed.
- payload_only: its text is the same, its payload is not: no vector is written.
- unchanged: both are what the store confirmed.
- retry: an earlier attempt failed; it is made again.
- removed: the document is no longer in the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from vecsync_dagster.documents import Document
from vecsync_dagster.documents.hashing import attempt_hash
from vecsync_dagster.identity import differ
from vecsync_dagster.ledger.base import Failed, LedgerRow

__all__ = ["Change", "Kind", "decide"]


class Kind(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    PAYLOAD_ONLY = "payload_only"
    UNCHANGED = "unchanged"
    RETRY = "retry"
    REMOVED = "removed"


# Not frozen: a frozen one takes three times as long to make.
@dataclass(slots=True)
class Change:
    """One document and what to do about it; `row` is what the ledger knew (None for a new one). `failure`: what the
    ledger was told where it failed."""

    kind: Kind
    document: Document
    row: LedgerRow | None = None
    failure: Failed | None = None

    @property
    def retry_count(self) -> int:
        """Failed attempts so far of just this version of the document."""
        return self.row.retry_count if self.row and self._attempted else 0

    @property
    def waited(self) -> timedelta | None:
        """How long the last failed attempt of just this version of the document made it wait; None where there was
        none, or none was to follow."""
        row = self.row
        if row is None or row.next_attempt_at is None or row.last_attempt_at is None or not self._attempted:
            return None
        return row.next_attempt_at - row.last_attempt_at

    def waits(self, now: datetime) -> bool:
        """Whether just this version of the document was refused, and its next attempt is not due yet. What failed in an
        outage alone waits for nobody."""
        following = None if self.row is None else self.row.next_attempt_at
        return self.retry_count > 0 and following is not None and following > now

    @property
    def _attempted(self) -> bool:
        attempted = attempt_hash(self.document.content_hash, self.document.payload_hash)
        return self.row is not None and self.row.attempt_hash == attempted


def decide(
    documents: Sequence[Document],
    rows: Mapping[str, LedgerRow],
    *,
    tenant: str,
    space: str,
    retry_permanent: bool,
    doubted: bool = False,
    now: datetime | None = None,
) -> list[Change]:
    """The change of each document, in order.

    `rows` are the ledger's rows of these documents, whatever their tenant: one that lies under another
    tenant has moved here. `retry_permanent`: whether documents that used up their retries are tried again.
    `doubted`: the store may hold other vectors than the rows say, so none is kept where a payload changes. `now`:
    those that were refused are left until their next attempt is due; None: they are tried all the same.
    """
    changes = [
        Change(_kind(document, row, tenant, space, retry_permanent, doubted), document, row)
        for document in documents
        for row in (rows.get(document.document_id),)
    ]
    for change in changes:
        if now is not None and change.kind is Kind.RETRY and change.waits(now):
            change.kind = Kind.UNCHANGED
    return changes


def _kind(
    document: Document, row: LedgerRow | None, tenant: str, space: str, retry_permanent: bool, doubted: bool
) -> Kind:
    if row is None:
        return Kind.NEW
    if row.status == "failed":
        if row.attempt_hash == attempt_hash(document.content_hash, document.payload_hash):
            permanent = row.next_attempt_at is None
            return Kind.UNCHANGED if permanent and not retry_permanent else Kind.RETRY
        if row.content_hash == document.content_hash:
            return Kind.RETRY  # changed, failed, and changed back: the row must become synced again
    if row.content_hash is None:  # failed, never confirmed
        return Kind.NEW
    # One that moved is written whole: its old tenant's run may be changing it just now.
    if row.content_hash != document.content_hash or row.space != space or row.tenant != tenant:
        return Kind.CHANGED
    # The record may have got a key of another type, or another one for a while: what is written again has the key
    # with it.
    if row.payload_hash != document.payload_hash or row.key != document.db_id or differ(row.key, document.key):
        return Kind.CHANGED if doubted else Kind.PAYLOAD_ONLY
    return Kind.UNCHANGED
