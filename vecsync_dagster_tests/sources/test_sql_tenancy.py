"""Columns of tenancy of every type they have in the field."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster_tests.sources.backends import SqlBackend, ids, read

ONE, TWO = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "7ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.mark.parametrize(
    ("declared", "one", "two", "foreign"),
    [
        ("uuid", ONE, TWO, ["x", "7", ONE.upper(), ONE.replace("-", ""), f"{{{ONE}}}"]),
        ("integer", "7", "-8", ["x", "07", " 7", "7.0", "99999999999", str(2**63), "٧", ONE]),
        ("bigint", "9999999999", "0", ["x", "-0", "00", str(2**200)]),
        ("text", "7", "seven", ["07", "Seven"]),
        ("varchar(40)", "a", "A", ["a ", "ä"]),
        ("char(8)", "a", "b", ["a ", "B"]),
    ],
)
def test_a_tenants_key_is_the_text_of_its_column(
    database: SqlBackend, declared: str, one: str, two: str, foreign: list[str]
) -> None:
    """Keys find their rows in a column of any type; what is not exactly the value's text finds nothing."""
    database.create(tenant_id=declared)
    database.put(
        {"id": 1, "tenant_id": one}, {"id": 2, "tenant_id": two}, {"id": 3, "tenant_id": one, "is_global": True}
    )
    source = database.source()
    assert source.tenants() == sorted([one, two])
    assert (ids(read(source, one)), ids(read(source, two)), ids(read(source, "global"))) == (["1"], ["2"], ["3"])
    assert [source.count(key) for key in foreign] == [0] * len(foreign)


@pytest.mark.parametrize("declared", ["text", "integer", "varchar(5)"])
def test_a_flag_may_be_a_number_or_text(database: SqlBackend, declared: str) -> None:
    """1, t and true set a flag that is no boolean; 0, f, null and anything else do not."""
    set_, unset = ["1"], ["0", "2", None]
    if declared != "integer":
        set_, unset = ["1", "t", "true", "TRUE"], ["0", "f", "false", "", "2", None]
    database.create(is_global=declared)
    rows: list[dict[str, Any]] = [{"tenant_id": "a", "is_global": flag} for flag in [*set_, *unset]]
    database.put(*({"id": number, **row} for number, row in enumerate(rows)))
    source = database.source()
    assert source.count("global") == len(set_)
    assert source.count("a") == len(unset)
    assert ids(read(source, "global")) == [str(number) for number in range(len(set_))]


@pytest.mark.parametrize("flag", [1, 1.0, "1", "t", "true", True])
def test_a_boolean_of_sqlite_may_be_anything(sqlite: SqlBackend, flag: Any) -> None:
    """SQLite has no booleans: whatever an application stores for true is true."""
    sqlite.create()
    sqlite.put({"id": 1, "tenant_id": "a", "is_global": flag}, {"id": 2, "tenant_id": "a", "is_global": 0})
    source = sqlite.source()
    assert (ids(read(source, "global")), ids(read(source, "a"))) == (["1"], ["2"])


def test_cases_of_a_tenant_stay_apart_in_sqlite(sqlite: SqlBackend) -> None:
    """A column that ignores case does not mix two tenants whose keys differ in case."""
    sqlite.create(tenant_id="text COLLATE NOCASE")
    sqlite.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "A"})
    source = sqlite.source()
    assert source.tenants() == ["A", "a"]
    assert (ids(read(source, "a")), ids(read(source, "A"))) == (["1"], ["2"])


def test_a_column_without_a_type_holds_tenants_too(sqlite: SqlBackend) -> None:
    """Numbers and texts of an untyped column of SQLite are found by their text."""
    sqlite.create(tenant_id="")
    sqlite.put({"id": 1, "tenant_id": 7}, {"id": 2, "tenant_id": "7x"})
    source = sqlite.source()
    assert source.tenants() == ["7", "7x"]
    assert (ids(read(source, "7")), ids(read(source, "7x"))) == (["1"], ["2"])
