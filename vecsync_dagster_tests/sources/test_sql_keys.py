"""Ids of any SQL type: the text of each finds its row again, and no other."""

from __future__ import annotations

import pytest

from vecsync_dagster.sources.base import is_certain
from vecsync_dagster_tests.keys import texts_of
from vecsync_dagster_tests.sources.backends import SqlBackend, read, values

POSTGRES = {
    "numeric(10,2)": ["1.50", "7.00"],
    "numeric": ["9007199254740993", "9007199254740993.10", "0.0000001"],
    "timestamp": ["2024-01-01 00:00:00", "2024-01-01 00:00:00.5"],
    "timestamptz": ["2024-01-01 00:00:00+02", "2024-07-01 00:00:00.25+00"],
    "date": ["2024-01-01", "2024-12-31"],
    "bytea": ["\\x01ff", "\\x616263"],
    "char(6)": ["ab", "abc"],
    "double precision": ["1.5", "1e20", "7"],
    "uuid": ["00000000-0000-0000-0000-000000000007"],
    "boolean": ["true", "false"],
    "text": ["a/b", "~", "7", "07"],
    "interval": ["1 day 02:00:00"],
}


@pytest.mark.parametrize("kind", POSTGRES)
def test_postgres_finds_a_row_by_the_text_of_its_id(postgres: SqlBackend, kind: str) -> None:
    """Whatever the type of the id, each row is found by the text that it has in a record, alone and in a compound."""
    postgres.create(id_type=kind)
    for number, value in enumerate(POSTGRES[kind]):
        postgres.run(
            f"INSERT INTO materials (id, name, tenant_id, is_global) VALUES ('{value}', 'n{number}', 'a', false)"
        )
    _found_again(postgres, len(POSTGRES[kind]))


@pytest.mark.parametrize("kind", ["blob", "text", "integer", "real", ""])
def test_sqlite_finds_a_row_by_the_text_of_its_id(sqlite: SqlBackend, kind: str) -> None:
    """SQLite keeps any value in any column: bytes that are text and bytes that are none, numbers and texts."""
    sqlite.create(id_type=kind)
    ids = [b"abc", bytes(range(200, 216)), "text", 7, 1.5, 1e20]
    if kind != "text":  # it would store them as texts of 15 digits
        ids += [0.1 + 0.2, 0.3, 1732690965.123457, 1732690965.1234571]
    for number, value in enumerate(ids):
        sqlite.run("INSERT INTO materials (id, name, tenant_id, is_global) VALUES (?, ?, 'a', 0)", value, f"n{number}")
    _found_again(sqlite, len(ids))


def _found_again(backend: SqlBackend, rows: int) -> None:
    for key in (["id"], ["tenant_id", "id"]):
        source = backend.source(id=key)
        every = read(source)
        texts = texts_of(every, key)
        assert len(set(texts)) == rows
        for text, name in zip(texts, values(every, "name"), strict=True):
            assert values(read(source, ids=[text]), "name") == [name]
            assert is_certain(source, text)
