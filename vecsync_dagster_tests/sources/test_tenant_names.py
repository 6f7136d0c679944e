"""What people call a tenant: read from the same table or another one, of every kind of source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import event

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import mongo, mongo_queries, sql, sql_tenant_names
from vecsync_dagster.sources.base import NamesTenants
from vecsync_dagster.sources.tenant_names import readable
from vecsync_dagster_tests.sources.backends import Backend, SqlBackend, read
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

A, B = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "7ba7b810-9dad-11d1-80b4-00c04fd430c8"
FIRMS = {"table": "Firms", "id": "key", "column": "Full name"}


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def backend(request: pytest.FixtureRequest) -> SqlBackend | MongoBackend:
    """Each kind of source, one after the other."""
    found: SqlBackend | MongoBackend = request.getfixturevalue(request.param)
    return found


def tenancy(name: Any) -> dict[str, Any]:
    return {"tenancy": {"column": "tenant_id", "global_flag": "is_global", "name": name}}


def names(backend: Backend, name: Any, *tenants: str) -> dict[str, str]:
    source = backend.source(**tenancy(name))
    assert isinstance(source, NamesTenants)
    return source.tenant_names(tenants)


def put_firms(backend: SqlBackend | MongoBackend, *rows: Mapping[str, Any]) -> None:
    if isinstance(backend, MongoBackend):
        backend.client[backend.database]["Firms"].insert_many([dict(row) for row in rows])
        return
    backend.run('CREATE TABLE "Firms" ("key" varchar(40), "Full name" text)')
    mark = backend.placeholder
    for row in rows:
        backend.run(f'INSERT INTO "Firms" VALUES ({mark}, {mark})', row["key"], row["Full name"])


def test_the_names_of_a_column(backend: SqlBackend | MongoBackend) -> None:
    """Of live rows of one tenant the text that sorts last; nothing of rows that are everybody's, nobody's or deleted,
    nor of tenants that are not asked for."""
    backend.create()
    backend.put(
        {"id": 1, "tenant_id": "a", "unit": "Hoffmann"},
        {"id": 2, "tenant_id": "a", "unit": "Hoffmann Bau"},
        {"id": 3, "tenant_id": "a", "unit": None},
        {"id": 4, "tenant_id": "b", "unit": "  "},
        {"id": 5, "tenant_id": "c", "unit": None},
        {"id": 6, "tenant_id": "a", "unit": "Z", "is_global": True},
        {"id": 7, "tenant_id": None, "unit": "Z"},
        {"id": 8, "tenant_id": "a", "unit": "Z", "deleted_at": "2024-05-01 10:00:00+00:00"},
        {"id": 9, "tenant_id": "d", "unit": "Dora"},
    )
    assert names(backend, "unit", "a", "b", "c") == {"a": "Hoffmann Bau"}


@pytest.mark.parametrize("few", [100, 1], ids=["looked up", "read"])
def test_a_few_tenants_are_looked_up(
    backend: SqlBackend | MongoBackend, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names of a few tenants are wanted, no rows but theirs are read, and found is the same."""
    for module in (sql_tenant_names, mongo_queries):
        monkeypatch.setattr(module, "FEW", few)
    backend.create()
    backend.put(*({"id": n, "tenant_id": f"t{n % 5}", "unit": f"Firm {n}"} for n in range(10)))
    assert names(backend, "unit", "t1", "t3") == {"t1": "Firm 6", "t3": "Firm 8"}

    def all_of(rows: Iterable[tuple[str, str]], wanted: object) -> dict[str, str]:
        return dict(rows)

    for module in (sql, mongo):
        monkeypatch.setattr(module, "greatest", all_of)
    assert sorted(names(backend, "unit", "t1", "t3")) == (
        ["t1", "t3"] if few == 100 else ["t0", "t1", "t2", "t3", "t4"]
    )


def test_the_names_of_another_table(backend: SqlBackend | MongoBackend) -> None:
    """Its rows are found by the tenant's id, whatever else it has; of two rows of one tenant the last in order counts,
    and two tenants may have one name."""
    backend.create()
    backend.put({"id": 1, "tenant_id": A}, {"id": 2, "tenant_id": B})
    rows = [(A, "Hoffmann"), (A, "Hoffmann Bau"), (B, "Hoffmann Bau"), ("x", "Other"), (None, "Nobody")]
    put_firms(backend, *({"key": key, "Full name": name} for key, name in rows))
    assert names(backend, FIRMS, A, B) == {A: "Hoffmann Bau", B: "Hoffmann Bau"}


def test_a_name_is_one_short_line(backend: SqlBackend | MongoBackend) -> None:
    """Control characters go, also those that turn a line round; a name of more than 60 characters is cut."""
    backend.create()
    backend.put(
        {"id": 1, "tenant_id": "a", "unit": "Hoffmann\n\x1b[31mBau\u202e\t GmbH"},
        {"id": 2, "tenant_id": "b", "unit": "x" * 100_000},
        {"id": 3, "tenant_id": "c", "unit": "x" * 60},
    )
    found = names(backend, "unit", "a", "b", "c")
    assert found == {"a": "Hoffmann [31mBau GmbH", "b": "x" * 59 + "…", "c": "x" * 60}
    assert readable(found["b"]) == found["b"]


def test_a_name_is_no_field_of_a_record(backend: SqlBackend | MongoBackend) -> None:
    """The records of an entity with names are those that it has without."""
    backend.create()
    backend.put({"id": 1, "tenant_id": "a", "unit": "m", "name": "Brick"})
    plain, named = backend.source(collections=COLLECTIONS), backend.source(**tenancy("unit"), collections=COLLECTIONS)
    assert named.fields() == plain.fields()
    assert [page.records for page in read(named)] == [page.records for page in read(plain)]


COLLECTIONS = {"materials": {"text": "{name}"}}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Firm", "tenancy.name: table materials has no column 'Firm'"),
        ({"table": "Farms"}, "tenancy.name.table: there is no table or view 'Farms', did you mean Firms?"),
        ({"table": "Firms", "column": "Full name"}, "tenancy.name.id: table Firms has no column 'id'"),
        ({"table": "Firms", "id": "key"}, "tenancy.name.column: table Firms has no column 'name', did you mean Full"),
    ],
    ids=["column", "table", "table's id", "table's column"],
)
def test_what_is_not_there_is_named(database: SqlBackend, name: Any, told: str) -> None:
    """A table or column of names that is missing is an error of its own, also where SQLite would take it for a text;
    the records are read all the same."""
    database.create()
    database.put({"id": 1, "tenant_id": "a"})
    put_firms(database)
    with pytest.raises(SourceRejected, match=told.replace("?", r"\?")):
        names(database, name, "a")
    assert len(read(database.source(**tenancy(name)))) == 1


def test_a_collection_of_names_that_is_not_there(mongo: MongoBackend) -> None:
    """MongoDB has no error for it: it is looked up, and named."""
    mongo.create()
    mongo.put({"id": 1, "tenant_id": "a"})
    with pytest.raises(SourceRejected, match=r"tenancy\.name\.table: .* has no collection 'Firms'"):
        names(mongo, FIRMS, "a")


def test_names_inside_documents(mongo: MongoBackend) -> None:
    """A path goes into objects, a field of that very name counts instead; a number is its text, an object no name."""
    mongo.create()
    mongo.put(
        {"id": 1, "tenant_id": "a", "firm": {"title": "Hoffmann Bau"}},
        {"id": 2, "tenant_id": "b", "firm.title": "Morava"},
        {"id": 3, "tenant_id": 7, "firm": {"title": 42}},
        {"id": 4, "tenant_id": "d", "firm": {"title": {"de": "Dora"}}},
    )
    assert names(mongo, "firm.title", "a", "b", "7", "d") == {"a": "Hoffmann Bau", "b": "Morava", "7": "42"}
    firms = mongo.client[mongo.database]["firms"]
    firms.insert_many([{"_id": "a", "firm": {"title": "Hoffmann"}}, {"_id": 7, "firm": {"title": ["x", "y"]}}])
    assert names(mongo, {"table": "firms", "id": "_id", "column": "firm.title"}, "a", "7") == {"a": "Hoffmann"}


def test_one_query_however_many_tenants(sqlite: SqlBackend) -> None:
    """3,000 tenants cost as many statements as one."""
    sqlite.create()
    statements: list[str] = []

    def asked(count: int) -> int:
        source = sqlite.source(**tenancy("unit"))
        event.listen(source._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
        statements.clear()
        assert len(source.tenant_names([f"t{number}" for number in range(3000)])) == count
        return len(statements)

    sqlite.put({"id": 0, "tenant_id": "t0", "unit": "Firm 0"})
    before = asked(1)
    sqlite.put(*({"id": n, "tenant_id": f"t{n}", "unit": f"Firm {n}"} for n in range(1, 3000)))
    assert asked(3000) == before
