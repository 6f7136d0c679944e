"""What every ledger knows of partitions: unseen, due, counts, points, totals, watermarks."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pyroaring import BitMap64
from sqlalchemy import event

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Rejected, Run, Seen
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.record_states import Failures
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster_tests.ledger.samples import (
    DAY,
    ENTITY,
    MINUTE,
    NOON,
    PLACE,
    SPACE,
    A,
    B,
    Clock,
    confirm,
    confirmed,
    failed,
    names,
    point_id,
    state,
)

LATER = NOON + MINUTE
TICK = timedelta(microseconds=1)


def unseen(ledger: SqlLedger, partition: tuple[str, str, str], before: datetime) -> int:
    return sum(map(len, ledger.unseen(*partition, before)))


class PartitionsContract:
    def test_what_runs_wrote_is_marked_until_it_is_shown(self, ledger: SqlLedger) -> None:
        """By a run that ended after the last one began to write; other partitions keep their mark."""
        for place in (A, B):
            ledger.begin_writing(*place, "r1")
        written = ledger.now()
        assert ledger.unshown(ENTITY) == {A[1:], B[1:]}
        assert ledger.unshown("works") == set()
        ledger.shown(*A, written - DAY)
        assert ledger.unshown(ENTITY) == {A[1:], B[1:]}
        ledger.shown(*A, written)
        assert ledger.unshown(ENTITY) == {B[1:]}
        ledger.drop_partition(*B)
        assert ledger.unshown(ENTITY) == set()

    @pytest.mark.parametrize("chunk", [1, 7, 20, 500])
    def test_unseen_rows_come_once_each(self, ledger: SqlLedger, chunk: int) -> None:
        """Every row last seen before the date comes exactly once, in chunks, with its point's id."""
        for number, name in enumerate(names(20)):  # pairs share a time
            confirm(ledger, A, [name], NOON + number // 2 * TICK)
        confirm(ledger, A, ["seen"], LATER)
        confirm(ledger, B, ["foreign"], NOON)
        found = list(ledger.unseen(*A, LATER, chunk=chunk))
        assert sorted(row for rows in found for row in rows) == [(name, point_id(name)) for name in names(20)]
        assert {len(rows) for rows in found[:-1]} <= {chunk}

    def test_unseen_rows_may_be_forgotten_on_the_way(self, ledger: SqlLedger) -> None:
        """Forgetting each chunk before asking for the next one misses none."""
        confirm(ledger, A, names(1203), NOON)
        confirm(ledger, A, ["seen"], LATER)
        removed = 0
        for rows in ledger.unseen(*A, LATER):
            ledger.forget(*A, [document_id for document_id, _ in rows])
            removed += len(rows)
        assert (removed, ledger.tally(*A).rows, unseen(ledger, A, LATER)) == (1203, 1, 0)

    def test_unseen_means_before_the_date(self, ledger: SqlLedger) -> None:
        """A row seen exactly at a run's start was seen by that run."""
        confirm(ledger, A, ["d1"], NOON)
        assert [unseen(ledger, A, NOON + shift) for shift in (-TICK, 0 * TICK, TICK)] == [0, 0, 1]
        assert unseen(ledger, B, LATER) == 0
        assert unseen(ledger, ("works", "materials", "tenant-a"), LATER) == 0

    def test_unseen_leaves_out_what_the_run_remembers(self, ledger: SqlLedger) -> None:
        """Rows that a run has met, and did not have to write, are not among the unseen ones."""
        confirm(ledger, A, names(5))
        rows = ledger.rows(*PLACE, names(5), NOON)
        seen = BitMap64(rows[name].number for name in names(4))
        assert [name for some in ledger.unseen(*A, LATER, seen, 2) for name, _ in some] == names(5)[4:]

    def test_a_number_is_never_given_again(self, ledger: SqlLedger) -> None:
        """A row that is gone takes its number with it: a run that met it does not take a new row for it."""
        confirm(ledger, A, ["d1", "d2"])
        first = ledger.rows(*PLACE, ["d2"], NOON)["d2"].number
        ledger.forget(*A, ["d2"])
        confirm(ledger, A, ["d3"])
        assert ledger.rows(*PLACE, ["d3"], NOON)["d3"].number > first

    def test_some_are_marked_as_seen(self, ledger: SqlLedger) -> None:
        """Only rows of the partition with these numbers, and none back to an earlier time."""
        confirm(ledger, A, ["d1", "d2"])
        confirm(ledger, A, ["late"], LATER + MINUTE)
        confirm(ledger, B, ["foreign"])
        numbers = [row.number for row in ledger.rows(*PLACE, ["d1", "late", "foreign"], NOON).values()]
        ledger.mark_seen(*A, numbers, LATER)
        at = {name: state(ledger, name)["last_seen_at"] for name in ("d1", "d2", "late", "foreign")}
        assert at == {"d1": LATER, "d2": NOON, "late": LATER + MINUTE, "foreign": NOON}

    def test_all_are_seen_at_once(self, ledger: SqlLedger, clock: Clock) -> None:
        """One row for a partition says that all of its documents were there; a run starts later; B is not meant."""
        clock.now = NOON
        confirm(ledger, A, ["d1"])
        confirm(ledger, B, ["d2"])
        ledger.mark_all_seen(*A, LATER - MINUTE)
        ledger.mark_all_seen(*A, LATER)
        mine, others = ledger.totals(LATER)
        assert (mine.last_seen_at, mine.unseen_since) == (LATER, 0)
        assert (others.last_seen_at, others.unseen_since) == (NOON, 1)
        assert ledger.totals(LATER + TICK)[0].unseen_since == 1
        assert [ledger.run_start(*place).at for place in (A, B)] == [LATER + TICK, NOON + TICK]
        ledger.drop_partition(*A)
        assert ledger.totals(LATER)[0].unseen_since == 1

    def test_a_run_starts_with_what_is_known(self, ledger: SqlLedger) -> None:
        """Every row of the partition counts, whatever its state."""
        confirm(ledger, A, ["d1"])
        ledger.fail(*A, SPACE, [failed("d2")], NOON)
        confirm(ledger, B, ["d3"])
        assert [ledger.run_start(*place).known for place in (A, B, (ENTITY, "x", "global"))] == [2, 1, 0]

    def test_all_due_documents_come_once(self, ledger: SqlLedger, clock: Clock) -> None:
        """However small the chunks, and although those that were read fail again meanwhile."""
        ledger.fail(*A, SPACE, [failed(name, next_attempt_at=NOON) for name in names(7)], NOON)
        ledger.fail(*A, SPACE, [failed("later", next_attempt_at=LATER), failed("permanent")], NOON)
        ledger.fail(*B, SPACE, [failed("foreign", next_attempt_at=NOON)], NOON)
        found = []
        for some in ledger.all_due(*A, NOON, 3):
            clock.now += MINUTE
            ledger.fail(*A, SPACE, [failed(key.removeprefix("db-"), next_attempt_at=NOON) for key in some], NOON)
            found.append(list(some))
        assert [len(some) for some in found] == [3, 3, 1]
        assert [key for some in found for key in some] == [f"db-{name}" for name in names(7)]

    def test_what_was_never_stored_is_listed(self, ledger: SqlLedger) -> None:
        """Failed before it was stored, and not where it failed afterwards; in chunks."""
        confirm(ledger, A, ["d1", "d2"], NOON)
        ledger.fail(*A, SPACE, [failed(name) for name in ("d2", *names(5, "f"))], NOON)
        ledger.fail(*B, SPACE, [failed("foreign")], NOON)
        found = [list(some) for some in ledger.never_stored(*A, 2)]
        assert [len(some) for some in found] == [2, 2, 1]
        assert sorted(key for some in found for key in some) == [f"db-{name}" for name in names(5, "f")]

    def test_a_run_starts_now(self, ledger: SqlLedger, clock: Clock) -> None:
        """The start of a run is the clock's time where nothing was seen later."""
        assert ledger.run_start(*A).at == NOON
        confirm(ledger, A, ["d1"], NOON)
        clock.now = LATER
        assert ledger.run_start(*A).at == LATER

    def test_a_run_starts_after_all_that_was_seen(self, ledger: SqlLedger, clock: Clock) -> None:
        """A clock that stood still or went back cannot make a seen row look unseen, nor the reverse."""
        confirm(ledger, A, ["d1"], NOON)
        assert ledger.run_start(*A).at == NOON + TICK
        clock.now = NOON - DAY
        started_at = ledger.run_start(*A).at
        assert started_at == NOON + TICK
        assert not ledger.rows(*PLACE, ["d1"], started_at)["d1"].seen
        assert ledger.run_start(*B).at == NOON - DAY

    def test_tenants_are_all_that_have_rows(self, ledger: SqlLedger) -> None:
        """A tenant is found by its rows alone, of all collections or of one."""
        confirm(ledger, B, ["d1"])
        ledger.fail(*A, SPACE, [failed("d2")], NOON)
        confirm(ledger, (ENTITY, "usecases", "global"), ["d3"])
        assert ledger.with_rows(ENTITY) == ["global", "tenant-a", "tenant-b"]
        assert ledger.with_rows(*PLACE) == ["tenant-a", "tenant-b"]
        assert ledger.with_rows("works") == []

    def test_tenants_are_found_by_an_index(self, ledger: SqlLedger) -> None:
        """Whoever asks which have rows, or whether any has, never reads the rows, which may be millions."""
        for place in (A, B, (*PLACE, "global")):
            confirm(ledger, place, [f"{place[2]} {n}" for n in range(500)])
        asked: list[tuple[str, Any]] = []
        event.listen(ledger.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
        assert ledger.with_rows(ENTITY) == ledger.with_rows(*PLACE) == ["global", "tenant-a", "tenant-b"]
        assert ledger.with_rows_or_marks(ENTITY) == ledger.traces(ENTITY, [PLACE[1]]) == ledger.with_rows(ENTITY)
        assert [ledger.has_scope(*PLACE, is_global=one) for one in (True, False)] == [True, True]
        assert not ledger.has_scope(ENTITY, "usecases", is_global=True)
        of_rows = [one for one in asked if "index_state" in one[0]]
        assert not any("DISTINCT" in statement for statement, _ in of_rows)
        sqlite = ledger.database.dialect == "sqlite"
        with ledger.database.write() as connection:
            if not sqlite:  # of a table as small as this one it would rather read all
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
            plans = [list(connection.exec_driver_sql(explain + statement, values)) for statement, values in of_rows]
        lines = [str(line) for plan in plans for line in plan if "index_state" in str(line)]
        assert len(lines) > len(plans) > 5
        by_index = r"SEARCH index_state USING (COVERING )?INDEX ix_|Index (Only )?Scan using ix_"
        assert [line for line in lines if not re.search(by_index, line)] == []

    def test_a_tenant_of_which_only_the_store_learned_is_known(self, ledger: SqlLedger) -> None:
        """A run that was cut short before its first row leaves its tenant's name, until it is finished."""
        confirm(ledger, A, ["d1"])
        ledger.begin_writing(*B, "run-1")
        ledger.begin_writing(ENTITY, "usecases", "tenant-c", "run-1")
        assert ledger.with_rows_or_marks(ENTITY) == ["tenant-a", "tenant-b", "tenant-c"]
        assert ledger.with_rows_or_marks(*PLACE) == ["tenant-a", "tenant-b"]
        assert (ledger.with_rows(ENTITY), ledger.with_rows(*PLACE)) == (["tenant-a"], ["tenant-a"])
        ledger.finish_writing(*B, ["run-1"])
        assert ledger.with_rows_or_marks(*PLACE) == ["tenant-a"]

    def test_whatever_is_kept_of_a_tenant_is_a_trace(self, ledger: SqlLedger) -> None:
        """Each table by itself, until the tenant is forgotten; but not what is of no tenant, nor the history."""
        check = CheckResult(ENTITY, "counts", True, "", NOON, "materials", "checked")
        confirm(ledger, (*PLACE, "held"), ["d1"])
        ledger.begin_writing(*PLACE, "marked", "run-1")
        ledger.set_watermark(*PLACE, "read", Cursor("1", "1"))
        ledger.set_seen(*PLACE, "looked at", Seen(NOON, "settings"))
        ledger.mark_all_seen(*PLACE, "seen", NOON)
        ledger.record_checks([check, replace(check, tenant="", collection="")])
        ledger.miss(ENTITY, ["missing"])
        ledger.set_tenant_names(ENTITY, {"named": ""})
        for tenant in ("rejected", "rejected too"):
            ledger.reject("run-1", ENTITY, tenant, [Rejected(None, "VALIDATION_FAILED", "id", "none")] * 2, NOON)
        for tenant in ("emptied", "emptied too"):
            confirm(ledger, (*PLACE, tenant), [tenant])
            ledger.forget(*PLACE, tenant, [tenant])
        ledger.record_run(Run("run-1", *PLACE, "ran", "full", "success", NOON, NOON))
        ledger.set_seen("works", "works", "another's", Seen(NOON, "settings"))
        kept = ["checked", "emptied", "emptied too", "held", "looked at", "marked", "missing", "named", "read"]
        kept += ["rejected", "rejected too", "seen"]
        places = PLACE[1:]
        assert (ledger.traces(ENTITY, places), ledger.traces("nothing", places)) == (kept, [])
        assert (ledger.ever_synced(ENTITY), ledger.ever_synced("works")) == (["ran"], [])
        for tenant in kept:
            ledger.drop_partition(*PLACE, tenant)
            ledger.forget_rejected(ENTITY, tenant)
        ledger.found(ENTITY, kept)
        ledger.forget_tenant_names(ENTITY, kept)
        assert ledger.traces(ENTITY, places) == ["held", "marked"] == ledger.with_rows_or_marks(ENTITY)
        assert ledger.traces(ENTITY, ["another"]) == []

    def test_an_entity_that_is_forgotten_leaves_no_trace(self, ledger: SqlLedger) -> None:
        """Also of what is kept as a collection's that was never configured."""
        ledger.set_watermark(ENTITY, "$writeback", "tenant-a", Cursor("1", "1"))
        ledger.set_watermark("works", "$writeback", "tenant-b", Cursor("1", "1"))
        ledger.forget_entity(ENTITY)
        assert [ledger.traces(entity, []) for entity in (ENTITY, "works")] == [[], ["tenant-b"]]

    def test_counts_are_bounded(self, ledger: SqlLedger) -> None:
        """The tally has every row of the partition, and those of them that the store should hold."""
        confirm(ledger, A, ["d1", "d2"])
        ledger.fail(*A, SPACE, [failed("d3")], NOON)
        confirm(ledger, B, ["d4"])
        assert ledger.tally(*A) == (3, 2, Failures(permanent=1), 0, 0, 0)
        ledger.mark_stale(*A, ["d1"], "VALIDATION_ERROR", "price is not a number", NOON)
        assert ledger.tally(*A) == (3, 2, Failures(permanent=1), 1, 0, 0)
        assert ledger.tally("works", "materials", "tenant-a") == (0, 0, Failures(), 0, 0, 0)
        assert ledger.tally(ENTITY, "x", "tenant-a").rows == 0

    @pytest.mark.parametrize("chunk", [1, 3, 1000])
    def test_points_come_in_bytewise_order(self, ledger: SqlLedger, chunk: int) -> None:
        """Points are ordered as bytes are, which no locale changes; a partition's, or the collection's."""
        ids = ["a-1", "A-2", "a1", "-", "B", "a_", "é", "z"]
        ledger.confirm(*A, SPACE, [confirmed(f"d{name}", point=name) for name in ids], NOON)
        ledger.confirm(*B, SPACE, [confirmed("foreign", point="a-0")], NOON)
        ledger.fail(*A, SPACE, [failed("never held")], NOON)
        ledger.confirm("materials", "usecases", "tenant-a", SPACE, [confirmed("elsewhere")], NOON)
        mine = [row for rows in ledger.points(*A, chunk) for row in rows]
        assert [row.point_id for row in mine] == sorted(ids, key=str.encode)
        everybodys = [row.point_id for rows in ledger.points(*PLACE, chunk=chunk) for row in rows]
        assert everybodys == sorted([*ids, "a-0"], key=str.encode)
        assert list(ledger.points("works", "materials")) == []

    def test_points_have_what_reconciliation_compares(self, ledger: SqlLedger) -> None:
        """A point comes with its document, record, tenant and both hashes."""
        confirm(ledger, A, ["d1"])
        [[point]] = ledger.points(*PLACE)
        assert (point.point_id, point.document_id, point.db_id) == (point_id("d1"), "d1", "db-d1")
        assert (point.tenant, point.content_hash, point.payload_hash) == ("tenant-a", "c1", "p1")

    def test_rows_may_be_written_while_points_are_read(self, ledger: SqlLedger) -> None:
        """No transaction stays open between chunks: a writer goes on while somebody iterates."""
        confirm(ledger, A, names(30))
        read = 0
        for rows in ledger.points(*A, chunk=10):
            ledger.touch(*A, {row.document_id: None for row in rows}, LATER)
            read += len(rows)
        assert (read, unseen(ledger, A, LATER)) == (30, 0)

    def test_totals_of_every_partition(self, ledger: SqlLedger, clock: Clock) -> None:
        """Counts by status and dates of each partition, none of another's."""
        confirm(ledger, A, ["d1", "d2"], NOON - DAY)
        clock.now = LATER
        confirm(ledger, A, ["d3"], LATER)
        ledger.mark_stale(*A, ["d2"], "VALIDATION_ERROR", "no name", NOON)
        ledger.fail(*B, SPACE, [failed("d4"), failed("d5", error_code="VALIDATION_ERROR")], LATER)
        first, second = ledger.totals(NOON)
        assert (first.entity, first.collection, first.tenant, first.documents) == (*A, 3)
        assert first.by_status == {"pending": 0, "synced": 2, "stale": 1, "failed": 0}
        assert (first.last_synced_at, first.last_seen_at, first.unseen_since) == (LATER, LATER, 1)
        assert (second.tenant, second.documents, second.by_status["failed"]) == ("tenant-b", 2, 2)
        assert (first.rejected, second.rejected) == (0, 1)
        assert (second.last_synced_at, second.unseen_since) == (None, 0)

    def test_totals_count_what_waits_for_another_attempt(self, ledger: SqlLedger) -> None:
        """However many they are, and when the first of them is due; but not what used up its retries."""
        ledger.fail(*A, SPACE, [failed(name, next_attempt_at=LATER) for name in names(1_200)], NOON)
        ledger.fail(*A, SPACE, [failed("first", next_attempt_at=NOON), failed("permanent")], NOON)
        ledger.fail(*B, SPACE, [failed("another's")], NOON)
        assert [(one.waiting, one.next_retry) for one in ledger.totals(NOON)] == [(1_201, NOON), (0, None)]

    def test_a_watermark_belongs_to_one_partition(self, ledger: SqlLedger) -> None:
        """Each (entity, collection, tenant) has its own cursor; a later one replaces it."""
        places = [A, B, (ENTITY, "usecases", "tenant-a"), ("works", "works", "tenant-a")]
        for number, place in enumerate(places):
            ledger.set_watermark(*place, Cursor("old", "0"))
            ledger.set_watermark(*place, Cursor(f"2026-03-0{number + 1}", str(number)))
        assert [ledger.watermark(*place) for place in places] == [
            Cursor(f"2026-03-0{number + 1}", str(number)) for number in range(4)
        ]
        assert ledger.watermark("works", "works", "tenant-b") is None

    def test_a_run_that_began_to_write_is_unfinished_until_it_says_so(self, ledger: SqlLedger) -> None:
        """Each partition knows the runs that began and did not finish; beginning and finishing twice change nothing."""
        for run_id in ("run-1", "run-2", "run-1"):
            ledger.begin_writing(*A, run_id)
        ledger.begin_writing(*B, "run-1")
        assert sorted(ledger.unfinished(*A)) == ["run-1", "run-2"]
        for _ in range(2):
            ledger.finish_writing(*A, ["run-1", "run-3"])
        assert (ledger.unfinished(*A), ledger.unfinished(*B)) == (["run-2"], ["run-1"])
        ledger.finish_writing(*A, [])
        assert ledger.unfinished(*A) == ["run-2"]

    def test_a_mark_of_a_sync_or_of_a_place_explains_what_differs(self, ledger: SqlLedger) -> None:
        """One that a run left which ended well does not."""
        for place in (A, B):
            ledger.set_watermark(*place, Cursor("1", "2"))
            ledger.begin_writing(*place, "moved here")
        ledger.begin_writing(*A, "run-1", "incremental")
        assert [ledger.is_cut_short(*place) for place in (A, B)] == [True, False]
        ledger.finish_writing(*A, ["run-1"])
        assert not ledger.is_cut_short(*A)
        for store in ("here", "there"):
            ledger.come_to(A[1], store)
        assert ledger.is_cut_short(*A)

    def test_a_dropped_partition_has_no_watermark(self, ledger: SqlLedger) -> None:
        """Dropping forgets the cursor of that partition alone, and never a row."""
        for place in (A, B):
            ledger.set_watermark(*place, Cursor("2026", "1"))
        confirm(ledger, A, ["d1"])
        ledger.drop_partition(*A)
        assert (ledger.watermark(*A), ledger.watermark(*B)) == (None, Cursor("2026", "1"))
        assert ledger.tally(*A).held == 1
