"""The checks `statuses` and `collections`: failed documents, and records that not all collections have."""

from __future__ import annotations

import pytest

from vecsync_dagster.sync import CheckOutcome, PartitionResult
from vecsync_dagster_tests.four import Four
from vecsync_dagster_tests.world import ENTITY, World, retry_due


def check(result: PartitionResult, name: str) -> CheckOutcome:
    [outcome] = [check for check in result.checks if check.name == name]
    return outcome


def test_failed_documents_warn(four: Four) -> None:
    """A document that waits for its retry is a warning with its id, in a full run as in an incremental one."""
    four.insert(1, 2)
    four.world.update(1, name="FORBIDDEN")
    for mode in ("full", "incremental"):
        results = four.sync(mode=mode)
        outcome = check(results["tools"], "statuses")
        assert (outcome.passed, outcome.warning, outcome.facts["failed"]) == (False, True, 1)
        assert [row["document"] for row in outcome.rows] == ["global-work-1"]
        assert check(results["usecases"], "statuses").passed
    four.world.update(1, name="allowed")
    assert check(four.sync()["tools"], "statuses").passed


def test_permanent_failures_are_errors(four: Four) -> None:
    """Once nothing will try it again the check is an error, and the partition is not all right."""
    four.insert(1)
    four.world.update(1, name="FORBIDDEN")
    for _ in range(6):
        result = four.sync()["tools"]
        four.later(seconds=300)
    outcome = check(result, "statuses")
    assert (outcome.passed, outcome.warning, outcome.facts["permanent"]) == (False, False, 1)
    assert "vecsync retry --reset" in outcome.message
    assert not four.sync()["tools"].ok


def test_rejected_records_are_told_apart(four: Four) -> None:
    """A record that never was valid is nothing that a retry could repair: `validation` warns of it, and it alone."""
    four.insert(1)
    four.world.update(1, name="")
    result = four.sync()["tools"]
    assert check(result, "statuses").passed
    outcome = check(result, "validation")
    assert (outcome.passed, outcome.warning) == (False, True)
    assert outcome.message == "1 of 1 record rejected, see `vecsync invalid`"


def test_a_run_that_did_not_meet_a_rejected_record_does_not_hide_it(four: Four) -> None:
    """`validation` fails for as long as any record of the partition is rejected, whatever else was synced."""
    four.insert(1, 2, 3)
    four.sync(mode="full")
    four.world.update(1, name="", code="", unit="")
    four.insert(4)
    four.world.update(4, name="", code="", unit="")
    assert check(four.sync(mode="full")["tools"], "validation").facts["invalid"] == 2
    four.world.update(2, name="another")
    for results in (four.sync(mode="incremental"), four.world.sync(collections=["tools"], ids=("2",))):
        outcome = check(results["tools"] if isinstance(results, dict) else results[0], "validation")
        assert (outcome.passed, outcome.warning, outcome.facts["invalid"]) == (False, True, 2)
    four.world.update(1, 4, name="valid again", code="c", unit="шт")
    assert check(four.sync(mode="incremental")["tools"], "validation").passed


def test_a_record_that_one_collection_lacks(four: Four) -> None:
    """The partition that lacks the record warns, with its id and why; the others do not."""
    four.insert(1, 2)
    four.world.update(2, code="")
    results = four.sync(mode="full")
    lacking = {name: check(result, "collections").facts["missing"] for name, result in results.items()}
    assert lacking == {"tools": 0, "functionality": 1, "usecases": 0, "interface": 0}
    outcome = check(results["functionality"], "collections")
    assert (outcome.passed, outcome.warning) == (False, True)
    assert list(outcome.rows) == [{"document": "global-work-2", "error": "VALIDATION_ERROR"}]


def test_only_a_full_run_looks_for_it(four: Four) -> None:
    """An incremental run costs what changed: it compares no collection with the others."""
    four.insert(1)
    four.sync()
    assert "collections" not in {check.name for check in four.sync()["tools"].checks}
    assert "collections" in {check.name for check in four.sync(mode="full")["tools"].checks}


@pytest.mark.parametrize("repaired", ["retry", "ids", "incremental"])
def test_it_is_over_with_the_run_that_writes_the_record(four: Four, repaired: str) -> None:
    """Whatever run that is: otherwise it would stay red until the next full one."""
    four.insert(1, 2)
    four.world.update(1, code="FORBIDDEN")
    assert not check(four.sync(mode="full")["functionality"], "collections").passed
    four.provider.rejects = None
    four.later(minutes=5)
    if repaired == "retry":
        with four.world.workspace() as workspace:
            retry_due(workspace, ENTITY)
    else:
        four.sync(**({"ids": ("1",)} if repaired == "ids" else {"mode": "incremental"}))
    with four.world.workspace() as workspace:
        assert workspace.ledger.check_results(ENTITY, failed=True) == []


def test_one_collection_has_nothing_to_compare_with(embedded_world: World) -> None:
    """An entity with a single collection has no such check."""
    embedded_world.insert([{"id": 1, "is_global": True}])
    [result] = embedded_world.sync("global", mode="full")
    assert "collections" not in {check.name for check in result.checks}
    assert check(result, "statuses").passed
    assert result.entity == ENTITY
