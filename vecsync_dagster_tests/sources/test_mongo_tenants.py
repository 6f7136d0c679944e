"""Tenants of MongoDB: values of every type, and what the server takes for equal."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from pymongo import MongoClient, UpdateOne, monitoring
from pymongo.collation import Collation

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources.mongo_exact import ExactCollection, collation_of
from vecsync_dagster_tests.sources.backends import ids, read
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

UUID = uuid.UUID(int=7)
SOMEBODY: dict[str, list[Any]] = {
    "acme": ["acme"],
    "Acme": ["Acme"],
    "7": [7, 7.0, Int64(7), Decimal128("7.00"), "7"],
    "07": ["07"],
    "7.00": ["7.00"],
    "1.5": [1.5, Decimal128("1.50")],
    "1.50": ["1.50"],
    "9007199254740992": [float(2**53), 2**53],
    "10000000000000000000000": [1e22, Decimal128("1E22")],
    "1e+22": ["1e+22"],
    "1" + "0" * 6000: [Decimal128("1E6000")],
    str(UUID): [UUID, str(UUID)],
    UUID.hex: [UUID.hex, Binary(UUID.bytes, 3), Binary(UUID.bytes, 0)],
    "5f1d3ec25d0b5f0e9a3c0c2b": [ObjectId("5f1d3ec25d0b5f0e9a3c0c2b")],
    "2024-01-01T00:00:00+00:00": [datetime(2024, 1, 1, tzinfo=UTC)],
    "1970-01-01T00:00:05.0000000001+00:00": [Timestamp(5, 1)],
}
NOBODY: list[Any] = [
    None,
    True,
    False,
    float("nan"),
    float("inf"),
    Decimal128("NaN"),
    Regex("acme"),
    Code("acme"),
    MinKey(),
    Binary(b"\xff\xfe", 200),
    {"a": 1},
    [],
]


def test_every_document_has_one_owner_or_none(mongo: MongoBackend) -> None:
    """Whatever the type of the tenant's field, a document belongs to the one tenant that has the value's text, or is
    counted as nobody's; values that equal each other for the server belong to one."""
    mongo.create()
    rows = [(tenant, value) for tenant, values in SOMEBODY.items() for value in values]
    values = [value for _, value in rows] + NOBODY
    mongo.put(*({"id": number, "tenant_id": value} for number, value in enumerate(values)))
    mongo.put({"id": 100})
    source = mongo.source()
    assert source.tenants() == sorted(SOMEBODY)
    for tenant in SOMEBODY:
        theirs = [str(number) for number, (owner, _) in enumerate(rows) if owner == tenant]
        assert (ids(read(source, tenant)), source.count(tenant)) == (theirs, len(theirs)), tenant
    assert source.unassigned() == len(NOBODY) + 1


def test_a_collection_with_a_collation_is_asked_by_bytes(mongo: MongoBackend) -> None:
    """All that compares texts says so to the server: 'Acme' is not 'acme', however the collection was made."""

    class Told(monitoring.CommandListener):
        def __init__(self) -> None:
            self.commands: list[Any] = []

        def started(self, event: monitoring.CommandStartedEvent) -> None:
            if event.command_name != "endSessions":
                self.commands.append(event.command)

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    database = mongo.client[mongo.database]
    database.create_collection("materials", collation=Collation("en", strength=2))
    mongo.put({"id": 1, "tenant_id": "acme"})
    assert mongo.source().tenants() == ["acme"]
    with mongo.source()._reading("looking") as opened:
        assert collation_of(opened) == Collation("simple")
    told = Told()
    with MongoClient[dict[str, Any]](mongo.url, event_listeners=[told]) as client:
        exact = ExactCollection(client[mongo.database], "materials")
        list(exact.find({"tenant_id": "acme"}))
        list(exact.aggregate([{"$match": {"tenant_id": "acme"}}]))
        exact.count_documents({"tenant_id": "acme"})
        exact.update_many({"tenant_id": "acme"}, {"$set": {"a": 1}})
        exact.bulk_write([UpdateOne({"tenant_id": "acme"}, {"$set": {"a": 1}}, collation=collation_of(exact))])
    said = [part for command in told.commands for part in (command.get("updates") or [command])]
    assert [part["collation"]["locale"] for part in said] == ["simple"] * 5


def test_a_view_with_a_collation_is_refused(mongo: MongoBackend) -> None:
    """Its queries can have no other one, so tenants could not be told apart: the error names the collation."""
    database = mongo.client[mongo.database]
    database.create_collection("real")
    database.command("create", "materials", viewOn="real", pipeline=[], collation={"locale": "en", "strength": 2})
    with pytest.raises(SourceRejected, match="the view 'materials' has the collation 'en'"):
        mongo.source().tenants()
