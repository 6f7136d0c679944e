"""The key of an entity is made of other fields than before: each record ends in the store once, under its new key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.standing import check_again
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
    rows = [{"firm": f"f/{n % 2}", "id": n, "line": n % 3, "name": f"name {n}"} for n in range(1, 121)]
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
        result.figures.spared,
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


MOVED = [
    (["firm", "id"], ["id"]),
    (["firm", "id"], ["id", "firm"]),
    (["firm", "line", "id"], ["line", "id"]),
    (["line", "id"], ["line", "firm", "id"]),
    (["id"], ["id", "firm"]),
]


@pytest.mark.parametrize(("before", "after"), MOVED, ids=str)
def test_the_tenants_column_may_come_go_and_move(
    keyed: tuple[Small, Insert], before: list[str], after: list[str]
) -> None:
    """One run replaces more documents than the removal guard lets go, as each record is met under its new key."""
    small, insert = keyed
    insert(120)
    entity(small)["tenancy"] = {"column": "firm"}
    sync_firm(keyed_by(small, before))
    result = sync_firm(keyed_by(small, after))
    assert (result.ok, result.figures.embedded, result.figures.removals_blocked) == (True, 0, 0)
    assert len(small.stored()) == len(set(names(small))) == 60


def entity(small: Small) -> Any:
    entities: Any = small.data["entities"]
    return entities[NAME]


def sync_firm(small: Small) -> PartitionResult:
    with Workspace(small.config) as workspace:
        [result] = workspace.sync(Selection(NAME, "f/0", (NAME,)), SyncOptions(mode="full"))
    return result


@pytest.mark.parametrize("single", [False, True])
def test_a_tenant_whose_ids_mean_others_by_now_is_due(
    tmp_path: Path, single: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Where ids of today are those that another tenant's documents have from before, these are taken over: that is
    said, that tenant's counts say what it lacks, and it is due in full, which makes all right."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute(f"CREATE TABLE {NAME} (id integer primary key, no integer unique, firm text, name text)")
        db.executemany(f"INSERT INTO {NAME} VALUES (?, ?, ?, ?)", [(n, 5 - n, "xy"[n % 2], f"a{n}") for n in range(6)])
    small = keyed_by(Small(tmp_path, sqlite_source(tmp_path / "source.db"), payload=("name",)), ["id"])
    entity(small)["tenancy"] = {"column": "firm"}
    full = SyncOptions(mode="full")

    def sync(tenant: str, options: SyncOptions = full) -> None:
        with Workspace(small.config) as workspace:
            results = workspace.sync(Selection(NAME, tenant, (NAME,)), options)
            check_again(workspace, results)
        assert all(result.error is None for result in results)

    for tenant in "xy":
        sync(tenant)
    keyed_by(small, ["no"])
    sync("x", SyncOptions(ids=("1",)) if single else full)
    assert f"{1 if single else 3} document{'' if single else 's'} of y taken over" in caplog.text
    with Workspace(small.config) as workspace:
        assert workspace.ledger.seen(NAME)[NAME, "y"].doubted_at is not None
        [counts] = [one for one in workspace.ledger.failed_checks(NAME, NAME, "y") if one.check == "counts"]
    assert "the source has 3 rows" in counts.message
    for tenant in "yx":
        sync(tenant)
    assert names(small) == [f"a{n}" for n in range(6)]
    with Workspace(small.config) as workspace:
        assert workspace.ledger.seen(NAME)[NAME, "y"].doubted_at is None
        assert not workspace.ledger.failed_checks(NAME, NAME, "y")


CHANGED: dict[str, dict[str, Any]] = {
    "key": {"id": ["line", "id"]},
    "field": {"id": ["name"]},
    "filter": {"filter": {"line": 1}},
    "table": {"table": "others"},
    "deleted_at": {"deleted_at": "gone_at"},
}


@pytest.fixture
def few(tmp_path: Path) -> Small:
    """Four records, and one that any settings find, synced by their `id`: in a table that has no dates."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        for table in (NAME, "others"):
            db.execute(f"CREATE TABLE {table} (id integer, line integer, name text, gone_at text)")
            db.execute(f"INSERT INTO {table} VALUES (9, 1, 'name 9', NULL)")
        db.executemany(f"INSERT INTO {NAME} VALUES (?, 0, ?, '2020-01-01')", [(n, f"name {n}") for n in range(1, 5)])
    small = keyed_by(Small(tmp_path, sqlite_source(tmp_path / "source.db"), payload=("name",)), ["id"])
    assert small.sync().ok
    return small


@pytest.mark.parametrize("changed", CHANGED)
def test_ids_remove_nothing_before_a_full_run(few: Small, changed: str) -> None:
    """Ids that find nothing any more because the settings changed stay, with a note that says who decides."""
    entity(few).update(CHANGED[changed])
    for retry in (False, True):
        result = few.sync(mode=None, ids=("1", "2"), retry=retry)
        assert (result.ok, result.figures.removed) == (True, 0)
        assert "the next full sync decides" in result.note
    assert len(few.stored()) == 5


def test_ids_remove_again_after_a_full_run(few: Small, tmp_path: Path) -> None:
    """With the new settings too, a record that is gone is removed by its id."""
    keyed_by(few, ["line", "id"]).sync()
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute(f"DELETE FROM {NAME} WHERE id = 1")
    result = few.sync(mode=None, ids=("0/1",))
    assert (result.figures.removed, result.note) == (1, "")
    assert sorted(few.stored()) == ["0/2", "0/3", "0/4", "1/9"]


def test_reconcile_repairs_nothing_away(few: Small, caplog: pytest.LogCaptureFixture) -> None:
    """A repair after a change of the key removes no document of a record that it cannot find by its old key."""
    with Workspace(few.config) as workspace:
        store = workspace.store_of(NAME, NAME)
        store.delete_foreign(NAME, [point.point_id for page in store.scan(NAME) for point in page][:2])
    with Workspace(keyed_by(few, ["line", "id"]).config) as workspace:
        repaired = workspace.repair(NAME, NAME, list(workspace.differences(NAME, NAME)))
        rows = workspace.ledger.tally(NAME, NAME, GLOBAL).rows
    assert (repaired.removed, rows) == (0, 5)
    assert "the next full sync decides" in caplog.text
