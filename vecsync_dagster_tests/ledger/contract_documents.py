"""What every ledger does with documents: confirm, fail, touch, mark stale, forget."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.ledger.samples import (
    DAY,
    MINUTE,
    NOON,
    OTHER_SPACE,
    PLACE,
    SPACE,
    A,
    B,
    Clock,
    confirm,
    confirmed,
    failed,
    names,
    state,
)

LATER = NOON + MINUTE
TICK = timedelta(microseconds=1)
GLOBAL = (*PLACE, "global")
OTHER_ENTITY = ("works", "materials", "tenant-a")
OTHER_COLLECTION = ("materials", "usecases", "tenant-a")


class DocumentsContract:
    def test_documents_that_differ_in_the_tenant_alone_are_found(self, ledger: SqlLedger) -> None:
        """By the rest of the key, wherever the tenant stands in it: all of them."""

        def hold(where: tuple[str, str, str], *keys: str, content: str = "c1") -> None:
            writes = [replace(confirmed(f"{where[2]} {key}", content=content), db_id=key) for key in keys]
            ledger.confirm(*where, SPACE, writes, NOON)

        def found(*keys: str, where: tuple[str, str, str] = A) -> list[str]:
            return sorted(identity for some in ledger.namesakes(*where, keys) for identity in some)

        hold(B, "tenant-b/1", "2/tenant-b", "tenant-b/x/tenant-b", "5")
        hold(GLOBAL, "~/3", "tenant-b/4")
        hold((*PLACE, "c/d~"), "c~1d~0/6")
        assert found("tenant-a/1", "2/tenant-a") == ["tenant-b 2/tenant-b", "tenant-b tenant-b/1"]
        assert found("tenant-a/3", "tenant-a/6") == ["c/d~ c~1d~0/6", "global ~/3"]
        assert found("tenant-a/4", "tenant-a/5", "tenant-a/7", "5", "x/1") == []
        assert found("~/1", where=GLOBAL) == ["tenant-b tenant-b/1"]
        assert found("tenant-b/1", where=B) == []
        assert found("tenant-a/1", where=(*OTHER_COLLECTION[:2], "tenant-a")) == []
        for number in range(5):
            hold((*PLACE, f"t{number}"), *(f"t{number}/{one}" for one in range(10, 40)))
        many = [f"t{number} t{number}/{one}" for number in range(5) for one in range(10, 40)]
        assert found(*(f"tenant-a/{one}" for one in range(9, 45))) == sorted(many)
        assert next(ledger.namesakes(*A, ["tenant-a/6"])) == {"c/d~ c~1d~0/6": ("c/d~", "c~1d~0/6")}
        rare = [[*ledger.namesakes(*A, ["tenant-a/1", "tenant-a/10"], most=most)] for most in (4, 5)]
        assert [sum(map(len, some)) for some in rare] == [1, 6], "five tenants have a number 10"
        ledger.fail(*B, SPACE, [replace(failed("f"), db_id="tenant-b/8")], NOON)
        assert found("tenant-a/8") == []

    def test_what_is_kept_for_another_id_is_found_by_the_key_of_today(self, ledger: SqlLedger) -> None:
        """Whoever's it is, and as if it were written under that key: also by what the key says beside the tenant."""
        confirm(ledger, A, ["d1", "d2"])
        assert ledger.formers_of(*B, ["d1"]) == {}
        ledger.keep_former(*A, {"d1": Key("tenant-a/1", "n"), "d2": Key("2")}, "waits", LATER)
        found = ledger.formers_of(*B, ["tenant-a/1", "2", "3"])
        assert found == {"d1": ("tenant-a", "tenant-a/1"), "d2": ("tenant-a", "2")}
        assert found["d1"].key.native == "n"
        assert ledger.formers_of(*A, ["2"]) == ledger.formers_of(*OTHER_COLLECTION[:2], "tenant-b", ["2"]) == {}
        assert list(ledger.namesakes(*B, ["tenant-b/1"])) == [{"d1": ("tenant-a", "tenant-a/1")}]
        ledger.keep_former(*A, {"d1": Key("1")}, "waits", LATER)
        assert list(ledger.namesakes(*B, ["tenant-b/1"])) == []

    def test_a_run_knows_whether_anything_is_held(self, ledger: SqlLedger) -> None:
        """One that was confirmed, in the collection whoever's it is; one that failed is none."""
        ledger.fail(*A, SPACE, [failed("d1")], NOON)
        assert ledger.run_start(*A)[3:] == (False, False, False)
        confirm(ledger, B, ["d2"])
        assert ledger.run_start(*A)[3:] == (False, True, False)
        assert ledger.run_start(*B)[3:] == (True, True, False)
        assert ledger.run_start("another", *B[1:])[3:] == (False, True, False)
        assert ledger.run_start(*OTHER_COLLECTION)[3:] == (False, False, False)

    def test_a_confirmed_document_has_all_its_facts(self, ledger: SqlLedger) -> None:
        """A confirmed write is a synced row with the hashes, places and times of that write."""
        confirm(ledger, A, ["d1"], LATER)
        row = state(ledger, "d1")
        assert {key: row[key] for key in ("scope", "tenant_id", "db_id", "space", "status", "vector_version")} == {
            "scope": "tenant",
            "tenant_id": "tenant-a",
            "db_id": "db-d1",
            "space": str(SPACE),
            "status": "synced",
            "vector_version": 1,
        }
        assert (row["content_hash"], row["payload_hash"], row["attempt_hash"]) == ("c1", "p1", None)
        assert row["last_seen_at"] == LATER
        assert {row[key] for key in ("created_at", "updated_at", "last_synced_at", "last_attempt_at")} == {NOON}

    def test_global_rows_have_the_global_scope(self, ledger: SqlLedger) -> None:
        """The partition `global` is the scope global, and keeps its key."""
        confirm(ledger, GLOBAL, ["d1"])
        row = state(ledger, "d1")
        assert (row["scope"], row["tenant_id"]) == ("global", "global")

    def test_a_document_that_another_tenant_took_stays_there(self, ledger: SqlLedger) -> None:
        """Only who knew that a document lay with another tenant takes it over; else its id is told, and the others
        of the same call are confirmed."""
        confirm(ledger, A, ["d1", "d2"])
        writes = [confirmed(document_id, content="c2") for document_id in ("d1", "d2", "d3")]
        assert sorted(ledger.confirm(*B, SPACE, writes, LATER)) == ["d1", "d2"]
        found = [(state(ledger, name)["tenant_id"], state(ledger, name)["content_hash"]) for name in ("d1", "d2", "d3")]
        assert found == [("tenant-a", "c1"), ("tenant-a", "c1"), ("tenant-b", "c2")]
        assert ledger.confirm(*B, SPACE, writes, LATER, moved=True) == []
        assert (ledger.tally(*A).held, ledger.tally(*B).held) == (0, 3)

    def test_a_vector_written_again_raises_its_version(self, ledger: SqlLedger, clock: Clock) -> None:
        """vector_version counts vectors written, not payloads, and created_at stays."""
        confirm(ledger, A, ["d1"])
        clock.now = LATER
        ledger.confirm(*A, SPACE, [confirmed("d1", payload="p2", vector=False)], LATER)
        row = state(ledger, "d1")
        assert (row["vector_version"], row["payload_hash"]) == (1, "p2")
        ledger.confirm(*A, SPACE, [confirmed("d1", content="c2")], LATER)
        row = state(ledger, "d1")
        assert (row["vector_version"], row["content_hash"]) == (2, "c2")
        assert (row["created_at"], row["updated_at"]) == (NOON, LATER)
        assert row["last_seen_at"] == NOON  # which a run marks at its end

    def test_success_ends_the_retries(self, ledger: SqlLedger) -> None:
        """A confirmed document shows no trace of the attempts that failed before."""
        ledger.fail(*A, SPACE, [failed("d1", retry_count=3, next_attempt_at=LATER)], NOON)
        confirm(ledger, A, ["d1"])
        row = state(ledger, "d1")
        traces = ("attempt_hash", "error_code", "last_error", "next_attempt_at")
        assert (row["status"], row["retry_count"]) == ("synced", 0)
        assert [row[key] for key in traces] == [None] * 4

    def test_a_moved_document_is_one_row_under_its_new_tenant(self, ledger: SqlLedger) -> None:
        """A document confirmed under another tenant leaves the old one: it is there once."""
        confirm(ledger, A, ["d1"])
        ledger.confirm(*GLOBAL, SPACE, [confirmed("d1", vector=False)], LATER, moved=True)
        assert ledger.rows(*PLACE, ["d1"], NOON)["d1"].tenant == "global"
        row = state(ledger, "d1")
        assert (row["scope"], row["last_seen_at"]) == ("global", LATER)
        assert (ledger.tally(*A).rows, ledger.tally(*GLOBAL).rows) == (0, 1)

    def test_rows_are_found_whatever_their_tenant(self, ledger: SqlLedger) -> None:
        """`rows` gives the known documents among the ids, of all tenants, and no others."""
        confirm(ledger, A, ["d1"])
        confirm(ledger, B, ["d2", "d3"])
        found = ledger.rows(*PLACE, ["d1", "d2", "unknown"], NOON)
        assert {key: row.tenant for key, row in found.items()} == {"d1": "tenant-a", "d2": "tenant-b"}

    def test_rows_stay_within_entity_and_collection(self, ledger: SqlLedger) -> None:
        """The same document id in another collection, or asked for by another entity, is another document."""
        confirm(ledger, A, ["d1"], content="c1")
        confirm(ledger, OTHER_COLLECTION, ["d1"], content="c2")
        assert ledger.rows(*PLACE, ["d1"], NOON)["d1"].content_hash == "c1"
        assert ledger.rows("materials", "usecases", ["d1"], NOON)["d1"].content_hash == "c2"
        assert ledger.rows("works", "materials", ["d1"], NOON) == {}

    def test_rows_know_what_this_run_has_seen(self, ledger: SqlLedger) -> None:
        """`seen` is true for the run whose start the row was seen at, to the microsecond."""
        confirm(ledger, A, ["d1"], NOON)
        seen = [ledger.rows(*PLACE, ["d1"], NOON + timedelta(microseconds=shift))["d1"].seen for shift in (-1, 0, 1)]
        assert seen == [False, True, False]

    def test_times_are_the_same_in_any_zone(self, ledger: SqlLedger) -> None:
        """A time given in another zone is the same moment, to compare with and to read back."""
        in_prague = (NOON + timedelta(seconds=17)).astimezone(ZoneInfo("Europe/Prague"))
        confirm(ledger, A, ["d1"], in_prague)
        assert ledger.rows(*PLACE, ["d1"], NOON + timedelta(seconds=17))["d1"].seen
        assert (list(ledger.unseen(*A, in_prague)), len(list(ledger.unseen(*A, LATER)))) == ([], 1)
        assert state(ledger, "d1")["last_seen_at"].isoformat() == "2026-03-01T12:00:17.123456+00:00"

    def test_a_row_has_what_the_decision_needs(self, ledger: SqlLedger) -> None:
        """A failed document comes back with its attempt, and its due time in UTC to the microsecond."""
        due = NOON + timedelta(seconds=5, microseconds=1)
        ledger.fail(*A, SPACE, [failed("d1", retry_count=2, next_attempt_at=due)], NOON)
        row = ledger.rows(*PLACE, ["d1"], NOON)["d1"]
        assert (row.status, row.space, row.content_hash, row.payload_hash) == ("failed", str(SPACE), None, None)
        assert (row.attempt_hash, row.retry_count, row.next_attempt_at, row.seen) == ("a1", 2, due, True)
        assert row.next_attempt_at is not None
        assert row.next_attempt_at.utcoffset() == timedelta(0)

    def test_another_entitys_rows_are_not_taken_over(self, ledger: SqlLedger) -> None:
        """A collection that holds another entity's documents is refused, and nothing of that call stays."""
        confirm(ledger, A, ["d000700"])
        with pytest.raises(LedgerRejected, match="as those of materials"):
            confirm(ledger, OTHER_ENTITY, names(800))
        assert ledger.tally(*OTHER_ENTITY).rows == 0
        assert state(ledger, "d000700")["entity"] == "materials"

    def test_fault_07_a_failure_keeps_what_was_confirmed(self, ledger: SqlLedger, clock: Clock) -> None:
        """The hashes of an attempt that failed are not those of the store: the next run still sees a change."""
        confirm(ledger, A, ["d1"])
        clock.now = LATER
        ledger.fail(*A, OTHER_SPACE, [failed("d1", attempt="a2")], LATER)
        row = state(ledger, "d1")
        assert (row["status"], row["attempt_hash"], row["error_code"]) == ("failed", "a2", "QDRANT_UNAVAILABLE")
        assert (row["content_hash"], row["payload_hash"], row["space"]) == ("c1", "p1", str(SPACE))
        assert (row["vector_version"], row["last_synced_at"], row["created_at"]) == (1, NOON, NOON)
        assert (row["last_attempt_at"], row["last_seen_at"]) == (LATER, LATER)

    def test_a_document_that_never_worked_has_no_hashes(self, ledger: SqlLedger) -> None:
        """A first attempt that fails makes a row that the store need not hold."""
        ledger.fail(*A, SPACE, [failed("d1")], LATER)
        row = state(ledger, "d1")
        assert (row["content_hash"], row["payload_hash"], row["last_synced_at"]) == (None, None, None)
        assert (row["vector_version"], row["last_attempt_at"], row["last_seen_at"]) == (0, NOON, LATER)
        assert (ledger.tally(*A).held, ledger.tally(*A).rows) == (0, 1)

    def test_a_failed_move_leaves_the_point_where_it_is(self, ledger: SqlLedger) -> None:
        """A failure under a new tenant does not claim the old tenant's point, which then could not be removed."""
        confirm(ledger, A, ["d1"])
        ledger.fail(*B, SPACE, [failed("d1", next_attempt_at=NOON)], LATER)
        row = state(ledger, "d1")
        assert (row["tenant_id"], row["status"], row["last_seen_at"]) == ("tenant-a", "synced", NOON)
        assert list(ledger.unseen(*A, LATER)) == [[("d1", row["point_id"])]]

    def test_a_failed_move_of_a_point_that_never_was(self, ledger: SqlLedger) -> None:
        """A document that no tenant ever had in the store is retried under the tenant that has it now."""
        ledger.fail(*A, SPACE, [failed("d1")], NOON)
        ledger.fail(*B, OTHER_SPACE, [failed("d1", next_attempt_at=NOON)], LATER)
        assert list(ledger.all_due(*B, NOON)) == [["db-d1"]]
        assert (ledger.tally(*A).rows, state(ledger, "d1")["space"]) == (0, str(OTHER_SPACE))

    def test_errors_are_cut_and_always_storable(self, ledger: SqlLedger) -> None:
        """last_error has at most 1000 characters, and none that a database refuses."""
        ledger.fail(*A, SPACE, [failed("d1", error="\0\ud800" + "e" * 2000)], NOON)
        assert state(ledger, "d1")["last_error"] == "\ufffd?" + "e" * 998

    def test_records_as_they_were_are_recognised(self, ledger: SqlLedger) -> None:
        """Synced rows of just these records, this tenant and this space are recognised, and nothing is written."""
        same = ["d1", "d2", "altered", "failed", "stale", "never"]
        ledger.confirm(*A, SPACE, [confirmed("no text", record="r1", text=None)], NOON)
        ledger.confirm(*A, SPACE, [confirmed(name, record="r1") for name in same[:5]], NOON)
        ledger.confirm(*B, SPACE, [confirmed("moved", record="r1")], NOON)
        ledger.confirm(*A, OTHER_SPACE, [confirmed("space", record="r1")], NOON)
        confirm(ledger, A, ["unknown"])
        ledger.fail(*A, SPACE, [failed("failed")], NOON)
        ledger.mark_stale(*A, ["stale"], "VALIDATION_ERROR", "no name", NOON)
        given = dict.fromkeys([*same, "moved", "space", "unknown", "no text"], "r1") | {"altered": "r2"}
        before = [state(ledger, name) for name in given if name != "never"]
        numbers, others = ledger.recognise(*A, SPACE, given, LATER)
        rows = ledger.rows(*PLACE, ["d1", "d2"], NOON)
        assert (sorted(numbers), others) == (sorted(row.number for row in rows.values()), set(given) - set(rows))
        assert [state(ledger, name) for name in given if name != "never"] == before

    def test_a_document_that_the_run_wrote_is_not_recognised(self, ledger: SqlLedger) -> None:
        """The same id once more in one run is a duplicate, which somebody must look at."""
        ledger.confirm(*A, SPACE, [confirmed("d1", record="r1")], LATER)
        assert ledger.recognise(*A, SPACE, {"d1": "r1"}, LATER) == ([], {"d1"})
        assert len(ledger.recognise(*A, SPACE, {"d1": "r1"}, LATER + TICK).numbers) == 1
        assert ledger.recognise(*A, SPACE, {}, LATER) == ([], set())

    def test_touch_learns_the_record(self, ledger: SqlLedger) -> None:
        """A row that needed a look and no write is recognised the next time; a failed one is not."""
        confirm(ledger, A, ["d1"])
        ledger.fail(*A, SPACE, [failed("d2")], NOON)
        ledger.touch(*A, {"d1": "r1", "d2": "r1"}, LATER)
        assert ledger.recognise(*A, SPACE, {"d1": "r1", "d2": "r1"}, LATER + MINUTE).others == {"d2"}

    def test_texts_are_learnt_where_they_are_not_known(self, ledger: SqlLedger) -> None:
        """Of rows of this tenant and space that hold a vector; what is known stays."""
        ledger.confirm(*A, SPACE, [confirmed(name, record="r1", text=None) for name in ("d1", "d2")], NOON)
        ledger.confirm(*A, OTHER_SPACE, [confirmed("space", text=None)], NOON)
        ledger.confirm(*B, SPACE, [confirmed("moved", text=None)], NOON)
        ledger.fail(*A, SPACE, [failed("failed")], NOON)
        confirm(ledger, A, ["known"])
        names = ["d1", "d2", "space", "moved", "failed", "known"]
        assert {i: row.knows_text for i, row in ledger.rows(*PLACE, names, NOON).items()} == {
            name: name == "known" for name in names
        }
        ledger.keep_texts(*A, SPACE, {name: ("t2", name == "d2") for name in names})
        found = {name: (state(ledger, name)["text_hash"], state(ledger, name)["truncated"]) for name in names}
        nothing = dict.fromkeys(["space", "moved", "failed"], (None, None))
        assert found == nothing | {"d1": ("t2", 0), "d2": ("t2", 1), "known": ("t1", 0)}
        assert len(ledger.recognise(*A, SPACE, {"d1": "r1", "d2": "r1"}, LATER).numbers) == 2

    def test_touch_is_bounded_by_tenant(self, ledger: SqlLedger) -> None:
        """Touching moves last_seen_at of this tenant's rows alone, and nothing else."""
        confirm(ledger, A, ["d1", "d2"])
        confirm(ledger, B, ["d3"])
        before = state(ledger, "d1")
        ledger.touch(*A, dict.fromkeys(["d1", "d3", "unknown"]), LATER)
        assert state(ledger, "d1") == before | {"last_seen_at": LATER}
        assert [state(ledger, name)["last_seen_at"] for name in ("d2", "d3")] == [NOON, NOON]
        ledger.touch("works", "materials", "tenant-a", dict.fromkeys(["d1"]), LATER + MINUTE)
        assert state(ledger, "d1")["last_seen_at"] == LATER

    def test_touch_never_goes_back(self, ledger: SqlLedger) -> None:
        """A run that started earlier and ends later does not make a row look older."""
        confirm(ledger, A, ["d1"], LATER)
        ledger.touch(*A, dict.fromkeys(["d1"]), NOON)
        assert state(ledger, "d1")["last_seen_at"] == LATER

    def test_touch_makes_stale_rows_synced_again(self, ledger: SqlLedger) -> None:
        """A record that is valid again, and as the store holds it, is synced and has no error."""
        confirm(ledger, A, ["d1", "d2"])
        ledger.mark_stale(*A, ["d1", "d2"], "VALIDATION_ERROR", "no name", NOON)
        ledger.touch(*A, dict.fromkeys(["d1"]), LATER)
        row = state(ledger, "d1")
        assert (row["status"], row["error_code"], row["last_error"]) == ("synced", None, None)
        assert state(ledger, "d2")["status"] == "stale"

    def test_touch_keeps_failed_rows_failed(self, ledger: SqlLedger) -> None:
        """A document that is not yet due is seen, and still failed."""
        ledger.fail(*A, SPACE, [failed("d1")], NOON)
        ledger.touch(*A, dict.fromkeys(["d1"]), LATER)
        row = state(ledger, "d1")
        assert (row["status"], row["error_code"], row["last_seen_at"]) == ("failed", "QDRANT_UNAVAILABLE", LATER)

    def test_a_row_the_store_never_held_cannot_become_synced(self, ledger: SqlLedger) -> None:
        """Being seen makes no point: a stale row without hashes stays stale."""
        ledger.fail(*A, SPACE, [failed("d1")], NOON)
        ledger.mark_stale(*A, ["d1"], "VALIDATION_ERROR", "no name", NOON)
        ledger.touch(*A, dict.fromkeys(["d1"]), LATER)
        assert state(ledger, "d1")["status"] == "stale"

    def test_stale_rows_are_seen_and_keep_their_hashes(self, ledger: SqlLedger) -> None:
        """A rejected record's row is stale, seen, still held by the store; the count is of this tenant's rows."""
        confirm(ledger, A, ["d1"])
        confirm(ledger, B, ["d2"])
        assert ledger.mark_stale(*A, ["d1", "d1", "d2", "unknown"], "VALIDATION_ERROR", "x" * 2000, LATER) == 1
        row = state(ledger, "d1")
        assert (row["status"], row["error_code"], len(row["last_error"])) == ("stale", "VALIDATION_ERROR", 1000)
        assert (row["content_hash"], row["last_seen_at"], ledger.tally(*A).held) == ("c1", LATER, 1)
        assert state(ledger, "d2")["status"] == "synced"

    def test_forget_is_bounded_by_partition(self, ledger: SqlLedger) -> None:
        """Only rows of that entity, collection and tenant are deleted."""
        confirm(ledger, A, ["d1", "d2"])
        confirm(ledger, B, ["d3"])
        confirm(ledger, OTHER_COLLECTION, ["d1"])
        ledger.forget("works", "materials", "tenant-a", ["d1"])
        ledger.forget(*A, ["d1", "d3"])
        assert set(ledger.rows(*PLACE, ["d1", "d2", "d3"], NOON)) == {"d2", "d3"}
        assert ledger.tally(*OTHER_COLLECTION).rows == 1

    def test_fault_05_any_number_of_documents_in_one_call(self, ledger: SqlLedger) -> None:
        """12,000 documents go through each call, whatever a database allows in one statement."""
        ids = names(12_000)
        confirm(ledger, A, ids)
        assert len(ledger.rows(*PLACE, ids, NOON)) == 12_000
        assert len(ledger.recognise(*A, SPACE, dict.fromkeys(ids, "r1"), LATER).others) == 12_000
        assert sorted(name for rows in ledger.unseen(*A, LATER) for name, _ in rows) == sorted(ids)
        ledger.touch(*A, dict.fromkeys(ids), LATER)
        assert list(ledger.unseen(*A, LATER)) == []
        assert ledger.mark_stale(*A, ids, "VALIDATION_ERROR", "no name", LATER) == 12_000
        ledger.fail(*A, SPACE, [failed(name) for name in ids], LATER)
        assert ledger.totals(NOON)[0].by_status["failed"] == 12_000
        ledger.forget(*A, ids)
        assert ledger.tally(*A).rows == 0

    def test_nothing_to_do_is_nothing(self, ledger: SqlLedger) -> None:
        """Empty lists are no error and change nothing."""
        ledger.confirm(*A, SPACE, [], NOON)
        ledger.fail(*A, SPACE, [], NOON)
        ledger.touch(*A, dict.fromkeys([]), NOON)
        ledger.forget(*A, [])
        assert ledger.mark_stale(*A, [], "VALIDATION_ERROR", "", NOON) == 0
        assert ledger.rows(*PLACE, [], NOON) == {}
        assert ledger.totals(NOON + DAY) == []

    def test_a_time_without_a_zone_is_refused(self, ledger: SqlLedger) -> None:
        """Local times would be off by hours on another machine: they raise, and nothing is written."""
        with pytest.raises(LedgerRejected, match="cannot be stored"):
            confirm(ledger, A, ["d1"], NOON.replace(tzinfo=None))
        assert ledger.tally(*A).rows == 0
