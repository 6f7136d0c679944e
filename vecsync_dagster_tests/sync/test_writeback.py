"""`syncMetadata` on the documents themselves: what it says, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pymongo import MongoClient, monitoring
from pymongo.collection import Collection

from vecsync_dagster.config import parse_config
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.identity import Key
from vecsync_dagster.sources.mongo_queries import Queries
from vecsync_dagster.sources.mongo_writeback import write_metadata
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Selection, SyncOptions, Workspace
from vecsync_dagster_tests.cli.program import vecsync
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.small import NAME, Small, mongo_rows
from vecsync_dagster_tests.tools import ENTITY, FOUR, Tools, sample, tools_config

APPROVED = 22


@pytest.fixture
def tools(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    monkeypatch.setenv("MONGO_URL", mongo_url)
    world = Tools(mongo_url, mongo_database, tools_config(tmp_path, mongo_database, entity={"writeback": True}))
    world.insert(sample())
    yield world
    world.close()


def told(tools: Tools, tool: str) -> Any:
    document = tools.documents.find_one({"id": tool})
    assert document is not None
    return document.get("syncMetadata") or {}


def business(tools: Tools) -> list[dict[str, Any]]:
    return list(tools.documents.find({}, {"syncMetadata": 0}).sort("id"))


def test_off_by_default(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a source that is not told to take it."""
    monkeypatch.setenv("MONGO_URL", mongo_url)
    world = Tools(mongo_url, mongo_database, tools_config(tmp_path, mongo_database))
    world.insert(sample()[:3])
    before = list(world.documents.find())
    world.sync()
    assert list(world.documents.find()) == before
    with pytest.raises(ConfigError, match=r"entities\.tools\.writeback"):
        world.workspace.write_back(ENTITY, "global")
    world.close()


def test_each_document_says_how_it_is(tools: Tools) -> None:
    """Overall and for each collection, with version and hash; nothing else of the document is touched, and the
    write-back is no change: the next run finds nothing to do."""
    before = business(tools)
    assert all(result.note == "" for result in tools.sync().values())
    assert business(tools) == before
    first = told(tools, "krita")
    assert first["overallStatus"] == "synced"
    assert set(first["collections"]) == set(FOUR)
    for name, state in first["collections"].items():
        assert (state["status"], state["vectorVersion"], state["retryCount"], state["lastError"]) == (
            "synced",
            1,
            0,
            None,
        )
        assert state["contentHash"] in {payload["contentHash"] for payload in tools.stored(name).values()}
        assert state["lastSyncedAt"] is not None
    assert told(tools, "gimp") == {}
    indexes = {next(iter(dict(one["key"]))) for one in tools.documents.list_indexes()}
    assert {"syncMetadata.overallStatus", "syncMetadata.collections.interface.status"} <= indexes

    again = tools.sync()
    assert {result.mode for result in again.values()} == {"incremental"}
    assert sum(result.figures.fetched for result in again.values()) == 0
    assert told(tools, "krita") == first

    tools.change("krita", name="Krita Studio")
    tools.sync()
    second = told(tools, "krita")
    assert second["collections"]["tools"]["vectorVersion"] == 2
    assert second["lastModifiedFields"] == ["name"]
    assert second["createdAt"] == first["createdAt"] < second["updatedAt"]
    assert told(tools, "blender")["updatedAt"] < second["updatedAt"]
    tools.assert_exact()

    tools.change("krita", approvalStatus="rejected")
    tools.sync()
    assert told(tools, "krita") == {}


def test_it_fails_alone(tools: Tools, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes no writes does not fail the sync: it is said, and the next run makes up for it."""
    with failing(tools.url, "update", errorCode=13):
        results = tools.sync()
    assert all(result.ok and "was not written back" in result.note for result in results.values())
    assert "was not written back" in caplog.text
    tools.assert_exact()
    assert told(tools, "krita") == {}
    tools.sync()
    assert told(tools, "krita")["overallStatus"] == "synced"


def test_a_tenant_that_is_gone_leaves_no_mark(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whose documents the write-back withdrew from; where it could not, the next run of all tenants does."""
    with mongo_rows(request) as (source, documents):
        tenancy: dict[str, Any] = {"tenancy": {"column": "firm"}, "deleted_at": "gone"}
        small = Small(tmp_path, source, id="no", writeback=True, **tenancy)
        documents.insert_many([{"no": n, "firm": firm, "name": "a"} for n, firm in enumerate("aabb")])
        assert visited(small) == ({"a", "b"}, {"a", "b"})
        documents.update_many({"no": 2}, {"$set": {"gone": "yes"}})
        documents.delete_one({"no": 3})
        with failing(request.getfixturevalue("mongo_url"), "update", errorCode=13):
            assert visited(small, allow_removals=True) == ({"a", "b"}, {"a", "b"})
        assert "syncMetadata" in (documents.find_one({"no": 2}) or {})
        assert visited(small) == ({"a", "b"}, {"a"})
        assert "syncMetadata" not in (documents.find_one({"no": 2}) or {})
        assert visited(small) == ({"a"}, {"a"})


def visited(small: Small, **options: Any) -> tuple[set[str], set[str]]:
    """The tenants that a full run over all visits, and those of whom there is anything afterwards."""
    with Workspace(small.config) as workspace:
        synced = {
            selection.tenant: workspace.sync(selection, SyncOptions("full", **options))
            for selection in workspace.select([NAME])
        }
        return {*synced} - {GLOBAL}, workspace.traces(NAME) - {GLOBAL}


def test_a_document_that_cannot_take_it_is_counted(tools: Tools) -> None:
    """A document whose `syncMetadata` is something else stays as it is; the others are written all the same."""
    tools.change("krita", syncMetadata="mine")
    results = tools.sync()
    assert all(result.ok and "1 of 22 documents do not take" in result.note for result in results.values())
    assert told(tools, "krita") == "mine"
    assert told(tools, "blender")["overallStatus"] == "synced"


def test_the_worst_collection_counts(tools: Tools) -> None:
    """A rejected record is failed in every collection, and the document says so, without its text."""
    tools.sync()
    tools.change("krita", name="")
    tools.sync()
    metadata = told(tools, "krita")
    assert metadata["overallStatus"] == "stale"
    assert metadata["collections"]["tools"]["errorCode"] == "VALIDATION_ERROR"
    assert metadata["collections"]["tools"]["lastError"] == "name is required and is empty"


def test_a_backfill_reaches_documents_without_it(tools: Tools) -> None:
    """What lost its metadata, and what was never synced, is written by the backfill alone, each once."""
    tools.sync(["tools"])
    tools.documents.update_many({"id": {"$in": ["krita", "vlc"]}}, {"$unset": {"syncMetadata": 1}})
    tools.insert([{**sample()[0], "id": "new", "_id": "new"}])
    assert tools.workspace.write_back(ENTITY, "global", backfill=True) == 3
    assert told(tools, "krita")["overallStatus"] == "pending"
    assert told(tools, "krita")["collections"]["tools"]["status"] == "synced"
    assert told(tools, "new")["collections"]["tools"]["status"] == "pending"
    assert tools.workspace.write_back(ENTITY, "global", backfill=True) == 0


def marked(documents: Collection[dict[str, Any]]) -> dict[str, int]:
    """Which documents say that they are synced, by name, and in which version."""
    return {
        document["name"]: document["syncMetadata"]["collections"][NAME]["vectorVersion"]
        for document in documents.find({"syncMetadata.overallStatus": "synced"})
    }


SAME_KEYS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "no": ("no", [{"no": 7}, {"no": 7}, {"no": [7, 8]}, {"no": 7.0}, {"no": "7"}, {"no": None}, {}]),
    "of two fields": (
        ["firm", "no"],
        [{"firm": "a", "no": 7}, {"firm": "a", "no": [7]}, {"firm": ["a"], "no": 7}, {"firm": "a", "no": "7"}],
    ),
    "without a value": (["firm", "no"], [{"no": 7}, {"firm": None, "no": 7}, {"firm": [None], "no": 7}]),
    "in a list": ("part.no", [{"part": {"no": 7}}, {"part": [{"no": 7}]}, {"part": {"no": [7]}}]),
    "parts of _id": (
        ["_id.firm", "_id.no"],
        [{"_id": {"firm": "a", "no": 7, "at": at}} for at in range(3)] + [{"_id": {"no": 7, "firm": "a"}}],
    ),
}


@pytest.mark.parametrize("case", SAME_KEYS)
def test_of_documents_with_one_key_the_synced_one_is_written_to(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """However many runs there are: no other one, no list that holds the key, no other type, no missing field."""
    key, rows = SAME_KEYS[case]
    with mongo_rows(request) as (source, documents):
        documents.insert_many([{"_id": n, "name": f"number {n}"} | row for n, row in enumerate(rows)])
        small = Small(tmp_path, source, id=key, writeback=True, payload=("name",))
        small.sync()
        [stored] = small.stored().values()
        assert stored["name"] == "number 0"
        before = list(documents.find())
        assert marked(documents) == {"number 0": 1}
        for mode in ("incremental", "full"):
            assert small.sync(mode=mode).note == ""
            assert list(documents.find()) == before
        with Workspace(small.config) as workspace:
            assert workspace.write_back(NAME, "global", backfill=True) == 0
        assert list(documents.find()) == before


@pytest.mark.parametrize("index", [{"sparse": True}, {"partialFilterExpression": {"firm": {"$exists": True}}}])
def test_an_index_of_some_documents_makes_no_key_unique(
    index: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Documents without the field are not in it, and may have the same key."""
    with mongo_rows(request) as (source, documents):
        documents.create_index("firm", unique=True, **index)
        documents.insert_many([{"no": 7, "name": "first"}, {"no": 7, "name": "second"}])
        small = Small(tmp_path, source, id=["firm", "no"], writeback=True)
        for _ in range(3):
            small.sync()
            assert marked(documents) == {"first": 1}


def test_the_mark_goes_where_the_key_goes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """When another document of that key is synced, it alone says so: not a rejected one before it, and no other one any
    more."""
    with mongo_rows(request) as (source, documents):
        small = Small(tmp_path, source, id="no", writeback=True, payload=("name",), required=["unit"])
        for number in (1, 2, 3):
            documents.insert_one({"_id": number, "no": 7, "name": f"number {number}", "unit": "m"})
        small.sync()
        assert marked(documents) == {"number 1": 1}
        documents.update_one({"_id": 1}, {"$set": {"unit": None}})
        small.sync()
        assert marked(documents) == {"number 2": 2}
        [second] = documents.find({"_id": 2})
        documents.update_one({"_id": 3}, {"$set": {"syncMetadata": second["syncMetadata"]}})
        documents.delete_one({"_id": 2})
        documents.insert_one({"_id": 0, "no": 7, "name": "number 0", "unit": "m"})
        small.sync()
        assert marked(documents) == {"number 0": 3}


def test_where_collections_hold_different_ones_none_is_written_to(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A document would say of another one that it is synced."""
    with mongo_rows(request) as (source, documents):
        documents.insert_many([{"no": 7, "name": "a"}, {"no": 7, "name": "b", "more": "b"}, {"no": 8, "name": "c"}])
        small = Small(tmp_path, source, id="no", writeback=True)
        things: Any = small.data["entities"]
        things[NAME]["collections"]["more"] = {"text": "{more}"}
        with Workspace(small.config) as workspace:
            workspace.sync(Selection(NAME, "global", (NAME, "more")))
        told = {one["name"]: "syncMetadata" in one for one in documents.find()}
        assert told == {"a": False, "b": False, "c": True}


def test_a_unique_key_in_a_list_is_another_one(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Where an index keeps keys unique, documents are found by them: not those that hold one in a list."""
    with mongo_rows(request) as (source, documents):
        documents.create_index("no", unique=True)
        documents.insert_many([{"no": 7, "name": "seven"}, {"no": 8, "name": "eight"}])
        small = Small(tmp_path, source, id="no", writeback=True)
        small.sync()
        documents.update_one({"no": 7}, {"$set": {"no": [7, 9]}, "$unset": {"syncMetadata": 1}})
        with Workspace(small.config) as workspace:
            workspace.write_back(NAME, "global")
        assert marked(documents) == {"eight": 1}


def test_documents_without_repeated_keys_are_looked_up_once(
    tmp_path: Path, request: pytest.FixtureRequest, mongo_url: str
) -> None:
    """Whatever the key is, a batch of documents costs one query at most, and its one bulk write; with `_id` none."""
    sent: list[str] = []

    class Listener(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            sent.append(event.command_name)

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
            pass

        def failed(self, event: monitoring.CommandFailedEvent) -> None:
            pass

    told: dict[str, Any] = {"overallStatus": "synced", "collections": {NAME: {"status": "synced"}}}
    with mongo_rows(request) as (_, documents):
        documents.insert_many([{"_id": n, "no": n, "name": "a"} for n in range(100)])
        with MongoClient[dict[str, Any]](mongo_url, event_listeners=[Listener()]) as client:
            collection = client[documents.database.name][NAME]
            for name, unique, queries in (("_id", True, 0), ("no", False, 1)):
                entity = EntityConfig.model_validate(
                    {"source": "db", "table": NAME, "id": name, "collections": {NAME: {"text": "{name}"}}}
                )
                keys: dict[str, dict[str, Any]] = {Key(str(n), str(n)): told for n in range(100)}
                documents.update_many({}, {"$unset": {"syncMetadata": 1}})
                sent.clear()
                assert write_metadata(collection, Queries(entity, unique=unique), "global", keys, lambda _: 0) == 100
                assert sent == ["find"] * queries + ["update"]


@pytest.mark.parametrize("stream", ["never", "auto"])
def test_what_is_in_no_collection_is_not_called_synced(
    tmp_path: Path, request: pytest.FixtureRequest, stream: str
) -> None:
    """A document that is nobody's now, that moved and was deleted in the same change, or whose tenant became a list
    loses what was said of it with the run that removes or rejects it; one that moved keeps it, as its new tenant's."""
    with mongo_rows(request, stream=stream) as (source, documents):
        small = Small(tmp_path, source, **TENANTS)
        documents.insert_many([{"_id": n, "name": f"{n}", "firm": "acme"} for n in range(1, 7)])
        sync_all(small, "full")
        documents.update_one({"_id": 1}, {"$set": {"firm": None}})
        documents.update_one({"_id": 2}, {"$set": {"firm": "new", "deleted": True}})
        documents.update_one({"_id": 3}, {"$set": {"firm": ["acme", "brick"]}})
        documents.update_one({"_id": 4}, {"$set": {"firm": "brick"}})
        documents.update_one({"_id": 5}, {"$set": {"firm": {"a": 1}}})
        for mode in ("incremental", "full", "incremental"):
            sync_all(small, mode)
            assert marked(documents) == {"4": 1, "6": 1}


def test_a_backfill_finds_what_earlier_runs_left(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whoever's those documents were. Those that have a tenant, and are live, keep what was said of them."""
    with mongo_rows(request) as (source, documents):
        small = Small(tmp_path, source, **TENANTS)
        documents.insert_many([{"_id": n, "name": f"{n}", "firm": "acme"} for n in range(1, 6)])
        sync_all(small, "full")
        changes: dict[int, dict[str, Any]] = {
            1: {"firm": None},
            2: {"firm": "new", "deleted": True},
            3: {"firm": ["acme"]},
        }
        for number, change in changes.items():
            documents.update_one({"_id": number}, {"$set": change})
        documents.update_one({"_id": 4}, {"$unset": {"syncMetadata": 1}})
        file = tmp_path / "vecsync.yaml"
        file.write_text(yaml.safe_dump(small.data))
        for _ in range(2):
            assert vecsync("writeback", "--backfill", "--config", file).code == 0
            assert marked(documents) == {"4": 1, "5": 1}


TENANTS: dict[str, Any] = {"id": "_id", "tenancy": {"column": "firm"}, "deleted_at": "deleted", "writeback": True}


def sync_all(small: Small, mode: Literal["full", "incremental"]) -> None:
    with Workspace(small.config) as workspace:
        for selection in workspace.select([NAME]):
            for result in workspace.sync(selection, SyncOptions(mode=mode, allow_removals=mode == "full")):
                assert (result.outcome, result.note) == ("success", "")


def test_other_sources_are_only_read() -> None:
    """The configuration refuses a write-back to a table."""
    text = """
sources: {db: {type: sqlite, path: a.db}}
entities: {works: {source: db, table: works, writeback: true, collections: {works: {text: "{name}"}}}}
"""
    with pytest.raises(ConfigError, match=r"vecsync.yaml:3: entities\.works\.writeback: only documents of a MongoDB"):
        parse_config(text)
