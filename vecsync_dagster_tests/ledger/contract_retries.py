"""What every ledger knows of failed documents: which are due, giving up, and another chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vecsync_dagster.errors import ValidationFailed
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Failed
from vecsync_dagster.ledger.record_states import Failures
from vecsync_dagster_tests.ledger.samples import (
    ENTITY,
    MINUTE,
    NOON,
    SPACE,
    A,
    B,
    Clock,
    confirm,
    failed,
    names,
    point_id,
    state,
)

LATER = NOON + MINUTE
OTHER = (ENTITY, "usecases", "tenant-a")
BOTH = ["materials", "usecases"]


def rejected(document_id: str) -> Failed:
    code = ValidationFailed.default_code
    return Failed(document_id, f"db-{document_id}", point_id(document_id), "", code, "name is required", 0, None)


class RetriesContract:
    def test_due_rows_come_over_all_partitions_oldest_attempt_first(self, ledger: SqlLedger, clock: Clock) -> None:
        """Due documents of every tenant and collection, in the order of their last attempts, as many as asked for."""
        for number, (where, name) in enumerate([(B, "d3"), (A, "d1"), (OTHER, "d1"), (A, "d2")]):
            clock.now = NOON + timedelta(seconds=number)
            ledger.fail(*where, SPACE, [failed(name, next_attempt_at=LATER)], NOON)
        ledger.fail(*A, SPACE, [failed("waits", next_attempt_at=LATER + MINUTE), failed("permanent")], NOON)
        confirm(ledger, A, ["fine"])
        due = ledger.failed_rows(ENTITY, BOTH, due=LATER)
        assert [(row.tenant, row.collection, row.db_id) for row in due] == [
            ("tenant-b", "materials", "db-d3"),
            ("tenant-a", "materials", "db-d1"),
            ("tenant-a", "usecases", "db-d1"),
            ("tenant-a", "materials", "db-d2"),
        ]
        assert ledger.failed_rows(ENTITY, BOTH, due=LATER, limit=2) == due[:2]
        assert ledger.failed_rows(ENTITY, ["usecases"], due=LATER) == [due[2]]
        assert ledger.failed_rows(ENTITY, BOTH, due=LATER, ids=["d3", "fine"]) == [due[0]]
        assert ledger.failed_rows("works", BOTH, due=LATER) == []
        assert len(ledger.failed_rows(ENTITY, BOTH)) == 6

    def test_what_an_outage_made_wait_may_be_tried_too(self, ledger: SqlLedger) -> None:
        """By its error code, and never a permanent one; how many wait is counted without a limit."""
        own = replace(failed("own", next_attempt_at=LATER + MINUTE), error_code="QDRANT_REJECTED")
        bug = replace(failed("bug", next_attempt_at=LATER + MINUTE), error_code="INTERNAL_ERROR")
        ledger.fail(*A, SPACE, [own, bug, failed("permanent"), failed("outage", next_attempt_at=LATER + MINUTE)], NOON)
        ledger.fail(*B, SPACE, [failed("due", next_attempt_at=LATER), rejected("bad")], NOON)
        found = ledger.failed_rows(ENTITY, BOTH, due=LATER, or_outage=True)
        assert {row.document_id for row in found} == {"outage", "due"}
        assert ledger.failures(ENTITY, BOTH) == (Failures(waiting=4, permanent=1), LATER)
        assert ledger.failures(ENTITY, BOTH, ["permanent"]) == (Failures(permanent=1), None)

    def test_a_reset_makes_due_now(self, ledger: SqlLedger) -> None:
        """Permanent and waiting documents are due at once with no retries counted; others stay as they are."""
        ledger.fail(*A, SPACE, [failed("p", retry_count=6), failed("w", next_attempt_at=LATER)], NOON)
        ledger.fail(*B, SPACE, [failed("other", retry_count=6), rejected("bad")], NOON)
        confirm(ledger, A, ["fine"])
        assert ledger.reset(ENTITY, BOTH, ["p", "w", "fine", "bad"]) == 2
        assert [(row["retry_count"], row["next_attempt_at"]) for row in (state(ledger, "p"), state(ledger, "w"))] == [
            (0, NOON)
        ] * 2
        assert (state(ledger, "other")["retry_count"], state(ledger, "bad")["next_attempt_at"]) == (6, None)
        assert (ledger.reset("works", BOTH), ledger.reset(ENTITY, ["usecases"]), ledger.reset(ENTITY, BOTH)) == (
            0,
            0,
            3,
        )

    def test_a_reset_of_any_number(self, ledger: SqlLedger) -> None:
        """More ids than a statement takes are reset in several."""
        some = names(1203)
        ledger.fail(*A, SPACE, [failed(name, retry_count=6) for name in some], NOON)
        assert ledger.reset(ENTITY, BOTH, some) == 1203

    def test_postponed_rows_go_to_the_end_of_the_queue(self, ledger: SqlLedger, clock: Clock) -> None:
        """An attempt that did not get as far as the document is not counted, but lets others go first."""
        ledger.fail(*A, SPACE, [failed("first", next_attempt_at=NOON), failed("waits", next_attempt_at=LATER)], NOON)
        clock.now = NOON + timedelta(seconds=1)
        ledger.fail(*A, SPACE, [failed("second", next_attempt_at=NOON)], NOON)
        clock.now = NOON + timedelta(seconds=2)
        ledger.postpone(*A, ["first", "waits"], NOON + timedelta(seconds=30))
        rows = ledger.failed_rows(ENTITY, BOTH, due=LATER)
        assert [(row.document_id, row.retry_count) for row in rows] == [("waits", 1), ("second", 1), ("first", 1)]
        assert state(ledger, "first")["next_attempt_at"] == NOON + timedelta(seconds=30)
        assert state(ledger, "waits")["next_attempt_at"] == LATER

    def test_failures_of_a_partition_by_what_they_wait_for(self, ledger: SqlLedger) -> None:
        """Waiting for an attempt, given up, or waiting for a valid record: of this partition alone."""
        ledger.fail(*A, SPACE, [failed("w", next_attempt_at=LATER), failed("p"), rejected("r1"), rejected("r2")], NOON)
        ledger.fail(*B, SPACE, [failed("other")], NOON)
        confirm(ledger, A, ["fine"])
        assert ledger.tally(*A).failures == Failures(waiting=1, permanent=1, rejected=2)
        assert ledger.tally(*OTHER).failures == Failures()
