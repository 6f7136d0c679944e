"""Tombstones of ids that a live record has as well: old versions of a row, and keys that became another type."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster_tests.small import NAME, Small, mongo_rows, sqlite_source

JANUARY, FEBRUARY = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
DEAD: dict[str, dict[str, Any]] = {"deleted_at": {"gone": FEBRUARY}, "filter": {"status": "archived"}}
"""How a version is set aside."""
SETTINGS: dict[str, dict[str, Any]] = {"deleted_at": {"deleted_at": "gone"}, "filter": {"filter": {"status": "active"}}}

Put = Callable[..., None]
Age = Callable[[str, dict[str, Any]], None]


def sqlite_table(folder: Path) -> tuple[dict[str, Any], Put, Age]:
    path = folder / "source.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"CREATE TABLE {NAME} (pk INTEGER PRIMARY KEY, sku, name, at, gone, status DEFAULT 'active')")

    def put(**row: Any) -> None:
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO {NAME} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    def age(name: str, values: dict[str, Any]) -> None:
        sets = ", ".join(f"{column} = ?" for column in values)
        db.execute(f"UPDATE {NAME} SET {sets} WHERE name = ?", [*values.values(), name])

    return sqlite_source(path), put, age


@pytest.fixture
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[dict[str, Any], Put, Age]]:
    if request.param == "sqlite":
        yield sqlite_table(tmp_path)
        return
    with mongo_rows(request, stream="never" if request.param == "mongo by time" else "auto") as (source, rows):

        def put(**row: Any) -> None:
            rows.insert_one({"status": "active"} | row)

        def age(name: str, values: dict[str, Any]) -> None:
            rows.update_one({"name": name}, {"$set": values})

        yield source, put, age


@pytest.mark.parametrize(
    ("table", "way"),
    [("sqlite", "filter"), ("mongo by time", "deleted_at"), ("mongo by events", "filter")],
    indirect=["table"],
)
def test_a_new_version_takes_the_place_of_the_old_one(
    table: tuple[dict[str, Any], Put, Age], tmp_path: Path, way: str
) -> None:
    """Where an old version of a row is set aside and a new one has its id, no kind of run removes the new one."""
    source, put, age = table
    small = Small(tmp_path, source, id="sku", updated_at="at", **SETTINGS[way], payload=("name",))
    put(sku="A", name="hinge", at=JANUARY)
    put(sku="B", name="lamp", at=JANUARY)
    small.sync()
    small.sync(mode="incremental")

    def names() -> list[str]:
        return sorted(payload["name"] for payload in small.stored().values())

    age("hinge", {"at": FEBRUARY} | DEAD[way])
    put(sku="A", name="hinge 2", at=FEBRUARY)
    put(sku="C", name="door", at=FEBRUARY)  # new to the ledger, and of two versions at once
    age("door", DEAD[way])
    put(sku="C", name="door 2", at=FEBRUARY)
    for kind in ({"mode": "incremental"}, {"mode": "incremental"}, {"ids": ("A", "C")}, {"mode": "full"}):
        assert small.sync(**kind).outcome == "success"
        assert names() == ["door 2", "hinge 2", "lamp"], kind
    age("lamp", {"at": FEBRUARY} | DEAD[way])
    assert small.sync(mode="incremental").figures.removed == 1
    assert names() == ["door 2", "hinge 2"]


def test_a_version_that_was_made_earlier_is_fetched(tmp_path: Path) -> None:
    """A live version that the read by time does not bring is asked for when the one before it is set aside."""
    source, put, age = sqlite_table(tmp_path)
    small = Small(tmp_path, source, id="sku", updated_at="at", deleted_at="gone", payload=("name",))
    put(sku="A", name="hinge", at=JANUARY)
    put(sku="B", name="lamp", at=FEBRUARY)
    small.sync()
    put(sku="A", name="hinge 2", at=JANUARY)
    age("hinge", {"gone": "2026-02-02T00:00:00Z"})
    assert small.sync(mode="incremental").outcome == "success"
    assert sorted(payload["name"] for payload in small.stored().values()) == ["hinge 2", "lamp"]


@pytest.mark.parametrize("insert_first", [True, False])
def test_a_key_may_become_another_type(request: pytest.FixtureRequest, tmp_path: Path, insert_first: bool) -> None:
    """A document that is made again under a key of the same text but another type stays, and is known by the new key:
    its deletion is then seen as its own."""
    with mongo_rows(request) as (source, rows):
        small = Small(tmp_path, source, id="_id", payload=("name",))
        rows.insert_many([{"_id": number, "name": f"n{number}"} for number in (6, 7)])
        small.sync()
        if insert_first:
            rows.insert_one({"_id": "7", "name": "n7"})
            rows.delete_one({"_id": 7})
        else:
            rows.delete_one({"_id": 7})
            rows.insert_one({"_id": "7", "name": "n7"})
        for kind in ({"mode": "incremental"}, {"mode": "full"}, {"ids": ("7",)}):
            result = small.sync(**kind)
            assert (result.outcome, result.figures.embedded) == ("success", 0)
            assert sorted(small.stored()) == ["6", "7"], kind
        assert small.sync().figures.unchanged == 2
        rows.delete_one({"_id": "7"})
        assert small.sync(mode="incremental").figures.removed == 1
    assert sorted(small.stored()) == ["6"]


@pytest.mark.parametrize("changed", [True, False])
def test_a_document_that_is_replaced_may_have_another_key(
    request: pytest.FixtureRequest, tmp_path: Path, changed: bool
) -> None:
    """A whole document that is written anew leaves nothing behind under the key it had; where it kept the key, and for
    one that was made since the last run, no full run is needed to know that."""
    with mongo_rows(request) as (source, rows):
        small = Small(tmp_path, source, id="sku", payload=("name",))
        rows.insert_many([{"_id": number, "sku": f"S{number}", "name": f"n{number}"} for number in range(2)])
        small.sync()
        rows.replace_one({"_id": 1}, {"sku": "new" if changed else "S1", "name": "again"})
        rows.insert_one({"_id": 2, "sku": "S2", "name": "n2"})
        rows.replace_one({"_id": 2}, {"sku": "S3", "name": "n3"})
    result = small.sync(mode="incremental")
    assert (result.outcome, result.mode) == ("success", "full" if changed else "incremental")
    assert {key: payload["name"] for key, payload in small.stored().items()} == {
        "S0": "n0",
        "new" if changed else "S1": "again",
        "S3": "n3",
    }
