"""Columns of tenancy of every type they have in the field."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import SqlSource
from vecsync_dagster.sources.postgres_notify import CHANNEL, execute, install_statements
from vecsync_dagster_tests.sources.backends import SqlBackend, entity_config, ids, keys, read

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


def owners(source: SqlSource) -> dict[str, list[str]]:
    """The ids of each tenant's rows; all that a source says of tenants agrees with it."""
    found = {tenant: ids(read(source, tenant)) for tenant in source.tenants()}
    counts = {tenant: len(some) for tenant, some in found.items()}
    assert {tenant: source.count(tenant) for tenant in found} == counts
    assert {tenant: look.rows for tenant, look in source.fingerprints().items()} == counts
    assert {tenant: source.fingerprints(tenant)[tenant].rows for tenant in found} == counts
    return found


@pytest.mark.parametrize("declared", ["", "real", "blob", "integer", "text COLLATE NOCASE"])
def test_every_row_of_sqlite_has_one_owner_or_none(sqlite: SqlBackend, declared: str) -> None:
    """SQLite keeps any value in any column: of each, and of floats with all their digits, the rows belong to the one
    tenant that has its text, or they count as nobody's."""
    sqlite.create(tenant_id=declared)
    kept = ["a", "A", "a ", b"b", b"\xff\x00", 0.1 + 0.2, 0.3, 1732690965.123457, 1e22, 7, "07"]
    sqlite.put(*({"id": number, "tenant_id": value} for number, value in enumerate([*kept, None])))
    sqlite.run("INSERT INTO materials (id, tenant_id, is_global) VALUES (90, CAST(X'61FF' AS TEXT), false)")
    source = sqlite.source()
    found = owners(source)
    assert sorted(int(one) for some in found.values() for one in some) == list(range(len(kept)))
    # Where the column has a type, "07" is stored as 7, or 0.1 + 0.2 as the text "0.3".
    assert len(found) == len(kept) - (declared not in ("", "blob"))
    assert source.unassigned() == 2


def test_what_a_collation_takes_for_equal_is_not_one_tenant(postgres: SqlBackend) -> None:
    """A tenant, and an id, is its text: where the column's collation ignores case, nobody gets the rows of another."""
    postgres.run("CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    postgres.run("CREATE DOMAIN firm AS text COLLATE folding")
    for declared in ("text COLLATE folding", "firm", "char(8) COLLATE folding"):
        postgres.run("DROP TABLE IF EXISTS materials")
        postgres.create(tenant_id=declared, id_type="varchar(9) COLLATE folding")
        postgres.put({"id": "x", "tenant_id": "Acme"}, {"id": "X", "tenant_id": "acme"}, {"id": "y", "tenant_id": "b"})
        source = postgres.source()
        assert owners(source) == {"Acme": ["x"], "acme": ["X"], "b": ["y"]}
        assert source.repeated().count == 0
        assert (ids(read(source, "acme", ids=["X"])), read(source, "acme", ids=["x"])) == (["X"], [])
        assert (source.count("ACME"), source.unassigned()) == (0, 0)
        both = postgres.source(id=["tenant_id", "id"])
        assert keys(read(both, "Acme", ids=["Acme/x", "acme/X", "Acme/X"])) == ["Acme/x"]


def test_the_key_of_a_table_that_others_inherit_from_is_not_unique(postgres: SqlBackend) -> None:
    """Its rows are read with theirs, which may have the same ids; of a partitioned table the key holds for all."""
    postgres.create(id_type="integer PRIMARY KEY")
    postgres.run("CREATE TABLE more (PRIMARY KEY (id)) INHERITS (materials)")
    postgres.put({"id": 1, "tenant_id": "a"})
    assert not postgres.source().unique()
    postgres.run("INSERT INTO more (id, tenant_id, is_global) VALUES (1, 'b', false)")
    found = postgres.source().repeated()
    assert (found.count, found.enforced, found.example) == (1, False, "1")
    postgres.run("DROP TABLE materials CASCADE")
    columns = "id integer PRIMARY KEY, name text, unit text, price text, tenant_id text, is_global boolean"
    postgres.run(
        f"CREATE TABLE materials ({columns}, updated_at timestamptz, deleted_at timestamptz) PARTITION BY HASH (id)"
    )
    postgres.run("CREATE TABLE part PARTITION OF materials FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    assert postgres.source().unique()


def test_triggers_tell_of_each_tenant_by_its_text(postgres: SqlBackend, postgres_of_module: str) -> None:
    """A statement that touches two tenants which the collation takes for one wakes both."""
    postgres.run("CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    postgres.create(tenant_id="text COLLATE folding")
    execute(postgres_of_module, install_statements("materials", entity_config(), None, "materials"), "the database")
    with psycopg.connect(postgres_of_module, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        postgres.run("INSERT INTO materials (id, tenant_id) VALUES (1, 'Acme'), (2, 'acme')")
        postgres.run("UPDATE materials SET tenant_id = 'ACME' WHERE id = 1")
        told = [json.loads(one.payload)["tenants"] for one in listener.notifies(timeout=5, stop_after=2)]
    assert list(map(sorted, told)) == [["Acme", "acme"], ["ACME", "Acme"]]


@pytest.mark.parametrize(
    ("declared", "setting", "key"),
    [("date", "datestyle = 'German'", "2026-12-31"), ("bytea", "bytea_output = 'escape'", "\\x6163")],
)
def test_triggers_tell_the_key_that_the_source_reads(
    postgres: SqlBackend, postgres_of_module: str, declared: str, setting: str, key: str
) -> None:
    """Whatever the session's settings are in which an application changes a row."""
    postgres.create(tenant_id=declared)
    execute(postgres_of_module, install_statements("materials", entity_config(), None, "materials"), "the database")
    with psycopg.connect(postgres_of_module, autocommit=True) as db:
        db.execute(f"LISTEN {CHANNEL}")
        db.execute(f"SET {setting}")
        db.execute("INSERT INTO materials (id, tenant_id) VALUES (1, %s)", [key])
        [told] = [json.loads(one.payload)["tenants"] for one in db.notifies(timeout=5, stop_after=1)]
    assert told == [key] == [*postgres.source().tenants()]


def test_the_tenants_column_is_no_array(postgres: SqlBackend) -> None:
    """Of `{acme,brick}` no tenant would be made that nobody has."""
    postgres.create(tenant_id="text[]")
    with pytest.raises(SourceRejected, match=r"text\[\]; a record belongs to one tenant"):
        [*postgres.source().tenants()]
