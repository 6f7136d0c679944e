"""An outage counts against nobody's retries, and is over when the service is back; a refused document is permanent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from vecsync_dagster.config.models import RetryConfig
from vecsync_dagster.errors import StoreRejected, StoreUnavailable
from vecsync_dagster.ledger import migrate
from vecsync_dagster.ledger.record_states import CollectionState
from vecsync_dagster.stores import Point
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import due_rows
from vecsync_dagster.sync.apply import outage_backoff
from vecsync_dagster_tests.fakes.openai_server import Fault
from vecsync_dagster_tests.four import MANY, Four
from vecsync_dagster_tests.world import ENTITY, World, retry_due

pytestmark = pytest.mark.usefixtures("no_waiting")

NAME = "functionality"
ATTEMPTS = RetryConfig().max_retries + 3


def state(four: Four, identity: int = 1) -> CollectionState:
    return four.states()[identity].collections[NAME]


def worker(four: Four) -> None:
    four.later(seconds=300)  # the longest that a document waits
    with four.world.workspace() as workspace:
        retry_due(workspace, ENTITY)


RUNS: dict[str, Callable[[Four], object]] = {
    "full": lambda four: four.sync(NAME, mode="full"),
    "incremental": lambda four: four.sync(NAME, mode="incremental"),
    "the worker": worker,
}
OUTAGES: dict[str, Fault | int] = {
    "the store is down": 503,
    "the store limits": 429,
    "the key is wrong": 403,
    "the address takes no writes": 405,
    "the store is locked": 423,
    "the provider is down": "unavailable",
    "the provider limits": "rate_limit",
    "no credit": "quota",
    "nonsense": "nan",
}


@pytest.mark.in_turn
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("outage", OUTAGES)
def test_after_many_attempts_the_next_run_syncs_all(four: Four, outage: str, run: str) -> None:
    """However long a service was unavailable, no document used up its retries."""
    four.insert(1)
    four.sync()
    four.insert(2)
    four.world.update(1, code="another")
    fault = OUTAGES[outage]
    if isinstance(fault, int):
        four.store_is_down(NAME, status=fault)
    else:
        four.provider.fail(fault, times=MANY)
    for _ in range(ATTEMPTS):
        four.sync(NAME)
        four.later(seconds=300)
    # Where the collection itself could not be looked at, no document was even tried.
    for row in (record.collections[NAME] for record in four.states().values()):
        assert (row.status, row.retry_count) in {("failed", 0), ("synced", 0)}
        assert row.status == "synced" or row.next_attempt_at is not None
    four.store.recover()
    four.provider.recover()
    RUNS[run](four)
    if run == "the worker":
        four.sync(NAME)
    assert [state(four, n).status for n in (1, 2)] == ["synced", "synced"]
    four.world.assert_exact(NAME)


def test_the_embedded_store_is_unavailable(embedded_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the store in a folder."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 4))

    def down(*_: object) -> None:
        raise StoreUnavailable("the disk is away", service="QDRANT")

    with monkeypatch.context() as away:
        away.setattr(QdrantEmbeddedStore, "upsert", down)
        for _ in range(ATTEMPTS):
            [result] = world.sync("acme", mode="full")
            assert result.outcome == "failed"
    [result] = world.sync("acme", mode="full")
    assert (result.ok, result.figures.upserted) == (True, 3)
    world.assert_exact()


def test_the_embedded_engine_takes_no_write(embedded_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own plain exception at every write: few attempts, a failed run, and no retry used up."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 51))
    writes: list[int] = []

    def broken(*_: object) -> None:
        writes.append(1)
        raise Exception("Service internal error: IO Error: Too many open files")  # noqa: TRY002 (as the engine does)

    with monkeypatch.context() as away:
        away.setattr(QdrantEmbeddedStore, "_update", broken)
        for _ in range(ATTEMPTS):
            writes.clear()
            [result] = world.sync("acme", mode="full")
            assert (result.outcome, result.error and result.error.code) == ("failed", "QDRANT_REJECTED")
            assert len(writes) < 10
        with world.workspace() as workspace:
            rows = workspace.ledger.failed_rows(ENTITY, [ENTITY], or_outage=True, due=workspace.ledger.now())
        assert [(row.retry_count, row.next_attempt_at is None) for row in rows] == [(0, False)] * 50
    [result] = world.sync("acme", mode="full")
    assert (result.ok, result.figures.upserted) == (True, 50)
    world.assert_exact()


@pytest.mark.parametrize("documents", [1, 3])
@pytest.mark.parametrize("about", [False, None])
def test_a_store_that_takes_no_write_has_no_bad_document(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch, documents: int, about: bool | None
) -> None:
    """Not even where a single one is to be written, again and again, and the store still deletes: it may be full."""
    world = at_once(embedded_world)
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 1 + documents))

    def refuse(*_: object) -> None:
        raise StoreRejected("no", service="QDRANT", every_document=about)

    with monkeypatch.context() as away:
        away.setattr(QdrantEmbeddedStore, "upsert", refuse)
        for _ in range(ATTEMPTS):
            assert world.sync("acme", mode="full")[0].outcome == "failed"
    [result] = world.sync("acme", mode="full")
    assert (result.ok, result.figures.upserted) == (True, documents)


def at_once(world: World) -> World:
    """Every attempt is due."""
    retry = world.config.sync.retry.model_copy(update={"base": timedelta(0)})
    sync = world.config.sync.model_copy(update={"retry": retry})
    world.config = world.config.model_copy(update={"sync": sync})
    return world


@pytest.mark.parametrize("others", ["none", "of another tenant"])
@pytest.mark.parametrize("about", [False, None])
def test_the_only_document_of_a_partition_is_bad(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch, about: bool | None, others: str
) -> None:
    """A store that takes other writes means the document: it is permanent in the end. Where the store does not say so,
    it has to take what is known to be good."""
    world = at_once(embedded_world)
    if others != "none":
        world.insert([{"id": 2, "tenant_id": "other"}])
        world.sync()
    world.insert([{"id": 1, "tenant_id": "acme"}])
    real = QdrantEmbeddedStore.upsert

    def refuse(store: QdrantEmbeddedStore, collection: str, points: Sequence[Point]) -> None:
        if any(point.payload["dbId"] == "1" for point in points):
            raise StoreRejected("no", service="QDRANT", every_document=about)
        real(store, collection, points)

    monkeypatch.setattr(QdrantEmbeddedStore, "upsert", refuse)
    counts = []
    for _ in range(7):
        world.sync("acme", mode="full")
        with world.workspace() as workspace:
            [row] = workspace.ledger.failed_rows(ENTITY, [ENTITY])
        counts.append(row.retry_count)
    known = about is False or others != "none"
    assert counts == ([1, 2, 3, 4, 5, 6, 6] if known else [0] * 7)
    assert (row.next_attempt_at is None) is known


def test_a_provider_that_refuses_any_text(four: Four) -> None:
    """After it answered in this process: the run fails after few requests, and no retry is used up."""
    four.insert(1)
    four.sync()
    four.insert(*range(2, 32))
    four.provider.fail("rejected", times=MANY)
    for _ in range(ATTEMPTS):
        before = len(four.provider.requests)
        assert four.sync(NAME)[NAME].outcome == "failed"
        assert len(four.provider.requests) - before < 20
        four.later(seconds=300)
    assert {state(four, n).retry_count for n in range(2, 32)} == {0}
    four.provider.recover()
    assert four.sync(NAME)[NAME].ok
    four.world.assert_exact(NAME)


def test_a_refused_document_is_permanent(four: Four) -> None:
    """What the provider refuses of one document counts, also with an outage in between."""
    four.insert(1)
    four.world.update(1, code="FORBIDDEN")
    four.insert(2)
    for number in range(1, 4):
        four.sync(NAME)
        assert state(four).retry_count == number
        four.later(seconds=300)
    four.provider.fail("unavailable", times=MANY)
    for _ in range(10):
        four.sync(NAME)
        four.later(seconds=300)
    assert (state(four).retry_count, state(four).error_code) == (3, "EMBEDDING_UNAVAILABLE")
    four.provider.recover()
    for _ in range(3):
        four.sync(NAME)
        four.later(seconds=300)
    row = state(four)
    assert (row.retry_count, row.next_attempt_at, row.error_code) == (6, None, "EMBEDDING_REJECTED")
    assert state(four, 2).status == "synced"
    four.sync(NAME, mode="full")
    assert state(four).retry_count == 6


@pytest.mark.parametrize("fault", ["nan", "wrong_size", "server_error"])
def test_a_text_without_an_answer_is_one_documents_failure(four: Four, fault: Fault) -> None:
    """It is tried again as often as any other, and by then named; the documents around it are written."""
    four.provider.spoils = ("BAD", fault)
    four.insert(1, code="BAD")
    four.insert(*range(2, 9))
    for number in range(1, 7):
        four.sync(NAME)
        row = state(four)
        assert (row.status, row.retry_count, row.error_code) == ("failed", number, "EMBEDDING_UNAVAILABLE")
        four.later(seconds=300)
    assert row.next_attempt_at is None
    assert {state(four, n).status for n in range(2, 9)} == {"synced"}


def test_the_wait_of_an_outage() -> None:
    """It doubles from the base to the cap, and never ends."""
    config, waits, wait = RetryConfig(), [], None
    for _ in range(12):
        wait = outage_backoff(wait, config)
        waits.append(wait.total_seconds())
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300, 300]


def test_an_outage_does_not_starve_others(four: Four) -> None:
    """One collection's store is down with more documents than the worker takes at once: another's turn comes."""
    four.insert(*range(1, 31))
    four.store_is_down(NAME)
    four.sync(NAME)
    four.later(seconds=1)
    four.store.recover()
    four.store_is_down("usecases")
    four.sync("usecases")
    four.later(seconds=10)
    with four.world.workspace() as workspace:
        found = due_rows(workspace, ENTITY)
    assert {row.collection for row in found} == {NAME, "usecases"}
    assert len(found) == 10


def test_permanent_by_an_outage_of_the_version_before(tmp_path: Path) -> None:
    """They wait for an attempt again; one that was refused itself stays permanent."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    migrate.upgrade(url, "0009")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    codes = ["QDRANT_UNAVAILABLE", "EMBEDDING_MISCONFIGURED", "QDRANT_REJECTED", "EMBEDDING_REJECTED"]
    with engine.begin() as connection:
        columns = {column["name"]: column for column in sa.inspect(connection).get_columns("index_state")}
        for number, code in enumerate(codes):
            values = {
                name: 6 if "INT" in str(column["type"]) else "2026-01-01 00:00:00.000000"
                for name, column in columns.items()
                if not column["nullable"]
            }
            values |= {"document_id": code, "status": "failed", "error_code": code, "number": number + 1}
            names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
            connection.execute(sa.text(f"insert into index_state ({names}) values ({marks})"), values)
    migrate.upgrade(url)
    with engine.connect() as connection:
        query = "select error_code, next_attempt_at is not null, retry_count from index_state"
        found = {row[0]: tuple(row[1:]) for row in connection.execute(sa.text(query))}
    assert found == {
        "QDRANT_UNAVAILABLE": (1, 0),
        "EMBEDDING_MISCONFIGURED": (1, 0),
        "QDRANT_REJECTED": (0, 6),
        "EMBEDDING_REJECTED": (0, 6),
    }
