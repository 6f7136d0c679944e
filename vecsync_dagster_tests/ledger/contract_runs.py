"""What every ledger remembers of runs and of rejected records."""

from __future__ import annotations

from dataclasses import replace

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import DIED, LISTING, Partition, Rejected, Run
from vecsync_dagster_tests.ledger.samples import DAY, ENTITY, MINUTE, NOON, SPACE, A, B, confirm, failed, names

RUN = Run("r1", *A, "full", "success", NOON, NOON + MINUTE, {"fetched": 3, "price_usd": 0.25, "by": {"a": None}})
REJECTED = Rejected("17", "VALIDATION_ERROR", "price", "price is not a number")


class RunsContract:
    def test_a_run_comes_back_as_it_was(self, ledger: SqlLedger) -> None:
        """Every field and figure of a run is kept, times in UTC."""
        ledger.record_run(RUN)
        assert ledger.runs() == [RUN]

    def test_recording_a_run_again_replaces_it(self, ledger: SqlLedger) -> None:
        """One row for a run and partition, however often it is written; other partitions have their own."""
        ledger.record_run(replace(RUN, outcome="failed", error="x" * 2000))
        ledger.record_run(RUN)
        ledger.record_run(replace(RUN, tenant="tenant-b", outcome="interrupted", error="x" * 2000))
        mine, other = ledger.runs()
        assert mine == RUN
        assert (other.tenant, other.outcome, other.error) == ("tenant-b", "interrupted", "x" * 1000)

    def test_runs_come_newest_first(self, ledger: SqlLedger) -> None:
        """The newest of an entity, a tenant, or all, at most as many as asked for."""
        for number in range(3):
            ledger.record_run(replace(RUN, run_id=f"r{number}", started_at=NOON + number * MINUTE))
        ledger.record_run(replace(RUN, run_id="w", entity="works"))
        ledger.record_run(replace(RUN, run_id="b", tenant="tenant-b", started_at=NOON - MINUTE))
        assert [run.run_id for run in ledger.runs(limit=2)] == ["r2", "r1"]
        assert [run.run_id for run in ledger.runs(entity="works")] == ["w"]
        assert [run.run_id for run in ledger.runs(ENTITY, "tenant-b")] == ["b"]
        assert [run.run_id for run in ledger.runs(tenant="tenant-a")] == ["r2", "r1", "r0", "w"]

    def test_a_clock_that_was_ahead_hides_no_later_run(self, ledger: SqlLedger) -> None:
        """The last run of a partition is the one recorded last, whatever the time before it claimed."""
        ahead = replace(RUN, run_id="ahead", started_at=NOON + 3 * DAY, ended_at=NOON + 3 * DAY)
        for run in (ahead, replace(RUN, run_id="z"), replace(RUN, run_id="a", outcome="failed")):
            ledger.record_run(run)
        assert ledger.last_runs()[Partition(*A)].last.run_id == "a"
        assert [run.run_id for run in ledger.runs()] == ["a", "z", "ahead"]

    def test_a_run_that_left_no_result_is_recorded_as_failed_once(self, ledger: SqlLedger) -> None:
        """When nobody holds its tenant any more; not a run that was recorded, nor a mark that is no run's."""
        ledger.begin_writing(*A, "r1", "full")
        ledger.begin_writing(ENTITY, "usecases", "tenant-a", "r1", "full")
        ledger.begin_writing(*B, "repair")
        ledger.begin_writing(*B, "well", "incremental")
        ledger.record_run(replace(RUN, run_id="well", tenant="tenant-b", mode="incremental"))
        with ledger.hold(ENTITY, "tenant-a"):
            assert ledger.end_dead_runs() == []
        assert ledger.end_dead_runs("works") == []
        ended = ledger.end_dead_runs(ENTITY)
        assert {(run.run_id, run.collection, run.tenant, run.mode) for run in ended} == {
            ("r1", A[1], "tenant-a", "full"),
            ("r1", "usecases", "tenant-a", "full"),
        }
        assert ledger.end_dead_runs() == []
        last = ledger.last_runs()[Partition(*A)]
        assert (last.undone, last.last.outcome, last.last.error) == (last.last, "failed", DIED)
        assert ledger.unfinished(*A) == ["r1"], "its partition is still to be compared"

    def test_a_run_whose_mark_is_left_is_not_forgotten(self, ledger: SqlLedger) -> None:
        """It would be taken for one that died."""
        ledger.begin_writing(*A, "r1", "full")
        ledger.record_run(replace(RUN, outcome="failed"))
        ledger.record_run(replace(RUN, run_id="r2", outcome="failed", started_at=NOON + MINUTE))
        ledger.record_run(replace(RUN, run_id="r3", outcome="failed", started_at=NOON + 2 * MINUTE))
        assert ledger.forget_runs(NOON + DAY) == 1
        assert {run.run_id for run in ledger.runs()} == {"r1", "r3"}
        assert ledger.end_dead_runs() == []

    def test_a_dead_run_hides_no_run_that_came_after_it(self, ledger: SqlLedger) -> None:
        """It is recorded as of when it began, however late it is found."""
        ledger.begin_writing(*A, "dead", "incremental")
        later = ledger.now() + MINUTE
        ledger.record_run(replace(RUN, run_id="well", mode="incremental", started_at=later, ended_at=later))
        assert [run.run_id for run in ledger.end_dead_runs()] == ["dead"]
        last = ledger.last_runs()[Partition(*A)]
        assert (last.last.run_id, last.undone) == ("well", None)

    def test_rejected_records_are_kept_with_their_reason(self, ledger: SqlLedger) -> None:
        """What was rejected, where and why: the columns of the table, and no value of the record."""
        ledger.reject("r1", ENTITY, "tenant-a", [REJECTED], NOON)
        [row] = ledger.rejected()
        assert row.pop("id") > 0
        assert row == {
            "run_id": "r1",
            "entity": ENTITY,
            "collection": None,
            "tenant_id": "tenant-a",
            "db_id": "17",
            "code": "VALIDATION_ERROR",
            "field": "price",
            "error": "price is not a number",
            "rejected_at": NOON,
        }

    def test_rejected_records_come_newest_first(self, ledger: SqlLedger) -> None:
        """The last written first, of an entity, a tenant, or all; many go in one call."""
        ledger.reject("r1", ENTITY, "tenant-a", [replace(REJECTED, db_id=name) for name in names(1203)], NOON)
        ledger.reject("r2", "works", "tenant-a", [replace(REJECTED, db_id=None, collection="works")], NOON + MINUTE)
        ledger.reject("r2", "works", "tenant-a", [], NOON + MINUTE)
        assert [row["db_id"] for row in ledger.rejected(limit=2)] == [None, "d001202"]
        assert len(ledger.rejected(ENTITY, limit=5000)) == 1203
        assert [row["collection"] for row in ledger.rejected("works", "tenant-a")] == ["works"]
        assert ledger.rejected(tenant="tenant-b") == []

    def test_the_last_run_is_found_behind_any_number_of_others(self, ledger: SqlLedger) -> None:
        """Each partition's last syncs are known however many runs of others, and of its own, came after them."""
        ledger.record_run(replace(RUN, tenant="quiet", started_at=NOON - DAY, failed_checks=("counts",)))
        ledger.record_run(RUN)
        later = [NOON + number * MINUTE for number in range(1200)]
        ledger.record_runs(
            [replace(RUN, run_id=f"r{at}", mode="incremental", started_at=at, ended_at=at) for at in later]
        )
        after, late = later[-1] + MINUTE, later[-1] + DAY
        ledger.record_run(replace(RUN, run_id="f", outcome="failed", started_at=after, ended_at=after, error="x"))
        ledger.record_run(replace(RUN, run_id="ids", mode="ids", started_at=late, ended_at=late))
        ledger.record_run(Run("e", ENTITY, "", "", LISTING, "failed", NOON, NOON))
        found = ledger.last_runs(ENTITY)
        quiet, busy = found[Partition(*A[:2], "quiet")], found[Partition(*A)]
        assert {run.failed_checks for run in (quiet.last, quiet.success, quiet.full) if run} == {("counts",)}
        assert not quiet.last.ok
        assert (busy.last.run_id, busy.last.error) == ("f", "x")
        assert (busy.success, busy.full) == (ledger.runs(mode="incremental", limit=1)[0], busy.last)
        assert busy.full_success == RUN
        assert found[Partition(ENTITY, "", "")].last.run_id == "e"
        assert found.keys() == ledger.last_runs().keys()
        assert len(found) == 3
        assert ledger.last_runs(tenant="quiet").keys() == {Partition(*A[:2], "quiet")}
        assert ledger.last_runs("works") == {}

    def test_what_is_rejected_now_is_told_from_what_ever_was(self, ledger: SqlLedger) -> None:
        """Stale rows, rows that were never valid, and what the last full run met without an id; not what is over."""
        confirm(ledger, A, ["d1", "d2"])
        ledger.mark_stale(*A, ["d1"], "VALIDATION_ERROR", "bad", NOON + MINUTE)
        ledger.fail(*A, SPACE, [replace(failed("d3"), attempt_hash="", error_code="OWN"), failed("d4")], NOON)
        ledger.record_run(replace(RUN, figures={"unidentified": 1}))
        told = [replace(REJECTED, db_id=identity) for identity in ("db-d1", "db-d2", None)]
        ledger.reject("r1", ENTITY, "tenant-a", [replace(one, collection="materials") for one in told], NOON)
        ledger.reject("r0", ENTITY, "tenant-a", [replace(REJECTED, db_id=None, collection="materials")], NOON)
        found = ledger.invalid(dict(ledger.last_runs()))
        assert [(one.id, one.field, one.state) for one in found] == [
            ("db-d1", "price", "stale"),
            ("db-d3", None, "failed"),
            (None, "price", "unidentified"),
        ]
        assert ledger.invalid(dict(ledger.last_runs()), 1) == found[:1]
        place, [full] = Partition(*A), ledger.runs(limit=1)
        assert (ledger.unidentified_since(place, full), ledger.unidentified_since(place, None)) == (0, 1)
        again = [replace(REJECTED, db_id=None, collection="materials")] * 2
        for run in ("r2", "r3"):
            ledger.reject(run, ENTITY, "tenant-a", again, NOON + MINUTE)
        assert (ledger.unidentified_since(place, full), len(ledger.invalid(dict(ledger.last_runs())))) == (1, 4)
        ledger.forget_rejected(ENTITY, "tenant-b")
        assert len(ledger.rejected()) == 8
        ledger.forget_rejected(ENTITY, "tenant-a")
        assert ledger.rejected() == []
