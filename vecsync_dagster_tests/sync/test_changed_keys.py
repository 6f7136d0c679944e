"""The key of an entity is made of other fields than before: each record ends in the store once, under its new key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster_tests.small import NAME, Small, mongo_rows, sqlite_source

Insert = Callable[[int], None]
KEYS = [
    (["id"], ["id", "line"]),
    (["id", "line"], ["id"]),
    (["firm", "id"], ["firm", "id", "line"]),
    (["firm", "id", "line"], ["firm", "id"]),
    (["id", "firm"], ["firm", "id"]),
    (["name"], ["line", "firm", "id"]),
]


@pytest.fixture(params=["sqlite", "mongo"])
def keyed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Small, Insert]]:
    """And what inserts so many records, whose fields `firm` and `line` have few values."""
    rows = [{"firm": f"f/{n % 2}", "id": n, "line": n % 3, "name": f"name {n}"} for n in range(1, 61)]
    if request.param == "mongo":
        with mongo_rows(request, stream="never") as (source, documents):

            def insert_documents(count: int) -> None:
                documents.insert_many([dict(row) for row in rows[:count]])

            yield Small(tmp_path, source, payload=("name",)), insert_documents
            return
    db = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    db.execute(f"CREATE TABLE {NAME} (firm text, id integer, line integer, name text)")

    def insert(count: int) -> None:
        db.executemany(f"INSERT INTO {NAME} VALUES (:firm, :id, :line, :name)", rows[:count])

    yield Small(tmp_path, sqlite_source(tmp_path / "source.db"), payload=("name",)), insert


def keyed_by(small: Small, key: Sequence[str]) -> Small:
    entities: Any = small.data["entities"]
    entities[NAME]["id"] = list(key)
    return small


def names(small: Small) -> list[str]:
    return sorted(payload["name"] for payload in small.stored().values())


@pytest.mark.parametrize(("before", "after"), KEYS, ids=str)
def test_one_full_run_replaces_all(keyed: tuple[Small, Insert], before: list[str], after: list[str]) -> None:
    """No document is left of the former keys, and nothing is embedded once more."""
    small, insert = keyed
    insert(6)
    keyed_by(small, before).sync()
    result = keyed_by(small, after).sync()
    assert (result.ok, result.figures.embedded) == (True, 0), (
        result.figures,
        [c for c in result.checks if not c.passed],
        result.spared,
    )
    assert names(small) == [f"name {n}" for n in range(1, 7)]
    assert small.sync().figures.touched == 0


@pytest.mark.parametrize(("before", "after"), KEYS[:2], ids=str)
def test_many_are_named_until_they_may_go(keyed: tuple[Small, Insert], before: list[str], after: list[str]) -> None:
    """The removal guard keeps the former documents, and says which; with --allow-removals they go."""
    small, insert = keyed
    insert(60)
    keyed_by(small, before).sync()
    for _ in range(2):
        result = keyed_by(small, after).sync()
        [guard] = [check for check in result.checks if check.name == "removal_guard"]
        assert (guard.passed, result.figures.removals_blocked, len(guard.rows)) == (False, 60, 20)
        assert guard.rows[0]["document"] in guard.message
        assert len(small.stored()) == 120
    assert small.sync(allow_removals=True).ok
    assert names(small) == sorted(f"name {n}" for n in range(1, 61))
