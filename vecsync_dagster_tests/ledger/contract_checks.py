"""What every ledger remembers of checks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster_tests.ledger.samples import ENTITY, MINUTE, NOON, A, B

_, COLLECTION, TENANT = A
RED = CheckResult(ENTITY, "counts", False, "6 missing", NOON, COLLECTION, TENANT, facts={"missing": 6}, run_id="r1")
GREEN = replace(RED, passed=True, message="as it should be", facts={}, at=NOON + MINUTE, run_id="r2")
RUN = Run("r2", *A, "full", "success", NOON, NOON + MINUTE, {})


class ChecksContract:
    def test_the_last_result_of_a_check_is_kept(self, ledger: SqlLedger) -> None:
        """A result comes back as it was until another one of the same check and partition replaces it."""
        overall = CheckResult(ENTITY, "freshness", False, "1 partition is late", NOON, warning=True)
        ledger.record_checks([RED, replace(RED, tenant=B[2]), replace(RED, check="identity"), overall])
        assert ledger.check_results() == [overall, RED, replace(RED, check="identity"), replace(RED, tenant=B[2])]
        ledger.record_checks([GREEN])
        assert ledger.check_results(ENTITY, TENANT) == [GREEN, replace(RED, check="identity")]
        assert ledger.check_results("works") == []
        assert ledger.failed_checks(*A) == [replace(RED, check="identity")]
        assert ledger.failed_checks(*B) == [replace(RED, tenant=B[2])]

    def test_an_earlier_result_replaces_no_later_one(self, ledger: SqlLedger) -> None:
        """Whoever looked first may be the last to write, alone or with a run; what is of the same time is replaced."""
        ledger.record_checks([GREEN])
        ledger.record_checks([RED])
        ledger.record_run(RUN, [RED])
        assert ledger.check_results() == [GREEN]
        again = replace(RED, at=GREEN.at)
        ledger.record_checks([again, replace(RED, tenant=B[2])])
        assert ledger.check_results() == [again, replace(RED, tenant=B[2])]

    def test_a_clock_that_was_ahead_hides_nothing(self, ledger: SqlLedger) -> None:
        """A result that is dated after today is replaced by the next one."""
        ledger.record_checks([replace(GREEN, at=datetime.now(UTC) + timedelta(days=1))])
        ledger.record_checks([RED])
        assert ledger.check_results() == [RED]

    def test_a_run_is_recorded_with_its_checks(self, ledger: SqlLedger) -> None:
        """What the run did not check stays as it was."""
        ledger.record_checks([RED, replace(RED, check="identity")])
        ledger.record_run(RUN, [GREEN])
        assert ledger.runs() == [RUN]
        assert [one.severity for one in ledger.check_results()] == ["passed", "error"]

    def test_a_dropped_partition_has_no_results(self, ledger: SqlLedger) -> None:
        """What is gone is neither red nor green; other partitions keep theirs."""
        ledger.record_checks([RED, replace(RED, tenant=B[2])])
        ledger.drop_partition(*A)
        assert [one.tenant for one in ledger.check_results()] == [B[2]]
