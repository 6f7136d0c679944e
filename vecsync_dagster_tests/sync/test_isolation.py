"""One failing collection, one failing document: the others are synced, and what failed says so by itself."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from vecsync_dagster_tests.four import FOUR, MANY, Four
from vecsync_dagster_tests.world import ENTITY, retry_due


@pytest.mark.in_turn
@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize(
    ("fault", "code"), [("down", "QDRANT_UNAVAILABLE"), ("hangs", "QDRANT_TIMEOUT"), ("refuses", "QDRANT_REJECTED")]
)
def test_one_collections_store_fails(four: Four, fault: str, code: str, mode: str) -> None:
    """Its documents are failed with the code, the partition too where the whole store failed; the other three
    collections are synced, and one clean run makes it right."""
    four.insert(1, 2, 3)
    four.sync()
    four.world.update(1, code="another", name="renamed", price="5")
    {"down": four.store_is_down, "hangs": four.store_hangs, "refuses": four.store_refuses}[fault]("functionality")
    with four.world.impatient("store") if fault == "hangs" else nullcontext():
        results = four.sync(mode=mode)
    four.store.recover()
    assert [results[name].outcome for name in FOUR if name != "functionality"] == ["success"] * 3
    error = results["functionality"].error
    assert error is None if fault == "refuses" else error is not None and error.code == code
    row = four.states()[1].collections["functionality"]
    assert (row.status, row.error_code, row.retry_count) == ("failed", code, int(fault == "refuses"))
    assert four.statuses(1) == ("synced", "failed", "synced", "synced")
    assert {four.statuses(n) for n in (2, 3)} == {("synced",) * 4}
    with four.world.workspace() as workspace:
        known = workspace.ledger.check_results(ENTITY, failed=True)
    assert [one.facts["failed"] for one in known if (one.collection, one.check) == ("functionality", "statuses")] == [1]
    for name in ("tools", "usecases", "interface"):
        four.world.assert_exact(name)
    assert four.sync(mode=mode)["functionality"].ok
    for name in FOUR:
        four.world.assert_exact(name)


def test_a_store_that_is_down_from_the_start(four: Four) -> None:
    """A first sync while the store is away fails every collection, and the records it looked at say why."""
    four.insert(1, 2)
    four.store_is_down()
    results = four.sync()
    assert {result.error.code for result in results.values() if result.error} == {"QDRANT_UNAVAILABLE"}
    assert {four.statuses(n) for n in (1, 2)} == {("failed",) * 4}
    assert four.provider.asked == []  # nothing is paid for that cannot be stored
    four.store.recover()
    four.later(minutes=1)
    with four.world.workspace() as workspace:
        assert [(result.error, result.checks) for result in retry_due(workspace, ENTITY) if not result.ok] == []
    for name in FOUR:
        four.world.assert_exact(name)
    assert four.states()[1].overall == "synced"


def test_a_store_that_is_down_fails_a_partition_without_changes(four: Four) -> None:
    """Where nothing has to be written the partition fails all the same: nobody could check it."""
    four.insert(1)
    four.sync()
    four.store_is_down("functionality")
    result = four.sync()["functionality"]
    assert result.error is not None
    assert result.error.code == "QDRANT_UNAVAILABLE"
    assert four.statuses(1) == ("synced",) * 4


def test_the_providers_failure_is_that_of_the_text_alone(four: Four) -> None:
    """A rename while the provider is away: tools failed, and the price reached the payloads of the other three."""
    four.insert(1)
    four.sync()
    four.world.update(1, name="renamed", price="9")
    four.provider.fail("hang", times=MANY)
    with four.world.impatient("provider"):
        results = four.sync()
    four.provider.recover()
    assert {name: result.outcome for name, result in results.items()} == {
        "tools": "failed",
        "functionality": "success",
        "usecases": "success",
        "interface": "success",
    }
    assert four.states()[1].collections["tools"].error_code == "EMBEDDING_TIMEOUT"
    for name in FOUR[1:]:
        four.world.assert_exact(name)


def test_one_text_of_a_hundred_is_refused(four: Four) -> None:
    """99 are synced and one is failed with the provider's code; repaired in the source it is synced with no retries."""
    four.insert(*range(1, 101))
    four.world.update(50, name="FORBIDDEN 50")
    results = four.sync()
    assert (results["tools"].figures.upserted, results["tools"].figures.failed) == (99, 1)
    assert all(result.outcome == "success" for result in results.values())
    states = four.states()
    assert [n for n, record in states.items() if record.overall != "synced"] == [50]
    row = states[50].collections["tools"]
    assert (row.status, row.error_code, row.retry_count) == ("failed", "EMBEDDING_REJECTED", 1)
    assert len(four.world.stored("tools")) == 99
    four.world.update(50, name="allowed")
    four.sync()
    row = four.states()[50].collections["tools"]
    assert (row.status, row.retry_count) == ("synced", 0)
    for name in FOUR:
        four.world.assert_exact(name)
