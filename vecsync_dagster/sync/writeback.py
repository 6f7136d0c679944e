"""The write-back: what the ledger knows of each record, written to the record itself as `syncMetadata`.

The sync of the store never waits for it, and never fails by it: what could not be written back is written by the
next one, because the ledger remembers how far the last one came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import DocumentBuilder, document_id
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.identity import Key, differ, native_of
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.ledger.record_states import CollectionState, RecordState
from vecsync_dagster.sources.base import Cursor, Source, WritesBack

__all__ = ["WRITTEN_BACK", "WriteBack"]

WRITTEN_BACK: Final = "$writeback"
"""How far the write-back came is kept as a collection's watermark is: no collection can have this name."""
_OVERLAP: Final = timedelta(minutes=1)  # rows that another process committed late
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Of one entity and tenant. Raises what the source raises; nothing is lost by it."""

    name: str
    entity: EntityConfig
    tenant: str
    source: Source
    ledger: Ledger

    def changed(self, left: Collection[str] = ()) -> int:
        """Write what the ledger learned since the last time (the first time: all). Returns to how many records. `left`:
        keys of records that a run removed, or that are nobody's."""
        target, began = self._target(), datetime.now(UTC)
        mark = self.ledger.watermark(self.name, WRITTEN_BACK, self.tenant)
        since = None if mark is None else datetime.fromisoformat(mark.value) - _OVERLAP
        written = 0
        for ids in self.ledger.touched(self.name, self.tenant, since, _CHUNK):
            written += target.write_metadata(self.tenant, _metadata(self._records(ids), since), self._meant)
        target.withdraw_metadata(self.tenant)
        if left:
            target.withdraw_from(left)
        self.ledger.set_watermark(self.name, WRITTEN_BACK, self.tenant, Cursor(began.isoformat(), ""))
        return written

    def backfill(self) -> int:
        """Write to every record that has no `syncMetadata` yet; one that was never synced is `pending`. One whose id
        has the text of a synced one's gets none."""
        target, written = self._target(), 0
        kind = self.entity.type or self.name
        for db_ids in target.without_metadata(self.tenant, _CHUNK):
            known: dict[str, RecordState] = {
                record.db_id: record for record in self._records([self._id(kind, one) for one in db_ids])
            }
            records = [
                state or self._never(kind, one)
                for one in db_ids
                if (state := known.get(one)) is None or not differ(state.db_id, one)
            ]
            written += target.write_metadata(self.tenant, _metadata(records, None), self._meant)
        return written

    def _target(self) -> WritesBack:
        if not self.entity.writeback or not isinstance(self.source, WritesBack):
            raise ConfigError(
                f"entities.{self.name}.writeback: it is off; switch it on for an entity of a MongoDB source",
                entity=self.name,
            )
        return self.source

    def _meant(self, records: pa.RecordBatch) -> int | None:
        """Of records with one id the one that is synced: the first that is a document. None where that is another one
        in each collection."""
        builder = DocumentBuilder(self.name, self.entity, self.tenant, list(self.entity.collections))
        first: dict[str, int] = {}
        for row in range(records.num_rows):
            for collection, built in builder.build(records.slice(row, 1)).items():
                if built.documents:
                    first.setdefault(collection, row)
            if len(first) == len(self.entity.collections):
                break
        rows = set(first.values()) or {0}
        return rows.pop() if len(rows) == 1 else None

    def _records(self, ids: list[str]) -> list[RecordState]:
        return self.ledger.records(
            self.name, list(self.entity.collections), tenant=self.tenant, ids=ids, limit=len(ids)
        )

    def _id(self, kind: str, db_id: str) -> str:
        return document_id(self.tenant, kind, db_id)

    def _never(self, kind: str, db_id: str) -> RecordState:
        states = {collection: CollectionState() for collection in self.entity.collections}
        return RecordState(self.tenant, Key(db_id, native_of(db_id)), self._id(kind, db_id), states)


def _metadata(records: Iterable[RecordState], since: datetime | None) -> dict[str, dict[str, Any]]:
    return {record.db_id: _of_record(record, since) for record in records}


def _of_record(record: RecordState, since: datetime | None) -> dict[str, Any]:
    told = {
        "overallStatus": record.overall,
        "collections": {name: _of_collection(state) for name, state in record.collections.items()},
    }
    recent = [state for state in record.collections.values() if _attempted(state, since)]
    modified = {name for state in recent for name in state.modified_fields or ()}
    # Where nothing is known to have changed, what was said of an earlier change stays.
    return {**told, "lastModifiedFields": sorted(modified)} if modified or since is None else told


def _attempted(state: CollectionState, since: datetime | None) -> bool:
    return since is None or (state.last_attempt_at is not None and state.last_attempt_at >= since)


def _of_collection(state: CollectionState) -> dict[str, Any]:
    return {
        "status": state.status,
        "lastSyncedAt": state.last_synced_at,
        "lastAttemptAt": state.last_attempt_at,
        "lastError": state.last_error,
        "errorCode": state.error_code,
        "retryCount": state.retry_count,
        "nextAttemptAt": state.next_attempt_at,
        "contentHash": state.content_hash,
        "vectorVersion": state.vector_version,
    }
