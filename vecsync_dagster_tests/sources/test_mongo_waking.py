"""Who is woken by a change stream: whose the document is by the rule of the queries, or whose it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId

from vecsync_dagster.config.models import EnvRef, MongoSource
from vecsync_dagster.sources import Read, stream_waker
from vecsync_dagster.sources.mongo_queries import Queries
from vecsync_dagster_tests.sources.backends import entity_config, ids
from vecsync_dagster_tests.sources.mongo_backend import VARIABLE, MongoBackend

OWN = ObjectId("65a000000000000000000001")
TENANTS: list[Any] = ["a", "5", 5, 5.0, Int64(5), 5.5, Decimal128("5"), OWN, str(OWN), "global"]
SET: list[Any] = [True, "true", "TRUE", "t", 1, 1.0, Int64(1), "1", [True, 2]]
UNSET: list[Any] = [False, "false", "yes", 0, 2, None, [], ""]
DOCUMENTS: list[dict[str, Any]] = [
    *({"tenant_id": one} for one in TENANTS),
    *({"tenant_id": "a", "is_global": one} for one in SET + UNSET),
    {},
    {"is_global": True},
    {"tenant_id": None},
    {"tenant_id": ["a", "b"]},
    {"tenant_id": {"id": "a"}},
    {"tenant_id": True},
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("document", DOCUMENTS, ids=repr)
def test_one_rule_for_queries_and_events(mongo: MongoBackend, document: dict[str, Any], nested: bool) -> None:
    """The tenant that an event is said to concern is the one whose reads have the document, and no other."""
    column, flag = ("org.id", "org.shared") if nested else ("tenant_id", "is_global")
    names = {"tenant_id": column, "is_global": flag}
    stored: dict[str, Any] = {"_id": 1}
    for name, value in document.items():
        (stored.setdefault("org", {}) if nested else stored)[names[name].rpartition(".")[2]] = value
    mongo.documents.insert_one(dict(stored))
    tenancy = {"column": column, "global_flag": flag}
    source = mongo.source(tenancy=tenancy)
    # `global` as a tenant's own name is the name of everybody's records: such a row is nobody's.
    tenants = {*source.tenants(), "a", "b", "5"}
    having = {one for one in tenants if one != "global" and ids(list(source.read(Read(one))))}
    having |= {"global"} if ids(list(source.read(Read("global")))) else set()
    owner = Queries(entity_config(id="_id", tenancy=tenancy)).owner(stored)
    single = not isinstance(document.get("tenant_id"), list)  # of a list the record is rejected, under each of them
    assert ({owner} - {None, *([] if having else ["global"])} == having) or not single


Woken = list[tuple[str | None, str | None]]


@contextmanager
def listening(mongo: MongoBackend, **entity: Any) -> Iterator[Woken]:
    """Who is woken, in order, once somebody listens; a stream that ends is opened again."""
    config = MongoSource(type="mongo", url=EnvRef(env=VARIABLE), database=mongo.database)
    waker = stream_waker(config, entity_config(**entity), name="db", entity_name="materials")
    woken: Woken = []
    stop = threading.Event()

    def wake(_: str, tenant: str | None, gone: str | None = None, /) -> None:
        woken.append((tenant, gone))

    def listen() -> None:
        while not stop.is_set():
            waker.run(wake, stop.is_set)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        until(lambda: (None, None) in woken)  # it may be anybody's, what happened before
        woken.clear()
        yield woken
    finally:
        stop.set()
        thread.join(10)


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_events_wake_whose_the_document_is(mongo: MongoBackend) -> None:
    """A number of any type, a flag of any form; of what is gone, or nobody's, the key is told."""
    with listening(mongo, id="_id") as woken:
        mongo.documents.insert_one({"_id": 1, "tenant_id": 5.0})
        mongo.documents.insert_one({"_id": 2, "tenant_id": "a", "is_global": "true"})
        mongo.documents.insert_one({"_id": OWN, "tenant_id": "a"})
        mongo.documents.update_one({"_id": OWN}, {"$unset": {"tenant_id": 1}})
        until(lambda: len(woken) >= 4)
        mongo.documents.delete_one({"_id": OWN})
        until(lambda: len(woken) >= 5)
    assert woken[:2] == [("5", None), ("global", None)]
    assert woken[-2:] == [(None, str(OWN))] * 2


@pytest.mark.parametrize("images", [False, True])
def test_a_key_of_ones_own_needs_pre_images(mongo: MongoBackend, images: bool) -> None:
    """A deletion tells `_id` alone: with pre-images whose it was is known, without them nothing but that it is gone."""
    mongo.create()
    mongo.client[mongo.database].command("collMod", "materials", changeStreamPreAndPostImages={"enabled": images})
    with listening(mongo, id="id") as woken:
        mongo.documents.insert_one({"id": 1, "tenant_id": "a"})
        until(lambda: woken)
        mongo.documents.delete_one({"id": 1})
        until(lambda: len(woken) >= 2)
    assert woken == [("a", None), ("a", None) if images else (None, None)]


@pytest.mark.parametrize("ending", ["dropped", "renamed", "database dropped"])
def test_a_collection_that_was_made_anew_is_heard(mongo: MongoBackend, ending: str) -> None:
    """The server ends the stream, and no event tells whose the documents were: everybody is woken, once. Where there is
    no collection, the stream waits for one."""
    mongo.documents.insert_one({"_id": 1, "tenant_id": "a"})
    with listening(mongo, id="_id") as woken:
        if ending == "dropped":
            mongo.documents.drop()
        elif ending == "renamed":
            mongo.documents.rename("others")
        else:
            mongo.client.drop_database(mongo.database)
        until(lambda: woken)
        time.sleep(1.5)
        assert woken == [(None, None)]
        mongo.documents.insert_one({"_id": 2, "tenant_id": "b"})
        until(lambda: len(woken) > 1)
    assert woken == [(None, None), ("b", None)]
