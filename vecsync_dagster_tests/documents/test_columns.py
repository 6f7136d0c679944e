"""Values of every Arrow type that a source may give, and texts of every kind."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents import Document
from vecsync_dagster_tests.documents.records import build, json_batch
from vecsync_dagster_tests.properties import a_property

ENTITY = {"source": "db", "table": "t", "collections": {"c": {"text": "{text}", "payload": ["value"]}}}


def made(records: pa.RecordBatch) -> list[Document]:
    batch = build(records, entity=ENTITY)["c"]
    assert batch.rejections == []
    return batch.documents


def stored(value: pa.Array) -> Any:
    """The payload that one value of an Arrow array becomes."""
    return made(pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["a"]), value], ["id", "text", "value"]))[
        0
    ].payload["value"]


def text_of(text: str) -> str:
    return made(pa.RecordBatch.from_pydict({"id": [1], "text": [text], "value": [None]}))[0].text


UTC_PLUS_2 = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.array([5], pa.int64()), 5),
        (pa.array([5], pa.int8()), 5),
        (pa.array([5.0]), 5),
        (pa.array([0.1]), 0.1),
        (pa.array([-0.0]), 0),
        (pa.array([1e300]), 1e300),
        (pa.array([True]), True),
        (pa.array([None], pa.string()), None),
        (pa.array([""]), None),
        (pa.array([Decimal("12.50")]), 12.5),
        (pa.array([Decimal("12.00")]), 12),
        (pa.array([["b", "a "]]), ["b", "a"]),
        (pa.array([[1.0, None]]), [1, None]),
        (pa.array([{"a": 1, "b": "x "}]), {"a": 1, "b": "x"}),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array([dt.date(2026, 3, 1)]), "2026-03-01"),
        (pa.array(["2026-03-01T12:30"]).cast(pa.timestamp("us")), "2026-03-01T12:30:00"),
        (pa.array(["2026-03-01T12:30:00.000005"]).cast(pa.timestamp("us")), "2026-03-01T12:30:00.000005"),
        (
            pa.array([dt.datetime(2026, 3, 1, 12, 30, tzinfo=UTC_PLUS_2)], pa.timestamp("us", "+02:00")),
            "2026-03-01T10:30:00+00:00",
        ),
        (pa.array([dt.time(12, 30)]), "12:30:00"),
    ],
)
def test_arrow_types(value: pa.Array, expected: object) -> None:
    """Each becomes what JSON can hold: dates ISO text in UTC, whole numbers integers, empty text nothing."""
    assert stored(value) == expected
    assert type(stored(value)) is type(expected)


def test_binary_data_is_refused() -> None:
    """Bytes are no value that a payload or text could hold."""
    columns = [pa.array([1]), pa.array(["a"]), pa.array([b"\xff"])]
    records = pa.RecordBatch.from_arrays(columns, ["id", "text", "value"])
    rejected = build(records, entity=ENTITY)["c"].rejections[0]
    assert rejected.error == "value is binary data"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\0b", "a b"),
        ("a\x1b[31mb", "a [31mb"),
        ("a\x85b", "a b"),
        ("line\r\nnext\tcell", "line next cell"),
        ("  a \u00a0 b  ", "a b"),
        ("cafe\u0301", "café"),
        ("e\u0328\u0301 и\u0306", "ę\u0301 й"),
        ("👩‍👩‍👧 🇨🇿", "👩‍👩‍👧 🇨🇿"),
        ("שלום مرحبا", "שלום مرحبا"),
        ("'; DROP TABLE works; --", "'; DROP TABLE works; --"),
        ("{name} {0} %s {{", "{name} {0} %s {{"),
        ("Демонтаж вытяжки", "Демонтаж вытяжки"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    """Control characters go, letters are composed, white space is one space; all else is kept as it is."""
    assert text_of(text) == expected


def test_a_very_long_text() -> None:
    """A megabyte of text is one document like any other."""
    text = "Демонтаж " * 120_000
    assert text_of(text) == text.strip()


SCALARS = st.none() | st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1)


@a_property
@given(st.lists(SCALARS, min_size=1, max_size=5), st.data())
def test_a_value_is_the_same_in_any_column(values: list[Any], data: st.DataObject) -> None:
    """A value that comes in a column of its type and one that comes as JSON give the same document: a source
    may change a column's type from batch to batch."""
    value = data.draw(st.sampled_from(values))
    plain = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["a"]), pa.array([value])], ["id", "text", "value"])
    [one], [other] = made(plain), made(json_batch([{"id": 1, "text": "a", "value": value}]))
    assert one.payload == other.payload
    assert one.content_hash == other.content_hash
