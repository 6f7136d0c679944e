"""`syncMetadata` on the documents themselves: what it says, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.config import parse_config
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.servers.mongo import failing
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


def test_other_sources_are_only_read() -> None:
    """The configuration refuses a write-back to a table."""
    text = """
sources: {db: {type: sqlite, path: a.db}}
entities: {works: {source: db, table: works, writeback: true, collections: {works: {text: "{name}"}}}}
"""
    with pytest.raises(ConfigError, match=r"vecsync.yaml:3: entities\.works\.writeback: only documents of a MongoDB"):
        parse_config(text)
