"""What an application writes for "not deleted" is no deletion."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vecsync_dagster.sources.mongo_queries import Queries
from vecsync_dagster_tests.small import NAME, Small, sqlite_source


@pytest.mark.parametrize("nothing", ["", 0, "0", None])
def test_no_time_is_no_deletion(tmp_path: Path, nothing: object) -> None:
    """A row with an empty `deleted_at` is live, one with a time is not; one that is deleted later goes."""
    small = Small(tmp_path, sqlite_source(tmp_path / "s.db"), updated_at="at", deleted_at="gone")
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as source:
        source.execute(f"CREATE TABLE {NAME} (id INTEGER PRIMARY KEY, name TEXT, at TEXT, gone)")
        rows = [(1, nothing), (2, nothing), (3, "2026-01-01T00:00:00Z")]
        source.executemany(f"INSERT INTO {NAME} VALUES (?, 'one', '2026-01-01T00:00:00Z', ?)", rows)
        small.sync()
        assert set(small.stored()) == {"1", "2"}
        source.execute(f"UPDATE {NAME} SET gone = '2026-02-01T00:00:00Z' WHERE id = 2")
        assert small.sync(mode="incremental").figures.removed == 1
    assert set(small.stored()) == {"1"}


@pytest.mark.parametrize(("value", "live"), [("", True), (0, True), (False, True), (None, True), ("2026-01-01", False)])
def test_a_document_s_no_time_is_no_deletion(tmp_path: Path, value: object, live: bool) -> None:
    """MongoDB's queries and the events of its change streams say the same."""
    [entity] = Small(tmp_path, sqlite_source(tmp_path / "s.db"), deleted_at="gone").config.entities.values()
    queries = Queries(entity)
    assert queries.is_live({"_id": 1, "gone": value}) is live
    wanted = queries.undeleted()["gone"]["$in"]
    assert any(one is value or (type(one) is type(value) and one == value) for one in wanted) is live
