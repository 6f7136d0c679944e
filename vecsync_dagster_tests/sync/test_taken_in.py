"""A ledger that knows less than the store: restored from an older backup, lost, or cut short by a kill. What the source
has is taken in as it lies there; nothing of it is removed, and nothing is paid for again."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from vecsync_dagster.errors import SourceRejected, VecsyncError
from vecsync_dagster.ledger.ledger import SqlLedger
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import Figures, Workspace
from vecsync_dagster_tests.small import NAME, Small, sqlite_source

BEFORE, AFTER = 20, 60


class Shop(Small):
    def rows(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.folder / "source.db") as db:
            db.execute(statement.format(NAME), values)
        db.close()

    def add(self, numbers: range) -> None:
        for n in numbers:
            self.rows("INSERT INTO {} VALUES (?, ?)", n, f"name {n}")

    @property
    def ledger(self) -> Path:
        return self.folder / "state" / "ledger.sqlite"

    def repair(self, *, allow_removals: bool = False) -> tuple[Figures, dict[str, VecsyncError]]:
        failed: dict[str, VecsyncError] = {}
        with Workspace(self.config) as workspace:
            found = list(workspace.differences(NAME, NAME))
            figures = workspace.repair(NAME, NAME, found, failed.__setitem__, allow_removals=allow_removals)
        return figures, failed

    def ids(self) -> set[int]:
        return {int(key) for key in self.stored()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The ledger is that of twenty documents, the store has sixty, of which the last is rejected by now."""
    shop = Shop(tmp_path, sqlite_source(tmp_path / "source.db"), required=["name"], payload=("name",))
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute(f"CREATE TABLE {NAME} (id INTEGER PRIMARY KEY, name TEXT)")
    db.close()
    shop.add(range(1, BEFORE + 1))
    assert shop.sync().ok
    shutil.copy(shop.ledger, tmp_path / "backup")
    shop.add(range(BEFORE + 1, AFTER + 1))
    assert shop.sync().figures.embedded == AFTER - BEFORE
    shop.rows("UPDATE {} SET name = NULL WHERE id = ?", AFTER)
    assert shop.sync().figures.invalid == 1
    shutil.copy(tmp_path / "backup", shop.ledger)
    return shop


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_an_older_ledger_takes_in_what_the_store_has(shop: Shop, mode: str) -> None:
    """The rejected record keeps its last good version; what changed since is written, and nothing else is."""
    shop.rows("UPDATE {} SET name = 'another' WHERE id = ?", BEFORE + 1)
    result = shop.sync(mode=mode)
    figures = result.figures
    assert (figures.embedded, figures.upserted, figures.removed, figures.invalid) == (1, 1, 0, 1)
    assert f"{AFTER - BEFORE} documents that the ledger did not know" in result.note
    assert shop.ids() == set(range(1, AFTER + 1))
    again = shop.sync()
    assert (again.ok, again.note, again.figures.touched) == (True, "", False)


def test_a_repair_takes_in_what_the_source_has(shop: Shop) -> None:
    """And removes what it has not."""
    shop.rows("DELETE FROM {} WHERE id = ?", AFTER - 1)
    figures, failed = shop.repair()
    assert (figures.taken_in, figures.removed, figures.upserted, failed) == (AFTER - BEFORE - 1, 1, 0, {})
    assert shop.ids() == {*range(1, AFTER + 1)} - {AFTER - 1}
    with Workspace(shop.config) as workspace:
        assert workspace.ledger.seen(NAME)[NAME, GLOBAL].doubted_at is not None  # nobody knows how old they are
    assert shop.sync().figures.embedded == 0


def test_a_repair_of_a_ledger_that_was_lost_removes_nothing(shop: Shop) -> None:
    shop.ledger.unlink()
    figures, failed = shop.repair()
    assert (figures.taken_in, figures.removed, failed) == (AFTER, 0, {})
    assert shop.sync().figures.embedded == 0
    assert shop.ids() == set(range(1, AFTER + 1))


def test_a_lost_ledger_costs_nothing(shop: Shop) -> None:
    """Not even where nobody made it anew."""
    shop.ledger.unlink()
    assert shop.sync().figures.embedded == 0
    assert shop.ids() == set(range(1, AFTER + 1))


def test_many_orphans_that_are_gone_stop_a_repair(shop: Shop) -> None:
    """Unless they may go: what is taken in is taken in all the same."""
    shop.data["sync"] = {"removal_guard": {"min_documents": 10}}
    shop.rows("DELETE FROM {} WHERE id BETWEEN ? AND ?", 25, AFTER)
    figures, failed = shop.repair()
    assert (figures.taken_in, figures.removed) == (4, 0)
    assert isinstance(failed[GLOBAL], SourceRejected)
    assert "36 orphans" in str(failed[GLOBAL])
    assert "--allow-removals" in str(failed[GLOBAL])
    assert len(shop.ids()) == AFTER
    figures, failed = shop.repair(allow_removals=True)
    assert (figures.removed, failed) == (36, {})
    assert shop.ids() == set(range(1, 25))


def test_an_orphan_that_was_altered_is_written_again(shop: Shop) -> None:
    """Its record is there: it is never missing from the search."""
    with Workspace(shop.config) as workspace:
        store = workspace.store_of(NAME, NAME)
        point = next(p for page in store.scan(NAME) for p in page if p.payload["dbId"] == str(AFTER - 1))
        store.set_payload(NAME, [Point(point.point_id, {**point.payload, "name": "altered"})])
    figures, failed = shop.repair()
    assert (figures.taken_in, figures.upserted, figures.removed, failed) == (AFTER - BEFORE - 1, 1, 0, {})
    assert shop.stored()[str(AFTER - 1)]["name"] == f"name {AFTER - 1}"


def test_what_a_killed_run_wrote_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the store's answer and the ledger's: a repair by hand leaves it there."""
    shop = Shop(tmp_path, sqlite_source(tmp_path / "source.db"))
    shop.rows("CREATE TABLE {} (id INTEGER PRIMARY KEY, name TEXT)")
    shop.add(range(1, 6))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(SqlLedger, "confirm", killed)
        with pytest.raises(KeyboardInterrupt):
            shop.sync()
    assert len(shop.ids()) == 5
    assert shop.repair()[0].taken_in == 5
    assert len(shop.ids()) == 5
    result = shop.sync()
    assert (result.ok, result.figures.upserted) == (True, 0)
