"""What can be wrong with a MongoDB server, and what people are told then."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pymongo import MongoClient

from vecsync_dagster.config.models import EnvRef, MongoSource
from vecsync_dagster.errors import ConfigError, SourceRejected, SourceUnavailable
from vecsync_dagster.sources import Read
from vecsync_dagster.sources.mongo import MongoDbSource
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.sources.backends import entity_config, ids, read, told
from vecsync_dagster_tests.sources.mongo_backend import VARIABLE, MongoBackend

SECRET = "hunter2"


def at(url: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> MongoDbSource:
    monkeypatch.setenv(VARIABLE, url)
    config = {"type": "mongo", "url": EnvRef(env=VARIABLE), "database": "d", "connect_timeout_s": 0.5, **settings}
    return MongoDbSource(
        MongoSource.model_validate(config), entity_config(id="_id"), name="db", entity_name="materials"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h/d",
        f"mongodb://u:{SECRET}/x@h/d",
        f"mongodb://u:{SECRET}@h:port/d",
        f"mongodb://u:{SECRET}@h/?tls={SECRET}",
        "",
        SECRET,
    ],
)
def test_a_url_that_is_none_is_an_error_for_people(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the key, and keeps what stands in it."""
    source = at(url, monkeypatch)
    with pytest.raises(ConfigError, match=r"sources\.db\.url") as caught:
        source.check()
    assert SECRET not in told(caught.value)
    source.close()


def test_a_database_must_be_named_somewhere(mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the URL or in the configuration: nothing is guessed."""
    source = at(mongo_url, monkeypatch, database=None)
    with pytest.raises(ConfigError, match=r"sources\.db\.database"):
        source.check()
    source.close()


def test_the_urls_database_will_do(mongo: MongoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """mongodb://host/database names it."""
    mongo.create()
    source = at(f"{mongo.url.rstrip('/')}/{mongo.database}", monkeypatch, database=None)
    assert source.count("a") == 0
    source.close()


def test_a_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another attempt; the message names source and server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        source = at(f"mongodb://u:{SECRET}@127.0.0.1:{port}/d", monkeypatch)
        with pytest.raises(SourceUnavailable, match=rf"source db: MongoDB at 127\.0\.0\.1:{port}/d") as caught:
            source.tenants()
        source.close()
    assert SECRET not in told(caught.value)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that accepts and stays silent is left after the configured time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = at(f"mongodb://127.0.0.1:{silent.getsockname()[1]}/d", monkeypatch)
        with pytest.raises(SourceUnavailable):
            source.count("a")
        source.close()


def test_a_query_that_takes_too_long_may_be_tried_again(mongo: MongoBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer in time is a time-out, and the message says so."""
    mongo.create()
    source = at(mongo.url, monkeypatch, database=mongo.database, timeout_s=0.2)
    with (
        failing(mongo.url, "find", blockConnection=True, blockTimeMS=600),
        pytest.raises(SourceUnavailable, match="no answer in time"),
    ):
        read(source)
    source.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server that asks for a password; its user was made before it did."""
    from secantus import SecantusDBServer

    folder = str(tmp_path_factory.mktemp("locked"))
    with SecantusDBServer(storage_path=folder) as server, MongoClient[dict[str, object]](server.uri) as client:
        client.admin.command("createUser", "reader", pwd="right", roles=["root"])
        client.d.materials.insert_one({"_id": 1})
    with SecantusDBServer(storage_path=folder, require_auth=True) as server:
        yield str(server.uri).removeprefix("mongodb://").strip("/")


def test_a_wrong_password_is_said_and_kept(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again, and the password stands nowhere."""
    source = at(f"mongodb://reader:{SECRET}@{locked}/d?authSource=admin", monkeypatch)
    with pytest.raises(SourceRejected, match=r"source db: .*authentication failed") as caught:
        source.check()
    assert SECRET not in told(caught.value)
    source.close()
    source = at(f"mongodb://reader:right@{locked}/d?authSource=admin", monkeypatch)
    assert "1 documents" in source.check()
    source.close()


def test_a_missing_password_is_said(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks for a password, and gets none, refuses."""
    source = at(f"mongodb://{locked}/d", monkeypatch)
    with pytest.raises(SourceRejected, match=r"not authorized|authentication"):
        source.count("a")
    source.close()


def test_a_missing_collection_is_no_empty_one(mongo: MongoBackend) -> None:
    """A wrong name must not look as if every document had been deleted; the message has the right one."""
    mongo.create()
    source = mongo.source(table="material")
    for use in (source.check, source.fields, source.tenants, lambda: source.count("a"), lambda: read(source)):
        with pytest.raises(SourceRejected, match=r"entities\.materials\.table: .* did you mean materials\?"):
            use()


def test_a_missing_database_is_no_empty_one(mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is not there is an error too."""
    source = at(mongo_url, monkeypatch, database="no_such_database")
    with pytest.raises(SourceRejected, match="is it the right database"):
        read(source)
    source.close()


def test_an_id_that_no_document_has_is_found_by_check(mongo: MongoBackend) -> None:
    """The message names the key, and MongoDB's own id."""
    mongo.documents.insert_one({"_id": 1, "name": "n"})
    mongo.key = "slug"
    with pytest.raises(SourceRejected, match=r"entities\.materials\.id: .*write id: _id"):
        mongo.source().check()


def test_check_names_fields_that_no_document_has(mongo: MongoBackend) -> None:
    """A mistyped field is no error to a server without a schema: `check` says it."""
    mongo.documents.insert_one({"_id": 1, "name": "n", "unit": "pc"})
    line = mongo.source(change_stream="auto").check()
    assert "1 documents, change stream; none of 1 looked at has: price, tenant_id" in line


def test_fault_11_a_fetch_that_fails_is_not_the_end(mongo: MongoBackend) -> None:
    """A connection that breaks between two pages raises: the read does not end as if it were complete."""
    mongo.create()
    mongo.put(*({"id": key, "tenant_id": "a", "name": "x" * 10_000} for key in range(400)))
    source = mongo.source()
    pages = source.read(Read("a"), 50)
    assert ids([next(pages)])[0] == "0"
    with failing(mongo.url, "getMore", closeConnection=True), pytest.raises(SourceUnavailable):
        list(pages)
    with failing(mongo.url, "getMore", errorCode=43), pytest.raises(SourceUnavailable, match=r"CursorNotFound|43"):
        read(source)
    assert len(ids(read(source))) == 400


def test_a_missing_package_is_said() -> None:
    """Without pymongo the configuration loads, and the error names the extra."""
    script = """
import sys
sys.modules["pymongo"] = sys.modules["bson"] = None
from pathlib import Path
from vecsync_dagster.config.models import EntityConfig, MongoSource
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.sources import build_source
config = MongoSource(type="mongo", url={"env": "X"})
entity = EntityConfig(source="db", table="t", collections={"c": {"text": "{a}"}})
try:
    build_source(config, entity, name="db", entity_name="e", path_of=Path)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "vecsync-dagster[mongo]" in done.stdout
