"""A filter's values are the file's text, read as the type of the column."""

from __future__ import annotations

import math
import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId

from vecsync_dagster.config import parse_config
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import Cursor, Filtered
from vecsync_dagster_tests.sources.backends import Backend, SqlBackend, ids, read
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def written(text: str) -> dict[str, Any]:
    """`{v: <text>}` as the file has it."""
    config = parse_config(
        "sources: {db: {type: sqlite, path: x.db}}\n"
        f"entities: {{works: {{source: db, table: t, filter: {{v: {text}}}, "
        "collections: {w: {text: '{name}'}}}}\n"
    )
    return {"v": config.entities["works"].filter["v"]}


def let_through(backend: Backend, text: str) -> list[str]:
    """The ids of the records that a filter lets through; also by a read that goes by time."""
    return ids(read(backend.source(filter=written(text), updated_at=None)))


POSTGRES = [
    ("integer", ["1", "777", "31", "15", "1000"], {"1": "1", "0777": "2", "0x1F": "3", "0o17": "4", "1e3": "5"}),
    ("integer", ["1", "2", None], {"[1, 2]": "1 2", "'1'": "1", "null": "3", "[1, ~]": "1 3", "1.0": "1"}),
    ("bigint", ["9007199254740993", "9007199254740992"], {"9007199254740993": "1"}),
    ("numeric(6,2)", ["1", "1.1", "0.5"], {"1": "1", "1.00": "1", "1.10": "2", ".5": "3"}),
    ("real", ["0.1", "1"], {"0.1": "1", "1": "2"}),
    ("real", ["Infinity", "-Infinity", "NaN"], {".inf": "1", "+.Inf": "1", "-.INF": "2", ".nan": "3"}),
    ("numeric", ["NaN", "1"], {".NaN": "1"}),
    ("text", [".inf", "inf"], {".inf": "1", "inf": "2"}),
    ("boolean", ["true", "false", None], {"true": "1", "1": "1", "yes": "1", "off": "2", "[true, false]": "1 2"}),
    ("text", ["02142", "2142", "1e3", "1.10"], {"02142": "1", "2142": "2", "1e3": "3", "1.10": "4", "'02142'": "1"}),
    ("varchar(9)", ["0x1F", "31", "null", None, "~"], {"0x1F": "1", "'null'": "3", "null": "4", "'~'": "5"}),
    ("text", ["true", "1:30", "2024-01-01", "no"], {"true": "1", "1:30": "2", "2024-01-01": "3", "no": "4"}),
    ("char(5)", ["ab", "abcde"], {"ab": "1", "abcde": "2", "'ab '": "1"}),
    ("varchar(3)", ["ab", "abc"], {"ab": "1", "abc": "2"}),
    ("bit(4)", ["0101"], {"0101": "1"}),
    ("varchar(2)[]", ["{ab,c}", "{c}"], {"ab": "1", "'{c}'": "2"}),
    ("uuid", [UUID], {UUID: "1", UUID.upper(): "1"}),
    ("date", ["2024-01-01"], {"2024-01-01": "1", "'2024-01-01'": "1"}),
    ("timestamptz", ["2024-01-01 00:00+00", "2024-01-01 00:00+01"], {"2024-01-01": "1", "2024-01-01T00:00:00Z": "1"}),
    ("stage", ["live", "draft"], {"live": "1", "[live, draft]": "1 2"}),
    ("tag", ["02142"], {"02142": "1"}),
    ("jsonb", ['"open"', "1.0", "true", '{"a": 1}'], {"open": "1", "1": "2", "true": "3", "'{\"a\":1}'": "4"}),
    ("jsonb[]", ['{"\\"open\\"",1}', "{1}"], {"open": "1", "1": "1 2"}),
    ("json", ['"open"', "1"], {"open": "1", "1": "2"}),
    ("timestamptz", ["infinity"], {"infinity": "1"}),
    ("text[]", ["{a,b}", "{b}", "{NULL}"], {"a": "1", "b": "1 2", "'{b}'": "2"}),
    ("regclass", ["pg_class", "-", "99999"], {"pg_catalog.pg_class": "1", "'-'": "2", "0": "2", "99999": "3"}),
    ("relation", ["pg_class", "-"], {"pg_class": "1", "'-'": "2"}),
    ("relation[]", ["{pg_class,-}", "{pg_class}"], {"pg_class": "1 2", "'-'": "1", "'{pg_class}'": "2"}),
]


@pytest.mark.parametrize(("declared", "values", "expected"), POSTGRES)
def test_postgres_reads_them_as_the_columns_type(
    postgres: SqlBackend, declared: str, values: list[Any], expected: dict[str, str]
) -> None:
    """Numbers are equal as numbers, flags as flags, and text by its letters."""
    postgres.run("CREATE TYPE stage AS ENUM ('draft', 'live')")
    postgres.run("CREATE DOMAIN tag AS text")
    postgres.run("CREATE DOMAIN relation AS regclass")
    postgres.create(v=declared)
    for number, value in enumerate(values, 1):
        postgres.run(f"INSERT INTO materials (id, tenant_id, v) VALUES ({number}, 'a', CAST(%s AS {declared}))", value)
    found = {text: " ".join(let_through(postgres, text)) for text in expected}
    assert found == expected


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("integer", "abc"),
        ("integer", "1.5"),
        ("smallint", "40000"),
        ("boolean", "maybe"),
        ("date", "soon"),
        ("uuid", "7"),
        ("stage", "gone"),
        ("numeric", "1:30"),
        ("character varying(3)", "abcd"),
        ("character varying(3)", "'ab  '"),
        ("character(5)", "abcdef"),
        ("bit(4)", "1"),
        ("bit varying(2)", "101"),
        ("numeric(6,2)", "1.234"),
        ("character varying(2)[]", "abc"),
        ("character varying(2)[]", "'{abc}'"),
        ("regclass", "gone"),
        ("regclass", "gone.pg_class"),
        ("regclass", "a.b.c.d"),
        ("regclass", "99999999999"),
        ("regprocedure", "gone(integer)"),
        ("regproc", "lower"),
        ("regtype", "gone"),
        ("regrole", "gone"),
    ],
)
def test_what_can_be_no_value_of_the_column_is_an_error(postgres: SqlBackend, declared: str, text: str) -> None:
    """`check` and every read name the key."""
    postgres.run("CREATE TYPE stage AS ENUM ('draft', 'live')")
    postgres.create(v=declared)
    shown = text.strip("'")
    message = re.escape(f"entities.materials.filter.v: '{shown}' is not a value of a column of type {declared}")
    with pytest.raises(SourceRejected, match=message):
        postgres.source(filter=written(f"[{text}]")).check()
    with pytest.raises(SourceRejected, match=message):
        let_through(postgres, text)


def test_a_length_counts_in_a_domain_too(postgres: SqlBackend) -> None:
    """The domain's own length, or that of the one below it."""
    postgres.run("CREATE DOMAIN code AS varchar(3)")
    postgres.run("CREATE DOMAIN wide AS code")
    postgres.create(v="wide")
    postgres.put({"id": 1, "tenant_id": "a", "v": "abc"})
    assert let_through(postgres, "abc") == ["1"]
    with pytest.raises(SourceRejected, match=r"filter\.v: 'abcd' is not a value of a column of type wide"):
        let_through(postgres, "abcd")


@pytest.mark.parametrize("declared", ["level", "level[]", "levels", "high"])
def test_what_a_domain_forbids_is_an_error(postgres: SqlBackend, declared: str) -> None:
    """No row can have it: the domain's own check, or that of one below it or of an array's items."""
    postgres.run("CREATE DOMAIN level AS integer CHECK (VALUE > 0)")
    postgres.run("CREATE DOMAIN high AS level CHECK (VALUE > 10)")
    postgres.run("CREATE DOMAIN levels AS level[]")
    postgres.create(v=declared)
    is_array = declared in ("level[]", "levels")
    postgres.run(f"INSERT INTO materials (id, tenant_id, v) VALUES (1, 'a', '{'{12}' if is_array else '12'}')")
    assert let_through(postgres, "12") == ["1"]
    with pytest.raises(SourceRejected, match=r"filter\.v: '-1' is not a value of a column of type "):
        let_through(postgres, "-1")


@pytest.mark.parametrize(
    ("declared", "text"), [("xml", "<a/>"), ("point", "'(1,2)'"), ("json[]", "1"), ("xml[]", "<a/>"), ("flat", "(1,2)")]
)
def test_a_type_that_nothing_equals_is_an_error(postgres: SqlBackend, declared: str, text: str) -> None:
    """`check` and every read name the key; a null can be asked for all the same."""
    postgres.run("CREATE DOMAIN flat AS point")
    postgres.create(v=declared)
    postgres.put({"id": 1, "tenant_id": "a"})
    message = r"entities\.materials\.filter\.v: column 'v' of table materials is .*, whose values cannot be compared"
    quoted = f"'{text}'" if text == "(1,2)" else text
    for ask in (lambda source: source.check(), lambda source: source.fingerprints(), lambda source: read(source)):
        with pytest.raises(SourceRejected, match=message):
            ask(postgres.source(filter=written(quoted)))
    assert let_through(postgres, "null") == ["1"]


SQLITE = [
    ("INTEGER", [1, 777, 1000, "abc"], {"1": "1", "0777": "2", "1e3": "3", "1.00": "1", "abc": "4"}),
    ("NUMERIC", [1.5, 2**53 + 1, 2**53], {"1.50": "1", "9007199254740993": "2"}),
    ("BOOLEAN", [True, False, None, "true", "f"], {"true": "1 4", "1": "1 4", "no": "2 5", "[true, null]": "1 3 4"}),
    ("REAL", [math.inf, -math.inf, ".inf"], {".inf": "1 3", "-.inf": "2", "'.inf'": "1 3", "1e400": ""}),
    ("REAL", [1.0, 2.0], {"[1, .nan]": "1"}),
    ("TEXT", ["02142", "2142", "true", "1"], {"02142": "1", "2142": "2", "true": "3", "1": "4"}),
    ("", [1, "1", 1.0, "true"], {"1": "1 2 3", "true": "1 3 4"}),
]


@pytest.mark.parametrize(("declared", "values", "expected"), SQLITE)
def test_sqlite_reads_them_as_what_a_value_is(
    sqlite: SqlBackend, declared: str, values: list[Any], expected: dict[str, str]
) -> None:
    """A stored text is compared by its letters, a stored number as a number."""
    sqlite.create(v=declared)
    for number, value in enumerate(values, 1):
        sqlite.put({"id": number, "tenant_id": "a", "v": value})
    assert {text: " ".join(let_through(sqlite, text)) for text in expected} == expected


MONGO = [
    ([1, "1", 1.0, Int64(1), True], {"1": "1 2 3 4", "true": "5", "1.00": "1 3 4"}),
    (["02142", 2142, "true", None], {"02142": "1 2", "true": "3", "null": "4"}),
    ([datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01", [2, 3]], {"2024-01-01": "1 2", "3": "3"}),
    ([ObjectId("5f0f0f0f0f0f0f0f0f0f0f0f"), uuid.UUID(UUID)], {"5f0f0f0f0f0f0f0f0f0f0f0f": "1", UUID: "2"}),
    ([math.inf, -math.inf, math.nan, ".inf", Decimal128("NaN")], {".inf": "1 4", "-.inf": "2", ".nan": "3 5"}),
    ([Decimal128("1.10"), 1.1, Decimal128("9007199254740993")], {"1.1": "1 2", "9007199254740993": "3"}),
    ([Int64(2**53 + n) for n in range(4)], {"9007199254740992": "1", "9007199254740993": "2", "9007199254740994": "3"}),
    ([math.inf, 1e300], {"1e400": "", "1e300": "2"}),
]


@pytest.mark.parametrize(("values", "expected"), MONGO)
def test_mongo_reads_them_as_each_type(mongo: MongoBackend, values: list[Any], expected: dict[str, str]) -> None:
    """Text, number of every type, flag, date, ObjectId and UUID; the server and we say the same."""
    mongo.create()
    for number, value in enumerate(values, 1):
        mongo.put({"id": number, "tenant_id": "a", "v": value})
    for text, wanted in expected.items():
        assert " ".join(let_through(mongo, text)) == wanted, text
        by_time = read(mongo.source(filter=written(text)), since=Cursor("2024-01-01T00:00:00+00:00", ""))
        assert " ".join(sorted(ids(by_time))) == wanted, text


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    found.create()
    return found


@pytest.mark.parametrize("value", [True, 1, Decimal(1), 1.0, "1", ["1", None]])
def test_values_from_python(backend: Backend, value: Any) -> None:
    """A configuration made in Python may have flags and numbers as they are."""
    column = "is_global" if value is True else "price"
    backend.put({"id": 1, "tenant_id": "a", "price": 1, "is_global": True}, {"id": 2, "tenant_id": "a", "price": 2})
    assert ids(read(backend.source(filter={column: value}, tenancy={"column": "tenant_id"}))) == ["1"]


def test_dates_from_python(postgres: SqlBackend) -> None:
    """A date is the day it says."""
    postgres.create(v="date")
    postgres.put({"id": 1, "tenant_id": "a", "v": "2024-01-01"})
    assert ids(read(postgres.source(filter={"v": date(2024, 1, 1)}))) == ["1"]


def test_what_the_filter_alone_keeps_out(backend: Backend) -> None:
    """The source says whether a tenant has records that are live but for the filter."""
    backend.put(
        {"id": 1, "tenant_id": "a", "unit": "m"}, {"id": 2, "tenant_id": "b", "unit": "m", "deleted_at": "2024-01-01"}
    )
    source, plain = backend.source(filter={"unit": "kg"}), backend.source()
    assert isinstance(source, Filtered)
    assert isinstance(plain, Filtered)
    assert [source.kept_out(tenant) for tenant in ("a", "b", "c", None)] == [True, False, False, True]
    assert plain.kept_out("a") is False
