"""What the ledger forgets with time, in small transactions: runs on other machines go on in between."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Table, and_, delete, exists, select, tuple_

from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.ledger.tables import embedding_cache, invalid_record, sync_run

__all__ = ["Retention"]

_CHUNK: Final = 1_000


class Retention(LedgerPart):
    def forget_runs(self, before: datetime) -> int:
        """Runs that began before then; the newest of each partition, mode and outcome stays. Returns how many."""
        run, newer = sync_run.c, sync_run.alias("newer")
        same = (newer.c[name] == run[name] for name in ("entity", "collection", "tenant_id", "mode", "outcome"))
        superseded = exists().where(*same, newer.c.started_at > run.started_at)
        return self._forget(sync_run, and_(run.started_at < before, superseded))

    def forget_old_rejections(self, before: datetime) -> int:
        """Rejections from before then; those of runs that are still known stay. Returns how many."""
        known = exists().where(sync_run.c.run_id == invalid_record.c.run_id)
        return self._forget(invalid_record, and_(invalid_record.c.rejected_at < before, ~known))

    def forget_unused_vectors(self, before: datetime) -> int:
        """Cached vectors that were last needed before then. Returns how many."""
        return self._forget(embedding_cache, embedding_cache.c.last_used_at < before)

    def _forget(self, table: Table, old: ColumnElement[bool]) -> int:
        key = list(table.primary_key.columns)
        some = select(*key).where(old).limit(_CHUNK)
        done, last = 0, _CHUNK
        while last == _CHUNK:
            with self.database.write() as connection:
                keys = [tuple(row) for row in connection.execute(some)]
                if keys:
                    connection.execute(delete(table).where(tuple_(*key).in_(keys)))
            last = len(keys)
            done += last
        return done
