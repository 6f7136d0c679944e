"""A list in another order is the same text, and another payload."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.documents import builder, hashing
from vecsync_dagster_tests.small import Small, sqlite_source


@pytest.fixture
def sites(tmp_path: Path) -> Small:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, place JSON, tags JSON, updated INTEGER)")
        db.executemany(
            "INSERT INTO things VALUES (?, ?, ?, ?, 1700000000 - 1000000 * ?)",
            [(1, "depot", "[50.1, 14.4]", '["b", "a"]', 1), (2, "yard", "[14.4, 50.1]", "[]", 2)],
        )
    source = sqlite_source(tmp_path / "s.db")
    return Small(tmp_path, source, text="{name} {tags}", payload=("place",), updated_at="updated", overlap=0)


def change(sites: Small, row: int = 1, **values: Any) -> None:
    """Of row 1 with a new time, of row 2 which is older, with its old one."""
    with sqlite3.connect(sites.folder / "s.db") as db:
        for name, value in values.items():
            db.execute(f"UPDATE things SET {name} = ?, updated = updated + 60 * (id = 1) WHERE id = ?", [value, row])


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_another_order_in_a_payload_is_written(sites: Small, mode: str) -> None:
    """Swapped coordinates are a payload write, with nothing embedded; a second run finds nothing to do."""
    sites.sync()
    change(sites, place="[14.4, 50.1]")
    figures = sites.sync(mode=mode).figures
    assert (figures.payload_only, figures.changed, figures.embedded) == (1, 0, 0)
    assert sites.stored()["1"]["place"] == [14.4, 50.1]
    assert sites.sync(mode=mode).figures.payload_only == 0


def test_another_order_in_a_text_is_no_change(sites: Small) -> None:
    """A list that is in the text alone may come in any order."""
    sites.sync()
    change(sites, tags='["a", "b"]')
    figures = sites.sync().figures
    assert (figures.payload_only, figures.changed, figures.unchanged) == (0, 0, 2)


def test_the_first_runs_after_an_earlier_version(sites: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version hashed without its order is no drift; where its order is not the one that was hashed, the
    next full run writes its payload once, and embeds nothing."""
    with monkeypatch.context() as earlier:
        earlier.setattr(hashing, "_REVISION", b"1")
        earlier.setattr(builder, "payload_hash", sorted_hash)
        change(sites, place="[14.4, 50.1]", row=2)
        sites.sync()
        change(sites, place="[50.1, 14.4]", row=2)
        assert sites.sync().figures.unchanged == 2
    change(sites, name="store", row=1)
    sites.data["sync"] = {"verify": "identity"}
    run = sites.sync(mode="incremental")
    assert run.figures.fetched == 1
    assert [outcome.name for outcome in run.checks if not outcome.passed] == []
    figures = sites.sync().figures
    assert (figures.payload_only, figures.changed, figures.embedded) == (1, 0, 0)
    assert sites.stored()["2"]["place"] == [50.1, 14.4]
    assert sites.sync().figures.unchanged == 2


def sorted_hash(payload: dict[str, Any]) -> str:
    """As it was before."""
    lists = {key: sorted(value) for key, value in payload.items() if isinstance(value, list)}
    return hashing.payload_hash({**payload, **lists})
