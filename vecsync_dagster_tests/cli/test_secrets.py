"""Secrets that are planted in every setting which can hold one are shown, logged and stored nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import stamina
from pymongo import MongoClient

from vecsync_dagster.assets import factory
from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.config import load_config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.ledger import migrate
from vecsync_dagster_tests.cli.program import vecsync
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.mongo import new_mongo_database
from vecsync_dagster_tests.servers.postgres import new_database

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")

SECRET = "hunter2"
KEY = f"{SECRET}-key"
# Options of libpq that may hold one, the last as a setting of the server.
QUERY = f"password={SECRET}&sslpassword={SECRET}&options=-c%20my.token%3D{SECRET}"
MONGO_QUERY = f"authMechanismProperties=AWS_SESSION_TOKEN:{SECRET}"
CONFIG = """
sources:
  db: {type: postgres, url: {env: SOURCE_URL}, connect_timeout_s: 1}
  documents: {type: mongo, url: {env: MONGO_URL}, connect_timeout_s: 0.3}
entities:
  works: {source: db, table: works, tenancy: {column: firm}, required: [name], collections: {works: {text: "{name}"}}}
  things: {source: documents, table: things, writeback: true, collections: {things: {text: "{name}"}}}
stores:
  main: {type: qdrant, url: {env: STORE_URL}, api_key: {env: STORE_KEY}, attempts: 2}
ledger: {url: {env: LEDGER_URL}}
embedding:
  chain: [{provider: openai, dimensions: 16, base_url: {env: MODEL_URL}, api_key: {env: MODEL_KEY}, attempts: 2}]
alerts:
  slack: {url: {env: SLACK_URL}}
  webhook: {url: {env: HOOK_URL}, secret: {env: HOOK_KEY}}
  email:
    {host: 127.0.0.1, port: 1, tls: none, user: {env: MAIL_KEY}, password: {env: MAIL_KEY}, from: a@b.c, to: [a@b.c]}
  cool_down: 0
  attempts: 2
state: state
"""
WORKING = (
    ("check",),
    ("sync", "all", "--full"),
    ("status", "--entity", "works", "--state", "failed", "--json"),
    ("invalid", "--json"),
    ("reconcile", "--json"),
    ("retry", "--no-record"),
    ("search", "x", "--collection", "works", "--tenant", "acme"),
    ("export", "--entity", "works"),
    ("tenants", "--entity", "works"),
    ("install-triggers", "--dry-run"),
    ("writeback",),
    ("alerts", "test"),
    ("ledger", "rebuild"),
)
FAILING = (
    ("check", "--json"),
    ("sync", "all", "--full", "--no-record"),
    ("status",),
    ("reconcile",),
    ("export", "--entity", "works"),
    ("export", "--entity", "things"),
    ("install-triggers",),
    ("alerts", "test"),
)


@dataclass
class Planted:
    """Two sources, ledger, store, provider and channels that work; `environment` says where each is."""

    folder: Path
    environment: Mapping[str, str]
    store: QdrantRest
    model: OpenAIServer
    inbox: Inbox


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, mongo_url: str) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "vecsync.yaml").write_text(CONFIG, encoding="utf-8")
    with ExitStack() as stack:
        source = stack.enter_context(new_database(postgres_url))
        ledger = stack.enter_context(new_database(postgres_url))
        documents = stack.enter_context(new_mongo_database(mongo_url))
        store = stack.enter_context(QdrantRest(api_key=KEY))
        model = stack.enter_context(OpenAIServer(dimensions=16))
        inbox = stack.enter_context(Inbox())
        migrate.upgrade(ledger)
        with psycopg.connect(source) as connection:
            connection.execute("CREATE TABLE works (id int PRIMARY KEY, firm text, name text)")
            connection.execute("INSERT INTO works VALUES (1, 'acme', 'a'), (2, 'acme', '')")
        with MongoClient[dict[str, Any]](mongo_url) as client:
            client[documents].things.insert_one({"name": "a"})
        environment = {
            "SOURCE_URL": f"{source.replace('postgres@', f'postgres:{SECRET}@')}?{QUERY}",
            "LEDGER_URL": f"{ledger.replace('postgres@', f'postgres:{SECRET}@')}?{QUERY}",
            "MONGO_URL": f"{mongo_url.rstrip('/')}/{documents}?{MONGO_QUERY}",
            "STORE_URL": store.url,
            "MODEL_URL": model.base_url.replace("//", f"//me:{SECRET}@"),
            "SLACK_URL": f"{inbox.url}/{SECRET}",
            "HOOK_URL": f"{inbox.url}?token={SECRET}",
            **dict.fromkeys(("STORE_KEY", "MODEL_KEY", "HOOK_KEY", "MAIL_KEY"), KEY),
        }
        yield Planted(folder, environment, store, model, inbox)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


def leaks(planted: Planted, caplog: pytest.LogCaptureFixture, *commands: tuple[str, ...]) -> list[str]:
    """Run the commands, whatever comes of them, and look into all that they print, log and write."""
    caplog.set_level(logging.DEBUG)
    found = []
    for command in commands:
        caplog.clear()
        ran = vecsync(*command, "--config", planted.folder / "vecsync.yaml")
        for place, text in (("stdout", ran.out), ("stderr", ran.err), ("log", caplog.text)):
            found += [f"{' '.join(command)}: {place}: {line}" for line in text.splitlines() if SECRET in line]
        if ran.code == 2 or "INTERNAL_ERROR" in ran.out + ran.err:
            found.append(f"{' '.join(command)}: wrong usage, or INTERNAL_ERROR")
    files = [path for path in planted.folder.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if SECRET.encode() in path.read_bytes()] + in_ledger(planted)


def in_ledger(planted: Planted) -> list[str]:
    """The tables of the ledger that hold the secret."""
    with psycopg.connect(planted.environment["LEDGER_URL"]) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return [
            name
            for (name,) in tables
            for (row,) in connection.execute(f'SELECT t::text FROM "{name}" t'.encode())
            if SECRET in row
        ]


def plant(planted: Planted, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """In the environment, with the line's end that a file of secrets leaves behind each."""
    for name, value in {**planted.environment, **others}.items():
        monkeypatch.setenv(name, f"{value}\n")


def test_commands_that_work(
    planted: Planted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line ends behind the secrets keep nothing from working, and no secret is found anywhere."""
    plant(planted, monkeypatch)
    assert leaks(planted, caplog, *WORKING) == []
    assert {"sync_metrics.json", "runs.db"} <= {path.name for path in planted.folder.rglob("*")}  # it looked into those
    with psycopg.connect(planted.environment["LEDGER_URL"]) as connection:
        assert connection.execute("SELECT 1 FROM index_state").fetchone() == (1,)
    assert all(post.path.endswith((f"/{SECRET}", f"={SECRET}")) for post in planted.inbox.posts)
    assert len(planted.inbox.posts) == 2


POSTGRES = ("SOURCE_URL", "LEDGER_URL")
HTTP = ("STORE_URL", "MODEL_URL", "SLACK_URL", "HOOK_URL")


def all_at(postgres: str, mongo: str, http: str) -> dict[str, str]:
    return dict.fromkeys(POSTGRES, postgres) | {"MONGO_URL": mongo} | dict.fromkeys(HTTP, http)


def at(host: str) -> dict[str, str]:
    return all_at(
        f"postgresql://u:{SECRET}@{host}/d?{QUERY}",
        f"mongodb://u:{SECRET}@{host}/d?{MONGO_QUERY}&authMechanism=MONGODB-AWS",
        f"http://u:{SECRET}@{host}/{SECRET}?token={SECRET}",
    ) | {"STORE_URL": f"http://{host}/{SECRET}", "MODEL_URL": f"http://u:{SECRET}@{host}/{SECRET}"}


BROKEN = {
    "refused": at("127.0.0.1:1"),
    "unknown host": at("nowhere.invalid"),
    "unknown option": all_at(
        f"postgresql://u:{SECRET}@127.0.0.1:1/d?pgbouncer={SECRET}&sslmode={SECRET}",
        f"mongodb://u:{SECRET}@127.0.0.1:1/d?token={SECRET}&w={SECRET}",
        f"http://127.0.0.1:port-{SECRET}/",
    ),
    "refused by the client": all_at(
        f"postgresql://u:{SECRET}@127.0.0.1:1/d?service={SECRET}",
        f"mongodb://u:{SECRET}@127.0.0.1:1/d?w={SECRET}",
        f"http://127.0.0.1:1/?token={SECRET}#{SECRET}",
    ),
    "port as an option": all_at(
        f"postgresql://u:{SECRET}@127.0.0.1/d?port={SECRET}",
        f"mongodb://u:{SECRET}@127.0.0.1:{SECRET}/d",
        f"http://u:{SECRET}@127.0.0.1:1/",
    ),
    "not encoded": all_at(
        f"postgresql://u:p@{SECRET}@127.0.0.1:1/d",
        f"mongodb://u:1/{SECRET}@127.0.0.1:1",
        f"http://u:1/{SECRET}@127.0.0.1:1",
    ),
    "not encoded either": all_at(
        f"postgresql://u:p@1/{SECRET}@127.0.0.1:1/d",
        f"mongodb://u:p@{SECRET}@127.0.0.1:1/d",
        f"http://u:1#{SECRET}@127.0.0.1:1",
    ),
    "no URL": all_at(SECRET, SECRET, SECRET),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_commands_that_fail(
    planted: Planted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """What is wrong with a URL, or with the server that it names, is said without a part of it that may be secret."""
    plant(planted, monkeypatch, **{**BROKEN[broken], "LEDGER_URL": planted.environment["LEDGER_URL"]})
    assert leaks(planted, caplog, *FAILING) == []
    plant(planted, monkeypatch, **BROKEN[broken])
    assert leaks(planted, caplog, *FAILING[:2]) == []


def test_servers_that_refuse(
    planted: Planted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal that repeats the key, the URL or the role is not repeated; in no event of a run of Dagster's either."""
    planted.store.fail(status=403, times=999, message=f"{KEY} may not")
    planted.model.fail("unauthorized", times=999)
    planted.inbox.fail(403, times=999)
    wrong = {"STORE_KEY": f"wrong-{SECRET}", "MODEL_KEY": f"wrong-{SECRET}"}
    plant(planted, monkeypatch, **wrong)
    assert leaks(planted, caplog, *FAILING[:4], ("sync", "all", "--full", "--json")) == []
    plant(planted, monkeypatch, SOURCE_URL=planted.environment["SOURCE_URL"].replace("postgres:", "nobody:"), **wrong)
    monkeypatch.setattr(factory, "MAX_RETRIES", 0)
    config = load_config(planted.folder / "vecsync.yaml")
    with open_instance(config) as instance:
        job = build_definitions(config).resolve_job_def("works_job")
        settings = {"ops": {"works_sync": {"config": {"mode": "full"}}}}
        ran = job.execute_in_process(instance=instance, run_config=settings, raise_on_error=False)
        events = "".join(record.user_message + str(record) for record in instance.all_logs(ran.run_id))
    assert not ran.success
    assert "SOURCE_ERROR" in events
    assert SECRET not in events + caplog.text
    assert leaks(planted, caplog, *FAILING) == []
