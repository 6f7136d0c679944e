"""vecsync as a library: the example of docs/library.md runs, and any object that satisfies a protocol will do."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vecsync_dagster import CollectionConfig, EntityConfig, SqlLedger, changes_frame, documents_frame, sync_tenant
from vecsync_dagster.config.models import HashProvider
from vecsync_dagster.embedding.hashing import HashProvider as Hash
from vecsync_dagster.sources import Page, Read
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore

DOCS = Path(__file__).parent.parent / "docs" / "library.md"


class ListSource:
    """The smallest source: a list of records, all of them global."""

    id_field = "id"
    incremental = False

    def __init__(self, records: list[dict[str, object]]) -> None:
        self.records = records

    def fields(self) -> tuple[str, ...]:
        return ("id", "title")

    def tenants(self) -> list[str]:
        return []

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        chosen = [r for r in self.records if what.ids is None or str(r["id"]) in what.ids]
        for start in range(0, len(chosen), page):
            yield Page(pa.RecordBatch.from_pylist(chosen[start : start + page]))

    def count(self, tenant: str) -> int:
        return len(self.records)

    def unassigned(self) -> int:
        return 0

    def check(self) -> str:
        return "a list"

    def close(self) -> None:
        pass


def test_any_object_that_satisfies_the_protocols_will_do(tmp_path: Path) -> None:
    """A list as source, no YAML, no Dagster: the sync is the same function that the CLI and the assets call."""
    source = ListSource([{"id": n, "title": f"заметка {n}"} for n in range(5)])
    notes = EntityConfig(source="list", table="-", collections={"notes": CollectionConfig(text="{title}")})
    store = QdrantEmbeddedStore(tmp_path / "qdrant")
    provider = Hash(HashProvider(provider="hash", dimensions=16))
    ledger = SqlLedger.open("sqlite://")
    [result] = sync_tenant("notes", notes, "global", source=source, store=store, provider=provider, ledger=ledger)
    assert (result.ok, result.figures.upserted, store.count("notes")) == (True, 5, 5)

    source.records = source.records[1:]
    frame = changes_frame(
        "notes", notes, "global", source=source, ledger=ledger, collection="notes", space=provider.space
    )
    assert sorted(frame["change"]) == ["removed"] + ["unchanged"] * 4
    texts = documents_frame("notes", notes, "global", source=source, collection="notes")["text"]
    assert list(texts) == [f"заметка {n}" for n in range(1, 5)]
    [result] = sync_tenant("notes", notes, "global", source=source, store=store, provider=provider, ledger=ledger)
    assert (result.figures.removed, store.count("notes")) == (1, 4)
    store.close()
    ledger.close()


def test_the_documented_example_runs(tmp_path: Path) -> None:
    """The code that docs/library.md shows runs unchanged and syncs a table."""
    [code] = re.findall(r"<!-- example: library -->\n```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    with sqlite3.connect(tmp_path / "notes.db") as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
        connection.execute("INSERT INTO notes VALUES (1, 'Насос', 'Не включается'), (2, 'Pump', 'Does not start')")
    connection.close()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "success" in done.stdout
    assert (tmp_path / "qdrant").is_dir()
