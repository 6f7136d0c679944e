"""Values come into the store as they are in the source, and a change of any digit is one."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bson import Decimal128
from pymongo import MongoClient

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.small import NAME, Small, sqlite_source

Put = Callable[[Any], object]
"""Sets the field `v` of the one record."""
LONG = "0.12345678901234567890"


@pytest.fixture
def database(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOURCE_URL", postgres_database)
    return postgres_database


def in_columns(db: psycopg.Connection[Any], folder: Path, values: Sequence[tuple[str, str]]) -> Small:
    """One record with a column for each value of a declared type: v0, v1, ..."""
    names = [f"v{number}" for number in range(len(values))]
    columns = ", ".join(f"{name} {declared}" for name, (declared, _) in zip(names, values, strict=True))
    db.execute(f"CREATE TABLE public.things (id int PRIMARY KEY, name text, {columns})")
    given = ", ".join(f"'{value}'::{declared}" for declared, value in values)
    db.execute(f"INSERT INTO public.things VALUES (1, 'n', {given})")
    source = {"type": "postgres", "url": {"env": "SOURCE_URL"}}
    text = " ".join(f"{{{name}}}" for name in ("name", *names))
    return Small(folder, source, text=text, payload=tuple(names), table="public.things")


def in_payload(small: Small) -> list[Any]:
    """What is stored of those columns."""
    stored, [collection] = small.stored()["1"], small.config.entities[NAME].collections.values()
    return [stored[name] for name in collection.payload]


@contextmanager
def in_postgres(folder: Path, url: str, declared: str) -> Iterator[tuple[Small, Put]]:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"CREATE TABLE things (id int PRIMARY KEY, name text, v {declared})")
        db.execute("INSERT INTO things VALUES (1, 'n')")
        source = {"type": "postgres", "url": {"env": "SOURCE_URL"}}
        yield (
            Small(folder, source, text="{name} {v}", payload=("v",)),
            lambda value: db.execute(f"UPDATE things SET v = '{value}'::{declared}"),
        )


@pytest.mark.parametrize(
    ("declared", "first", "second", "stored"),
    [
        ("numeric(20,0)", "9007199254740993", "9007199254740992", 2**53 + 1),
        ("numeric", LONG, "0.12345678901234567891", "0.1234567890123456789"),
        ("numeric", "123456789012345678901", "123456789012345678902", "123456789012345678901"),
        ("numeric", "1e400", "2e400", "1E+400"),
        ("numeric[]", "{9007199254740993,1.50,NULL}", "{9007199254740992,1.50,NULL}", [2**53 + 1, 1.5, None]),
        ("jsonb", f'{{"a": [{LONG}, 9007199254740993.5]}}', '{"a": 1}', {"a": [LONG[:-1], "9007199254740993.5"]}),
        ("jsonb", "12345678901234567890123", "12345678901234567890124", "12345678901234567890123"),
    ],
)
def test_numbers_of_postgres(
    tmp_path: Path, database: str, declared: str, first: str, second: str, stored: Any
) -> None:
    """The hash is of the exact value, and the payload holds it: a number if that can, else its digits."""
    with in_postgres(tmp_path, database, declared) as (small, put):
        put(first)
        assert small.sync().figures.new == 1
        assert small.stored()["1"]["v"] == stored
        assert small.sync().figures.unchanged == 1
        put(second)
        assert small.sync().figures.changed == 1


def test_zeros_at_the_end_are_no_change(tmp_path: Path, database: str) -> None:
    """1.50 and 1.5 are one number, however many digits there are."""
    with in_postgres(tmp_path, database, "numeric") as (small, put):
        for first, second in (("1.50", "1.5"), (LONG, LONG[:-1]), ("7", "7.000")):
            put(first)
            small.sync()
            put(second)
            figures = small.sync().figures
            assert (figures.unchanged, figures.payload_only) == (1, 0)


UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
ARRAYS = [
    ("stage[]", "{live,draft}", ["live", "draft"]),
    ("tag[]", "{ax,by}", ["ax", "by"]),
    ("tags", "{ax,by}", ["ax", "by"]),
    ("uuid[]", f"{{{UUID}}}", [UUID]),
    ("boolean[]", "{t,f,NULL}", [True, False, None]),
    ("citext[]", "{Q}", ["Q"]),
    ("jsonb[]", '{"{\\"k\\": 1}"}', [{"k": 1}]),
    ("date[]", "{2024-05-01}", ["2024-05-01"]),
    ("timestamp[]", "{2024-05-01 10:00}", ["2024-05-01T10:00:00"]),
    ("timestamptz[]", "{2024-05-01 10:00+00}", ["2024-05-01T10:00:00+00:00"]),
    ("interval[]", "{1 day 02:00}", ["1 day 02:00:00"]),
    ("bytea[]", '{"\\\\x01ff"}', ["\\x01ff"]),
    ("char(2)[]", "{a,bc}", ["a", "bc"]),
    ("varchar(3)[]", '{a,NULL,"b,c"}', ["a", None, "b,c"]),
    ("int4range[]", '{"[1,3)"}', ["[1,3)"]),
    ("inet[]", "{10.0.0.1}", ["10.0.0.1"]),
    ("pair[]", '{"(1,a)"}', [{"x": 1, "y": "a"}]),
    ("int[]", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
    ("float8[]", "{{1.5},{2}}", [[1.5], [2]]),
    ("tag[]", "{{ax},{by}}", [["ax"], ["by"]]),
    ("uuid[]", "{}", []),
]


def test_arrays_are_lists(tmp_path: Path, database: str) -> None:
    """An array of any type, of a domain too, is the list of its elements, at any depth."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute(
            "CREATE DOMAIN tag AS text; CREATE DOMAIN tags AS text[]; CREATE TYPE stage AS ENUM ('draft', 'live')"
        )
        db.execute("CREATE EXTENSION IF NOT EXISTS citext; CREATE TYPE pair AS (x int, y text)")
        small = in_columns(db, tmp_path, [(declared, given) for declared, given, _ in ARRAYS])
    assert small.sync().error is None
    assert in_payload(small) == [wanted for _, _, wanted in ARRAYS]


SETTABLE = [
    ("interval", "1 day 02:00"),
    ("tstzrange", "[2024-05-01 10:00+00,)"),
    ("bytea", "\\x01ff"),
    ("money", "12.5"),
    ("double precision", "0.1234567890123456"),
    ("real[]", "{0.12345678}"),
    ("timestamptz[]", "{2024-05-01 10:00+00}"),
    ("daterange", "[2024-05-01,)"),
    ("timestamptz", "2024-05-01 10:00+00"),
    ("regclass", "pg_class"),
    ("xml", "<a/>"),
]


def test_settings_of_a_role_change_no_value(tmp_path: Path, database: str) -> None:
    """How a session shows values is up to us, whatever the role's or the database's settings are."""
    settings = {
        "intervalstyle": "iso_8601",
        "bytea_output": "escape",
        "extra_float_digits": "-10",
        "timezone": "Asia/Tokyo",
        "datestyle": "SQL, DMY",
        "quote_all_identifiers": "on",
        "xmlbinary": "hex",
    }
    with psycopg.connect(database, autocommit=True) as db:
        small = in_columns(db, tmp_path, SETTABLE)
        small.sync()
        before = in_payload(small)
        [name] = db.execute("SELECT quote_ident(current_database())").fetchone() or ()
        for setting, value in settings.items():
            db.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    figures = small.sync().figures
    assert (figures.unchanged, in_payload(small)) == (1, before)


OBJECTS: list[tuple[str, str, Any]] = [
    ("regclass", "others", "public.others"),
    ("regtype", "mood", "public.mood"),
    ("regprocedure", "twice(integer)", "public.twice(integer)"),
    ("regnamespace", "elsewhere", "elsewhere"),
    ("regclass", "-", "-"),
    ("regclass[]", "{others,-,NULL,99999,others}", ["public.others", "-", None, "99999", "public.others"]),
    ("regclass[]", "{{others},{-}}", [["public.others"], ["-"]]),
    ("regclass[]", "{}", []),
    ("regtype[]", "{mood}", ["public.mood"]),
    ("relation", "others", "public.others"),
    ("relation[]", "{others}", ["public.others"]),
    ("relations", "{others}", ["public.others"]),
]


def test_names_of_objects_have_their_schema(tmp_path: Path, database: str) -> None:
    """Whether a role's search_path has it or not; of an object that was dropped the number stays."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE DOMAIN relation AS regclass; CREATE DOMAIN relations AS regclass[]")
        db.execute("CREATE TABLE others ()")
        db.execute("CREATE TYPE mood AS ENUM ('well')")
        db.execute("CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * $1'")
        db.execute("CREATE SCHEMA elsewhere")
        small = in_columns(db, tmp_path, [(declared, value) for declared, value, _ in OBJECTS])
        small.sync()
        assert in_payload(small) == [stored for _, _, stored in OBJECTS]
        [name] = db.execute("SELECT quote_ident(current_database())").fetchone() or ()
        db.execute(f"ALTER DATABASE {name} SET search_path = elsewhere")
        assert small.sync().figures.unchanged == 1
        db.execute("DROP TABLE public.others")
        small.sync()
        for (_, value, _), stored in zip(OBJECTS, in_payload(small), strict=True):
            assert str(stored).strip("[']").isdigit() is (value.strip("{}") == "others"), value


@pytest.mark.parametrize("declared", ["regclass", "relation", "relation[]", "deep", "deep[]"])
@pytest.mark.parametrize("key", [{"id": "v"}, {"tenancy": {"column": "v"}}])
def test_names_of_objects_are_no_keys(tmp_path: Path, database: str, declared: str, key: dict[str, Any]) -> None:
    """Whatever they are called: their text follows the session."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE DOMAIN relation AS regclass; CREATE TYPE one AS (x int, y relation[])")
        db.execute("CREATE TYPE deep AS (a text, b one)")
        db.execute(f"CREATE TABLE things (id int, name text, v {declared})")
    small = Small(tmp_path, {"type": "postgres", "url": {"env": "SOURCE_URL"}}, **key)
    with Workspace(small.config) as workspace, pytest.raises(SourceRejected, match="depends on the session"):
        workspace.source(NAME).fields()


@pytest.mark.parametrize("declared", ["xml", "point", "json", "xml[]"])
def test_values_without_an_order_are_no_keys(tmp_path: Path, database: str, declared: str) -> None:
    """The error names the key."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute(f"CREATE TABLE things (id int, name text, v {declared})")
    small = Small(tmp_path, {"type": "postgres", "url": {"env": "SOURCE_URL"}}, id="v")
    with (
        Workspace(small.config) as workspace,
        pytest.raises(SourceRejected, match=rf"entities\.{NAME}\.id: column 'v'"),
    ):
        workspace.source(NAME).check()


ARRAY_KEYS = {
    "text[]": ["{a,b}", '{"a,b"}', "{a,NULL}", '{a,"NULL"}', r'{"{}","q\"x","b\\s"}', "{}", "{{a},{b}}"],
    "int[]": ["{1,2}", "{NULL}"],
    "uuid[]": [f"{{{UUID}}}"],
    "float8[]": ["{0.1,2}"],
    "pair": ["(1,a)"],
}


@pytest.mark.parametrize("declared", ARRAY_KEYS)
def test_an_array_is_a_key(tmp_path: Path, database: str, declared: str) -> None:
    """Its text is that of the database, by which each record is found again."""
    keys = ARRAY_KEYS[declared]
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE TYPE pair AS (x int, y text)")
        db.execute(f"CREATE TABLE things (v {declared} PRIMARY KEY, name text)")
        for key in keys:
            db.execute(f"INSERT INTO things VALUES (%s::{declared}, 'n')", [key])
        small = Small(tmp_path, {"type": "postgres", "url": {"env": "SOURCE_URL"}}, id="v")
        assert (small.sync().figures.new, sorted(small.stored())) == (len(keys), sorted(keys))
        db.execute("UPDATE things SET name = 'other'")
        for key in keys:
            assert small.sync(ids=(key,)).figures.changed == 1, key
        assert small.sync().figures.unchanged == len(keys)


@pytest.mark.parametrize(
    ("declared", "first", "second", "stored"),
    [
        ("NUMERIC", 2**53 + 1, 2**53, 2**53 + 1),
        ("NUMERIC", 2**60 + 1, 1.5, 2**60 + 1),
        ("JSON", f"[{LONG}]", f"[{LONG[:-2]}1]", [LONG[:-1]]),
        ("JSON", '{"n": 18446744073709551617}', '{"n": 18446744073709551616}', {"n": "18446744073709551617"}),
        ("TEXT", "00123456789012345678901", "x", "00123456789012345678901"),
    ],
)
def test_numbers_of_sqlite(tmp_path: Path, declared: str, first: Any, second: Any, stored: Any) -> None:
    """A whole number in a column of decimals, and numbers in JSON, keep their digits."""
    with sqlite3.connect(tmp_path / "s.db", isolation_level=None) as db:
        db.execute(f"CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, v {declared})")
        db.execute("INSERT INTO things VALUES (1, 'n', ?)", [first])
        small = Small(tmp_path, sqlite_source(tmp_path / "s.db"), payload=("v",))
        small.sync()
        assert small.stored()["1"]["v"] == stored
        db.execute("UPDATE things SET v = ?", [second])
        assert small.sync().figures.payload_only == 1


def test_doubles_are_what_the_store_gives_back(tmp_path: Path) -> None:
    """An eighth of those with 17 digits come back as others; each full run wrote these again, and failed for ever."""
    drawn = random.Random(1)
    values = [121.48886955472557, 1e-25, 5e-324, *(drawn.uniform(0, 1000) * 1.21 for _ in range(400))]
    with sqlite3.connect(tmp_path / "s.db", isolation_level=None) as db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, v REAL, j JSON)")
        rows = [(n, v, json.dumps({"v": [v]})) for n, v in enumerate(values)]
        db.executemany("INSERT INTO things VALUES (?, 'n', ?, ?)", rows)
        small = Small(tmp_path, sqlite_source(tmp_path / "s.db"), payload=("v", "j"))
        for _ in range(2):
            result = small.sync()
            assert (result.outcome, [c.name for c in result.checks if not c.passed]) == ("success", [])
        assert result.figures.unchanged == len(values)
        stored = {int(key): payload["v"] for key, payload in small.stored().items()}
        assert all(abs(stored[n] - v) <= math.ulp(v) for n, v in enumerate(values) if v > 1e-20)
        db.execute("UPDATE things SET v = ? WHERE id = 4", [math.nextafter(math.nextafter(values[4], 9999), 9999)])
        assert small.sync().figures.payload_only == 1


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        (Decimal128("9007199254740993"), Decimal128("9007199254740992"), 2**53 + 1),
        (Decimal128(LONG), Decimal128(LONG[:-2] + "1"), LONG[:-1]),
        (
            {"a": [Decimal128("9007199254740993.5")]},
            {"a": [Decimal128("9007199254740993.6")]},
            {"a": ["9007199254740993.5"]},
        ),
    ],
)
def test_numbers_of_mongo(
    tmp_path: Path,
    mongo_url: str,
    mongo_database: str,
    monkeypatch: pytest.MonkeyPatch,
    first: Any,
    second: Any,
    stored: Any,
) -> None:
    """Decimal128 keeps its digits, also inside objects and arrays."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url)
    things = client[mongo_database].things
    things.insert_many([{"_id": 1, "name": "n", "v": first}, {"_id": 2, "name": "n", "v": Decimal128("1.50")}])
    source = {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": mongo_database}
    small = Small(tmp_path, source, id="_id", payload=("v",))
    small.sync()
    assert [small.stored()[key]["v"] for key in "12"] == [stored, 1.5]
    things.update_one({"_id": 1}, {"$set": {"v": second}})
    assert small.sync().figures.payload_only == 1
    things.update_one({"_id": 2}, {"$set": {"v": Decimal128("1.5")}})
    assert small.sync().figures.payload_only == 0
    client.close()


def test_a_snapshot_keeps_every_digit(tmp_path: Path, database: str) -> None:
    """A run over the snapshot decides as one over the source."""
    with in_postgres(tmp_path, database, "numeric") as (small, put):
        put("9007199254740993")
        small.sync(stages=("export",))
        small.sync(stages=("documents", "embeddings", "vectors"))
        assert small.stored()["1"]["v"] == 2**53 + 1
        assert small.sync().figures.unchanged == 1
