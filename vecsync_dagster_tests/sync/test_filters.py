"""A filter that lets nothing through where there are records is never silent."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.small import NAME, Small, sqlite_source


def small(folder: Path, allowed: str, rows: int = 2, tenancy: dict[str, str] | None = None) -> Small:
    with sqlite3.connect(folder / "s.db") as db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, state TEXT, firm TEXT)")
        db.executemany("INSERT INTO things VALUES (?, 'a', 'open', 'acme')", [(n,) for n in range(rows)])
    return Small(folder, sqlite_source(folder / "s.db"), filter={"state": allowed}, tenancy=tenancy)


def test_a_filter_that_lets_nothing_through_is_said(tmp_path: Path) -> None:
    """The run's result names the setting."""
    assert small(tmp_path, "opne").sync().note == "entities.things.filter lets no record through, and there are some"


@pytest.mark.parametrize(("allowed", "rows"), [("open", 2), ("opne", 0)])
def test_a_filter_that_is_right_is_not_said(tmp_path: Path, allowed: str, rows: int) -> None:
    """Nor is one of a table without records."""
    assert small(tmp_path, allowed, rows).sync().note == ""


def test_tenants_without_a_record_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the filter leaves no tenant, there is no run to say it."""
    with (
        Workspace(small(tmp_path, "opne", tenancy={"column": "firm"}).config) as workspace,
        caplog.at_level(logging.WARNING),
    ):
        assert workspace.tenants(NAME) == []
    assert "entities.things.filter lets no record of any tenant through, and there are some" in caplog.text
