"""What the ledger forgets with time, in small transactions: runs on other machines go on in between."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from vecsync_dagster.ledger.part import LedgerPart
from vecsync_dagster.ledger.tables import (
    embedding_cache,
    index_state,
    invalid_record,
    left_vector,
    listener,
    sync_run,
    unfinished_run,
)

__all__ = ["Retention", "forget_unneeded"]

_CHUNK: Final = 1_000


_V: Final = embedding_cache.c
_D: Final = index_state.c


def _beginning(text_hash: ColumnElement[Any]) -> ColumnElement[str]:
    return func.substr(text_hash, literal_column("1"), literal_column("8"))


_UNNEEDED: Final = and_(
    ~exists().where(
        _beginning(_D.text_hash) == _beginning(_V.text_hash),  # what the index has
        _D.text_hash == _V.text_hash,
        _D.space == _V.space,
    ),
    # Rows of earlier versions do not say which text theirs is.
    ~exists().where(_beginning(_D.text_hash).is_(None), _D.space == _V.space, _D.content_hash.is_not(None)),
)
"""Vectors that no document is known to need: a point that is lost can be written again without paying for it."""

_L: Final = left_vector.c
_NOT_CACHED: Final = ~exists().where(_V.space == _L.space, _V.text_hash == _L.text_hash)


def forget_unneeded(
    connection: Connection, partition: tuple[str, str, str], vectors: Sequence[tuple[str, str]]
) -> None:
    """Those of these cached vectors (space, text hash), which the partition needs no more, that no document needs, nor
    any other partition that had one."""
    if vectors:
        own = tuple_(_L.entity, _L.collection, _L.tenant_id) == tuple_(*map(literal, partition))
        connection.execute(delete(left_vector).where(own, tuple_(_L.space, _L.text_hash).in_(vectors)))
        named = tuple_(_V.space, _V.text_hash).in_(vectors)
        left = exists().where(_L.space == _V.space, _L.text_hash == _V.text_hash)
        connection.execute(delete(embedding_cache).where(named, _UNNEEDED, ~left))


class Retention(LedgerPart):
    def forget_runs(self, before: datetime) -> int:
        """Runs that began before then; the newest of each partition, mode and outcome stays. Returns how many."""
        run, newer = sync_run.c, sync_run.alias("newer")
        same = (newer.c[name] == run[name] for name in ("entity", "collection", "tenant_id", "mode", "outcome"))
        superseded = exists().where(*same, newer.c.started_at > run.started_at)
        marks = unfinished_run.c  # whose run is not known any more would be taken for one that died
        marked = exists().where(*(marks[name] == run[name] for name in ("run_id", "entity", "collection", "tenant_id")))
        return self._forget(sync_run, and_(run.started_at < before, superseded, ~marked))

    def forget_old_rejections(self, before: datetime) -> int:
        """Rejections from before then; those of runs that are still known stay. Returns how many."""
        known = exists().where(sync_run.c.run_id == invalid_record.c.run_id)
        return self._forget(invalid_record, and_(invalid_record.c.rejected_at < before, ~known))

    def forget_unused_vectors(self, before: datetime) -> int:
        """Cached vectors that were last asked for before then, and that are of no document's text. Returns how many."""
        forgotten = self._forget(embedding_cache, and_(embedding_cache.c.last_used_at < before, _UNNEEDED))
        self._forget(left_vector, _NOT_CACHED)
        return forgotten

    def forget_listeners(self, before: datetime) -> int:
        """Those that said before then for the last time that they listen. Returns how many."""
        return self._forget(listener, listener.c.at < before)

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
