"""Whatever a partition raises, also what nobody foresaw, is that partition's failure; all others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from vecsync_dagster.config.models import RetryConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import InternalError, StoreTimeout
from vecsync_dagster.sync import PartitionResult, Selection, Workspace, pipeline
from vecsync_dagster.sync.partition import PartitionSync
from vecsync_dagster_tests.four import FOUR, Four
from vecsync_dagster_tests.world import ENTITY, World

SECRET = "the text of a record"


class Bug(Exception):
    """No error of ours, nor of a driver that we know."""


def break_for(tenant: str, workspace: Workspace, owner: Any, method: str) -> None:
    """From now on the method raises what nobody foresaw while this tenant is synced."""
    real, sync = getattr(owner, method), workspace.sync
    under_way: list[str] = [""]

    def synced(selection: Selection, *args: Any, **kwargs: Any) -> list[PartitionResult]:
        under_way[0] = selection.tenant
        return sync(selection, *args, **kwargs)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if under_way[0] == tenant:
            raise Bug(SECRET)
        return real(*args, **kwargs)

    setattr(workspace, "sync", synced)  # noqa: B010 (mypy lets no method be replaced)
    setattr(owner, method, broken)


PLACES: dict[str, Callable[[Workspace], tuple[Any, str]]] = {
    "the source's read": lambda w: (w.source(ENTITY), "read"),
    "the source's look": lambda w: (w.source(ENTITY), "fingerprints"),
    "the store's write": lambda w: (w.store_of(ENTITY, ENTITY), "upsert"),
    "the store's count": lambda w: (w.store_of(ENTITY, ENTITY), "count"),
    "the provider": lambda w: (w.embedders.of(ENTITY, ENTITY, pin=False).provider, "prepare"),
    "the lock": lambda w: (w.ledger, "hold"),
    "the ledger's rows": lambda w: (w.ledger, "rows"),
    "the ledger's thread": lambda w: (w.ledger, "recognise"),
    "the ledger's marks": lambda w: (w.ledger, "mark_all_seen"),
    "the ledger's write": lambda w: (w.ledger, "confirm"),
    "the watermark": lambda w: (w.ledger, "set_watermark"),
    "the look kept": lambda w: (w.ledger, "set_seen"),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_foresaw_is_one_partitions_failure(
    embedded_world: World, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails with its own code and a failed run in the ledger; the log has the traceback, no value; the other
    tenants are synced, and a clean run makes it right."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "bad", "name": f"bad {n}"} for n in range(1, 4))
    world.insert({"id": n, "tenant_id": "good"} for n in range(11, 14))
    world.sync()
    world.update(1, name="bad and changed")
    world.update(11, name="другое")
    with world.kept_open() as workspace:
        owner, method = PLACES[place](workspace)
        break_for("bad", workspace, owner, method)
        with caplog.at_level(logging.ERROR):
            results = {r.tenant: r for r in world.sync(mode="full")}
        last = workspace.ledger.runs(ENTITY, "bad", limit=1)[0]
    assert_internal(results["bad"])
    assert results["good"].ok
    assert last.outcome == "failed"
    assert str(last.error).startswith("INTERNAL_ERROR")
    assert SECRET not in caplog.text
    assert method in caplog.text or "broken" in caplog.text
    assert all(r.ok for r in world.sync(mode="full"))
    world.assert_exact()


def assert_internal(result: PartitionResult) -> None:
    assert result.outcome == "failed"
    assert isinstance(result.error, InternalError)
    assert "Bug" in str(result.error)
    assert SECRET not in str(result.error)


OF_ONE_COLLECTION = {
    **dict.fromkeys(("tell_of_lost_ledger", "tell_of_all", "_watermark", "_moves_watermark", "_end"), pipeline),
    **dict.fromkeys(("recognise", "recognised", "unchanged", "has_room", "finish", "settle"), PartitionSync),
}
OF_THE_TENANT = ("_absence", "_is_missed_no_more")


def break_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """The first call raises what nobody foresaw."""
    real, calls = getattr(owner, name), count(1)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 1:
            raise Bug(SECRET)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize("name", OF_ONE_COLLECTION)
def test_what_one_collection_raises_leaves_the_others(
    four: Four, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other collections of the tenant are written, and have their figures."""
    new = name.startswith("tell_of")
    four.insert(1)
    if not new:
        four.sync()
    four.insert(2)
    break_once(monkeypatch, OF_ONE_COLLECTION[name], name)
    results = four.sync(mode="incremental" if name == "_watermark" else "full")
    [bad] = [collection for collection, result in results.items() if not result.ok]
    assert_internal(results[bad])
    assert {results[good].figures.upserted for good in FOUR if good != bad} == {2 if new else 1}
    assert SECRET not in caplog.text
    assert all(result.ok for result in four.sync(mode="full").values())
    for collection in FOUR:
        four.world.assert_exact(collection)


@pytest.mark.parametrize("name", OF_THE_TENANT)
def test_what_is_the_tenants_leaves_the_figures(four: Four, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every collection has failed, with a failed run of its own, and still says what was written."""
    four.insert(1, 2)
    break_once(monkeypatch, pipeline, name)
    results = four.sync(mode="full")
    for result in results.values():
        assert_internal(result)
    if name == "_is_missed_no_more":
        assert {result.figures.upserted for result in results.values()} == {2}
    assert all(result.ok for result in four.sync(mode="full").values())


def test_a_note_about_the_filter_fails_nothing(embedded_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a courtesy: that it cannot be made is a warning in the log."""
    world = embedded_world
    world.config.entities[ENTITY].filter.update(unit=("none has it",))
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 4))
    with world.kept_open() as workspace:
        break_once(monkeypatch, workspace.source(ENTITY), "kept_out")
        [result] = world.sync("acme", mode="full")
    assert result.ok


POISON = "poison"
ONE: dict[str, tuple[Callable[[Workspace], tuple[Any, str]], Callable[[Any], bool]]] = {
    "the store's write": (PLACES["the store's write"], lambda points: any(POISON in p.payload["name"] for p in points)),
    "the provider": (
        lambda w: (w.embedders.of(ENTITY, ENTITY, pin=False).provider, "embed_documents"),
        lambda texts: any(POISON in text for text in texts),
    ),
    "the provider's tokenizer": (PLACES["the provider"], lambda text: POISON in text),
}


def in_batches(world: World, size: int) -> World:
    sync = world.config.sync.model_copy(update={"batch": size, "parallel": 1, "retry": RetryConfig(base=timedelta(0))})
    world.config = world.config.model_copy(update={"sync": sync})
    return world


def break_at(owner: Any, method: str, bad: Callable[[Any], bool], calls: list[int]) -> None:
    """From now on the method raises what nobody foresaw where its last argument is `bad`."""
    real = getattr(owner, method)

    def broken(*args: Any) -> Any:
        calls.append(1)
        if bad(args[-1]):
            raise Bug(SECRET)
        return real(*args)

    setattr(owner, method, broken)


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize("place", ONE)
def test_what_one_document_causes_is_its_own_failure(embedded_world: World, place: str, batch: int) -> None:
    """Also what nobody foresaw: it fails alone, with its own code, and all others of the partition are written."""
    world = in_batches(embedded_world, batch)
    names = [f"{n} {POISON}" if n in (1, 30) else f"{n}" for n in range(1, 41)]
    world.insert({"id": n, "tenant_id": "acme", "name": name} for n, name in enumerate(names, 1))
    with world.kept_open() as workspace:
        where, bad = ONE[place]
        break_at(*where(workspace), bad, [])
        [result] = world.sync("acme")
        rows = list(workspace.ledger.failed_rows(ENTITY, [ENTITY]))
        [again] = world.sync("acme", mode="full")
    assert (result.error, result.figures.failed, result.figures.upserted) == (None, 2, 38)
    assert {(row.db_id, row.error_code, row.retry_count) for row in rows} == {
        ("1", "INTERNAL_ERROR", 1),
        ("30", "INTERNAL_ERROR", 1),
    }
    # They are known by now: that nothing else was to be written blames nobody else.
    assert (again.error, again.figures.failed) == (None, 2)
    [result] = world.sync("acme", mode="incremental")
    assert result.figures.upserted == 2
    world.assert_exact()


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize("place", ONE)
def test_what_every_document_causes_is_the_partitions_failure(embedded_world: World, place: str, batch: int) -> None:
    """It ends after a few attempts, not one for each document, and counts against no document's retries."""
    world = in_batches(embedded_world, batch)
    world.insert({"id": n, "tenant_id": "acme", "name": f"{n}"} for n in range(1, 121))
    calls: list[int] = []
    with world.kept_open() as workspace:
        where, _ = ONE[place]
        break_at(*where(workspace), lambda _: True, calls)
        [result] = world.sync("acme")
        rows = list(workspace.ledger.failed_rows(ENTITY, [ENTITY]))
    assert_internal(result)
    assert len(calls) <= 60
    assert {row.retry_count for row in rows} == {0}
    [result] = world.sync("acme")
    assert (result.ok, result.figures.upserted) == (True, 120)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_the_process_stays_what_it_is(kind: type[BaseException]) -> None:
    """An interrupt, an exit and a lack of memory are no failure of one partition."""
    with pytest.raises(kind), contained("here"):
        raise kind


def test_errors_of_ours_pass() -> None:
    """An error that has a code keeps it."""
    with pytest.raises(StoreTimeout), contained("here"):
        raise StoreTimeout("late", service="QDRANT")


def test_the_message_names_type_and_place() -> None:
    """Where, which exception, in which function; never its text."""
    with pytest.raises(InternalError, match=r"^here: unexpected Bug in .*\(.*\)") as caught, contained("here"):
        raise Bug(SECRET)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
