"""Records that are recognised, beside others of the same id that are not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from vecsync_dagster import CollectionConfig, EntityConfig, SqlLedger, SyncConfig, SyncOptions, sync_tenant
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.config.models import SqliteSource
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.sources import build_source
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.fakes.memory_store import MemoryStore

NOTES = EntityConfig(
    source="db", table="notes", required=("title",), collections={"notes": CollectionConfig(text="{title}")}
)


def sync(folder: Path, store: MemoryStore, *rows: tuple[int | str, str]) -> PartitionResult:
    """A full run over rows of these ids and titles, one row a page and one document a batch."""
    with closing(sqlite3.connect(folder / "notes.db")) as database, database:
        database.execute("DROP TABLE IF EXISTS notes")
        database.execute("CREATE TABLE notes (id, title TEXT)")
        database.executemany("INSERT INTO notes VALUES (?, ?)", rows)
    config = SqliteSource(type="sqlite", path=str(folder / "notes.db"))
    ledger = SqlLedger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    source = build_source(config, NOTES, name="db", entity_name="notes", path_of=Path)
    [result] = sync_tenant(
        "notes",
        NOTES,
        "global",
        source=source,
        store=store,
        provider=HashProvider(HashConfig(provider="hash", dimensions=8)),
        ledger=ledger,
        settings=SyncConfig(page=1, batch=1),
        options=SyncOptions(mode="full"),
    )
    source.close()
    ledger.close()
    return result


def test_a_known_record_behind_a_new_one_of_its_id_is_the_duplicate(tmp_path: Path) -> None:
    """The page before is decided first, though the ledger knows the record of the page behind it. (A table without a
    key of its own is read in the order of all its columns.)"""
    store = MemoryStore()
    assert sync(tmp_path, store, (1, "known")).figures.new == 1
    for _ in range(5):
        figures = sync(tmp_path, store, (1, "fresh"), (1, "known")).figures
        assert (figures.fetched, figures.changed, figures.invalid, figures.unchanged) == (2, 1, 1, 0)
        assert sync(tmp_path, store, (1, "known")).figures.changed == 1


def test_a_known_record_behind_itself_is_the_duplicate(tmp_path: Path) -> None:
    """Where both records of an id are as the ledger knows them, one is taken and one rejected."""
    store = MemoryStore()
    sync(tmp_path, store, (1, "known"))
    figures = sync(tmp_path, store, (1, "known"), (1, "known")).figures
    assert (figures.fetched, figures.unchanged, figures.invalid, figures.removed) == (2, 1, 1, 0)


def test_a_rejected_twin_of_a_new_record_hides_no_removal(tmp_path: Path) -> None:
    """What this run itself made is no row that it met: the record that is gone goes in the same run. (SQLite has
    numbers before texts, and the same id may be both.)"""
    store = MemoryStore()
    between = [(number, "stays") for number in range(4, 40)]
    sync(tmp_path, store, (1, "gone soon"), *between)
    figures = sync(tmp_path, store, (3, "new"), *between, ("3", "")).figures
    assert (figures.new, figures.invalid, figures.removed) == (1, 1, 1)
