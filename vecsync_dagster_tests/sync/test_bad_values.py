"""Whatever one value does to a driver, a conversion or a file, it is the rejection of its record, and of no other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, Regex, Timestamp
from pymongo import MongoClient

from vecsync_dagster.config.models import CollectionConfig, EntityConfig, PostgresSource
from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster.documents.validation import BadValue, parse_number
from vecsync_dagster.sources import Read, build_source
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster_tests.documents.records import rejection
from vecsync_dagster_tests.small import Small, mongo_rows, sqlite_source

DEEP = "[" * 3000 + "]" * 3000


def rejected(small: Small) -> dict[Any, str]:
    """Id -> why, of invalid_records.jsonl."""
    path = small.folder / "state" / "invalid_records.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {line["record"].get("id", line["record"].get("_id")): line["error"] for line in lines}


def assert_others_synced(small: Small, result: PartitionResult, *, good: int, bad: int) -> None:
    figures = result.figures
    assert (result.outcome, figures.upserted, figures.invalid) == ("success", good, bad), result.error
    # From the snapshot the same: nothing is removed, and what was bad is bad.
    again = small.sync(stages=("documents", "embeddings", "vectors"))
    assert (again.outcome, again.figures.unchanged, again.figures.invalid) == ("success", good, bad), again.error


# -- PostgreSQL ----------------------------------------------------------------------------------------
@pytest.fixture
def postgres(tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Small, Any]]:
    monkeypatch.setenv("DB", postgres_database)
    small = Small(tmp_path, {"type": "postgres", "url": {"env": "DB"}}, payload=("v",))
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        yield small, connection


def test_deep_json_of_postgresql(postgres: tuple[Small, Any]) -> None:
    """3,000 levels of jsonb are too many for their record alone; more digits than Python reads are kept as text."""
    small, db = postgres
    db.execute("create table things (id int primary key, name text, v jsonb)")
    db.execute("insert into things values (1, 'fine', '{}'), (2, 'deep', %s), (3, 'fine too', '[1]')", [DEEP])
    db.execute("insert into things values (4, 'long', %s)", ["1" * 5000])
    assert_others_synced(small, small.sync(), good=3, bad=1)
    assert rejected(small) == {2: "v is not valid JSON"}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("timestamptz", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamptz", "'294276-01-01'"),
        ("money", "'12.50'"),
        ("bit varying", "B'1011'"),
        ("int4range", "'[1,5)'"),
        ("point", "'(1,2)'"),
        ("tsvector", "'a:1 b:2'"),
        ("xml", "'<a/>'"),
        ("pair", "(1, 'x')"),
        ("pair[]", "array[(1, 'x')::pair]"),
        ("numeric", "'NaN'"),
        ("float8", "'Infinity'"),
        ("bytea", "'\\xff00'"),
    ],
)
def test_unusual_types_of_postgresql(postgres: tuple[Small, Any], declared: str, value: str) -> None:
    """Whatever type a column has, the record beside an unusual value of it is synced, and nothing ends the run."""
    small, db = postgres
    db.execute("create type pair as (a int, b text)")
    db.execute(f"create table things (id int primary key, name text, v {declared})")
    db.execute(f"insert into things values (1, 'fine', null), (2, 'unusual', {value})")
    result = small.sync()
    assert result.outcome == "success", result.error
    assert result.figures.upserted + result.figures.invalid == 2
    assert result.figures.upserted >= 1


@pytest.fixture
def sql_ascii(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Small, Any]]:
    """A database that keeps whatever bytes it is given."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(
            "create database vecsync_ascii encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'"
        )
        url = f"{postgres_url.rsplit('/', 1)[0]}/vecsync_ascii"
        monkeypatch.setenv("DB", url)
        try:
            with psycopg.connect(url, autocommit=True, client_encoding="utf8") as connection:
                yield Small(tmp_path, {"type": "postgres", "url": {"env": "DB"}}, payload=("v", "w")), connection
        finally:
            server.execute("drop database vecsync_ascii with (force)")


def test_a_byte_that_is_no_utf8(sql_ascii: tuple[Small, Any]) -> None:
    """In an SQL_ASCII database it is the rejection of its record: in a text, an array, an enumeration, JSON."""
    small, db = sql_ascii
    db.execute("create table things (id int primary key, name text, v varchar(20), w text[])")
    db.execute("insert into things values (1, 'fine', 'a', '{b}'), (6, 'насос', 'ž', '{ž}')")
    db.execute(r"insert into things values (2, E'caf\xe9', 'a', null), (3, 'c', E'caf\xe9', null)")
    db.execute(r"insert into things values (4, 'd', 'a', array[E'caf\xe9']), (5, 'e', null, null)")
    assert_others_synced(small, small.sync(), good=3, bad=3)
    reasons = rejected(small)
    assert set(reasons) == {2, 3, 4}
    assert reasons[2] == "name is not valid UTF-8"
    assert small.sync(mode="full", ids=("1", "2")).figures.removed == 0


def test_names_that_are_not_ascii(sql_ascii: tuple[Small, Any]) -> None:
    """A table, its columns and keys may have them in an SQL_ASCII database too, beside bytes that are no UTF-8."""
    _, db = sql_ascii
    db.execute('create table "насосы" ("ключ" text primary key, "имя" text, "цена €" text)')
    db.execute("""insert into "насосы" values ('é1', 'насос', '5'), ('é2', 'другой', 'ž')""")
    db.execute(r"""insert into "насосы" values ('é3', E'caf\xe9', '5')""")
    config = EntityConfig(
        source="db",
        table="насосы",
        id="ключ",
        filter={"цена €": ("5", "ž")},
        collections={"c": CollectionConfig(text="{имя}", payload=("цена €",))},
    )
    source = build_source(
        PostgresSource.model_validate({"type": "postgres", "url": {"env": "DB"}}),
        config,
        name="db",
        entity_name="things",
        path_of=Path,
    )
    with closing(source):
        builder = DocumentBuilder("things", config, "global", ["c"])
        for what in (Read("global"), Read("global", ids=["é1", "é2", "é3"])):
            batches = [builder.build(page.records)["c"] for page in source.read(what)]
            found = [(d.db_id, d.text, d.payload["цена €"]) for batch in batches for d in batch.documents]
            assert found == [("é1", "насос", "5"), ("é2", "другой", "ž")]
            assert [(r.db_id, r.error) for b in batches for r in b.rejections] == [("é3", "имя is not valid UTF-8")]
        assert source.count("global") == 3
        assert "насосы" in source.check()


def why_no_id(small: Small) -> dict[str, str]:
    """Name -> why, of records that are rejected for their id."""
    text = (small.folder / "state" / "invalid_records.jsonl").read_text(encoding="utf-8")
    return {
        line["record"]["name"]: line["error"].removeprefix("the id ") for line in map(json.loads, text.splitlines())
    }


NOT_FINITE, OUTSIDE, NO_NUMBER = "is not finite", "is a date outside the years 1 to 9999", "is not a finite number"
LATER = {"infinity": NOT_FINITE, "-infinity": NOT_FINITE, "0044-03-15 BC": OUTSIDE, "12026-01-01": OUTSIDE}


@pytest.mark.parametrize("key", ["k", ["firm", "k"]], ids=str)
@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("date", LATER),
        ("timestamp", LATER),
        ("timestamptz", LATER),
        ("numeric", {"NaN": NO_NUMBER, "Infinity": NO_NUMBER, "-Infinity": NO_NUMBER}),
    ],
)
def test_a_key_of_postgresql_that_cannot_be_one_is_not_missing(
    postgres: tuple[Small, Any], declared: str, values: dict[str, str], key: Any
) -> None:
    """The reason says what it is; that of a record without a value is still that it is missing."""
    small, db = postgres
    small.data["entities"]["things"]["id"] = key
    db.execute(f"create table things (k {declared}, firm text, name text, v int)")
    good = "1" if declared == "numeric" else "2026-01-01"
    for value in (good, *values):
        db.execute(f"insert into things values ('{value}', 'a', %s, 1)", [value])
    db.execute("insert into things values (null, null, 'none', 1)")
    assert_others_synced(small, small.sync(), good=1, bad=len(values) + 1)
    assert why_no_id(small) == {**values, "none": "is missing"}


# -- SQLite --------------------------------------------------------------------------------------------
def test_odd_values_of_sqlite(tmp_path: Path) -> None:
    """A real in a text column, a BLOB, an infinity, deep JSON: each is a document or a rejection of its own."""
    values: list[Any] = [
        "text",
        1.5,
        b"\xff\x00",
        float("inf"),
        2**62,
        None,
        DEEP,
        '{"a": 1e999}',
        "\ufeff",
        b"caf\xe9",
    ]
    with sqlite3.connect(tmp_path / "db.sqlite") as db:
        db.execute("create table things (id integer primary key, name text, v json)")
        db.executemany("insert into things values (?, ?, ?)", [(n, f"row {n}", v) for n, v in enumerate(values, 1)])
        db.executemany("insert into things values (?, ?, 1)", [(n, v) for n, v in enumerate(values, 101)])
    small = Small(tmp_path, sqlite_source(tmp_path / "db.sqlite"), payload=("v",))
    result = small.sync()
    reasons = rejected(small)
    assert_others_synced(small, result, good=2 * len(values) - len(reasons), bad=len(reasons))
    assert {4, 7} <= set(reasons)
    assert reasons[7] == "v is not valid JSON"


# -- MongoDB -------------------------------------------------------------------------------------------
ODD = {
    "signalling": Decimal128("sNaN"),
    "nan": Decimal128("NaN"),
    "infinite": Decimal128("-Infinity"),
    "huge": Decimal128("9.99E+6144"),
    "long": Int64(2**63 - 1),
    "float": float("nan"),
    "pattern": Regex("a(", "z"),
    "code": Code("return 1", {"a": 1}),
    "stamp": Timestamp(2**32 - 1, 1),
    "least": MinKey(),
    "most": MaxKey(),
    "reference": DBRef("other", 1, database="x", more=1),
    "binary": Binary(b"\xff\x00", 128),
    "deep": json.loads("[" * 60 + "]" * 60),
}


def test_odd_values_of_mongodb(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every type that BSON has, also inside of lists and objects, is a document or a rejection; no value ends the
    run, and the fine one is synced."""
    monkeypatch.setenv("DB", mongo_url)
    source = {"type": "mongo", "url": {"env": "DB"}, "database": mongo_database}
    small = Small(tmp_path, source, id="_id", payload=("v",))
    with MongoClient[Any](mongo_url) as client:
        things = client[mongo_database].things
        things.insert_many([{"_id": f"{name}", "name": name, "v": value} for name, value in ODD.items()])
        things.insert_many([{"_id": f"in {name}", "name": name, "v": [{"x": value}]} for name, value in ODD.items()])
        things.insert_one({"_id": "fine", "name": "fine", "v": 1})
    result = small.sync()
    assert result.outcome == "success", result.error
    reasons = rejected(small)
    assert result.figures.upserted + result.figures.invalid == 2 * len(ODD) + 1
    assert {"signalling", "nan", "infinite", "float", "in signalling"} <= set(reasons)
    assert "fine" not in reasons


@pytest.mark.parametrize("stream", ["auto", "never"])
def test_a_value_that_the_driver_cannot_decode(stream: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is the rejection of its record, wherever in a field it stands; in a field that nobody wants it is nothing."""
    short, why = Binary(b"abc", 4), "v holds a UUID that is not 16 bytes long"
    values = {
        "none": Binary(b"", 4),
        "short": short,
        "long": Binary(b"a" * 17, 4),
        "list": [1, short],
        "in": {"x": short},
    }
    with mongo_rows(request, stream=stream) as (source, documents):
        documents.insert_many([{"_id": f"a {name}", "name": name, "v": 1} for name in ("first", "second")])
        documents.insert_many([{"_id": name, "name": name, "v": value} for name, value in values.items()])
        documents.insert_one({"_id": "other", "name": "other", "w": short})
        small = Small(tmp_path, source, id="_id", payload=("v",), updated_at="at", writeback=True)
        assert_others_synced(small, small.sync(), good=3, bad=len(values))
        assert rejected(small) == dict.fromkeys(values, why)
        at = datetime.now(UTC)
        documents.update_one({"_id": "a first"}, {"$set": {"v": short, "at": at}})
        documents.update_one({"_id": "a second"}, {"$set": {"v": 2, "at": at}})
        documents.update_one({"_id": "short"}, {"$set": {"v": 3, "at": at}})
        result = small.sync(mode="incremental")
        assert result.outcome == "success", result.error
        assert rejected(small)["a first"] == why
        assert {key: point.get("v") for key, point in small.stored().items()} == {
            "a first": 1,  # as it was: a record that is rejected keeps what it had
            "a second": 2,
            "short": 3,
            "other": None,
        }


# -- below ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [Decimal("sNaN"), Decimal("NaN"), Decimal("Infinity")])
def test_a_number_that_is_none(number: Decimal) -> None:
    """A signalling NaN raises where it is only looked at; it is no finite number, as the others."""
    with pytest.raises(BadValue, match="is not a finite number"):
        parse_number(number)


def test_a_record_that_no_document_can_be_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw rejects its record, and does not quote its value."""

    def broken(*_: Any) -> None:
        raise LookupError("the text of a record")

    monkeypatch.setattr("vecsync_dagster.documents.builder.payload_hash", broken)
    told = rejection()
    assert told.error == "no document can be made of the record (LookupError)"


def test_a_record_that_cannot_be_written_down(tmp_path: Path) -> None:
    """invalid_records.jsonl shows what it can of the record, and names the type of what it cannot."""
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    record = {"id": 7, "deep": deep, "half": "a\ud800b", "long": 2**80, "object": object}
    log = RejectionLog(tmp_path / "invalid_records.jsonl")
    told = rejection(name=" ")
    log.keep("things", "global", [type(told)("7", None, "VALIDATION_ERROR", "deep", "deep is bad", record)])
    log.close()
    [line] = [json.loads(line) for line in (tmp_path / "invalid_records.jsonl").read_text().splitlines()]
    assert (line["record"]["id"], line["record"]["deep"]) == (7, "<list: RecursionError>")
    assert (line["record"]["long"], line["error"]) == (2**80, "deep is bad")


@pytest.mark.parametrize("key", ["k", ["firm", "k"]], ids=str)
def test_a_key_of_mongodb_that_cannot_be_one_is_not_missing(
    key: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As in a table; a field that is not there is missing."""
    values = {
        "a decimal": (Decimal128("NaN"), NO_NUMBER),
        "an infinite one": (Decimal128("-Infinity"), NO_NUMBER),
        "a list": ([1], "is neither text nor a number"),
        "a flag": (True, "is neither text nor a number"),
    }
    with mongo_rows(request) as (source, documents):
        documents.insert_many([{"k": value, "firm": "a", "name": name} for name, (value, _) in values.items()])
        documents.insert_many([{"k": 1, "firm": "a", "name": "good"}, {"name": "none"}])
        small = Small(tmp_path, source, id=key)
        assert_others_synced(small, small.sync(), good=1, bad=len(values) + 1)
        assert why_no_id(small) == {name: why for name, (_, why) in values.items()} | {"none": "is missing"}
