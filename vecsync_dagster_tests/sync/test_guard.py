"""What the removal guard counts: the documents that somebody could miss, by their share of all that the store has."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.small import NAME, Small, sqlite_source


class Rows:
    """Of one table without tenants. A record without a name is rejected."""

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "source.db", isolation_level=None)
        self.db.execute(f"CREATE TABLE {NAME} (id integer primary key, name text)")
        self.small = Small(folder, sqlite_source(folder / "source.db"), required=("name",))
        self.entity: Any = self.small.data["entities"][NAME]

    def put(self, numbers: range, name: str) -> None:
        self.db.executemany(f"INSERT OR REPLACE INTO {NAME} VALUES (?, ?)", [(number, name) for number in numbers])

    def delete(self, numbers: range) -> None:
        self.db.executemany(f"DELETE FROM {NAME} WHERE id = ?", [(number,) for number in numbers])

    def removed(self, **options: Any) -> tuple[int, int]:
        """And what the guard kept, which it names documents of."""
        result = self.small.sync(**options)
        assert result.error is None
        stored = self.small.stored()
        for guard in (check for check in result.checks if check.name == "removal_guard"):
            assert all(str(row["document"]).rpartition("-")[2] in stored for row in guard.rows)
        return result.figures.removed, result.figures.removals_blocked


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """A hundred are stored, two hundred never were."""
    rows = Rows(tmp_path)
    rows.put(range(100), "good")
    rows.put(range(100, 300), "")
    rows.small.sync()
    return rows


def test_what_was_never_stored_counts_for_nothing(rows: Rows) -> None:
    """Where the export has it no more; and beside it, the guard counts just what is stored."""
    rows.delete(range(40, 300))
    assert rows.removed(dry_run=True) == (0, 60)
    assert rows.removed() == (0, 60)
    rows.put(range(40, 95), "good")
    assert rows.removed(dry_run=True) == rows.removed() == (205, 0)


def test_what_was_never_stored_hides_nothing(rows: Rows) -> None:
    """Sixty of a hundred are too many, although there are rejected ones as well."""
    rows.delete(range(60))
    assert rows.removed() == (0, 60)


def test_new_ids_make_no_share_larger(tmp_path: Path) -> None:
    """Sixty of two hundred may go, also in the run that stores the others under new ids."""
    rows = Rows(tmp_path)
    rows.put(range(200), "good")
    rows.small.sync()
    rows.delete(range(60))
    rows.entity["type"] = "other"
    assert rows.removed() == (200, 0)


def test_what_is_stored_twice_makes_no_share_smaller(tmp_path: Path) -> None:
    """Seventy of two hundred are too many, also where a run has stored a part of the others under new ids before."""
    rows = Rows(tmp_path)
    rows.put(range(200), "good")
    rows.small.sync()
    rows.entity["type"] = "other"
    rows.small.sync(limit=100)
    rows.delete(range(100, 170))
    assert rows.removed() == (130, 70)


def test_a_dry_run_counts_no_new_ids(tmp_path: Path) -> None:
    """It says what the full run does, of which the guard keeps nothing."""
    rows = Rows(tmp_path)
    rows.put(range(120), "good")
    rows.small.sync()
    rows.entity["type"] = "other"
    assert rows.removed(dry_run=True) == rows.removed() == (120, 0)


def test_ids_go_beside_what_was_never_stored(rows: Rows) -> None:
    """A record that is gone goes by its id, although the rejected ones are gone too."""
    rows.delete(range(99, 300))
    assert rows.removed(mode=None, ids=("99",)) == (1, 0)
    assert len(rows.small.stored()) == 99


def test_ids_go_beside_what_is_kept_under_former_ids(tmp_path: Path) -> None:
    """Of a record that is rejected under its new id the ledger has two rows, and the source one record."""
    rows = Rows(tmp_path)
    rows.put(range(200), "good")
    rows.small.sync()
    rows.put(range(100), "")
    rows.entity["type"] = "other"
    rows.small.sync()
    rows.delete(range(199, 200))
    assert rows.removed(mode=None, ids=("199",)) == (1, 0)


@pytest.mark.parametrize("former", [False, True])
def test_ids_stay_where_the_source_is_broken(rows: Rows, former: bool) -> None:
    """Sixty of a hundred are gone, although the rejected ones are there."""
    if former:
        rows.put(range(10), "")
        rows.entity["type"] = "other"
        rows.small.sync()
    rows.delete(range(20, 80))
    result = rows.small.sync(mode=None, ids=("50",))
    assert (result.figures.removed, result.figures.removals_blocked) == (0, 1)
    [guard] = [check for check in result.checks if check.name == "removal_guard"]
    lacks = "lacks more than 30% of 100 synced documents (it has 240 records), among them 1 asked for by id"
    assert lacks in guard.message


def test_an_id_goes_beside_a_record_that_is_rejected(rows: Rows) -> None:
    """Which is there, and is not the one that is gone."""
    rows.put(range(1, 2), "")
    rows.delete(range(2, 3))
    assert rows.removed(mode=None, ids=("1", "2")) == (1, 0)


@pytest.mark.parametrize("broken", [True, False])
def test_a_repair_counts_like_a_run(rows: Rows, broken: bool) -> None:
    """It removes what is gone, unless the source lacks too much of what is stored."""
    rows.delete(range(20, 80) if broken else range(99, 300))
    with Workspace(rows.small.config) as workspace:
        store = workspace.store_of(NAME, NAME)
        points = [point for page in store.scan(NAME) for point in page]
        lost = [point.point_id for point in points if point.payload["dbId"] in ("50", "99")]
        store.delete_foreign(NAME, lost)
        differences = list(workspace.differences(NAME, NAME))
        if broken:
            with pytest.raises(SourceRejected, match="taken for broken"):
                workspace.repair(NAME, NAME, differences)
        else:
            assert workspace.repair(NAME, NAME, differences).removed == 1
        held = workspace.ledger.tally(NAME, NAME, GLOBAL).held
    assert held == (100 if broken else 99)
