"""One pass over a MongoDB catalogue into four collections: vecsync's through the library call, and the floor's.

The floor reads every document, makes four texts and payloads, hashes them, compares with a plain SQLite ledger that it
holds in memory, embeds and writes what differs, sets payloads and removes what is gone. The server's URL stands in
the variable `URL` names, the database's name is the source.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from pymongo import MongoClient

import vecsync_dagster.ledger.migrate  # noqa: F401 (a first sync needs it, and imports are outside of the clock)
from benchmarks.sink import CountingProvider, DroppingStore
from vecsync_dagster import CollectionConfig, EntityConfig, SqlLedger, SyncConfig, SyncOptions, sync_tenant
from vecsync_dagster.config.models import EnvRef, MongoSource
from vecsync_dagster.sources import build_source
from vecsync_dagster.stores.base import Point
from vecsync_dagster_tests.replay import FIELDS, PAYLOAD, TEXTS

__all__ = ["URL", "floor", "stores_in", "vecsync"]

URL = "REPLAY_MONGO_URL"

_BATCH = 200


def stores_in(state: Path) -> dict[str, DroppingStore]:
    """A document has one point id in all four collections: each is a file of its own."""
    return {name: DroppingStore(state / f"{name}.sqlite") for name in TEXTS}


def vecsync(
    source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider, *, mode: Any, verify: Any
) -> dict[str, Any]:
    config = EntityConfig(
        source="directory",
        table="tools",
        id="_id",
        type="tool",
        required=("name",),
        collections={name: CollectionConfig(text=tuple(text), payload=tuple(PAYLOAD)) for name, text in TEXTS.items()},
    )
    directory = MongoSource(type="mongo", url=EnvRef(env=URL), database=source.name)
    ledger, stores = SqlLedger.open(f"sqlite:///{ledger_file}"), stores_in(ledger_file.parent)
    opened = build_source(directory, config, name="directory", entity_name="tools", path_of=Path)
    results = sync_tenant(
        "tools",
        config,
        "global",
        source=opened,
        store=stores,
        provider=provider,
        ledger=ledger,
        settings=SyncConfig(verify=verify),
        options=SyncOptions(mode=mode),
    )
    opened.close()
    ledger.close()
    for result in results:
        if result.error is not None:
            raise result.error
    failed = [f"{c.name}: {c.message}" for r in results for c in r.checks if not c.passed]
    return {"fetched": results[0].figures.fetched, "failed_checks": failed, **_counted(stores)}


def floor(source: Path, ledger_file: Path, store: DroppingStore, provider: CountingProvider) -> dict[str, Any]:
    ledger = sqlite3.connect(ledger_file)
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("PRAGMA synchronous=NORMAL")
    ledger.execute("CREATE TABLE IF NOT EXISTS ledger (name, id, text, payload, PRIMARY KEY (name, id))")
    stores = stores_in(ledger_file.parent)
    with MongoClient[dict[str, Any]](os.environ[URL]) as client:
        documents = list(client[source.name].tools.find().sort("_id"))
    for name in TEXTS:
        _pass(ledger, stores[name], provider, name, documents)
    ledger.close()
    return {"fetched": len(documents), **_counted(stores)}


def _pass(
    ledger: sqlite3.Connection,
    store: DroppingStore,
    provider: CountingProvider,
    name: str,
    documents: list[dict[str, Any]],
) -> None:
    known = {row[0]: row[1:] for row in ledger.execute("SELECT id, text, payload FROM ledger WHERE name = ?", (name,))}
    texts, payloads = [], []
    for document in documents:
        text = _text(name, document)
        payload = {"dbId": document["_id"], **{field: document[field] for field in PAYLOAD}}
        row = (document["_id"], text, payload, _hash(text.lower().encode()), _hash(orjson.dumps(payload)))
        before = known.pop(row[0], (None, None))
        if before[0] != row[3]:
            texts.append(row)
        elif before[1] != row[4]:
            payloads.append(row)
    for start in range(0, len(texts), _BATCH):
        some = texts[start : start + _BATCH]
        vectors = provider.embed_documents([row[1] for row in some]).vectors
        store.upsert(name, [Point(_point_id(row[0]), row[2], v) for row, v in zip(some, vectors, strict=True)])
        _confirm(ledger, name, some)
    for start in range(0, len(payloads), _BATCH):
        some = payloads[start : start + _BATCH]
        store.set_payload(name, [Point(_point_id(row[0]), row[2]) for row in some])
        _confirm(ledger, name, some)
    if known:
        store.delete(name, "global", [_point_id(db_id) for db_id in known])
        with ledger:
            ledger.executemany("DELETE FROM ledger WHERE name = ? AND id = ?", [(name, db_id) for db_id in known])


def _text(name: str, document: dict[str, Any]) -> str:
    values = {field: document[field] for field in FIELDS[name]}
    shown = {field: ", ".join(sorted(v)) if isinstance(v, list) else v.strip() for field, v in values.items()}
    return " ".join(part.format(**shown) for part in TEXTS[name])


def _confirm(ledger: sqlite3.Connection, name: str, rows: list[Any]) -> None:
    with ledger:
        values = [(name, row[0], *row[3:]) for row in rows]
        ledger.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?)", values)


def _counted(stores: dict[str, DroppingStore]) -> dict[str, int]:
    told = {name: sum(getattr(one, name) for one in stores.values()) for name in ("written", "payloads", "deleted")}
    for one in stores.values():
        one.close()
    return told


def _hash(text: bytes) -> str:
    return sha256(text).hexdigest()[:16]


def _point_id(db_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, db_id))
