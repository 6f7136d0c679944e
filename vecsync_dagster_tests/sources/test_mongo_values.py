"""What becomes of the values that a MongoDB document can hold."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster.documents.validation import CONVERTERS
from vecsync_dagster.sources.mongo_values import candidates, id_text, record_batch, value_at
from vecsync_dagster_tests.sources.backends import entity_config, ids, read, values
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

NOON = datetime(2024, 5, 1, 12, 30, 0, 123000, UTC)
KEY = uuid.UUID("12345678-1234-5678-1234-567812345678")


def documents(*given: Any) -> list[Any]:
    """What the documents stage makes of a field's values, each in a batch of its own and all in one."""
    entity = EntityConfig.model_validate(
        {"source": "db", "table": "t", "id": "_id", "collections": {"c": {"text": "{name}", "payload": ["field"]}}}
    )
    builder = DocumentBuilder("e", entity, "global", ["c"])
    rows = [{"_id": number, "name": "n", "field": value} for number, value in enumerate(given)]
    alone = [builder.build(record_batch(("_id", "name", "field"), [row]))["c"] for row in rows]
    together = builder.build(record_batch(("_id", "name", "field"), rows))["c"]
    apart = [document.payload["field"] for batch in alone for document in batch.documents]
    assert [document.payload["field"] for document in together.documents] == apart
    return apart


def test_a_value_does_not_depend_on_its_neighbours() -> None:
    """A payload's value is the same whatever else is in its batch, and of a plain kind that a store can hold."""
    given = ["text", 5, 5.5, 7.0, True, None, [1, "a"], {"a": {"b": [NOON]}}, NOON, ObjectId("a" * 24)]
    wanted = ["text", 5, 5.5, 7, True, None, [1, "a"], {"a": {"b": [NOON.isoformat()]}}, NOON.isoformat(), "a" * 24]
    assert documents(*given, KEY, Int64(2**60)) == [*wanted, str(KEY), 2**60]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Decimal128("12.50"), 12.5),
        (Binary(b"\x00\xff"), "00ff"),
        (b"ab", "6162"),
        (Regex("^a"), "^a"),
        (Regex("^a", "mi"), "/^a/im"),
        (Code("return 1"), "return 1"),
        (Code("return a", {"a": KEY}), {"$code": "return a", "$scope": {"a": str(KEY)}}),
        (Timestamp(0, 0), "1970-01-01T00:00:00+00:00"),
        (Timestamp(1_700_000_000, 7), "2023-11-14T22:13:20.0000000007+00:00"),
        (Timestamp(2**32 - 1, 2**32 - 1), "2106-02-07T06:28:15.4294967295+00:00"),
        (DBRef("c", 5), {"$ref": "c", "$id": 5}),
        (MinKey(), "MinKey()"),
        (datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))), "2024-05-01T12:00:00+00:00"),
        ([], []),
        ({}, {}),
    ],
)
def test_types_of_mongodb_become_plain_values(value: Any, wanted: Any) -> None:
    """Every type of BSON is something that a payload can hold, and always the same."""
    assert documents(value) == [wanted]


def test_numbers_of_mixed_kinds_stay_exact() -> None:
    """A large whole number beside a fraction loses no digit."""
    assert documents(2**62 + 1, 0.5, 3) == [2**62 + 1, 0.5, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, Decimal128("NaN"), [math.nan], {"a": math.inf}])
def test_no_number_is_rejected_by_name(value: Any) -> None:
    """NaN and the infinities, alone and in arrays, reject the record: they are no silent null."""
    assert documents(value) == []
    assert documents(value, "text") == ["text"]


def test_nothing_and_no_number_are_told_apart_in_json() -> None:
    """In arrays and objects null stays null, and text that says it stays text."""
    assert documents([None], {"a": None}, ["null"], [1.5, None]) == [[None], {"a": None}, ["null"], [1.5, None]]


def test_what_goes_too_deep_is_rejected_alone() -> None:
    """A document of more levels than JSON libraries take does not end the read."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    assert documents(deep) == []
    assert documents(deep, "text") == ["text"]


@pytest.mark.parametrize(
    ("milliseconds", "wanted"),
    [
        (253_402_300_800_000, "10000-01-01 00:00:00+00"),
        (253_402_300_800_001, "10000-01-01 00:00:00.001+00"),
        (500_000_000_000_000, "17814-05-16 00:53:20+00"),
        (-62_135_596_800_001, "0001-12-31 23:59:59.999+00 BC"),
        (-62_198_755_200_000, "0002-01-01 00:00:00+00 BC"),
        (2**63 - 1, "292278994-08-17 07:12:55.807+00"),
    ],
)
def test_a_date_that_python_cannot_hold_is_its_text(milliseconds: int, wanted: str) -> None:
    """A date before the year 1 or beyond 9999 is no silent null, and another one is another value."""
    assert documents(DatetimeMS(milliseconds), [DatetimeMS(milliseconds)], "text") == [wanted, [wanted], "text"]
    assert CONVERTERS["datetime"](wanted) == wanted


@pytest.mark.parametrize("key", ["a", "507f1f77bcf86cd799439011", 7, -(2**63), 2**40, 5.5, ObjectId("b" * 24), KEY])
def test_an_id_is_found_by_its_text(mongo: MongoBackend, key: Any) -> None:
    """A document of any type of id comes with a text by which it is found again, and no other is."""
    mongo.documents.insert_many([{"_id": key, "is_global": True}, {"_id": "other", "is_global": True}])
    source = mongo.source()
    (text,) = [found for found in ids(read(source, "global", page=1)) if found != "other"]
    assert text == id_text(key)
    assert ids(read(source, "global", ids=[text])) == [text]


def test_whole_floats_are_whole_numbers() -> None:
    """JavaScript knows no whole numbers: 9.0 and 9 are one id."""
    assert id_text(9.0) == id_text(Int64(9)) == "9"
    assert 9 in candidates(["9"])
    assert id_text({"a": 1}) is None
    assert id_text(True) is None


def test_nested_fields_have_a_path() -> None:
    """A dot goes into objects, and into each object of an array."""
    document = {"vendor": {"name": "Acme"}, "pricing": [{"tier": "free"}, {"price": 5}, {"tier": "pro"}], "tags": "x"}
    assert value_at(document, "vendor.name") == "Acme"
    assert value_at(document, "pricing.tier") == ["free", "pro"]
    assert [value_at(document, path) for path in ("vendor.x", "tags.a", "no.way", "pricing.x")] == [None] * 4


def test_a_nested_field_and_the_object_around_it_are_read_together(mongo: MongoBackend) -> None:
    """The server refuses a projection of both; the source asks for the object alone, and has both."""
    mongo.documents.insert_one({"_id": 1, "is_global": True, "name": "n", "vendor": {"name": "Acme", "size": 5}})
    collections = {"materials": {"text": "{name} of {vendor.name}.", "payload": ["vendor", "vendor.name"]}}
    pages = read(mongo.source(collections=collections), "global")
    builder = DocumentBuilder("e", entity_config(id="_id", collections=collections), "global", ["materials"])
    [document] = builder.build(pages[0].records)["materials"].documents
    assert document.text == "n of Acme."
    assert document.payload["vendor.name"] == "Acme"
    assert values(pages, "vendor.name") == ["Acme"]
    assert values(pages, "vendor") == ['{"name":"Acme","size":5}']
