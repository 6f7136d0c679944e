"""`vecsync watch` on MongoDB: a changed document is synced at once, by the change stream."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.config.models import EntityConfig, MongoSource
from vecsync_dagster.errors import SourceRejected, StoreRejected
from vecsync_dagster.sources import stream_waker
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.cli.program import start
from vecsync_dagster_tests.cli.test_watch import SLOW, ended
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.tools import Tools, sample, tools_config
from vecsync_dagster_tests.world import file_of


@pytest.fixture
def tools(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    monkeypatch.setenv("MONGO_URL", mongo_url)
    with QdrantRest() as server:
        store = {"main": {"type": "qdrant", "url": server.url, "timeout_s": 20}}
        config = tools_config(tmp_path, mongo_database, stores=store, automation=SLOW)
        tools = Tools(mongo_url, mongo_database, config)
        yield tools
        tools.close()


def test_changed_documents_are_synced_at_once(tools: Tools) -> None:
    """Documents that come, change and go are in all four collections, or gone from them, without another look."""
    tools.insert(sample()[:3])
    process = start("watch", "--no-record", "--config", file_of(tools.config, tools.config.folder))

    def is_exact() -> bool:
        tools.leave()
        try:
            tools.assert_exact()
        except (AssertionError, StoreRejected):  # of a collection that is not there yet
            return False
        return True

    try:
        wait_for("the first look", is_exact)
        tools.insert(sample()[3:5])
        wait_for("inserted documents", is_exact)
        first, second, *_ = (document["id"] for document in sample())
        tools.change(first, name="Renamed")
        tools.delete(second)
        wait_for("a change and a deletion", is_exact)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = ended(process)
    assert process.returncode == 0, err
    assert "Renamed" not in err


def test_a_stream_that_is_refused_is_an_error(mongo_url: str, mongo_database: str, tools: Tools) -> None:
    """Where the server has streams and does not let us: a Source* error, so that it is tried again later."""
    entity: EntityConfig = tools.config.entities["tools"]
    source = tools.config.sources["directory"]
    assert isinstance(source, MongoSource)
    waker = stream_waker(source, entity, name="directory", entity_name="tools")
    stop = threading.Event()
    with (
        failing(mongo_url, "aggregate", errorCode=8000),
        pytest.raises(SourceRejected, match="listening to its changes"),
    ):
        waker.run(lambda *_: stop.set(), stop.is_set)
    assert not stop.is_set()


@pytest.mark.parametrize(("code", "said"), [(166, "a view or time series collection"), (40573, "on a server without")])
def test_what_has_no_stream_goes_by_time_and_says_so(
    mongo_url: str, tools: Tools, caplog: pytest.LogCaptureFixture, code: int, said: str
) -> None:
    """Nobody has to guess why changes of a view, or on a standalone server, arrive minutes later."""
    source = tools.config.sources["directory"]
    assert isinstance(source, MongoSource)
    waker = stream_waker(source, tools.config.entities["tools"], name="directory", entity_name="tools")
    with failing(mongo_url, "aggregate", errorCode=code):
        waker.run(lambda *_: None, lambda: True)
    assert f"no change stream for tools, {said}" in caplog.text
