"""The sample records as the demo's database holds them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.demo import DATABASE, write_demo

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's folder; tests only read it."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


@pytest.fixture(scope="session")
def tables(demo: Path) -> dict[str, Rows]:
    return {name: read_table(demo / DATABASE, name) for name in ("materials", "works")}


def read_table(database: Path, name: str) -> Rows:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY id")]
