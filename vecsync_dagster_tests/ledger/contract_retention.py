"""What every ledger forgets with time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Rejected, Run
from vecsync_dagster_tests.ledger.samples import DAY, NOON, SPACE, A, Clock

RUN = Run("r", *A, "full", "success", NOON, NOON, {})
REJECTED = Rejected("17", "VALIDATION_ERROR", "price", "price is not a number")


class RetentionContract:
    def test_old_runs_are_forgotten_but_the_last_ones(self, ledger: SqlLedger) -> None:
        """Of each partition, mode and outcome the newest run stays, however old it is; more than a chunk go."""
        ledger.record_runs([replace(RUN, run_id=f"r{n:04}", started_at=NOON + n * DAY / 2_000) for n in range(1_500)])
        ledger.record_run(replace(RUN, run_id="failed", outcome="failed"))
        ledger.record_run(replace(RUN, run_id="new", started_at=NOON + 10 * DAY))
        assert ledger.forget_runs(NOON + 5 * DAY) == 1_500
        assert [run.run_id for run in ledger.runs()] == ["new", "failed"]

    def test_old_rejections_go_with_their_runs(self, ledger: SqlLedger) -> None:
        """What was rejected by a run that is still known is not forgotten."""
        ledger.record_run(RUN)
        for run_id in ("r", "gone"):
            ledger.reject(run_id, A[0], A[2], [REJECTED], NOON)
        assert ledger.forget_old_rejections(NOON + DAY) == 1
        assert [row["run_id"] for row in ledger.rejected()] == ["r"]

    def test_vectors_that_nobody_needs_are_forgotten(self, ledger: SqlLedger, clock: Clock) -> None:
        """One that was used since then stays."""
        ledger.keep_vectors(SPACE, {name: np.ones(4, np.float32) for name in ("used", "unused")})
        clock.now += 40 * DAY
        assert ledger.vectors(SPACE, ["used"]).keys() == {"used"}
        assert ledger.forget_unused_vectors(clock.now - 30 * DAY) == 1
        assert ledger.vectors(SPACE, ["used", "unused"]).keys() == {"used"}
