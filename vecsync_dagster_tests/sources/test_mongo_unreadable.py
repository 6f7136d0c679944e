"""Documents with a value that the driver cannot decode: it is theirs alone, however they are read."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson import Binary
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON

from vecsync_dagster.sources import Read
from vecsync_dagster.sources.mongo_reading import aggregated, decoded, found
from vecsync_dagster.sources.mongo_values import record_batch
from vecsync_dagster.unreadable import Unreadable
from vecsync_dagster_tests.sources.backends import ids, read
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend
from vecsync_dagster_tests.sources.test_mongo_stream import begin, gone
from vecsync_dagster_tests.sources.test_mongo_waking import listening, until

BAD = Binary(b"abc", 4)
UUID = "holds a UUID that is not 16 bytes long"
OLD = "holds binary data of subtype 2 with a wrong length in it"
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


def binary(subtype: int, value: bytes) -> bytes:
    return struct.pack("<iB", len(value), subtype) + value


def document(*fields: tuple[int, str, bytes]) -> bytes:
    """BSON of these fields: the type, the name, the value."""
    inside = b"".join(bytes([kind]) + name.encode() + b"\x00" + value for kind, name, value in fields)
    return struct.pack("<i", len(inside) + 5) + inside + b"\x00"


VALUES = [
    (5, binary(4, b""), UUID),
    (5, binary(4, b"abc"), UUID),
    (5, binary(4, b"a" * 17), UUID),
    (5, binary(2, b"ab"), OLD),
    (5, binary(2, struct.pack("<i", 9) + b"abc"), OLD),
    (8, b"\x02", "holds a boolean that is neither true nor false"),
    (3, document((99, "x", b"")), "holds a value that is no valid BSON"),
]


@pytest.mark.parametrize(("kind", "value", "reason"), VALUES, ids=repr)
def test_what_cannot_be_decoded_is_one_value(kind: int, value: bytes, reason: str) -> None:
    """Alone, in objects and in lists; all around it is what it would be without it, whatever its type."""
    every = {
        "text": "č",
        "number": 1.5,
        "whole": 5,
        "long": 2**40,
        "none": None,
        "flag": True,
        "when": bson.DatetimeMS(5),
        "id": bson.ObjectId(b"a" * 12),
        "pattern": bson.Regex("a", "i"),
        "code": bson.Code("x", {"a": 1}),
        "decimal": bson.Decimal128("1.5"),
        "stamp": bson.Timestamp(1, 2),
        "least": bson.MinKey(),
        "binary": Binary(b"ab", 128),
        "object": {"a": {"b": [1, {"c": 2}]}},
    }
    encoded = bson.encode(every)
    bad = (kind, "bad", value)
    inside = document(bad, (2, "name", b"\x02\x00\x00\x00n\x00"))
    own = document(bad, (3, "in", inside), (4, "list", document((3, "0", inside), (10, "1", b""))))
    whole = struct.pack("<i", len(own) + len(encoded) - 5) + own[4:-1] + encoded[4:]
    told = Unreadable(reason)
    partly = {"bad": told, "name": "n"}
    wanted = {"bad": told, "in": partly, "list": [partly, None], **bson.decode(encoded, OPTIONS)}
    assert decoded(whole, OPTIONS) == wanted


def test_a_document_that_is_none_is_an_error() -> None:
    """A field of an unknown type has no end: what comes after it must not look as if it were not there."""
    with pytest.raises(InvalidBSON):
        decoded(document((99, "x", b""), (10, "y", b"")), OPTIONS)


def test_a_column_says_why_it_has_no_value() -> None:
    """For a field that is it, or has it inside; a field beside it has its value."""
    bad = Unreadable(UUID)
    rows: list[dict[str, Any]] = [
        {"_id": 1, "v": bad, "w": 1},
        {"_id": 2, "v": {"a": [1, bad], "b": 2}, "w": 2},
        {"_id": 3, "v": 5, "w": 3},
    ]
    batch = record_batch(("_id", "v", "v.a", "v.b", "w"), rows)
    assert batch.column("v").to_pylist() == [f"\x00unreadable: {UUID}", f"\x00unreadable: {UUID}", "5"]
    assert batch.column("v.a").to_pylist() == [None, f"\x00unreadable: {UUID}", None]
    assert (batch.column("v.b").to_pylist(), batch.column("w").to_pylist()) == ([None, 2, None], [1, 2, 3])


def test_queries_give_what_the_driver_gives(mongo: MongoBackend) -> None:
    """Nothing is skipped and nothing doubled, in batches of any size, with bad documents among good ones or without."""
    mongo.documents.insert_many([{"_id": number, "v": [number]} for number in range(25)])
    for _ in range(2):
        for size in (1, 7, 100):
            some = found(mongo.documents, {}, {"v": 1}, sort=[("_id", 1)], batch_size=size, skip=2, limit=20)
            assert [one["_id"] for one in some] == list(range(2, 22))
            grouped = aggregated(mongo.documents, [{"$sort": {"_id": -1}}], batchSize=size)
            assert [one["_id"] for one in grouped] == list(range(24, -1, -1))
        mongo.documents.update_many({"_id": {"$in": [3, 4, 20]}}, {"$set": {"v": BAD}})
    assert list(found(mongo.documents, {"_id": 99})) == []


@pytest.fixture
def bad(mongo: MongoBackend) -> MongoBackend:
    """Tenants a and b with a good document and a bad one each, and one whose tenant cannot be read."""
    mongo.create()
    rows = [{"id": f"{firm}{n}", "tenant_id": firm, "name": firm.upper(), "price": 1} for firm in "ab" for n in (1, 2)]
    mongo.put(*rows, {"id": "x", "tenant_id": BAD, "name": BAD})
    for key in ("a2", "b2"):
        mongo.documents.update_one({"_id": key}, {"$set": {"price": BAD}})
    return mongo


@pytest.mark.parametrize("dotted", [False, True])
def test_every_question_to_a_source_has_an_answer(bad: MongoBackend, dotted: bool) -> None:
    """Tenants, counts, their names from either place, reads of all and by ids, a check: none is ended."""
    fields = {"collections": {"c": {"text": "{name}", "payload": ["price", *(["x.y"] if dotted else [])]}}}
    names = bad.client[bad.database]["firms"]
    names.insert_many([{"_id": "a", "title": "Firm A"}, {"_id": "b", "title": BAD}])
    source = bad.source(**fields, tenancy={"column": "tenant_id", "name": "name"})
    assert (source.tenants(), source.unassigned(), source.count("a")) == (["a", "b"], 1, 2)
    assert source.tenant_names(["a", "b"]) == {"a": "A", "b": "B"}
    table = {"table": "firms", "id": "_id", "column": "title"}
    assert bad.source(tenancy={"column": "tenant_id", "name": table}).tenant_names(["a", "b"]) == {"a": "Firm A"}
    assert ids(read(source, "a")) == ["a1", "a2"]
    assert ids(list(source.read(Read("b", ids=["b2", "b1"])))) == ["b1", "b2"]
    assert source.there(["a1", "a2", "x", "y"]) == {"a1", "a2", "x"}
    assert source.repeated().count == 0
    assert "5 documents" in source.check()


def test_one_stream_for_all_tenants_is_read_to_its_end(mongo: MongoBackend) -> None:
    """A bad document of one tenant is that tenant's change; the others have theirs."""
    mongo.change_stream = "always"
    mongo.create()
    mongo.put(*({"id": f"{firm}1", "tenant_id": firm} for firm in "ab"))
    source = mongo.source()
    cursors = {firm: begin(source, firm) for firm in "ab"}
    mongo.documents.update_one({"_id": "a1"}, {"$set": {"price": BAD}})
    mongo.change("b1", name="new")
    mongo.put({"id": BAD, "tenant_id": "a"}, {"id": "b2", "tenant_id": "b"})
    pages = {firm: read(source, firm, since=cursor) for firm, cursor in cursors.items()}
    assert {firm: ids(some) for firm, some in pages.items()} == {"a": ["a1"], "b": ["b1", "b2"]}
    mongo.documents.delete_one({"_id": "a1"})
    assert "a1" in gone(read(source, "a", since=pages["a"][-1].cursor))


def test_an_unreadable_key_of_mongodb_beside_ones_own(mongo: MongoBackend) -> None:
    """The record has a key and is read; a change of it can be found by a full read alone."""
    mongo.change_stream, mongo.key = "always", "id"
    mongo.create()
    mongo.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "a", "_id": BAD})
    source = mongo.source()
    cursor = begin(source)
    assert ids(read(source)) == ["1", "2"]
    mongo.change(1, name="new")
    assert source.lost(Read("a", since=cursor)) is None
    mongo.change(2, name="new")
    assert "_id cannot be read" in (mongo.source().lost(Read("a", since=cursor)) or "")
    told = {"overallStatus": "synced", "collections": {"c": {"status": "synced"}}}
    assert mongo.source().write_metadata("a", dict.fromkeys(("1", "2"), told)) >= 1


def test_what_cannot_be_read_does_not_end_listening(mongo: MongoBackend) -> None:
    """Whose the document is may be told all the same; where that is what cannot be read, anybody's."""
    with listening(mongo, id="_id") as woken:
        mongo.documents.insert_one({"_id": 1, "tenant_id": "a", "v": BAD})
        mongo.documents.insert_one({"_id": BAD, "tenant_id": "a"})
        mongo.documents.insert_one({"_id": 2, "tenant_id": BAD})
        mongo.documents.insert_one({"_id": 3, "tenant_id": "b"})
        until(lambda: ("b", None) in woken)
    assert woken == [("a", None), ("a", None), (None, "2"), ("b", None)]
