"""What every ledger remembers of problems, and of who was told of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import Alert, KnownAlert, Owner
from vecsync_dagster.ledger.base import Partition
from vecsync_dagster.ledger.record_states import Failures
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
    failed,
    names,
    plan_of,
)

BROKEN = Alert(
    "reconciliation", ENTITY, "2 missing", "materials|tenant-a", "identity", figures={"missing": 2}, run_id="r1"
)
HOUR = timedelta(hours=1)


def owner(project: str, *places: tuple[str, str]) -> Owner:
    return Owner(project, frozenset(places))


def see(ledger: SqlLedger, *raised: Alert, at: datetime = NOON) -> None:
    ledger.observe(raised, lambda _: False, run_id="r1", at=at)


def repair(ledger: SqlLedger, at: datetime, run_id: str = "r2") -> None:
    ledger.observe([], lambda known: known.key == BROKEN.key, run_id=run_id, at=at)


def untold(ledger: SqlLedger, channel: str = "slack") -> list[KnownAlert]:
    return ledger.untold(channel, HOUR)


def tell(ledger: SqlLedger, channel: str = "slack") -> list[KnownAlert]:
    news = untold(ledger, channel)
    ledger.told(channel, news)
    return news


class AlertsContract:
    def test_a_problem_comes_back_as_it_was(self, ledger: SqlLedger) -> None:
        """Every field of a problem is kept, and when it began."""
        see(ledger, BROKEN, replace(BROKEN, partition=None, check=None, figures={}))
        see(ledger, replace(BROKEN, message="3 missing", run_id="r2"), at=NOON + MINUTE)
        by_key = {known.key: known for known in ledger.alerts()}
        assert len(by_key) == 2
        known = by_key[BROKEN.key]
        assert known.alert == replace(BROKEN, message="3 missing", run_id="r2")
        assert (known.episode, known.opened_at, known.raised_at) == (1, NOON, NOON + MINUTE)

    def test_a_problem_has_its_tenants_name(self, ledger: SqlLedger) -> None:
        """What people call the tenant of the partition now, of that entity; nothing where there is no tenant."""
        ledger.set_tenant_names(ENTITY, {"tenant-a": "Acme"})
        see(ledger, BROKEN, replace(BROKEN, entity="works"), replace(BROKEN, partition=None, check=None))
        for known in (*ledger.alerts(), *untold(ledger)):
            mine = known.alert.partition is not None and known.alert.entity == ENTITY
            assert known.tenant_name == ("Acme" if mine else "")

    def test_a_problem_that_is_over_is_not_open(self, ledger: SqlLedger) -> None:
        """It closes with the run that found it well; coming back, it begins anew."""
        see(ledger, BROKEN, replace(BROKEN, check="counts"))
        repair(ledger, NOON + MINUTE)
        assert [known.alert.check for known in ledger.alerts()] == ["counts"]
        see(ledger, BROKEN, at=NOON + 2 * MINUTE)
        again = {known.alert.check: known for known in ledger.alerts()}["identity"]
        assert (again.episode, again.opened_at) == (2, NOON + 2 * MINUTE)

    def test_what_is_raised_is_not_over(self, ledger: SqlLedger) -> None:
        """A problem that the same run found again stays open, whatever is said of its kind."""
        see(ledger, BROKEN)
        ledger.observe([BROKEN], lambda _: True, run_id="r2", at=NOON + MINUTE)
        assert len(ledger.alerts()) == 1

    def test_late_news_changes_nothing(self, ledger: SqlLedger) -> None:
        """A run that is looked at after a later one neither opens nor closes what that one found."""
        see(ledger, BROKEN)
        repair(ledger, NOON + 2 * MINUTE)
        see(ledger, BROKEN, at=NOON + MINUTE)
        assert ledger.alerts() == []
        see(ledger, BROKEN, at=NOON + 4 * MINUTE)
        repair(ledger, NOON + 3 * MINUTE)
        assert len(ledger.alerts()) == 1

    def test_a_channel_is_told_once_in_the_cool_down(self, ledger: SqlLedger, clock: Clock) -> None:
        """A problem that lasts is news again only when it was seen again and the cool-down is over."""
        see(ledger, BROKEN)
        assert len(tell(ledger)) == 1
        see(ledger, BROKEN, at=NOON + 30 * MINUTE)
        clock.now = NOON + 59 * MINUTE
        assert untold(ledger) == []
        clock.now = NOON + HOUR
        assert len(tell(ledger)) == 1
        clock.now = NOON + 3 * HOUR
        assert untold(ledger) == []  # not seen again since

    def test_its_end_is_told_once(self, ledger: SqlLedger, clock: Clock) -> None:
        """The end is news at once, and once; so is a new beginning."""
        see(ledger, BROKEN)
        tell(ledger)
        repair(ledger, NOON + MINUTE)
        [known] = tell(ledger)
        assert (known.closed_at, known.alert.run_id) == (NOON + MINUTE, "r2")
        repair(ledger, NOON + 2 * MINUTE)
        assert untold(ledger) == []
        clock.now = NOON + 3 * MINUTE
        see(ledger, BROKEN, at=NOON + 3 * MINUTE)
        [known] = tell(ledger)
        assert known.closed_at is None

    def test_channels_are_told_apart(self, ledger: SqlLedger) -> None:
        """What one channel was told, another one still has to hear."""
        see(ledger, BROKEN)
        tell(ledger, "email")
        assert (len(untold(ledger)), len(untold(ledger, "email"))) == (1, 0)

    def test_a_problem_that_was_never_told_is_told_with_its_end(self, ledger: SqlLedger, clock: Clock) -> None:
        """A channel that was down all the while hears of it once, but not of old stories."""
        see(ledger, BROKEN)
        repair(ledger, NOON + MINUTE)
        [known] = untold(ledger)
        assert known.closed_at == NOON + MINUTE
        clock.now = NOON + 2 * DAY
        assert untold(ledger) == []

    def test_what_is_long_over_is_forgotten(self, ledger: SqlLedger, clock: Clock) -> None:
        """The table does not grow for ever; open problems stay."""
        see(ledger, BROKEN, replace(BROKEN, check="counts"))
        tell(ledger)
        repair(ledger, NOON + MINUTE)
        clock.now = NOON + 31 * DAY
        see(ledger, at=clock.now)
        assert untold(ledger) == []
        assert [known.alert.check for known in ledger.alerts()] == ["counts"]

    def test_projects_that_share_a_ledger_have_their_own(self, ledger: SqlLedger) -> None:
        """Neither sees, tells or ends what the other has, also of an entity of the same name; what is in its
        configuration goes with the project that has it now."""
        ours, theirs = owner("p1", PLACE), owner("p2", ("notes", "notes"), (ENTITY, "other"))
        note = replace(BROKEN, entity="notes", partition="notes|a")
        ledger.observe([BROKEN], lambda _: False, run_id="", at=NOON, owner=ours)
        ledger.observe([note], lambda _: True, run_id="", at=NOON, owner=theirs)
        for one, alert in ((ours, BROKEN), (theirs, note)):
            assert [known.alert for known in ledger.alerts(one)] == [alert]
            assert [known.alert for known in ledger.untold("slack", HOUR, one)] == [alert]
        former = owner("p1", ("renamed", "renamed"))
        ledger.observe([], lambda _: True, run_id="", at=NOON + MINUTE, owner=former)
        assert [known.alert.entity for known in ledger.untold("slack", HOUR, former)] == [ENTITY]
        moved = owner("p3", ("notes", "notes"))
        assert [known.alert for known in ledger.alerts(moved)] == [note]

    def test_an_alert_of_several_entities_goes_with_each(self, ledger: SqlLedger) -> None:
        """That of an earlier version, which knew no projects, or of another folder."""
        dear = Alert("cost_limit", f"notes, {ENTITY}", "dear")
        see(ledger, dear)
        assert [known.alert for known in ledger.alerts(owner("p1", PLACE))] == [dear]
        assert ledger.alerts(owner("p1", ("note", "note"))) == []

    def test_what_a_project_left_is_forgotten(self, ledger: SqlLedger, clock: Clock) -> None:
        """Whatever nobody looks for any more, however open; a project's own stays."""
        note = replace(BROKEN, entity="notes", partition="notes|a")
        ours = owner("p1", PLACE)
        ledger.observe([note], lambda _: False, run_id="", at=NOON, owner=owner("p2"))
        ledger.observe([BROKEN], lambda _: False, run_id="", at=NOON, owner=ours)
        for days, left in ((29, {ENTITY, "notes"}), (31, {ENTITY})):
            clock.now = NOON + days * DAY
            ledger.observe([], lambda _: False, run_id="", at=clock.now, owner=ours)
            assert {known.alert.entity for known in ledger.alerts()} == left
        assert {known.alert.entity for known in untold(ledger)} == {ENTITY}

    def test_what_is_seen_again_was_not_found_again(self, ledger: SqlLedger, clock: Clock) -> None:
        """Who looks later sees the same: that is no news, and of the run that found it."""
        found = replace(BROKEN, at=NOON)
        see(ledger, found, at=NOON + MINUTE)
        tell(ledger)
        clock.now = NOON + 3 * HOUR
        see(ledger, replace(found, run_id="r2"), at=clock.now)
        [known] = ledger.alerts()
        assert (known.alert.run_id, known.raised_at, untold(ledger)) == ("r1", NOON, [])
        see(ledger, replace(found, run_id="r3", at=clock.now), at=clock.now)
        [known] = untold(ledger)
        assert known.alert.run_id == "r3"

    def test_who_was_told_of_what_is_dropped_hears_its_end(self, ledger: SqlLedger, clock: Clock) -> None:
        see(ledger, BROKEN, replace(BROKEN, partition=None, check=None), replace(BROKEN, entity="notes"))
        tell(ledger)
        clock.now += MINUTE
        ledger.forget_collection(ENTITY, "materials")
        assert [known.alert for known in tell(ledger)] == [BROKEN]
        ledger.forget_entity(ENTITY)
        assert [known.alert.partition for known in tell(ledger)] == [None]
        assert [known.alert.entity for known in ledger.alerts()] == ["notes"]

    def test_many_problems_at_once(self, ledger: SqlLedger) -> None:
        """No statement grows with their number."""
        see(ledger, *(replace(BROKEN, partition=f"materials|t{number}") for number in range(1203)))
        assert len(tell(ledger)) == 1203
        assert untold(ledger) == []

    def test_a_message_is_kept_within_bounds(self, ledger: SqlLedger) -> None:
        """What a database cannot store is replaced, and a text is never longer than 1000 characters."""
        see(ledger, replace(BROKEN, message="a\0b" + "x" * 2000))
        [known] = ledger.alerts()
        assert len(known.alert.message) == 1000
        assert known.alert.message.startswith("a\ufffdb")

    def test_documents_that_failed_for_good_are_counted(self, ledger: SqlLedger) -> None:
        """By tenant, only those that are not tried again, only those of the collection; no rejected records."""
        ledger.fail(*A, SPACE, [failed("d0", attempt="", retry_count=0)], NOON)
        ledger.fail(*A, SPACE, [failed("d1"), failed("d2"), failed("d3", next_attempt_at=NOON)], NOON)
        ledger.fail(*B, SPACE, [failed("d4", next_attempt_at=NOON)], NOON)
        ledger.fail(ENTITY, "other", "tenant-a", SPACE, [failed("d5")], NOON)
        assert ledger.permanent_failures(ENTITY, "materials") == {"tenant-a": (2, NOON)}
        assert ledger.permanent_failures("works", "materials") == {}

    def test_documents_that_failed_for_good_are_found_by_their_index(self, ledger: SqlLedger) -> None:
        """Every tick of a sensor asks for them: it never reads the documents that are synced."""
        confirm(ledger, A, names(1_000))
        ledger.fail(*A, SPACE, [failed("d1")], NOON)
        plan = plan_of(ledger, lambda: ledger.permanent_failures(*A[:2]), "SELECT index_state.tenant_id")
        assert "ix_index_state_failed" in plan

    def test_what_is_rejected_is_the_same_everywhere(self, ledger: SqlLedger) -> None:
        """Where no attempt was made, or its code says so, whichever: no failure, permanent or to be tried again."""
        rejected = [failed("d1", attempt="", error_code="ODD"), failed("d2", error_code="VALIDATION_ERROR")]
        ledger.fail(*A, SPACE, [*rejected, failed("d3")], NOON)
        [totals] = ledger.totals(NOON)
        assert (totals.rejected, ledger.tally(*A).failures) == (2, Failures(permanent=1, rejected=2))
        assert ledger.permanent_failures(*PLACE) == {"tenant-a": (1, NOON)}
        assert [one.id for one in ledger.invalid({Partition(*A): None})] == ["db-d1", "db-d2"]
