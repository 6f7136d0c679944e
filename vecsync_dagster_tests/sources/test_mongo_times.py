"""Modification times of MongoDB of types that nobody compares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bson import Binary, Decimal128, MaxKey, ObjectId, Timestamp

from vecsync_dagster.sources import Cursor
from vecsync_dagster_tests.sources.backends import ids, read, time
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

ODD: list[Any] = [
    Timestamp(1, 1),
    {"at": 1},
    [],
    True,
    ObjectId(),
    Binary(b"1"),
    float("nan"),
    Decimal128("NaN"),
    MaxKey(),
    "x",
    "12",
    None,
]


def test_what_is_no_time_is_always_read(mongo: MongoBackend) -> None:
    """An incremental read brings each document once whose time is of a type that cannot be compared, with those that
    were modified since; a time before the cursor is not read again."""
    mongo.create()
    mongo.documents.insert_many(
        {"_id": number, "name": "n", "tenant_id": "a", "is_global": False, "updated_at": value}
        for number, value in enumerate([*ODD, datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)])
    )
    found = ids(read(mongo.source(), since=Cursor(time(0), "")))
    assert sorted(map(int, found)) == [*range(len(ODD)), len(ODD) + 1]
