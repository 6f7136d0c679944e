"""The demo's folder: an SQLite database made of the CSV files beside this module, and a configuration.

Three made-up firms use the same estimating program, each in its language. All of them see the global
records (Russian); nobody sees another firm's own. Four records are wrong on purpose, to be rejected: a
name and a unit are missing, and two prices are words. Some prices are text such as "1 234,50".
"""

from __future__ import annotations

import csv
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from vecsync_dagster.errors import OutputUnwritable

__all__ = ["CONFIG", "DATABASE", "SEARCHES", "TENANTS", "ExampleSearch", "write_demo"]

CONFIG: Final = "vecsync.yaml"
DATABASE: Final = "estimating.sqlite"

# Ids in the form of a UUID (version 4) that nobody can take for a real one.
_HOUSES: Final = "11111111-1111-4111-8111-111111111111"
_FACADES: Final = "22222222-2222-4222-8222-222222222222"
_FIT_OUT: Final = "33333333-3333-4333-8333-333333333333"

TENANTS: Final[dict[str, str]] = {
    "Северный дом": _HOUSES,  # builds wooden houses; records in Russian
    "Morava Fasády": _FACADES,  # renovates facades; records in Czech
    "Harbour Fit-Out": _FIT_OUT,  # fits out offices; records in English
}
"""Each tenant's name and id."""


@dataclass(frozen=True, slots=True)
class ExampleSearch:
    """A search worth showing. `tenant` is an id of `TENANTS`; `why` says what to look for in the answer."""

    tenant: str
    collection: str
    text: str
    why: str


_PAINT: Final = "silicone facade paint, contract price"

SEARCHES: Final[tuple[ExampleSearch, ...]] = (
    ExampleSearch(
        _HOUSES,
        "materials",
        "tepelná izolace stěn",
        "a Czech question (thermal insulation of walls) finds Russian records: the meaning counts, not the words",
    ),
    ExampleSearch(
        _HOUSES,
        "materials",
        _PAINT,
        "the firm's own paint comes first, then the global ones",
    ),
    ExampleSearch(
        _FACADES,
        "materials",
        _PAINT,
        "the same question asked by another firm finds that firm's paint, and never the first one's",
    ),
)
"""The last two are one question asked by two tenants: they show that tenants are kept apart."""

# No type for times but TEXT: all are ISO 8601 in UTC, so that their order as text is their order in time.
# A price is NUMERIC, which keeps "1 234,50" as the text it is.
_SCHEMA: Final = """
CREATE TABLE firms (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE materials (
    id INTEGER PRIMARY KEY, sku TEXT, name TEXT, unit TEXT, price NUMERIC, supplier TEXT,
    category TEXT, category_full_path TEXT, tenant_id TEXT, is_global INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, deleted_at TEXT
);
CREATE INDEX materials_tenant ON materials (tenant_id, is_global);
CREATE INDEX materials_updated ON materials (updated_at);
CREATE TABLE works (
    id INTEGER PRIMARY KEY, code TEXT, name TEXT, unit TEXT, base_price NUMERIC, phase TEXT,
    section TEXT, category TEXT, tenant_id TEXT, is_global INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, deleted_at TEXT
);
CREATE INDEX works_tenant ON works (tenant_id, is_global);
CREATE INDEX works_updated ON works (updated_at);
"""
_INSERTS: Final = {
    "materials.csv": """
        INSERT INTO materials VALUES (
            :id, :sku, :name, :unit, :price, :supplier, :category, :category_full_path, :tenant_id,
            :is_global = 'true', :created_at, :updated_at, :deleted_at
        )""",
    "works.csv": """
        INSERT INTO works VALUES (
            :id, :code, :name, :unit, :base_price, :phase, :section, :category, :tenant_id,
            :is_global = 'true', :created_at, :updated_at, :deleted_at
        )""",
}


def write_demo(folder: Path) -> Path:
    """Make the demo's folder and return the path of its configuration.

    A database or configuration that is there already is left as it is, so that a second demo finds
    nothing changed. Each file appears complete or not at all. Raises OutputUnwritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / DATABASE, _write_database)
        _put(folder / CONFIG, _write_config)
    except (OSError, sqlite3.OperationalError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputUnwritable(f"{folder}: the demo cannot be written here: {reason}", folder=str(folder)) from error
    return folder / CONFIG


def _put(target: Path, write: Callable[[Path], None]) -> None:
    if target.is_file():
        return
    # A folder, because SQLite puts its journal beside the database; in the target's folder, because
    # a file can only be moved in one step within one file system.
    with tempfile.TemporaryDirectory(prefix=".vecsync-", dir=target.parent) as temporary:
        draft = Path(temporary) / target.name
        write(draft)
        draft.replace(target)


def _write_config(path: Path) -> None:
    path.write_bytes(_sample(CONFIG))


def _write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO firms (name, id) VALUES (?, ?)", TENANTS.items())
        for name, insert in _INSERTS.items():
            connection.executemany(insert, _rows(name))


def _rows(name: str) -> list[dict[str, str | None]]:
    """A CSV file's rows; an empty field is None, as a database would have it."""
    lines = _sample(name).decode().splitlines()
    return [{column: value or None for column, value in row.items()} for row in csv.DictReader(lines)]


def _sample(name: str) -> bytes:
    return files("vecsync_dagster.demo").joinpath(name).read_bytes()
