"""However many documents are refused one after the other: each fails alone, and all others are written."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from vecsync_dagster.embedding.base import Embedded
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable, StoreRejected
from vecsync_dagster.ledger.documents import Documents
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster_tests.fakes.memory_store import MemoryStore
from vecsync_dagster_tests.small import NAME, Small, sqlite_source

BATCH = 200


class Picky(MemoryStore):
    """`bad`: which it refuses, with `error`. Where it is `broken` it refuses every write."""

    def __init__(self, bad: Collection[int], error: Exception) -> None:
        super().__init__()
        self.bad = bad
        self.error = error
        self.broken = False
        self.writes = 0

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        self.writes += 1
        if self.broken or any(int(point.payload["dbId"]) in self.bad for point in points):
            raise self.error.with_traceback(None)  # which would grow with each time
        super().upsert(collection, points)

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        if self.broken:
            raise self.error.with_traceback(None)  # which would grow with each time
        super().delete_foreign(collection, point_ids)


def refusal(about: bool | None, *, too_large: bool = False) -> StoreRejected:
    return StoreRejected("no", service="QDRANT", every_document=about, too_large=too_large)


def small(folder: Path, count: int, *, parallel: int = 1, payload: tuple[str, ...] = ()) -> Small:
    with sqlite3.connect(folder / "source.db") as db:
        db.execute(f"CREATE TABLE {NAME} (id INTEGER PRIMARY KEY, name TEXT)")
        db.executemany(f"INSERT INTO {NAME} VALUES (?, ?)", [(n, f"name {n}") for n in range(1, count + 1)])
    db.close()
    small = Small(folder, sqlite_source(folder / "source.db"), payload=payload)
    small.data["sync"] = {"batch": BATCH, "parallel": parallel, "retry": {"base": 0}}
    return small


def sync(small: Small, store: MemoryStore) -> tuple[PartitionResult, dict[int, int]]:
    """A full run, and how often each document has failed."""
    with Workspace(small.config) as workspace:
        workspace._stores["main"] = store
        [result] = workspace.sync(Selection(NAME, GLOBAL, (NAME,)), SyncOptions(mode="full"))
        return result, {int(row.db_id): row.retry_count for row in workspace.ledger.failed_rows(NAME, [NAME])}


def assert_alone(small: Small, store: Picky, count: int) -> None:
    """Each run counts against the bad ones alone, with at most two attempts for each document and a few probes; the
    first one writes all others."""
    for run in (1, 2):
        store.writes = 0
        result, failed = sync(small, store)
        assert (result.error, failed) == (None, dict.fromkeys(store.bad, run))
        assert len(store.points) == count - len(store.bad)
        assert store.writes <= 2 * count + 8


WHERE = {
    "first": range(1, 18),
    "many first": range(1, 101),
    "in the middle": range(60, 101),
    "last": range(150, 201),
    "every third": range(1, 300, 3),
    "second batch": range(220, 290),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "error", [refusal(False), refusal(False, too_large=True), refusal(None), KeyError()], ids=["own", "large", "?", "!"]
)
def test_many_refused_documents_fail_alone(tmp_path: Path, error: Exception, where: str) -> None:
    """Wherever in the run they are, and whether or not the store says that it is theirs."""
    assert_alone(small(tmp_path, 300), Picky(WHERE[where], error), 300)


def test_many_documents_that_are_too_large(tmp_path: Path) -> None:
    """Thirty-three, one after the other, in a batch of 150."""
    assert_alone(small(tmp_path, 150), Picky(range(1, 34), refusal(False, too_large=True)), 150)


def test_nothing_but_refused_documents(tmp_path: Path) -> None:
    """A store that takes a point with nothing in it, and says that the refusal is theirs, is believed."""
    assert_alone(small(tmp_path, 40), Picky(range(1, 41), refusal(False)), 40)


@pytest.mark.parametrize("error", [refusal(None), KeyError()], ids=["?", "!"])
def test_nothing_but_refused_documents_for_a_reason_that_is_not_known(tmp_path: Path, error: Exception) -> None:
    """The run ends after few attempts, and counts against nobody."""
    world, store = small(tmp_path, 150), Picky(range(1, 151), error)
    for _ in range(2):
        store.writes = 0
        result, failed = sync(world, store)
        assert (result.outcome, set(failed.values())) == ("failed", {0})
        assert store.writes <= 33
    store.bad = ()
    assert sync(world, store)[0].figures.upserted == 150


@pytest.mark.parametrize("error", [refusal(False), refusal(None), KeyError()], ids=["own", "?", "!"])
def test_a_store_that_breaks_in_the_middle(tmp_path: Path, error: Exception) -> None:
    """After it took a batch it takes no write at all: few attempts more, and no document is blamed."""

    class Breaking(Picky):
        def upsert(self, collection: str, points: Sequence[Point]) -> None:
            super().upsert(collection, points)
            self.broken = True

    store = Breaking((), error)
    world = small(tmp_path, 300)
    result, failed = sync(world, store)
    assert (result.outcome, failed) == ("failed", dict.fromkeys(range(201, 301), 0))
    assert store.writes < 20


ERRORS = pytest.mark.parametrize("error", [refusal(False), refusal(None), KeyError()], ids=["own", "?", "!"])
PARALLEL = pytest.mark.parametrize("parallel", [1, 3])


class Full(Picky):
    """Takes no point more than so many, and deletes and replaces nevertheless."""

    most = 100

    def __init__(self, bad: Collection[int], error: Exception) -> None:
        super().__init__(bad, error)
        self.one_at_a_time = threading.Lock()  # or two threads find the same room for both of them

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        with self.one_at_a_time:
            self.broken = len(self.points.keys() | {point.point_id for point in points}) > self.most
            super().upsert(collection, points)


@ERRORS
@pytest.mark.parametrize(("most", "parallel"), [(0, 1), (100, 3), (200, 1)])
def test_a_full_store_uses_up_no_retries(tmp_path: Path, error: Exception, parallel: int, most: int) -> None:
    """However many runs meet it: a few attempts each, a failed run, and all is written once there is room."""
    world, store = small(tmp_path, 300, parallel=parallel), Full((), error)
    store.most = most
    for run in range(8):
        store.writes = 0
        result, failed = sync(world, store)
        assert (result.outcome, set(failed.values())) == ("failed", {0})
        assert store.writes < 50 or run == 0  # until as many are in it as fit
        assert len(store.points) <= most
    store.most = 1000
    result, failed = sync(world, store)
    assert (result.ok, failed, len(store.points)) == (True, {}, 300)


def change(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "source.db") as db:
        for statement in statements:
            db.execute(statement.format(NAME))
    db.close()


@PARALLEL
@ERRORS
def test_bad_documents_keep_no_removal(tmp_path: Path, error: Exception, parallel: int) -> None:
    """Where nothing but bad documents is to be written: they fail alone, and what is gone is removed."""
    world, store = small(tmp_path, 20, parallel=parallel), Picky((), error)
    assert sync(world, store)[0].ok
    change(tmp_path, "UPDATE {} SET name = 'bad ' || id WHERE id <= 2", "DELETE FROM {} WHERE id > 18")
    store.bad = (1, 2)
    for run in (1, 2):
        result, failed = sync(world, store)
        assert (result.error, failed, len(store.points)) == (None, {1: run, 2: run}, 18)


class PickyOfPayloads(Picky):
    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        MemoryStore.upsert(self, collection, points)

    def delete_foreign(self, collection: str, point_ids: Sequence[str]) -> None:
        MemoryStore.delete_foreign(self, collection, point_ids)

    def set_payload(self, collection: str, points: Sequence[Point]) -> list[str]:
        if self.broken or any(int(point.payload["dbId"]) in self.bad for point in points):
            raise self.error.with_traceback(None)  # which would grow with each time
        return super().set_payload(collection, points)


@PARALLEL
@ERRORS
@pytest.mark.parametrize("broken", [False, True])
def test_payloads_that_are_refused(tmp_path: Path, error: Exception, broken: bool, parallel: int) -> None:
    """A store that takes vectors, and the payload of no document at all, is to blame; that of two, they are."""
    world, store = small(tmp_path, 20, parallel=parallel, payload=("note",)), PickyOfPayloads((), error)
    change(tmp_path, "ALTER TABLE {} ADD note TEXT")
    assert sync(world, store)[0].ok
    change(tmp_path, "UPDATE {} SET note = 'new' WHERE id <= 2")
    store.bad, store.broken = (1, 2), broken
    result, failed = sync(world, store)
    assert (result.error is not None, failed) == (broken, dict.fromkeys((1, 2), int(not broken)))
    assert len(store.points) == 20


@PARALLEL
@pytest.mark.parametrize("error", [refusal(None), KeyError()], ids=["?", "!"])
def test_whole_batches_of_bad_documents_in_front(tmp_path: Path, error: Exception, parallel: int) -> None:
    """Nothing is known to be good yet, and no cause: those behind them are written by the first run."""
    world, store = small(tmp_path, 900, parallel=parallel), Picky(range(1, 601), error)
    result, failed = sync(world, store)
    assert (result.error, len(failed), len(store.points)) == (None, 600, 300)
    for _ in range(2):
        result, failed = sync(world, store)
        assert (result.error, len(failed), len(store.points)) == (None, 600, 300)
    assert min(failed.values()) == 2


@pytest.mark.parametrize("count", [2, 20])
def test_a_ledger_that_fails_for_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """It has no probe: where no other document is confirmed, the partition fails and no retry is used up, but what is
    gone is removed."""
    world, store = small(tmp_path, 20), MemoryStore()
    assert sync(world, store)[0].ok
    change(tmp_path, f"UPDATE {{}} SET name = 'bad ' || id WHERE id <= {count}", "DELETE FROM {} WHERE id > 18")

    def confirm(*_: object, **__: object) -> None:
        raise KeyError

    monkeypatch.setattr(Documents, "confirm", confirm)
    result, failed = sync(world, store)
    assert (result.outcome, set(failed.values()), result.figures.removed) == ("failed", {0}, 2)


def test_no_good_document_anywhere(tmp_path: Path) -> None:
    """Many batches, and no cause: one attempt for each batch after the first."""
    world, store = small(tmp_path, 900), Picky(range(1, 901), KeyError())
    result, failed = sync(world, store)
    assert (result.outcome, failed) == ("failed", dict.fromkeys(range(1, 901), 0))
    assert store.writes <= 33 + 4


def refused_texts() -> Exception:
    return EmbeddingRejected("no")


def unanswered_texts() -> Exception:
    return EmbeddingUnavailable("nothing")


@pytest.mark.parametrize("count", [40, 300])
@pytest.mark.parametrize("error", [refused_texts, unanswered_texts, KeyError])
def test_many_bad_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], count: int
) -> None:
    """Forty, and good ones after them or none: each fails alone, all others are written, and none is paid for twice."""
    bad = {f"name {n}" for n in range(1, 41)}
    paid: list[str] = []
    real = HashProvider.embed_documents

    def embed(provider: HashProvider, texts: Sequence[str]) -> Embedded:
        if not bad.isdisjoint(texts):
            raise error()
        paid.extend(texts)
        return real(provider, texts)

    monkeypatch.setattr(HashProvider, "embed_documents", embed)
    world, store = small(tmp_path, count), MemoryStore()
    result, failed = sync(world, store)
    assert failed == dict.fromkeys(range(1, 41), 1)
    assert (result.error, len(store.points)) == (None, count - 40)
    names = [text for text in paid if text.startswith("name")]
    assert sorted(names) == sorted(f"name {n}" for n in range(41, count + 1))


@pytest.mark.parametrize("error", [refused_texts, unanswered_texts, KeyError])
def test_a_provider_that_answers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    """Few requests, and no text is to blame; when it is well again all are written."""
    requests: list[int] = []

    def embed(_: HashProvider, texts: Sequence[str]) -> Embedded:
        requests.append(len(texts))
        raise error()

    world, store = small(tmp_path, 300), MemoryStore()
    with monkeypatch.context() as away:
        away.setattr(HashProvider, "embed_documents", embed)
        result, failed = sync(world, store)
    assert (result.outcome, set(failed.values())) == ("failed", {0})
    assert len(requests) < 20
    assert sync(world, store)[0].figures.upserted == 300
