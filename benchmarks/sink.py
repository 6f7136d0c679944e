"""The store and the provider that vecsync and the floor write through: they count, and keep next to nothing.

The store keeps on disk what the checks after a run need: of each point its id, tenant and payload (as bytes), and
a checksum of the vector. The vectors themselves are dropped. It is no Qdrant: a write costs microseconds.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from vecsync_dagster.config.services import HashProvider as HashConfig
from vecsync_dagster.embedding.base import Embedded
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import GLOBAL, Hit, Point, StoredPoint

__all__ = ["CountingProvider", "DroppingStore"]

_CREATE = (
    "CREATE TABLE IF NOT EXISTS points (id TEXT PRIMARY KEY, tenant TEXT, payload BLOB, vector INTEGER) WITHOUT ROWID"
)


class DroppingStore:
    """One collection in one file. `written`, `payloads` and `deleted` count what this process was told."""

    service = "SINK"

    def __init__(self, path: Path, *, die_after: int | None = None, tenants: bool = False) -> None:
        """`die_after`: the process is killed (SIGKILL) once so many vectors were written. `tenants`: there are
        many, so that it needs an index on them."""
        self.written = self.payloads = self.deleted = 0
        self._die_after = die_after
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute(_CREATE)
        if tenants:
            self._file.execute("CREATE INDEX IF NOT EXISTS points_tenant ON points (tenant)")

    def ensure_collection(self, collection: str, space: Space) -> None:
        pass

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        rows = [(p.point_id, _tenant(p), orjson.dumps(p.payload), zlib.crc32(p.vector)) for p in points]  # type: ignore[arg-type]
        self._write("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", rows)
        self.written += len(points)
        if self._die_after is not None and self.written >= self._die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        there = {p.point_id for p in self.retrieve(collection, [p.point_id for p in points])}
        rows = [(_tenant(p), orjson.dumps(p.payload), p.point_id) for p in points if p.point_id in there]
        self._write("UPDATE points SET tenant = ?, payload = ? WHERE id = ?", rows)
        self.payloads += len(rows)
        return [p.point_id for p in points if p.point_id not in there]

    def delete(self, collection: str, tenant: str, point_ids: Sequence[str]) -> None:
        self._write("DELETE FROM points WHERE id = ? AND tenant = ?", [(i, tenant) for i in point_ids])
        self.deleted += len(point_ids)

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        self._write("DELETE FROM points WHERE id = ?", [(i,) for i in point_ids])

    def count(self, collection: str, tenant: str | None = None, entity: str | None = None) -> int:
        """Of an entity as of all: every benchmark has one, and a real store counts by an index."""
        with self._lock:
            [(count,)] = self._file.execute(f"SELECT count(*) FROM points WHERE {_of(tenant)}", (tenant,))
        return int(count)

    def scan(self, collection: str, tenant: str | None = None, batch: int = 1000) -> Iterator[list[StoredPoint]]:
        after = ""
        query = f"SELECT id, tenant, payload FROM points WHERE id > ?2 AND {_of(tenant)} ORDER BY id LIMIT ?3"
        while True:
            with self._lock:
                rows = self._file.execute(query, (tenant, after, batch)).fetchall()
            if not rows:
                return
            yield [StoredPoint(i, owner, orjson.loads(payload)) for i, owner, payload in rows]
            after = rows[-1][0]

    def retrieve(self, collection: str, point_ids: Sequence[str]) -> list[StoredPoint]:
        with self._lock:
            rows = self._file.execute(
                "SELECT id, tenant, payload FROM points WHERE id IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(point_ids)).decode(),),
            ).fetchall()
        return [StoredPoint(i, owner, orjson.loads(payload)) for i, owner, payload in rows]

    def search(self, collection: str, vector: NDArray[np.float32], tenant: str, limit: int = 10) -> list[Hit]:
        return []

    def pinned_space(self, collection: str) -> str | None:
        return None

    def check(self) -> str:
        return "counts and drops"

    def close(self) -> None:
        self._file.close()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany(statement, rows)
            self._file.execute("COMMIT")


class CountingProvider(HashProvider):
    """The package's own hash embedding, 384 dimensions; every call leaves its size in a file, which outlives a kill."""

    def __init__(self, log: Path) -> None:
        super().__init__(HashConfig(provider="hash", dimensions=384))
        self._log = log

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        embedded = super().embed_documents(texts)
        with self._log.open("ab") as log:
            log.write(b"%d\n" % len(texts))
        return embedded

    @staticmethod
    def total(log: Path) -> int:
        return sum(map(int, log.read_bytes().split())) if log.exists() else 0


def _of(tenant: str | None) -> str:
    return "?1 IS NULL" if tenant is None else "tenant = ?1"


def _tenant(point: Point) -> str:
    return point.payload.get("tenantId") or GLOBAL
