"""The floor: the least that a script can do and be right as long as nothing goes wrong.

It has no validation, tenants, cache, retries, history or guard against mass deletion, and holds all it knows in
memory. `run` never looks at what the store really has; `run_and_read_back` does, point by point. `run_and_keep` keeps
each vector on disk before it is used, so that a text is paid for once.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sink import CountingProvider, DroppingStore
from vecsync_dagster.stores.base import Point

__all__ = ["run", "run_and_keep", "run_and_read_back"]

_BATCH = 200
_SELECT = "SELECT id, name, category, description, price, sku FROM records ORDER BY id"
_CREATE = "CREATE TABLE IF NOT EXISTS ledger (id TEXT PRIMARY KEY, text_hash TEXT, payload_hash TEXT)"
_CREATE_CACHE = "CREATE TABLE IF NOT EXISTS vectors (text_hash TEXT PRIMARY KEY, vector BLOB)"


def run(
    source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider, *, keep: bool = False
) -> dict[str, int]:
    """One pass; returns how many rows were read."""
    ledger = sqlite3.connect(ledger_file)
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("PRAGMA synchronous=NORMAL")
    ledger.execute(_CREATE)
    if keep:
        ledger.execute(_CREATE_CACHE)
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
            _write(ledger, store, provider, texts, keep)
            texts = []
    _write(ledger, store, provider, texts, keep)
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
) -> dict[str, Any]:
    """A pass, and then every point compared with the ledger by its payload's hash: how many are missing or altered."""
    found = run(source, ledger_file, store, provider)
    ledger = sqlite3.connect(ledger_file)
    known = dict(ledger.execute("SELECT id, payload_hash FROM ledger"))
    ledger.close()
    altered = 0
    for points in store.scan("records", "global"):
        for point in points:
            altered += known.pop(point.payload["dbId"], None) != _hash(json.dumps(point.payload, sort_keys=True))
    checks = [f"identity: {len(known)} missing, {altered} altered"] if known or altered else []
    return {**found, "failed_checks": checks}


def run_and_keep(source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider) -> dict[str, int]:
    """A pass that looks each text up among the kept vectors, embeds those it lacks, and keeps them."""
    return run(source, ledger_file, store, provider, keep=True)


def _write(
    ledger: sqlite3.Connection, store: DroppingStore, provider: CountingProvider, rows: list[Any], keep: bool
) -> None:
    if rows:
        texts = [row[1] for row in rows]
        vectors = _kept(ledger, provider, texts) if keep else provider.embed_documents(texts).vectors
        points = [Point(_point_id(row[0]), row[2], vector) for row, vector in zip(rows, vectors, strict=True)]
        store.upsert("records", points)
        _confirm(ledger, rows)


def _kept(ledger: sqlite3.Connection, provider: CountingProvider, texts: list[str]) -> list[Any]:
    hashes = [sha256(text.encode()).hexdigest() for text in texts]
    marks = ", ".join("?" * len(hashes))
    found = dict(ledger.execute(f"SELECT text_hash, vector FROM vectors WHERE text_hash IN ({marks})", hashes))
    vectors = {key: np.frombuffer(vector, np.float32) for key, vector in found.items()}
    lacking = {key: text for key, text in zip(hashes, texts, strict=True) if key not in vectors}
    if lacking:
        vectors.update(zip(lacking, provider.embed_documents(list(lacking.values())).vectors, strict=True))
        ledger.execute("PRAGMA synchronous=FULL")
        with ledger:
            rows = [(key, vectors[key].tobytes()) for key in lacking]
            ledger.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        ledger.execute("PRAGMA synchronous=NORMAL")
    return [vectors[key] for key in hashes]


def _confirm(ledger: sqlite3.Connection, rows: list[Any]) -> None:
    with ledger:
        ledger.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?)", [(row[0], *row[3:]) for row in rows])


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _point_id(db_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, db_id))
