"""The floor: the least that a script can do and be right as long as nothing goes wrong.

It has no validation, tenants, cache, retries, history or guard against mass deletion, and holds all it knows in
memory. `run` never looks at what the store really has; `run_and_read_back` does, point by point.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.sink import CountingProvider, DroppingStore
from vecsync_dagster.stores.base import Point

__all__ = ["run", "run_and_read_back"]

_BATCH = 200
_SELECT = "SELECT id, name, category, description, price, sku FROM records ORDER BY id"
_CREATE = "CREATE TABLE IF NOT EXISTS ledger (id TEXT PRIMARY KEY, text_hash TEXT, payload_hash TEXT)"


def run(source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider) -> dict[str, int]:
    """One pass; returns how many rows were read."""
    ledger = sqlite3.connect(ledger_file)
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("PRAGMA synchronous=NORMAL")
    ledger.execute(_CREATE)
    known = {row[0]: row[1:] for row in ledger.execute("SELECT id, text_hash, payload_hash FROM ledger")}
    fetched, texts, payloads = 0, [], []
    for number, name, category, description, price, sku in sqlite3.connect(source).execute(_SELECT):
        fetched += 1
        db_id = str(number)
        text = " ".join(filter(None, (name, category, description, sku)))
        payload = {"dbId": db_id, "name": name, "category": category, "price": price, "sku": sku}
        row = (db_id, text, payload, _hash(text), _hash(json.dumps(payload, sort_keys=True)))
        text_hash, payload_hash = known.pop(db_id, (None, None))
        if text_hash != row[3]:
            texts.append(row)
        elif payload_hash != row[4]:
            payloads.append(row)
        if len(texts) == _BATCH:
            _write(ledger, store, provider, texts)
            texts = []
    _write(ledger, store, provider, texts)
    for start in range(0, len(payloads), _BATCH):
        some = payloads[start : start + _BATCH]
        store.set_payload("records", [Point(_point_id(row[0]), row[2]) for row in some])
        _confirm(ledger, some)
    if known:
        store.delete("records", "global", [_point_id(db_id) for db_id in known])
        with ledger:
            ledger.executemany("DELETE FROM ledger WHERE id = ?", [(db_id,) for db_id in known])
    ledger.close()
    return {"fetched": fetched}


def run_and_read_back(
    source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider
) -> dict[str, int]:
    """A pass, and then every point compared with the ledger by its payload's hash. Raises where one differs."""
    found = run(source, ledger_file, store, provider)
    ledger = sqlite3.connect(ledger_file)
    known = dict(ledger.execute("SELECT id, payload_hash FROM ledger"))
    ledger.close()
    for points in store.scan("records", "global"):
        for point in points:
            if known.pop(point.payload["dbId"], None) != _hash(json.dumps(point.payload, sort_keys=True)):
                raise ValueError(f"point {point.point_id} is not as it was written")
    if known:
        raise ValueError(f"{len(known)} points are missing")
    return found


def _write(ledger: sqlite3.Connection, store: DroppingStore, provider: CountingProvider, rows: list[Any]) -> None:
    if rows:
        vectors = provider.embed_documents([row[1] for row in rows]).vectors
        points = [Point(_point_id(row[0]), row[2], vector) for row, vector in zip(rows, vectors, strict=True)]
        store.upsert("records", points)
        _confirm(ledger, rows)


def _confirm(ledger: sqlite3.Connection, rows: list[Any]) -> None:
    with ledger:
        ledger.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?)", [(row[0], *row[3:]) for row in rows])


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _point_id(db_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, db_id))
