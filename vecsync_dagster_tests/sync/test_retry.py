"""The retry worker: what is due is tried again on schedule, by a clock that the tests hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.ledger.record_states import CollectionState
from vecsync_dagster.sync import PartitionResult, due_rows, pipeline
from vecsync_dagster_tests.four import MANY, Four, four_collections
from vecsync_dagster_tests.world import ENTITY, retry_due

WAITS = [5, 10, 20, 40, 80]
"""Seconds after each failure, with the settings as they are."""


def retry(four: Four) -> list[PartitionResult]:
    with four.world.workspace() as workspace:
        return retry_due(workspace, ENTITY)


def due(four: Four) -> list[tuple[str, str]]:
    with four.world.workspace() as workspace:
        return [(row.db_id, row.collection) for row in due_rows(workspace, ENTITY)]


def state(four: Four, identity: int = 1, collection: str = "functionality") -> CollectionState:
    return four.states()[identity].collections[collection]


def failed_once(four: Four, *ids: int) -> None:
    """New records whose functionality could not be stored."""
    four.insert(*ids)
    four.store_is_down("functionality")
    four.sync()


def refused_once(four: Four, *ids: int) -> None:
    """New records whose functionality the store refused, one by one."""
    four.insert(*ids)
    four.store_refuses("functionality")
    four.sync()


FAULTS = [
    ("down", "QDRANT_UNAVAILABLE"),
    ("hangs", "QDRANT_TIMEOUT"),
    ("limits", "QDRANT_RATE_LIMIT"),
    ("provider", "EMBEDDING_UNAVAILABLE"),
]


def break_it(four: Four, fault: str) -> None:
    match fault:
        case "down":
            four.store_is_down("functionality")
        case "hangs":
            four.store_hangs("functionality")
        case "limits":
            four.store_is_down("functionality", status=429)
        case _:
            four.provider.fail("unavailable", times=MANY)


@pytest.mark.parametrize(("fault", "code"), FAULTS)
def test_a_failed_document_is_retried_on_schedule(four: Four, fault: str, code: str) -> None:
    """Not a second before its time; the back-off doubles; an outage counts against nobody's retries; after it works
    the row is synced, and no vector was paid for twice."""
    four.insert(1)
    four.sync()
    four.world.update(1, code="another")
    break_it(four, fault)
    with four.world.impatient("store") if fault == "hangs" else nullcontext():
        four.sync("functionality")
        for wait in WAITS[:2]:
            row = state(four)
            assert (row.status, row.error_code, row.retry_count) == ("failed", code, 0)
            assert row.next_attempt_at == four.now + timedelta(seconds=wait)
            four.later(seconds=wait - 1)
            assert (due(four), retry(four)) == ([], [])
            four.later(seconds=1)
            assert due(four) == [("1", "functionality")]
            retry(four)
    four.store.recover()
    four.provider.recover()
    four.later(seconds=WAITS[2])
    [result] = retry(four)
    assert (result.ok, result.mode, result.figures.retry, result.figures.fetched) == (True, "retry", 1, 1)
    row = state(four)
    assert (row.status, row.retry_count, row.error_code, row.next_attempt_at) == ("synced", 0, None, None)
    assert four.provider.answered.count("another") == 1
    four.world.assert_exact("functionality")


def test_an_incremental_run_tries_all_that_failed(four: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: they are asked for in chunks, and each once, also where they fail again."""
    monkeypatch.setattr(pipeline, "_DUE", 3)
    refused_once(four, *range(1, 9))
    four.later(seconds=5)
    again = four.sync("functionality", mode="incremental")["functionality"]
    assert (again.mode, again.figures.failed, state(four).retry_count) == ("incremental", 8, 2)
    four.store.recover()
    four.later(seconds=10)
    again = four.sync("functionality", mode="incremental")["functionality"]
    assert (again.figures.failed, {state(four, n).status for n in range(1, 9)}) == (0, {"synced"})


def test_a_refused_document_waits_for_its_next_attempt(four: Four) -> None:
    """No incremental run tries it before that is due, and whoever tries it nevertheless uses up no retry."""
    refused_once(four, 1)
    due_at = state(four).next_attempt_at
    four.later(seconds=4)
    for _ in range(7):
        result = four.sync("functionality", mode="incremental")["functionality"]
        assert (result.figures.retry, result.figures.failed) == (0, 0)
        result = four.sync("functionality", mode="full")["functionality"]
        assert (result.figures.retry, result.figures.failed) == (1, 1)
        assert (state(four).retry_count, state(four).next_attempt_at) == (1, due_at)
    four.later(seconds=1)
    four.sync("functionality", mode="full")
    assert state(four).retry_count == 2
    four.store.recover()
    four.sync("functionality", mode="full")
    assert state(four).status == "synced"


def test_after_five_retries_it_is_permanent(four: Four) -> None:
    """Six failures in all; then neither the worker nor a full run tries it, until it is reset or changes."""
    refused_once(four, 1, 2)
    for wait in WAITS:
        four.later(seconds=wait)
        retry(four)
    assert (state(four).retry_count, state(four).next_attempt_at) == (6, None)
    four.store.recover()
    four.later(days=30)
    assert due(four) == []
    result = four.sync("functionality", mode="full")["functionality"]
    assert (result.figures.unchanged, result.figures.writes) == (2, 0)
    assert {check.name: (check.passed, check.warning) for check in result.checks}["statuses"] == (False, False)
    four.world.update(2, code="another")
    four.sync("functionality")
    assert [state(four, n).status for n in (1, 2)] == ["failed", "synced"]
    with four.world.workspace() as workspace:
        assert workspace.ledger.reset(ENTITY, ["functionality"]) == 1
    retry(four)
    assert state(four).status == "synced"
    four.world.assert_exact("functionality")


def test_a_change_of_a_permanent_one_counts_anew(four: Four) -> None:
    """Another version of a document has all its retries."""
    refused_once(four, 1)
    for wait in WAITS:
        four.later(seconds=wait)
        retry(four)
    four.world.update(1, code="another")
    four.sync("functionality")
    assert (state(four).status, state(four).retry_count) == ("failed", 1)
    assert state(four).next_attempt_at == four.now + timedelta(seconds=5)


def test_only_what_failed_is_tried(four: Four) -> None:
    """The other three collections are not asked for anything, and no other record is read."""
    failed_once(four, 1, 2)
    four.store.recover()
    four.later(minutes=1)
    four.store.requests.clear()
    [result] = retry(four)
    assert (result.collection, result.figures.fetched) == ("functionality", 2)
    others = {"tools", "usecases", "interface"}
    assert not [seen.path for seen in four.store.requests if others.intersection(seen.path.split("/"))]


def test_a_record_that_is_gone_is_removed(four: Four) -> None:
    """What failed and is not in the source any more leaves store and ledger; nothing else does."""
    four.insert(1, 2, 3)
    four.sync()
    four.world.update(1, code="another")
    four.world.update(2, code="another")
    four.store_is_down("functionality")
    four.sync("functionality")
    four.store.recover()
    four.world.delete(1, 3)
    four.later(minutes=1)
    [result] = retry(four)
    assert (result.figures.removed, result.figures.upserted, result.figures.fetched) == (1, 1, 1)
    assert sorted(point["dbId"] for point in four.world.stored("functionality").values()) == ["2", "3"]
    assert sorted(point["dbId"] for point in four.world.stored("tools").values()) == ["1", "2", "3"]
    assert {n: tuple(four.statuses(n)) for n in (1, 3)} == {
        1: ("synced", "pending", "synced", "synced"),
        3: ("synced",) * 4,
    }


def test_a_source_that_fails_removes_nothing(four: Four) -> None:
    """A read that breaks is no proof that a record is gone; the retry is not counted, and comes again later."""
    failed_once(four, 1)
    four.store.recover()
    four.later(minutes=1)
    with four.world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE works RENAME TO away")
    [result] = retry(four)
    assert (result.outcome, result.figures.removed) == ("failed", 0)
    with four.world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO works")
    assert (state(four).retry_count, state(four).status) == (0, "failed")
    assert due(four) == []
    four.later(seconds=5)
    assert retry(four)[0].ok


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Four]:
    """A worker that takes two documents at once and forgets a failure's time at once."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    settings: dict[str, Any] = {"retry": {"batch": 2, "base": 3, "multiplier": 1, "max_retries": 50}}
    with four_collections(tmp_path, **settings) as four:
        yield four


def test_the_oldest_attempts_come_first_in_batches(small: Four) -> None:
    """Over tenants and collections: each document gets its turn, in the order of the last attempts."""
    small.insert(1, 2)
    small.insert(3, tenant_id="acme")
    small.store_is_down("functionality")
    small.world.sync("acme")
    small.later(seconds=1)
    small.world.sync("global")
    small.later(seconds=3)
    assert due(small) == [("3", "functionality"), ("1", "functionality")]
    assert sorted(result.tenant for result in retry(small)) == ["acme", "global"]
    assert due(small) == [("2", "functionality")]
    small.store.recover()
    retry(small)
    small.later(seconds=3)
    assert due(small) == [("1", "functionality"), ("3", "functionality")]
    retry(small)
    assert due(small) == []
    assert all(small.statuses(n) == ("synced",) * 4 for n in (1, 2, 3))


def test_a_partition_that_is_busy_does_not_stop_others(small: Four) -> None:
    """Another run holds a tenant: its documents are tried later, not counted, and others go first."""
    small.insert(1, 2)
    small.insert(3, tenant_id="acme")
    small.store_is_down("functionality")
    small.world.sync("global")
    small.later(seconds=1)
    small.world.sync("acme")
    small.store.recover()
    small.later(seconds=3)
    with small.world.workspace() as workspace, workspace.ledger.hold(ENTITY, "global"):
        [busy] = retry_due(workspace, ENTITY)
        assert busy.error is not None
        assert busy.error.code == "PARTITION_BUSY"
        assert [row.db_id for row in due_rows(workspace, ENTITY)] == ["3"]
        assert retry_due(workspace, ENTITY)[0].ok
    small.later(seconds=3)
    assert [row for row, _ in due(small)] == ["1", "2"]
    assert [state(small, n).retry_count for n in (1, 2, 3)] == [0, 0, 0]


def test_a_retry_amid_an_import_removes_nothing(four: Four) -> None:
    """Where the source has no row of the tenant at all, what failed stays, and is not asked for at once again."""
    four.insert(1)
    four.sync()
    four.world.update(1, code="a version that the store refuses")
    four.store_refuses("functionality")
    four.sync()
    four.store.recover()
    rows, before = four.world.rows(), four.world.stored("functionality")
    four.now += timedelta(seconds=5)
    four.world.delete(1)
    [result] = retry(four)
    assert (result.outcome, result.figures.removed) == ("success", 0)
    assert four.world.stored("functionality") == before != {}
    assert due(four) == []
    four.world.insert(rows)
    four.now += timedelta(seconds=5)
    [result] = retry(four)
    assert result.figures.upserted == 1


def test_a_retry_over_a_broken_source_removes_nothing(small: Four) -> None:
    """Where it lacks more than a full run would remove, however few of them are tried at once."""
    small.insert(*range(1, 81))
    small.sync()
    small.world.update(1, 2, name="renamed", code="renamed")
    small.store_is_down("functionality")
    small.sync()
    small.store.recover()
    small.world.delete(*range(1, 76))
    small.later(seconds=60)
    [result] = retry(small)
    assert (result.figures.removals_blocked, result.figures.removed, result.ok) == (2, 0, False)
    assert len(small.world.stored("functionality")) == 80
