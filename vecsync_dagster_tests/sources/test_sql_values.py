"""What becomes of the values of a database: types of columns, and values that do not fit them."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from vecsync_dagster.documents import Document, DocumentBuilder
from vecsync_dagster.sources import Cursor, Read
from vecsync_dagster_tests.sources.backends import SqlBackend, entity_config, ids, read, values

WITH_VALUE: dict[str, Any] = {"collections": {"materials": {"text": "{name}", "payload": ["value"]}}}
DAY = datetime(2024, 5, 1, 10, 20, 30, 123456, tzinfo=UTC)


def column(backend: SqlBackend, declared: str, *given: Any) -> tuple[pa.Field, list[Any]]:
    """Store the values, one row each, in a column of this declared type; read all in one batch."""
    backend.create(value=declared)
    backend.put(*({"id": number, "tenant_id": "a", "value": value} for number, value in enumerate(given)))
    (page,) = read(backend.source(**WITH_VALUE))
    return page.records.schema.field("value"), page.records.column("value").to_pylist()


def plain(field: pa.Field, got: list[Any]) -> list[Any]:
    """The values as the documents stage takes them: what is marked as JSON, decoded."""
    if (field.metadata or {}).get(b"vecsync") != b"json":
        return got
    return [None if value is None else json.loads(value) for value in got]


@pytest.mark.parametrize(
    ("declared", "given", "arrow", "wanted"),
    [
        ("smallint", 7, pa.int64(), 7),
        ("bigint", -(2**63), pa.int64(), -(2**63)),
        ("real", 0.5, pa.float64(), 0.5),
        ("double precision", 1e300, pa.float64(), 1e300),
        ("double precision", "-Infinity", pa.float64(), -math.inf),
        ("numeric(12, 2)", "1234.50", pa.float64(), 1234.5),
        ("numeric", "Infinity", pa.float64(), math.inf),
        ("numeric", "1" + "0" * 400, pa.string(), "1" + "0" * 400),
        ("boolean", True, pa.bool_(), True),
        ("timestamptz", "2024-05-01 12:20:30.123456+02", pa.timestamp("us", "UTC"), DAY),
        ("timestamp", "2024-05-01 10:20:30.123456", pa.timestamp("us"), DAY.replace(tzinfo=None)),
        ("timestamptz", "infinity", pa.string(), "infinity"),
        ("timestamptz", "0044-03-15 12:00:00.5+02 BC", pa.string(), "0044-03-15 10:00:00.5+00 BC"),
        ("timestamp", "0044-03-15 00:00:00 BC", pa.string(), "0044-03-15 00:00:00 BC"),
        ("date", "2024-05-01", pa.date32(), date(2024, 5, 1)),
        ("date", "12024-05-01", pa.string(), "12024-05-01"),
        ("uuid", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", pa.string(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("text[]", ["a", None, "b,c"], pa.list_(pa.string()), ["a", None, "b,c"]),
        ("integer[]", [1, 2], pa.list_(pa.int64()), [1, 2]),
        ("numeric[]", "{1.5,NULL}", pa.string(), "[1.5,null]"),
        ("double precision[]", [], pa.list_(pa.float64()), []),
        ("date[]", "{2024-05-01}", pa.string(), '["2024-05-01"]'),
        ("date[]", "{-infinity,0044-03-15 BC}", pa.string(), '["-infinity","0044-03-15 BC"]'),
        ("daterange", "[2024-05-01,infinity)", pa.string(), "[2024-05-01,infinity)"),
        ("bytea", b"\x01\xff", pa.string(), "\\x01ff"),
        ("interval", "1 day", pa.string(), "1 day"),
        ("money", "12.5", pa.string(), "$12.50"),
        ("point", "(1,2)", pa.string(), "(1,2)"),
        ("char(3)", "ab", pa.string(), "ab"),
        ("inet", "10.0.0.1", pa.string(), "10.0.0.1/32"),
    ],
)
def test_types_of_postgres(postgres: SqlBackend, declared: str, given: Any, arrow: pa.DataType, wanted: Any) -> None:
    """Each type of PostgreSQL has one Arrow type, whatever stands in it and also beside nulls."""
    field, got = column(postgres, declared, given, None)
    assert field.type == arrow
    assert got == [wanted, None]


@pytest.mark.parametrize("declared", ["date", "timestamp", "timestamptz", "timestamptz[]"])
@pytest.mark.parametrize("typed", [{}, {"types": {"value": "datetime"}}], ids=["untyped", "typed"])
def test_times_that_python_cannot_count_to(postgres: SqlBackend, declared: str, typed: dict[str, Any]) -> None:
    """They are their text, in templates too, and each is another record; those beside them are what they are alone."""
    usual = ["2024-05-01 10:20:30.5", "2024-05-01", "0001-01-01", "9999-12-31 23:59:59"]
    odd = ["infinity", "-infinity", "0044-03-15 BC", "12026-01-01"]
    if declared.endswith("[]"):
        typed, usual, odd = {}, [f"{{{one}}}" for one in usual], [f"{{{one}}}" for one in odd]
    postgres.create(value=declared)
    postgres.put(*({"id": number, "tenant_id": "a", "value": value} for number, value in enumerate([*usual, *odd])))
    entity = {**typed, "collections": {"c": {"text": "{value}", "payload": ["value"]}}}
    builder = DocumentBuilder("materials", entity_config(**entity), "a", ["c"])

    def documents(size: int) -> list[Document]:
        batches = [builder.build(page.records)["c"] for page in read(postgres.source(**entity), page=size)]
        assert not any(batch.rejections for batch in batches)
        return [document for batch in batches for document in batch.documents]

    together, alone = documents(8), documents(1)
    assert [(d.text, d.payload) for d in together] == [(d.text, d.payload) for d in alone]
    assert len({d.record_hash for d in together}) == 8
    clock = {"date": "", "timestamp": " 00:00:00", "timestamptz": " 00:00:00+00"}.get(declared)
    if clock is not None:
        written = ["infinity", "-infinity", f"0044-03-15{clock} BC", f"12026-01-01{clock}"]
        assert [d.payload["value"] for d in together[4:]] == [d.text for d in together[4:]] == written


def test_nan_stays_nan(postgres: SqlBackend) -> None:
    """A number that is none is delivered as such, for validation to reject."""
    _, got = column(postgres, "numeric", "NaN", 1)
    assert math.isnan(got[0])
    assert got[1] == 1.0


def test_types_that_users_define(postgres: SqlBackend) -> None:
    """An enum is text, also as an id and as a tenant; a domain is what it is made of."""
    postgres.run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    postgres.run("CREATE DOMAIN price AS integer CHECK (VALUE > 0)")
    postgres.create(id_type="mood", tenant_id="mood", value="price")
    postgres.put({"id": "glad", "tenant_id": "sad", "value": 5}, {"id": "sad", "tenant_id": "glad", "value": 6})
    source = postgres.source(**WITH_VALUE)
    pages = read(source, "sad", ids=["glad", "no such mood"])
    assert (ids(pages), values(pages, "value")) == (["glad"], [5])
    assert source.count("no such mood") == 0
    assert source.tenants() == ["glad", "sad"]


@pytest.mark.parametrize("declared", ["json", "jsonb"])
def test_json_of_postgres_is_marked(postgres: SqlBackend, declared: str) -> None:
    """JSON comes as text that says that it is JSON."""
    field, got = column(postgres, declared, '{"a": [1, "ž"]}', None)
    assert field.metadata == {b"vecsync": b"json"}
    assert plain(field, got) == [{"a": [1, "ž"]}, None]


def test_an_array_of_two_dimensions_becomes_json(postgres: SqlBackend) -> None:
    """What a list of texts cannot hold comes as JSON; the rows beside it keep their lists."""
    field, got = column(postgres, "text[]", [["a", "b"], ["c", "d"]], ["x"], None)
    assert plain(field, got) == [[["a", "b"], ["c", "d"]], ["x"], None]


def test_json_of_sqlite_is_marked_and_checked(sqlite: SqlBackend) -> None:
    """Text in a JSON column that is no JSON is delivered as the text it is."""
    field, got = column(sqlite, "json", '{"a": 1}', "{broken", 5, None)
    assert field.metadata == {b"vecsync": b"json"}
    assert plain(field, got) == [{"a": 1}, "{broken", 5, None]


@pytest.mark.parametrize(
    ("declared", "given", "arrow", "wanted"),
    [
        ("integer", [1, -5, None], pa.int64(), [1, -5, None]),
        ("numeric", [1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ("boolean", [1, 0, None], pa.bool_(), [True, False, None]),
        ("text", ["x", "", None], pa.string(), ["x", "", None]),
        ("datetime", ["2024-05-01 10:00", "whenever", None], pa.string(), ["2024-05-01 10:00", "whenever", None]),
        ("date", [None, None], pa.string(), [None, None]),
        ("integer", [None, None], pa.int64(), [None, None]),
        ("uuid", ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], pa.string(), ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
    ],
)
def test_types_of_sqlite(
    sqlite: SqlBackend, declared: str, given: list[Any], arrow: pa.DataType, wanted: list[Any]
) -> None:
    """Values that fit the declared type have its Arrow type; dates are the text they were stored as."""
    field, got = column(sqlite, declared, *given)
    assert (field.type, field.metadata) == (arrow, None)
    assert got == wanted


@pytest.mark.parametrize(
    ("declared", "fitting", "misfit"),
    [
        ("integer", 7, 1.5),
        ("integer", 7, "seven"),
        ("numeric", 2, "1 234,50"),
        ("numeric", 2**60, "much"),
        ("boolean", 1, 2),
        ("boolean", 0, "yes"),
        ("datetime", "2024-05-01 10:00:00", 1714557600),
        ("text", "text", b"bytes"),
        ("text", "text", b"\xff\x00"),
        ("", "untyped", 5),
    ],
)
def test_a_value_does_not_depend_on_its_neighbours(
    sqlite: SqlBackend, declared: str, fitting: Any, misfit: Any
) -> None:
    """A value that does not fit its column is delivered, and changes nothing about the rows beside it."""
    together = plain(*column(sqlite, declared, fitting, misfit))
    source = sqlite.source(**WITH_VALUE)
    alone = []
    for page in source.read(Read("a"), 1):
        alone += plain(page.records.schema.field("value"), page.records.column("value").to_pylist())
    assert together == alone
    assert [type(value) for value in together] == [type(value) for value in alone]
    assert None not in together


def test_bytes_that_are_no_text_do_not_end_the_read(sqlite: SqlBackend) -> None:
    """Text of SQLite that is not UTF-8 comes with replacement characters, its neighbours untouched."""
    sqlite.create()
    sqlite.put({"id": 1, "name": "fine", "tenant_id": "a"})
    sqlite.run("INSERT INTO materials (id, name, tenant_id) VALUES (2, CAST(x'61ff62' AS TEXT), 'a')")
    assert values(read(sqlite.source()), "name") == ["fine", "a\ufffdb"]


def test_half_a_character_is_not_made_whole_by_the_next_row(sqlite: SqlBackend) -> None:
    """Each text is judged by itself: the halves of a character in two rows are two replacement characters."""
    sqlite.create()
    for number, half in ((1, "61c3"), (2, "a962")):
        sqlite.run(f"INSERT INTO materials (id, name, tenant_id) VALUES ({number}, CAST(x'{half}' AS TEXT), 'a')")
    assert values(read(sqlite.source()), "name") == ["a\ufffd", "\ufffdb"]


@pytest.mark.parametrize("beside", ["NULL", "7", "x'ff'", "'fine'"])
def test_what_is_no_text_depends_on_nothing_beside_it(sqlite: SqlBackend, beside: str) -> None:
    """Text that is no UTF-8 is read alike beside nothing, a number, bytes and another text."""
    sqlite.create(value="text")
    sqlite.run(
        f"INSERT INTO materials (id, tenant_id, value) VALUES (1, 'a', {beside}), (2, 'a', CAST(x'61ff62' AS TEXT))"
    )
    (page,) = read(sqlite.source(**WITH_VALUE))
    got = plain(page.records.schema.field("value"), page.records.column("value").to_pylist())
    assert got[1] == "a\ufffdb"


@pytest.mark.parametrize("deleted", [False, True])
def test_an_id_that_is_no_text_has_one_name(sqlite: SqlBackend, deleted: bool) -> None:
    """An id that is no UTF-8 is called the same in a record and in a tombstone, of which the cursor tells too."""
    sqlite.create(id_type="text")
    gone = "'2024-05-01'" if deleted else "NULL"
    sqlite.run(
        "INSERT INTO materials (id, tenant_id, updated_at, deleted_at)"
        f" VALUES (CAST(x'61ff62' AS TEXT), 'a', '2024-05-01', {gone})"
    )
    (page,) = read(sqlite.source(deleted_at="deleted_at"), since=Cursor("2024-01-01T00:00:00", ""))
    assert page.tombstones == (("a\ufffdb",) if deleted else ())
    assert page.records.column("id").to_pylist() == ([] if deleted else ["a\ufffdb"])
    assert page.cursor is not None
    assert page.cursor.id == "a\ufffdb"


@pytest.mark.parametrize("id_type", ["integer", "text", "numeric", ""])
def test_ids_of_sqlite_are_found_by_their_text(sqlite: SqlBackend, id_type: str) -> None:
    """Whatever an id column holds, the text of an id in a record finds that record."""
    sqlite.create(id_type=id_type)
    sqlite.put(*({"id": key, "tenant_id": "a"} for key in (1, "2x", "007", 3.5, -4)))
    source = sqlite.source()
    known = ids(read(source))
    assert len(known) == 5
    for key in known:
        assert ids(read(source, ids=[key])) == [key]


def test_only_configured_columns_are_read(database: SqlBackend) -> None:
    """Columns that the configuration does not name are not fetched."""
    database.create(secret="text")
    database.put({"id": 1, "tenant_id": "a", "secret": "x"})
    assert "secret" not in database.source().fields()
    assert "secret" in database.source(required=["secret"]).fields()
