"""What `vecsync watch` keeps back from Dagster for a while: how long, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vecsync_dagster.cli.batches import Batch
from vecsync_dagster.sync import CheckOutcome, PartitionResult
from vecsync_dagster.sync.figures import Figures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHECK = CheckOutcome("counts", True, "as many", {})


def result(tenant: str, run_id: str = "", *, well: bool = True) -> PartitionResult:
    return PartitionResult(
        run_id=run_id,
        entity="works",
        collection="works",
        tenant=tenant,
        mode="incremental",
        outcome="success",
        started_at=NOW,
        ended_at=NOW,
        figures=Figures(upserted=1),
        space="",
        semantic=True,
        stages=("vectors",),
        checks=(replace(CHECK, passed=well),),
    )


def test_what_is_well_waits() -> None:
    """Until the time is over since the first one, and then goes once."""
    batch = Batch(timedelta(hours=1))
    assert not batch.add([result("a"), result("b")])
    assert not batch.is_due
    at_once = Batch(timedelta(0))
    at_once.add([result("a"), result("b")])
    assert at_once.is_due
    assert [one.tenant for one in at_once.take()] == ["a", "b"]
    assert list(at_once.take()) == []


def test_nothing_is_not_due() -> None:
    assert not Batch(timedelta(0)).is_due


def test_many_do_not_wait() -> None:
    """Memory is flat however long nobody looks."""
    batch = Batch(timedelta(hours=1))
    after = []
    for some in (499, 1):
        batch.add(result(f"t{n}") for n in range(some))
        after.append(batch.is_due)
    assert after == [False, True]


def test_failures_and_their_end_are_news() -> None:
    """As is nothing that goes on being well."""
    batch = Batch(timedelta(hours=1))
    assert batch.add([result("a"), result("b", well=False)])
    assert batch.add([result("b", well=False)])
    assert not batch.add([result("a")])
    assert batch.add([result("b")])
    assert not batch.add([result("b")])


def test_the_last_checks_of_a_partition_count() -> None:
    """Dagster refuses a second result of a check and partition in one run; what each sync has written stays."""
    batch = Batch(timedelta(hours=1))
    batch.add([result("a", "1"), result("b", "2"), result("a", "3")])
    taken = batch.take()
    assert [(one.run_id, one.figures.upserted, bool(one.checks)) for one in taken] == [
        ("1", 1, False),
        ("2", 1, True),
        ("3", 1, True),
    ]
