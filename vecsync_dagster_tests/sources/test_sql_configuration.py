"""A configuration that does not fit the database ends in a message that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.config.models import EnvRef, PostgresSource, SqliteSource
from vecsync_dagster.errors import ConfigError, SourceRejected
from vecsync_dagster.sources import build_source
from vecsync_dagster_tests.sources.backends import SqlBackend, entity_config, ids, read, told


@pytest.mark.parametrize(
    ("wrong", "key", "hint"),
    [
        ({"id": "idd"}, "id", "id"),
        ({"tenancy": {"column": "tenantid"}}, "tenancy.column", "tenant_id"),
        ({"tenancy": {"column": "tenant_id", "global_flag": "isGlobal"}}, "tenancy.global_flag", "is_global"),
        ({"updated_at": "updated"}, "updated_at", "updated_at"),
        ({"deleted_at": "DELETED_AT"}, "deleted_at", "deleted_at"),
        ({"required": ["nam"]}, "required", "name"),
        ({"types": {"prize": "number"}}, "types.prize", "price"),
        ({"collections": {"m": {"text": "{nane}"}}}, "collections.m.text", "name"),
        ({"collections": {"m": {"text": "{name}", "payload": ["untt"]}}}, "collections.m.payload", "unit"),
    ],
)
def test_a_missing_column_is_named(database: SqlBackend, wrong: dict[str, Any], key: str, hint: str) -> None:
    """The message names the key, the table and the column, what was probably meant, and what there is."""
    database.create()
    with pytest.raises(SourceRejected) as caught:
        database.source(**wrong).fields()
    message = str(caught.value)
    assert message.startswith(f"entities.materials.{key}: table materials has no column ")
    assert f"did you mean {hint}" in message
    assert "it has: id, name, unit, price, tenant_id" in message


def test_a_missing_table_is_named(database: SqlBackend) -> None:
    """The message names the table that is missing and those that exist, views among them."""
    database.create()
    database.run("CREATE VIEW live_materials AS SELECT * FROM materials")
    with pytest.raises(
        SourceRejected, match=r"entities\.materials\.table: .*'material', did you mean materials"
    ) as caught:
        database.source(table="material").check()
    assert "there are: live_materials, materials" in str(caught.value)


def test_a_wide_database_does_not_flood_the_message(database: SqlBackend) -> None:
    """Of many tables a message lists some, and says how many more there are."""
    for number in range(40):
        database.run(f"CREATE TABLE t{number:02} (id integer)")
    with pytest.raises(SourceRejected, match=r"t24 and 15 more"):
        database.source().check()


def test_a_view_is_a_table_without_a_key(database: SqlBackend) -> None:
    """A view is read like a table, though it has no primary key."""
    database.create()
    database.put({"id": 2, "name": "x", "tenant_id": "a"}, {"id": 1, "name": "y", "tenant_id": "a"})
    database.run("CREATE VIEW live AS SELECT * FROM materials")
    source = database.source(table="live")
    assert ids(read(source)) == ["1", "2"]
    assert "table live: 8 columns" in source.check()


def test_a_table_of_another_schema(postgres: SqlBackend) -> None:
    """`schema.table` reads that schema, whatever the search path; a dot in a name is no schema."""
    postgres.create()
    postgres.run("CREATE SCHEMA shop")
    postgres.run("CREATE TABLE shop.materials AS SELECT * FROM materials")
    postgres.run("INSERT INTO shop.materials (id, tenant_id) VALUES (7, 'a')")
    postgres.run('CREATE TABLE "shop.odd" AS SELECT * FROM shop.materials')
    assert ids(read(postgres.source(table="shop.materials"))) == ["7"]
    assert ids(read(postgres.source(table="shop.odd"))) == ["7"]
    assert read(postgres.source()) == []
    with pytest.raises(SourceRejected, match="there are in schema shop: materials"):
        postgres.source(table="shop.nothing").check()
    with pytest.raises(SourceRejected, match=r"no table or view 'store\.materials', did you mean materials"):
        postgres.source(table="store.materials").check()


def test_names_are_quoted(database: SqlBackend) -> None:
    """Tables and columns may be called anything: capitals, blanks, quotes, percent signs, keywords."""
    database.run(
        """CREATE TABLE "Select ""x"" 100%s" """
        """("Order" integer, "the %(name)s" text, "group" text, "it's" boolean, "a:b" integer)"""
    )
    database.run("""INSERT INTO "Select ""x"" 100%s" VALUES (1, 'n', 'a', false, 5)""")
    source = database.source(
        table='Select "x" 100%s',
        id="Order",
        tenancy={"column": "group", "global_flag": "it's"},
        updated_at=None,
        deleted_at=None,
        required=["the %(name)s"],
        collections={"m": {"text": "{Order}", "payload": ["a:b"]}},
    )
    (page,) = read(source)
    assert page.records.to_pylist() == [{"Order": 1, "the %(name)s": "n", "a:b": 5, "group": "a", "it's": False}]
    assert source.tenants() == ["a"]


def test_check_says_what_answered(sqlite: SqlBackend, postgres: SqlBackend) -> None:
    """The line of `check` names product, version, table, its width and its id."""
    sqlite.create()
    postgres.create(id_type="uuid")
    assert sqlite.source().check().startswith("SQLite 3.")
    assert sqlite.source().check().endswith(", table materials: 8 columns, id integer")
    assert postgres.source().check().startswith("PostgreSQL 1")
    assert postgres.source().check().endswith(", table materials: 8 columns, id uuid")


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    """A path without a file is an error; nothing is created."""
    config = SqliteSource(type="sqlite", path="no/such.db")
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=tmp_path.joinpath)
    with pytest.raises(SourceRejected, match=r"sources\.db\.path: there is no file .*such\.db"):
        source.check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Another file's content is an error that names the file."""
    (tmp_path / "data.db").write_text("not a database, " * 100)
    config = SqliteSource(type="sqlite", path="data.db")
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=tmp_path.joinpath)
    with pytest.raises(SourceRejected, match=r"data\.db: .*SQLITE_NOTADB"):
        source.check()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_reading_leaves_the_file_as_it_is(sqlite: SqlBackend, tmp_path: Path, mode: str) -> None:
    """A database in either journal mode is readable, also at an odd path, and no byte of it changes."""
    sqlite.run(f"PRAGMA journal_mode = {mode}")
    sqlite.create()
    sqlite.put({"id": 1, "tenant_id": "a"})
    folder = tmp_path / "100% odd?#name"
    folder.mkdir()
    file = (tmp_path / "data.db").rename(folder / "data.db")
    before = file.read_bytes()
    config = SqliteSource(type="sqlite", path="data.db")
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=folder.joinpath)
    assert ids(read(source)) == ["1"]
    source.close()
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/d", "hunter2", "postgresql://u:hunter2@h:hunter2/d", "postgresql://u:p@hunter2:x@h/d"]
)
def test_a_url_that_is_none_is_refused_without_its_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The message names the key and the form of a URL, and quotes nothing of the one that is wrong."""
    monkeypatch.setenv("TEST_DATABASE", url)
    config = PostgresSource(type="postgres", url=EnvRef(env="TEST_DATABASE"))
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=Path)
    with pytest.raises(ConfigError, match=r"sources\.db\.url: .*postgresql://user:password@host") as caught:
        source.check()
    assert "hunter2" not in told(caught.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source can be built before its environment is complete; using it names key and variable."""
    monkeypatch.delenv("TEST_DATABASE", raising=False)
    config = PostgresSource(type="postgres", url=EnvRef(env="TEST_DATABASE"))
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=Path)
    with pytest.raises(ConfigError, match=r"sources\.db\.url: .*TEST_DATABASE"):
        source.check()
