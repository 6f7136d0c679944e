"""What every ledger forgets with time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Rejected, Run
from vecsync_dagster_tests.ledger.samples import DAY, ENTITY, NOON, OTHER_SPACE, SPACE, A, B, Clock, confirmed, plan_of

RUN = Run("r", *A, "full", "success", NOON, NOON, {})
REJECTED = Rejected("17", "VALIDATION_ERROR", "price", "price is not a number")


def _confirm(
    ledger: SqlLedger, where: tuple[str, str, str], ids: list[str], text_hash: str | None, *, truncated: bool = False
) -> None:
    writes = [replace(confirmed(one), text_hash=text_hash, truncated=truncated) for one in ids]
    ledger.confirm(*where, SPACE, writes, NOON)


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

    def test_a_vector_that_a_document_needs_is_not_unused(self, ledger: SqlLedger, clock: Clock) -> None:
        """However long nobody has asked for it: a point that is lost is written again from it. Where a document does
        not say which vector it needs, every one of its space may be it."""
        ledger.keep_vectors(SPACE, {name: np.ones(4, np.float32) for name in ("of d1", "nobodys")})
        _confirm(ledger, A, ["d1"], "of d1")
        clock.now += 40 * DAY
        assert ledger.forget_unused_vectors(clock.now - 30 * DAY) == 1
        assert ledger.vectors(SPACE, ["of d1", "nobodys"]).keys() == {"of d1"}
        _confirm(ledger, B, ["d2"], None)
        ledger.forget(*A, ["d1"])
        clock.now += 40 * DAY
        assert ledger.forget_unused_vectors(clock.now - 30 * DAY) == 0

    def test_vectors_go_with_their_last_document(self, ledger: SqlLedger) -> None:
        """Where that is asked for: one that another tenant's document needs stays, and so do those of other spaces."""
        for space in (SPACE, OTHER_SPACE):
            ledger.keep_vectors(space, {name: np.ones(4, np.float32) for name in ("own", "shared")})
        _confirm(ledger, A, ["d1"], "own")
        _confirm(ledger, A, ["d2"], "shared")
        _confirm(ledger, B, ["d3"], "shared")
        ledger.forget(*A, ["d1"])
        assert len(ledger.vectors(SPACE, ["own", "shared"])) == 2
        _confirm(ledger, A, ["d1"], "own")
        ledger.forget(*A, ["d1", "d2"], with_vectors=True)
        assert ledger.vectors(SPACE, ["own", "shared"]).keys() == {"shared"}
        assert len(ledger.vectors(OTHER_SPACE, ["own", "shared"])) == 2

    def test_vectors_of_former_documents_go_with_the_partition(self, ledger: SqlLedger) -> None:
        """Once it is dropped, what another document needs by then stays, and what others had."""
        of_a, of_b = [f"a{n}" for n in range(1_200)], ["b"]
        ledger.keep_vectors(SPACE, {name: np.ones(4, np.float32) for name in (*of_a, *of_b)})
        for place, texts in ((A, of_a), (B, of_b)):
            for text in texts:
                _confirm(ledger, place, [text], text)
            ledger.forget(*place, texts)
        assert len(ledger.vectors(SPACE, of_a + of_b)) == 1_201
        _confirm(ledger, B, ["d1"], "a7")
        ledger.drop_partition(*A)
        assert ledger.vectors(SPACE, of_a + of_b).keys() == {"a7", "b"}
        assert ledger.traces(ENTITY, [A[1]]) == ["tenant-b"]

    def test_that_a_vector_was_somebody_s_is_forgotten_with_it(self, ledger: SqlLedger, clock: Clock) -> None:
        """The cache forgets with time what nobody asks for: nothing of it is left of the tenant either."""
        ledger.keep_vectors(SPACE, {"own": np.ones(4, np.float32)})
        _confirm(ledger, A, ["d1"], "own")
        ledger.forget(*A, ["d1"])
        assert ledger.forget_unused_vectors(clock.now) == 0
        assert ledger.traces(ENTITY, [A[1]]) == ["tenant-a"]
        clock.now += 40 * DAY
        assert ledger.forget_unused_vectors(clock.now - 30 * DAY) == 1
        assert ledger.traces(ENTITY, [A[1]]) == []

    def test_whether_a_vector_is_needed_is_told_by_an_index(self, ledger: SqlLedger) -> None:
        """One removal never reads all documents, those that name no text included."""
        ledger.keep_vectors(SPACE, {"own": np.ones(4, np.float32)})
        _confirm(ledger, A, [f"d{n}" for n in range(1_000)], "own")
        plan = plan_of(ledger, lambda: ledger.forget(*A, ["d1"], with_vectors=True), "DELETE FROM embedding_cache")
        assert plan.count("ix_index_state_text") == 2, plan

    def test_texts_that_were_cut_are_counted(self, ledger: SqlLedger) -> None:
        """Of the partition alone; a payload's write leaves what is known, another vector does not."""
        _confirm(ledger, A, ["d1", "d2"], "t", truncated=True)
        _confirm(ledger, B, ["d3"], "t", truncated=True)
        assert ledger.tally(*A).truncated == 2
        assert len(ledger.truncated_ids(*A, limit=1)) == 1
        _confirm(ledger, A, ["d1"], None)
        _confirm(ledger, A, ["d2"], "u")
        assert ledger.tally(*A).truncated == 1
