"""A field or column whose own name has a dot, in every place that names one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from vecsync_dagster.documents.columns import Cleaner
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.identity import native_of
from vecsync_dagster.sources import Read, Source, mongo_dotted
from vecsync_dagster_tests.sources.backends import SqlBackend, entity_config, read, time, values
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend

PRICE = {"collections": {"materials": {"text": "{name} {price.usd}", "payload": ["price.usd"]}}}
USD = "price.usd"


@pytest.fixture
def documents(mongo: MongoBackend) -> MongoBackend:
    mongo.create()
    return mongo


def names(source: Source, tenant: str = "a", **what: Any) -> list[str]:
    return values(read(source, tenant, **what), "name")


def test_the_field_of_that_very_name_wins_over_the_path(documents: MongoBackend) -> None:
    """Each document gives its own field where it has one, were it null, and else what is at the path."""
    documents.put(
        {"id": 1, "tenant_id": "a", "price.usd": 5},
        {"id": 2, "tenant_id": "a", "price": {"usd": 6}},
        {"id": 3, "tenant_id": "a", "price.usd": 7, "price": {"usd": 8}},
        {"id": 4, "tenant_id": "a", "price.usd": None, "price": {"usd": 9}},
        {"id": 5, "tenant_id": "a"},
    )
    assert values(read(documents.source(**PRICE)), USD) == [5, 6, 7, None, None]


INNER: list[tuple[dict[str, Any], Any]] = [
    ({"meta.price.usd": 1}, 1),
    ({"meta": {"price.usd": 2}}, 2),
    ({"meta.price": {"usd": 3}}, 3),
    ({"meta": {"price": {"usd": 4}}}, 4),
    ({"meta": [{"price.usd": 5}, {"price": {"usd": 6}}, {"price": 0}]}, [5, 6]),
    ({"meta.price": [{"usd": 7}], "meta": {"price.usd": 8}}, [7]),
    ({"meta": {"price.usd": None, "price": {"usd": 9}}}, None),
    ({"meta.price": None, "meta": {"price": {"usd": 10}}}, 10),
    ({"meta": {"price": {"eur": 0}}}, None),
]
DEEP = "meta.price.usd"


def test_a_field_with_a_dot_inside_an_object_is_found(documents: MongoBackend) -> None:
    """Every way to come to the value, the longest name first; in text, payload, required and types."""
    documents.put(*({"id": n, "tenant_id": "a", **given} for n, (given, _) in enumerate(INNER)))
    places = {"collections": {"materials": {"text": f"{{{DEEP}}}", "payload": [DEEP]}}, "required": [DEEP]}
    source = documents.source(**places)
    [page] = read(source)
    whole = [None if text is None else json.loads(text) for text in page.records.column(DEEP).to_pylist()]
    assert whole == [value for _, value in INNER]
    cleaner = Cleaner("materials", entity_config(id="_id", **places))
    problems = cleaner.clean(cleaner.read(page.records)).problems
    assert {row: problem.field for row, problem in problems.items()} == {6: DEEP, 8: DEEP}


@pytest.mark.parametrize("given", [given for given, _ in INNER[1:3]])
@pytest.mark.parametrize(
    "place",
    [{"filter": {DEEP: 1}}, {"id": [DEEP]}, {"id": ["id", DEEP]}, {"tenancy": {"column": DEEP}}, {"updated_at": DEEP}],
)
def test_a_query_for_a_field_inside_an_object_is_refused(
    documents: MongoBackend, given: dict[str, Any], place: dict[str, Any]
) -> None:
    """It would find nothing, and say so of every record; the path itself and the whole name are asked for."""
    documents.put({"id": 1, "tenant_id": "a", **given})
    with pytest.raises(SourceRejected, match=re.escape(f"{DEEP!r} in a field inside an object")) as caught:
        read(documents.source(**place))
    assert caught.value.fields["field"] == DEEP
    documents.drop(1)
    documents.put({"id": 2, "tenant_id": "a", "meta": {"price": {"usd": 1}}}, {"id": 3, "tenant_id": "a", DEEP: 1})
    assert names(documents.source(**place), "1" if "tenancy" in place else "a") == [None, None]


@pytest.mark.parametrize("beside", [{"meta.price": 5}, {"meta.price": {"eur": 5}}, {"meta.price": None}])
def test_a_path_is_asked_for_whatever_is_beside_it(documents: MongoBackend, beside: dict[str, Any]) -> None:
    """What holds no value by the name is in no query's way."""
    documents.put({"id": 1, "name": "found", "tenant_id": "a", "meta": {"price": {"usd": 4}}, **beside})
    documents.put({"id": 2, "tenant_id": "a", "meta": [[{"price": {"usd": 5}}]]})
    documents.put({"id": 3, "tenant_id": "a", "meta": {"price": [[{"usd": 6}]]}})
    source = documents.source(filter={DEEP: 4}, required=[DEEP])
    assert values(read(source), DEEP) == [4]


def test_parts_of_an_own_key_with_a_dot_inside_are_refused(documents: MongoBackend) -> None:
    """`_id.firm.no` is the path inside `_id` alone."""
    documents.documents.insert_one({"_id": {"firm.no": 1}, "tenant_id": "a"})
    with pytest.raises(SourceRejected, match="in a field inside an object"):
        read(documents.source(id=["_id.firm.no"]))


def test_names_of_tenants_are_found_by_such_fields(documents: MongoBackend) -> None:
    """In another collection, by a field of that very name or at the path."""
    documents.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "b"})
    firms = documents.client[documents.database]["firms"]
    firms.insert_many([{"firm.id": "a", "its.name": "Alpha"}, {"firm": {"id": "b"}, "its": {"name": "Beta"}}])
    table = {"table": "firms", "id": "firm.id", "column": "its.name"}
    source = documents.source(tenancy={"column": "tenant_id", "name": table})
    assert source.tenant_names(["a", "b"]) == {"a": "Alpha", "b": "Beta"}


@pytest.mark.parametrize("place", [{"required": [USD]}, {"types": {USD: "number"}}])
def test_checks_of_a_field_see_it(documents: MongoBackend, place: dict[str, Any]) -> None:
    """`required` and `types` speak of the field of that name."""
    documents.put({"id": 1, "tenant_id": "a", "price.usd": "none"}, {"id": 2, "tenant_id": "a"})
    source = documents.source(**place)
    cleaner = Cleaner("materials", entity_config(id="_id", **place))
    [page] = read(source)
    problems = cleaner.clean(cleaner.read(page.records)).problems
    assert [(row, problem.field) for row, problem in problems.items()] == [(1 if "required" in place else 0, USD)]


def test_a_filter_takes_the_field_and_the_path(documents: MongoBackend) -> None:
    """Documents pass by their own field, or by the path where they have none; the count says the same."""
    documents.put(
        {"id": 1, "name": "own", "tenant_id": "a", "state.now": "ready"},
        {"id": 2, "name": "path", "tenant_id": "a", "state": {"now": "ready"}},
        {"id": 3, "name": "own first", "tenant_id": "a", "state.now": "draft", "state": {"now": "ready"}},
        {"id": 4, "name": "neither", "tenant_id": "a"},
    )
    source = documents.source(filter={"state.now": "ready"})
    assert names(source) == ["own", "path"]
    assert source.count("a") == 2
    assert "2 of them live" in source.check()
    assert names(documents.source(filter={"state.now": [None]})) == ["neither"]


def test_tenants_are_told_by_the_field_and_the_path(documents: MongoBackend) -> None:
    """Column and flag: listing, counting, reading and what belongs to nobody agree."""
    documents.put(
        {"id": 1, "name": "own", "firm.id": "a"},
        {"id": 2, "name": "path", "firm": {"id": "a"}},
        {"id": 3, "name": "own first", "firm.id": "b", "firm": {"id": "a"}},
        {"id": 4, "name": "all", "firm.id": "a", "for.all": True},
        {"id": 5, "name": "nobody"},
    )
    source = documents.source(tenancy={"column": "firm.id", "global_flag": "for.all"})
    assert source.tenants() == ["a", "b"]
    assert {tenant: names(source, tenant) for tenant in ("a", "b", "global")} == {
        "a": ["own", "path"],
        "b": ["own first"],
        "global": ["all"],
    }
    assert [source.count(tenant) for tenant in ("a", "b", "global")] == [2, 1, 1]
    assert source.unassigned() == 1


@pytest.mark.parametrize("key", [["part.no"], ["part.no", "tenant_id"]])
def test_a_key_is_the_field_or_the_path(documents: MongoBackend, key: Any) -> None:
    """Pages are in the order of the key, limit and offset cut it, and reads by ids find each document."""
    documents.put(
        {"id": 1, "name": "third", "tenant_id": "a", "part.no": 30},
        {"id": 2, "name": "second", "tenant_id": "a", "part": {"no": 20}},
        {"id": 3, "name": "first", "tenant_id": "a", "part.no": 10, "part": {"no": 99}},
    )
    source = documents.source(id=key)
    pages = read(source, page=1)
    assert values(pages, "name") == ["first", "second", "third"]
    assert names(source, limit=1, offset=1) == ["second"]
    texts = values(pages, "vecsync:key")
    assert sorted(names(source, ids=tuple(texts))) == ["first", "second", "third"]
    assert names(source, ids=(texts[0].replace("10", "99"),)) == []
    assert source.repeated().count == 0
    documents.put({"id": 4, "tenant_id": "a", "part.no": 20})
    assert source.repeated().count == 1


def test_times_are_the_field_or_the_path(documents: MongoBackend) -> None:
    """An incremental read goes by such times, in their order; a deleted document is gone."""
    stamp = {"updated_at": "meta.updated_at", "deleted_at": "meta.deleted_at"}
    documents.put({"id": 1, "name": "old", "tenant_id": "a", "meta.updated_at": time(1)})
    cursor = read(documents.source(**stamp))[-1].cursor
    documents.put(
        {"id": 2, "name": "last", "tenant_id": "a", "meta.updated_at": time(9)},
        {"id": 3, "name": "gone", "tenant_id": "a", "meta.updated_at": time(8), "meta.deleted_at": time(8)},
        {"id": 4, "name": "older", "tenant_id": "a", "meta.updated_at": time(0)},
        {"id": 5, "name": "next", "tenant_id": "a", "meta": {"updated_at": "2024-05-01 10:05:00+00:00"}},
    )
    source = documents.source(**stamp)
    assert sorted(names(source)) == ["last", "next", "old", "older"]
    pages = read(source, since=cursor, page=1)
    assert sorted(values(pages, "name")) == ["last", "next", "old"]
    assert [str(key) for page in pages for key in page.tombstones] == ["3"]
    times = [page.cursor.value for page in pages if page.cursor is not None]
    assert times == sorted(times)


def test_change_streams_follow_such_a_key(mongo: MongoBackend) -> None:
    """A changed document comes with its key; a deleted one is a tombstone by the key that it had."""
    mongo.change_stream = "always"
    mongo.create()
    mongo.client[mongo.database].command("collMod", "materials", changeStreamPreAndPostImages={"enabled": True})
    mongo.put(*({"id": n, "name": str(n), "tenant_id": "a", "part.no": n * 10} for n in (1, 2, 3)))
    cursor = read(mongo.source(id=["part.no"]))[-1].cursor
    assert cursor is not None
    mongo.change(2, name="two")
    mongo.drop(3)
    source = mongo.source(id=["part.no"])
    assert source.lost(Read("a", since=cursor)) is None
    pages = read(source, since=cursor)
    assert values(pages, "name") == ["two"]
    assert [str(key) for page in pages for key in page.tombstones] == ["30"]


def test_metadata_is_written_to_the_right_documents(documents: MongoBackend) -> None:
    """Write-back and its withdrawal find documents by such a key, tenant and filter, and touch no other."""
    documents.put(
        {"id": 1, "part.no": 10, "firm.id": "a", "state.now": "ready"},
        {"id": 2, "part.no": 10, "firm.id": "b", "state.now": "ready"},
        {"id": 3, "part": {"no": 20}, "firm": {"id": "a"}, "state": {"now": "ready"}},
    )
    tenancy = {"column": "firm.id"}
    source = documents.source(id=["part.no"], tenancy=tenancy, filter={"state.now": "ready"})
    told = {"overallStatus": "synced", "collections": {"materials": {"status": "synced"}}}
    assert sorted(key for some in source.without_metadata("a") for key in some) == ["10", "20"]
    keys = values(read(source), "vecsync:key")
    assert source.write_metadata("a", dict.fromkeys(keys, told)) == 2
    assert source.write_metadata("a", dict.fromkeys(keys, told)) == 0
    assert list(source.without_metadata("a")) == []
    assert [one["_id"] for one in documents.documents.find({"syncMetadata": {"$exists": True}})] == [1, 3]
    [stored] = documents.documents.find({"_id": 1})
    documents.documents.replace_one({"_id": 1}, {**stored, "state.now": "draft"})
    assert source.withdraw_metadata("a") == 1
    assert [one["_id"] for one in documents.documents.find({"syncMetadata": {"$exists": True}})] == [3]


def test_paths_stay_conditions_that_an_index_serves(documents: MongoBackend) -> None:
    """Where no document has the field itself, a query is the flat one that it was."""
    documents.put({"id": 1, "name": "path", "firm": {"id": "a"}})
    source = documents.source(tenancy={"column": "firm.id"})
    assert source._queries.tenant("a") == {"firm.id": {"$in": ["a"]}}
    documents.put({"id": 2, "name": "own", "firm.id": "a"})
    source.close()
    assert names(source) == ["path", "own"]


def test_every_place_of_sql_takes_a_column_with_a_dot(database: SqlBackend) -> None:
    """Key, tenant, flag, times, filter, text, payload, required and types: full, by ids and incremental."""
    kind = database.types.get("time", "timestamptz")
    database.create(
        **{
            '"part.no"': "integer primary key",
            '"firm.id"': "text",
            '"for.all"': "boolean",
            '"meta.updated"': kind,
            '"meta.deleted"': kind,
            '"state.now"': "text",
            '"price.usd"': "integer",
        }
    )
    columns = ['"part.no"', '"firm.id"', '"for.all"', '"meta.updated"', '"meta.deleted"', '"state.now"', '"price.usd"']
    rows = [
        (1, "a", False, time(1), None, "ready", 5),
        (2, "a", False, time(2), None, "draft", 6),
        (3, "a", True, time(3), None, "ready", 7),
        (4, "b", False, time(4), None, "ready", 8),
        (5, "a", False, time(5), time(5), "ready", 9),
    ]
    database.put(*(dict(zip(columns, row, strict=True)) for row in rows))
    source = database.source(
        id="part.no",
        tenancy={"column": "firm.id", "global_flag": "for.all"},
        updated_at="meta.updated",
        deleted_at="meta.deleted",
        filter={"state.now": "ready"},
        required=[USD],
        types={USD: "integer"},
        **PRICE,
    )
    assert source.tenants() == ["a", "b"]
    assert [values(read(source, tenant), USD) for tenant in ("a", "b", "global")] == [[5], [8], [7]]
    assert source.count("a") == 1
    assert values(read(source, ids=("1", "4")), USD) == [5]
    cursor = read(source)[-1].cursor
    database.run('UPDATE materials SET "price.usd" = 10, "meta.updated" = ' + f"'{time(8)}' WHERE \"part.no\" = 1")
    pages = read(source, since=cursor)
    assert values(pages, USD) == [10]
    assert {native_of(key) or str(key) for page in pages for key in page.tombstones} >= {"5"}
    source.check()


def test_the_look_for_such_names_is_bounded(documents: MongoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of queries are looked for in the first and last documents alone, all of them in two requests."""
    monkeypatch.setattr(mongo_dotted, "_LOOKED_AT", 2)
    documents.put(*({"id": n, "name": str(n), "firm": {"id": "a"}} for n in range(5)))
    documents.put({"id": 9, "name": "9", "firm.id": "a"})
    source = documents.source(tenancy={"column": "firm.id"}, filter={"state.now": [None]})
    assert list(source._queries.named.flat) == ["firm.id"]
    documents.put({"id": 10, "tenant": "a"}, {"id": 11, "tenant": "a"})
    source.close()
    assert not source._queries.named.flat
