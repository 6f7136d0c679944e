"""Every service a sync talks to fails in every way it can, in the middle of a run with all kinds of work.

After each: an error with its code, nothing removed or reported that is not so, and one clean run makes
everything right without paying for a text twice (beyond the batch in flight where an answer was lost).
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest
import sqlalchemy as sa
import stamina
from psycopg import sql

from vecsync_dagster.errors import LedgerUnavailable, StoreRejected
from vecsync_dagster.ledger import migrate
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace
from vecsync_dagster_tests.fakes.openai_server import Fault, OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.world import ENTITY, World, config_of

BATCH = 10
MANY = 1000


class Away(Protocol):
    """Takes the ledger's database away, and gives it back."""

    def go(self) -> None: ...

    def come_back(self) -> None: ...


@dataclass
class Services:
    """A world with a provider that can fail, and the ledger's database, which can go away."""

    world: World
    provider: OpenAIServer
    ledger_url: str
    ledger: Away

    def work(self) -> None:
        """Something of every kind to do: payloads, changed and new texts, removals."""
        world = self.world
        world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 41))
        world.sync()
        world.update(*range(1, 11), code="neu")
        for n in range(11, 16):
            world.update(n, name=f"иначе {n}")
        world.delete(*range(21, 26))
        world.insert({"id": n, "tenant_id": "acme"} for n in range(101, 126))

    def sync(self) -> PartitionResult:
        [result] = self.world.sync("acme", mode="full")
        return result

    def assert_right_after_one_clean_run(self, *, lost: int = 0) -> None:
        """`lost`: texts whose paid vectors may have been lost on the way."""
        result = self.sync()
        assert result.ok, (result.error, result.checks)
        self.world.assert_exact()
        paid = Counter(self.provider.answered)
        assert sum(times - 1 for times in paid.values()) <= lost
        again = self.sync()
        assert again.ok
        assert not again.figures.touched


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As many attempts as the configuration says, without the time between them."""
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        yield server


def in_batches(provider: OpenAIServer) -> dict[str, Any]:
    """Keys of a configuration: this provider, and small batches one after another."""
    openai = {
        "provider": "openai",
        "model": "loopback",
        "dimensions": 16,
        "base_url": provider.base_url,
        "texts_per_request": BATCH,
        "attempts": 2,
        "timeout_s": 30,
    }
    return {"embedding": {"chain": [openai]}, "sync": {"batch": BATCH, "page": BATCH, "parallel": 1}}


@pytest.fixture
def http_store() -> Iterator[QdrantRest]:
    with QdrantRest() as server:
        yield server


@pytest.fixture
def remote(
    tmp_path: Path,
    postgres_url: str,
    postgres_database: str,
    http_store: QdrantRest,
    provider: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Services]:
    """PostgreSQL and the HTTP store; source and ledger are databases of their own."""
    with new_database(postgres_url) as ledger:
        migrate.upgrade(ledger)
        monkeypatch.setenv("SOURCE_URL", postgres_database)
        monkeypatch.setenv("LEDGER_URL", ledger)
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": http_store.url, "timeout_s": 30, "attempts": 2},
            ledger={"url": {"env": "LEDGER_URL"}},
            **in_batches(provider),
        )
        url = postgres_database.replace("postgresql://", "postgresql+psycopg://")
        driver = ledger.replace("postgresql://", "postgresql+psycopg://")
        yield Services(World(url, config), provider, driver, PostgresAway(ledger))


@pytest.fixture
def local(tmp_path: Path, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Services:
    """SQLite and the embedded store."""
    ledger = tmp_path / "ledger.sqlite"
    migrate.upgrade(f"sqlite:///{ledger}")
    monkeypatch.setenv("LEDGER_URL", f"sqlite:///{ledger}?timeout=0.5")
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant", "lock_timeout_s": 0.2},
        ledger={"url": {"env": "LEDGER_URL"}},
        **in_batches(provider),
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    return Services(world, provider, f"sqlite:///{ledger}", SqliteAway(ledger))


@pytest.fixture(params=["local", "remote"])
def services(request: pytest.FixtureRequest) -> Services:
    found: Services = request.getfixturevalue(request.param)
    return found


# -- the store -----------------------------------------------------------------------------------------
# What method and path of a request hold.
WRITES = {"upsert": "PUT /collections/works/points", "payload": "/points/batch", "delete": "/points/delete"}
READS = {"aliases": "/aliases", "retrieve": "POST /collections/works/points", "scan": "/scroll", "count": "/count"}
PLACES = {**WRITES, **READS}
STATUSES = {429: "QDRANT_RATE_LIMIT", 500: "QDRANT_UNAVAILABLE", 503: "QDRANT_UNAVAILABLE"}


@pytest.mark.parametrize(("place", "status"), [*((place, 500) for place in PLACES), ("upsert", 429), ("delete", 503)])
def test_the_store_answers_with_an_error(remote: Services, http_store: QdrantRest, place: str, status: int) -> None:
    """The run fails with the store's code, wherever the answer came; nothing was lost."""
    remote.work()
    http_store.fail(status=status, times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == STATUSES[status]
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", [*WRITES, "scan"])
def test_fault_08_a_store_that_hangs_is_the_stores_time_out(
    remote: Services, http_store: QdrantRest, place: str
) -> None:
    """A time-out of the store is QDRANT_TIMEOUT, in the result, the run's record and the rows: never the provider's."""
    remote.work()
    http_store.hang(1.3, times=MANY, path_contains=PLACES[place])
    with remote.world.impatient("store"):
        result = remote.sync()
    http_store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    with remote.world.workspace() as workspace:
        [run, *_] = workspace.ledger.runs(ENTITY, "acme")
        assert (run.error or "").startswith("QDRANT_TIMEOUT: ")
        assert codes(remote) <= {"QDRANT_TIMEOUT"}
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", WRITES)
@pytest.mark.parametrize("times", [1, MANY])
def test_the_store_cuts_the_connection_after_it_wrote(
    remote: Services, http_store: QdrantRest, place: str, times: int
) -> None:
    """Once is made good by the second attempt; for good is a failed run, whose writes are made again without harm."""
    remote.work()
    http_store.cut_after_write(times=times, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    if times == 1:
        assert result.ok
    else:
        assert result.error is not None
        assert result.error.code == "QDRANT_UNAVAILABLE"
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", WRITES)
def test_the_store_only_queues_a_write(remote: Services, http_store: QdrantRest, place: str) -> None:
    """What the server has not applied yet is not confirmed, and may be applied later without harm."""
    remote.work()
    http_store.stall(times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    http_store.settle()
    remote.assert_right_after_one_clean_run()


def codes(services: Services) -> set[str]:
    """The error codes in the ledger's rows."""
    engine = sa.create_engine(services.ledger_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT DISTINCT error_code FROM index_state WHERE error_code IS NOT NULL")
        return {code for (code,) in found}


# -- the embedded store --------------------------------------------------------------------------------
@pytest.mark.parametrize("write", ["upsert", "set_payload", "delete"])
def test_the_disk_of_the_embedded_store_fills_up(local: Services, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    """The run fails and says how much is free, whatever it was about to write; nothing was lost."""
    local.work()
    full = shutil.disk_usage(local.world.config.folder)._replace(free=0)
    with local.world.workspace() as workspace, monkeypatch.context() as patched:
        [selection] = workspace.select([ENTITY], ["acme"])
        befall(workspace.store("main"), write, lambda: patched.setattr(shutil, "disk_usage", lambda _: full))
        [result] = workspace.sync(selection, SyncOptions(mode="full"))
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "OUTPUT_UNWRITABLE"
    assert "0 MiB of disk are free" in str(result.error)
    local.assert_right_after_one_clean_run()


def test_another_process_has_the_embedded_store(local: Services) -> None:
    """Only one can write: the run fails with the store's code, no document does, and nothing is paid for."""
    local.work()
    paid = len(local.provider.answered)
    with local.world.workspace() as other:
        other.store("main").check()
        result = local.sync()
    assert result.error is not None
    assert result.error.code == "QDRANT_LOCKED"
    assert codes(local) == set()
    assert len(local.provider.answered) == paid
    local.assert_right_after_one_clean_run()


@pytest.mark.parametrize("call", ["upsert", "set_payload", "delete", "scan"])
def test_the_embedded_engine_breaks_down(local: Services, call: str) -> None:
    """From some moment on it refuses everything: the run fails with the store's code; a new process goes on."""
    local.work()
    workspace = Workspace(local.world.config)
    [selection] = workspace.select([ENTITY], ["acme"])
    store = workspace.store("main")
    assert isinstance(store, QdrantEmbeddedStore)
    store.count(ENTITY)
    befall(store, call, lambda: store._open[ENTITY].shard.close())
    [result] = workspace.sync(selection, SyncOptions(mode="full"))
    with pytest.raises(StoreRejected, match="close"):
        workspace.close()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "QDRANT_REJECTED"
    local.assert_right_after_one_clean_run()


# -- the provider --------------------------------------------------------------------------------------
class Case(NamedTuple):
    fault: Fault
    code: str


CASES = [
    Case("rate_limit", "EMBEDDING_RATE_LIMIT"),
    Case("server_error", "EMBEDDING_UNAVAILABLE"),
    Case("unavailable", "EMBEDDING_UNAVAILABLE"),
    Case("hang", "EMBEDDING_TIMEOUT"),
    Case("cut", "EMBEDDING_UNAVAILABLE"),
    Case("too_few", "EMBEDDING_UNAVAILABLE"),
    Case("nan", "EMBEDDING_UNAVAILABLE"),
    Case("wrong_size", "EMBEDDING_UNAVAILABLE"),
    Case("quota", "EMBEDDING_MISCONFIGURED"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_the_provider_fails(services: Services, case: Case) -> None:
    """The run fails with the provider's code, its rows too; the payloads were written all the same, and what was
    answered before is not asked for again."""
    services.work()
    services.provider.fail(None)  # the first batch goes through
    services.provider.fail(case.fault, times=MANY)
    with services.world.impatient("provider") if case.fault == "hang" else nullcontext():
        result = services.sync()
    services.provider.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == case.code
    assert codes(services) == {case.code}
    assert result.figures.upserted <= BATCH
    services.assert_right_after_one_clean_run()


@pytest.mark.parametrize("fault", ["server_error", "cut", "nan"])
def test_the_provider_fails_once(services: Services, fault: Fault) -> None:
    """What passes at the second attempt is no failure at all."""
    services.work()
    services.provider.fail(fault)
    assert services.sync().ok
    services.assert_right_after_one_clean_run()


def test_the_provider_answers_out_of_order(services: Services) -> None:
    """Vectors that come in another order than the texts still end at their own texts."""
    services.work()
    services.provider.fail("out_of_order", times=MANY)
    assert services.sync().ok
    services.assert_right_after_one_clean_run()
    with services.world.workspace() as workspace:
        provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
        for n in (11, 15, 101, 125):
            name = f"иначе {n}" if n < 100 else f"Работа {n}"
            [best] = workspace.store("main").search(ENTITY, provider.embed_query(f"{name} шт"), "acme", limit=1)
            assert best.payload["dbId"] == str(n)


# -- the ledger's database -----------------------------------------------------------------------------
class PostgresAway:
    """Contract: `Away`. As a restart of the server: all connections end, and new ones are refused."""

    def __init__(self, url: str) -> None:
        self._server, _, self._name = url.rpartition("/")

    def go(self) -> None:
        self._allow(False)
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,)
            )

    def come_back(self) -> None:
        self._allow(True)

    def _allow(self, allowed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self._name), sql.SQL("true" if allowed else "false")))


class SqliteAway:
    """Contract: `Away`. Another program has locked the file: reading goes on, writing waits, and then fails."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._other: sqlite3.Connection | None = None

    def go(self) -> None:
        self._other = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        self._other.execute("BEGIN IMMEDIATE")

    def come_back(self) -> None:
        assert self._other is not None
        self._other.close()


def befall(owner: Any, method: str, event: Callable[[], None], *, nth: int = 1, after: bool = False) -> None:
    """Something happens before, or after, the nth call of one method of an object."""
    real, calls = getattr(owner, method), count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == nth
        if now and not after:
            event()
        answer = real(*args, **kwargs)
        if now and after:
            event()
        return answer

    setattr(owner, method, wrapped)


MOMENTS = [
    ("store", "upsert", 2),
    ("store", "set_payload", 1),
    ("store", "delete", 1),
    ("ledger", "keep_vectors", 1),
    ("ledger", "confirm", 1),
    ("ledger", "recognise", 1),
    ("ledger", "forget", 1),
    ("ledger", "rows", 1),
]


@pytest.mark.parametrize(
    ("moment", "comes_back"),
    [*((moment, False) for moment in MOMENTS), *((MOMENTS[n], True) for n in (0, 4, 7))],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_the_ledger_goes_away(services: Services, moment: tuple[str, str, int], comes_back: bool) -> None:
    """The run fails with LEDGER_UNAVAILABLE. Nothing is lost and one batch at most is paid for again.

    So it does where a server came back at once: the run's hold on the partition was lost, and the next full run looks
    at all of it again. A file that is free again in time was only waited for.
    """
    services.work()
    owner, method, nth = moment

    def vanish() -> None:
        services.ledger.go()
        if comes_back:
            services.ledger.come_back()

    waited = comes_back and isinstance(services.ledger, SqliteAway)
    with services.world.workspace() as workspace:
        [selection] = workspace.select([ENTITY], ["acme"])
        called = workspace.store("main") if owner == "store" else workspace.ledger
        befall(called, method, vanish, nth=nth, after=True)
        with nullcontext() if waited else pytest.raises(LedgerUnavailable) as caught:
            workspace.sync(selection, SyncOptions(mode="full"))
    if caught is not None:
        assert caught.value.code == "LEDGER_UNAVAILABLE"
    if not comes_back:
        services.ledger.come_back()
    elif not waited:
        with services.world.workspace() as workspace:
            assert workspace.ledger.unfinished(ENTITY, ENTITY, "acme")
    services.assert_right_after_one_clean_run(lost=BATCH)


def test_the_source_goes_away(remote: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that cannot be reached is a failed partition with its code, and nothing is removed."""
    remote.work()
    right = os.environ["SOURCE_URL"]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens: connections are refused
        monkeypatch.setenv("SOURCE_URL", f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d")
        result = remote.sync()
    monkeypatch.setenv("SOURCE_URL", right)
    assert result.error is not None
    assert result.error.code == "SOURCE_UNAVAILABLE"
    assert len(remote.world.stored()) == 40
    remote.assert_right_after_one_clean_run()
