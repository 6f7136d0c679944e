"""Every service a sync talks to fails in every way it can, in the middle of a run with all kinds of work.

After each: an error with its code, nothing removed or reported that is not so, and one clean run makes
everything right without paying for a text twice (beyond the batch in flight where an answer was lost).
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import stamina
from psycopg import sql

from vecsync_dagster.errors import LedgerUnavailable
from vecsync_dagster.ledger import migrate
from vecsync_dagster.sync import PartitionResult, SyncOptions
from vecsync_dagster_tests.fakes.openai_server import Fault, OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.world import ENTITY, World, config_of

BATCH = 10
MANY = 1000


@dataclass
class Remote:
    """A world whose services are all remote, and the servers themselves."""

    world: World
    store: QdrantRest
    provider: OpenAIServer
    ledger_url: str

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
def remote(
    tmp_path: Path, postgres_url: str, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    with new_database(postgres_url) as ledger, QdrantRest() as store, OpenAIServer(dimensions=16) as provider:
        migrate.upgrade(ledger)
        for name, value in (("SOURCE_URL", postgres_database), ("LEDGER_URL", ledger), ("OPENAI_API_KEY", "test-key")):
            monkeypatch.setenv(name, value)
        openai = {
            "provider": "openai",
            "model": "loopback",
            "dimensions": 16,
            "base_url": provider.base_url,
            "texts_per_request": BATCH,
            "attempts": 2,
            "timeout_s": 30,
        }
        config = config_of(
            tmp_path,
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": store.url, "timeout_s": 30, "attempts": 2},
            embedding={"chain": [openai]},
            ledger={"url": {"env": "LEDGER_URL"}},
            sync={"batch": BATCH, "page": BATCH, "parallel": 1},
        )
        url = postgres_database.replace("postgresql://", "postgresql+psycopg://")
        yield Remote(World(url, config), store, provider, ledger)


# -- the store -----------------------------------------------------------------------------------------
# What method and path of a request hold.
WRITES = {"upsert": "PUT /collections/works/points", "payload": "/points/batch", "delete": "/points/delete"}
READS = {"aliases": "/aliases", "retrieve": "POST /collections/works/points", "scan": "/scroll", "count": "/count"}
PLACES = {**WRITES, **READS}
STATUSES = {429: "QDRANT_RATE_LIMIT", 500: "QDRANT_UNAVAILABLE", 503: "QDRANT_UNAVAILABLE"}


@pytest.mark.parametrize(("place", "status"), [*((place, 500) for place in PLACES), ("upsert", 429), ("delete", 503)])
def test_the_store_answers_with_an_error(remote: Remote, place: str, status: int) -> None:
    """The run fails with the store's code, wherever the answer came; nothing was lost."""
    remote.work()
    remote.store.fail(status=status, times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    remote.store.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == STATUSES[status]
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", [*WRITES, "scan"])
def test_fault_08_a_store_that_hangs_is_the_stores_time_out(remote: Remote, place: str) -> None:
    """A time-out of the store is QDRANT_TIMEOUT, in the result, the run's record and the rows: never the provider's."""
    remote.work()
    remote.store.hang(1.3, times=MANY, path_contains=PLACES[place])
    with remote.world.impatient("store"):
        result = remote.sync()
    remote.store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    with remote.world.workspace() as workspace:
        [run, *_] = workspace.ledger.runs(ENTITY, "acme")
        assert (run.error or "").startswith("QDRANT_TIMEOUT: ")
        assert codes(remote) <= {"QDRANT_TIMEOUT"}
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", WRITES)
@pytest.mark.parametrize("times", [1, MANY])
def test_the_store_cuts_the_connection_after_it_wrote(remote: Remote, place: str, times: int) -> None:
    """Once is made good by the second attempt; for good is a failed run, whose writes are made again without harm."""
    remote.work()
    remote.store.cut_after_write(times=times, path_contains=PLACES[place])
    result = remote.sync()
    remote.store.recover()
    if times == 1:
        assert result.ok
    else:
        assert result.error is not None
        assert result.error.code == "QDRANT_UNAVAILABLE"
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", WRITES)
def test_the_store_only_queues_a_write(remote: Remote, place: str) -> None:
    """What the server has not applied yet is not confirmed, and may be applied later without harm."""
    remote.work()
    remote.store.stall(times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    remote.store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    remote.store.settle()
    remote.assert_right_after_one_clean_run()


def codes(remote: Remote) -> set[str]:
    """The error codes in the ledger's rows."""
    with psycopg.connect(remote.ledger_url) as connection:
        rows = connection.execute("SELECT DISTINCT error_code FROM index_state WHERE error_code IS NOT NULL")
        return {code for (code,) in rows}


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
def test_the_provider_fails(remote: Remote, case: Case) -> None:
    """The run fails with the provider's code, its rows too; the payloads were written all the same, and what was
    answered before is not asked for again."""
    remote.work()
    remote.provider.fail(None)  # the first batch goes through
    remote.provider.fail(case.fault, times=MANY)
    with remote.world.impatient("provider") if case.fault == "hang" else nullcontext():
        result = remote.sync()
    remote.provider.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == case.code
    assert codes(remote) == {case.code}
    assert result.figures.upserted <= BATCH
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("fault", ["server_error", "cut", "nan"])
def test_the_provider_fails_once(remote: Remote, fault: Fault) -> None:
    """What passes at the second attempt is no failure at all."""
    remote.work()
    remote.provider.fail(fault)
    assert remote.sync().ok
    remote.assert_right_after_one_clean_run()


def test_the_provider_answers_out_of_order(remote: Remote) -> None:
    """Vectors that come in another order than the texts still end at their own texts."""
    remote.work()
    remote.provider.fail("out_of_order", times=MANY)
    assert remote.sync().ok
    remote.assert_right_after_one_clean_run()
    with remote.world.workspace() as workspace:
        provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
        for n in (11, 15, 101, 125):
            name = f"иначе {n}" if n < 100 else f"Работа {n}"
            [best] = workspace.store("main").search(ENTITY, provider.embed_query(f"{name} шт"), "acme", limit=1)
            assert best.payload["dbId"] == str(n)


# -- the ledger's database -----------------------------------------------------------------------------
class Away:
    """Takes the ledger's database away before or after the nth call of one method of an object."""

    def __init__(self, url: str) -> None:
        self._server, _, self._name = url.rpartition("/")

    def go(self) -> None:
        """As a restart of the server: all connections end, and new ones are refused."""
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


def after_call(owner: Any, method: str, nth: int, then: Callable[[], None]) -> None:
    real, calls = getattr(owner, method), iter(range(1, MANY))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        if next(calls) == nth:
            then()
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
def test_the_ledger_goes_away(remote: Remote, moment: tuple[str, str, int], comes_back: bool) -> None:
    """The run fails with LEDGER_UNAVAILABLE, also where the database came back at once: its hold on the partition
    was lost, so the next full run looks at all of it again. Nothing is lost and one batch at most is paid for again."""
    remote.work()
    away = Away(remote.ledger_url)
    owner, method, nth = moment

    def vanish() -> None:
        away.go()
        if comes_back:
            away.come_back()

    with remote.world.workspace() as workspace:
        [selection] = workspace.select([ENTITY], ["acme"])
        after_call(workspace.store("main") if owner == "store" else workspace.ledger, method, nth, vanish)
        with pytest.raises(LedgerUnavailable) as caught:
            workspace.sync(selection, SyncOptions(mode="full"))
    away.come_back()
    assert caught.value.code == "LEDGER_UNAVAILABLE"
    if comes_back:
        with remote.world.workspace() as workspace:
            assert workspace.ledger.unfinished(ENTITY, ENTITY, "acme")
    remote.assert_right_after_one_clean_run(lost=BATCH)


def test_the_source_goes_away(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
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
