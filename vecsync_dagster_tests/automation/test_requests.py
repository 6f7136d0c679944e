"""What sensors asked for: the back-off, the run keys, the cursor; and which partitions are due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from vecsync_dagster.automation.requests import Requests
from vecsync_dagster.config.automation import RequestBackoff
from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.sources import Fingerprint
from vecsync_dagster.sync.due import Due, due_partitions
from vecsync_dagster_tests.sources.backends import entity_config

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BACKOFF = RequestBackoff(base=timedelta(minutes=1), multiplier=2, cap=timedelta(minutes=5))
QUARTER = timedelta(minutes=15)


def test_the_wait_grows_to_its_cap() -> None:
    """1, 2, 4 and then 5 minutes after the last request; each has a run key of its own, with the state in it."""
    cursor, at, waits, run_keys = "", NOON, [], []
    for _ in range(6):
        requests = Requests(cursor, BACKOFF, at)
        run_keys.append(requests.ask("a", "s1"))
        asked_at, cursor = at, requests.cursor()
        while not Requests(cursor, BACKOFF, at).may_ask("a", None):
            at += timedelta(seconds=30)
        waits.append((at - asked_at) / timedelta(minutes=1))
    assert waits == [1, 2, 4, 5, 5, 5]
    assert len(set(run_keys)) == 6
    assert Requests("", BACKOFF, NOON).ask("a", "s2") != run_keys[0] == Requests("", BACKOFF, NOON).ask("a", "s1")


def test_what_was_done_waits_no_longer() -> None:
    """A sync that began after the request ends the wait; one that began before does not."""
    requests = Requests(None, BACKOFF, NOON)
    requests.ask("a", "s")
    assert not requests.may_ask("a", NOON - timedelta(seconds=1))
    assert requests.may_ask("a", NOON + timedelta(seconds=1))


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    """The cursor holds no more than what is still to be done."""
    requests = Requests(None, BACKOFF, NOON)
    for key in ("a", "b"):
        requests.ask(key, "s")
    requests.keep(["b"])
    again = Requests(requests.cursor(), BACKOFF, NOON)
    assert (again.attempts("a"), again.attempts("b")) == (0, 1)


@pytest.mark.parametrize("cursor", ["nonsense", "[]", "7", '{"a": 1}', '{"a": [1, 2]}', "null"])
def test_a_cursor_that_is_none_is_empty(cursor: str) -> None:
    """Whatever somebody typed into the UI does not stop the sensor."""
    assert Requests(cursor, BACKOFF, NOON).cursor() == "{}"


SETTINGS = entity_config().fingerprint("materials")
SEEN = Seen(NOON, SETTINGS, Fingerprint(5, 1000, "7"))


@pytest.mark.parametrize(
    ("look", "full"),
    [
        (Fingerprint(5, 1000, "7"), None),
        (Fingerprint(6, 1001, "8"), False),
        (Fingerprint(5, 1001, "8"), False),
        (Fingerprint(4, 1001, "8"), True),
        (Fingerprint(6, 1000, "8"), True),
        (Fingerprint(5, 999, "8"), True),
        (Fingerprint(0, None, ""), True),
    ],
)
def test_due_by_looks(look: Fingerprint, full: bool | None) -> None:
    """Equal looks are not due; later dates with no row less are read incrementally, all else in full."""
    found = due_partitions(entity_config(), ["a"], {"a": look}, {("materials", "a"): SEEN}, NOON, QUARTER)
    assert [one.full for one in found] == ([] if full is None else [full])


@pytest.mark.parametrize(
    ("before", "after", "full"),
    [
        (Fingerprint(5, 1000, dead=0), Fingerprint(4, 1001, dead=1), False),
        (Fingerprint(5, 1000, dead=2), Fingerprint(4, 1001, dead=4), False),
        (Fingerprint(5, 1000, dead=0), Fingerprint(4, 1001, dead=0), True),
        (Fingerprint(5, 1000, dead=2), Fingerprint(3, 1001, dead=3), True),
        (Fingerprint(5, 1000, dead=0), Fingerprint(4, 1000, dead=1), True),
        (Fingerprint(5, 1000), Fingerprint(4, 1001, dead=1), True),
        (Fingerprint(5, 1000, dead=3), Fingerprint(5, 1000, dead=0), None),
    ],
)
def test_a_row_that_is_only_marked_needs_no_full_run(
    before: Fingerprint, after: Fingerprint, full: bool | None
) -> None:
    """The mark is dated, so the changed rows tell of it; a row that is gone, or marked without a date, does not."""
    seen = {("materials", "a"): Seen(NOON, SETTINGS, before)}
    found = due_partitions(entity_config(), ["a"], {"a": after}, seen, NOON, QUARTER)
    assert [one.full for one in found] == ([] if full is None else [full])


NOW = 1_000_000 * int(NOON.timestamp())


@pytest.mark.parametrize(
    ("before", "after", "full"),
    [
        (Fingerprint(5, 1000, "", "1.7"), Fingerprint(5, 1001, "", "1.7"), False),
        (Fingerprint(5, 1000, "", "1.7"), Fingerprint(5, 2000), False),
        (Fingerprint(5, None, "", "1.7"), Fingerprint(5, 2000), False),
        (Fingerprint(5, 1000), Fingerprint(6, 1000, "", "1.7"), False),
        (Fingerprint(5, 1000, "", "1.7"), Fingerprint(5, 1000, "", "1.8"), False),
        (Fingerprint(5, 1000, "", "2.9"), Fingerprint(4, 1000, "", "1.7"), True),
        (Fingerprint(5, 1000), Fingerprint(5, 999, "", "1.7"), True),
        (Fingerprint(5, 1000, "", "1.7"), Fingerprint(6, 1000, "", "1.7"), True),
        (Fingerprint(5, NOW + 7), Fingerprint(5, 1000, "", "1.7"), False),
        (Fingerprint(5, NOW + 7), Fingerprint(5, None, "", "1.7"), False),
    ],
)
def test_due_beside_rows_dated_in_the_future(before: Fingerprint, after: Fingerprint, full: bool) -> None:
    """What changed after the clock is read incrementally too; so is what an older version looked at as the newest."""
    seen = {("materials", "a"): Seen(NOON, SETTINGS, before)}
    [found] = due_partitions(entity_config(), ["a"], {"a": after}, seen, NOON, QUARTER)
    assert found.full is full


DAY = 86_400_000_000
RECENT = ((0, 9), (DAY, 5))


@pytest.mark.parametrize(
    ("before", "after", "full"),
    [
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1000, recent=RECENT), None),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1000, recent=((0, 10), (DAY, 5))), False),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1000, recent=((DAY, 5), (2 * DAY, 0))), None),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1000, recent=((DAY, 6), (2 * DAY, 0))), False),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1000, recent=((2 * DAY, 3), (3 * DAY, 0))), None),
        (Fingerprint(5, 1000), Fingerprint(5, 1000, recent=RECENT, open=True), None),
        (Fingerprint(5, 1000, open=True), Fingerprint(5, 1000, open=True), None),
        (Fingerprint(5, 1000, open=True), Fingerprint(5, 1000), False),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(5, 1001, recent=((0, 9), (DAY, 6))), False),
        (Fingerprint(5, 1000, recent=RECENT), Fingerprint(4, 1000, recent=((0, 9), (DAY, 3))), True),
    ],
)
def test_due_by_what_is_recent(before: Fingerprint, after: Fingerprint, full: bool | None) -> None:
    """Other recent times alone are read incrementally; so is, once, what was seen in a second that was not over. Sums
    from different moments on tell nothing, nor does a look of a version that had none."""
    seen = {("materials", "a"): Seen(NOON, SETTINGS, before)}
    found = due_partitions(entity_config(), ["a"], {"a": after}, seen, NOON, QUARTER)
    assert [one.full for one in found] == ([] if full is None else [full])


def test_the_state_names_the_difference_and_not_the_hour() -> None:
    """It stays while the clock goes on, and is another one after each other change."""
    before = Fingerprint(5, 1000, recent=RECENT, open=True)
    newer = [Fingerprint(5, 1001, recent=recent, open=still) for recent in (RECENT, ()) for still in (True, False)]
    assert len({look.state(before) for look in newer}) == 1
    late = [
        Fingerprint(5, 1000, recent=((0, total), (DAY, 5)), open=still) for total in (7, 8) for still in (True, False)
    ]
    over = Fingerprint(5, 1000, recent=RECENT)
    assert len({look.state(before) for look in [newer[0], *late, over]}) == 4


def test_never_seen_is_due() -> None:
    """A partition that was never synced, or under other settings, is due; so is one that had no rows."""
    looks = {"a": Fingerprint(1, 2)}
    never = due_partitions(entity_config(), ["a"], looks, {}, NOON, QUARTER)
    other = due_partitions(
        entity_config(), ["a"], looks, {("materials", "a"): Seen(NOON, "other", looks["a"])}, NOON, QUARTER
    )
    assert [(one.tenant, one.full) for one in never + other] == [("a", False)] * 2
    emptied = due_partitions(entity_config(), ["global"], {}, {("materials", "global"): SEEN}, NOON, QUARTER)
    assert [one.full for one in emptied] == [True]


@pytest.mark.parametrize("looks", [{"a": SEEN.fingerprint}, {"a": Fingerprint(6, 1001, "8")}, None], ids=str)
def test_what_is_doubted_is_due_in_full(looks: dict[str, Fingerprint] | None) -> None:
    """Whatever the source looks like, and by whatever settings: once for each time."""
    for settings in (SETTINGS, "other"):
        seen = {("materials", "a"): replace(SEEN, settings=settings, doubted_at=NOON)}
        [found] = due_partitions(entity_config(), ["a"], looks, seen, NOON, QUARTER)
        assert (found.full, found.failed) == (True, False)
        later = {("materials", "a"): replace(SEEN, doubted_at=NOON + QUARTER)}
        assert due_partitions(entity_config(), ["a"], looks, later, NOON, QUARTER)[0].state != found.state


def test_a_source_that_cannot_say_is_due_by_time() -> None:
    """Without looks a partition is due when its last sync is long enough ago, each time under another state."""
    seen = {("materials", "a"): Seen(NOON, SETTINGS), ("materials", "b"): Seen(NOON - QUARTER, SETTINGS)}
    found = due_partitions(entity_config(), ["a", "b", "c"], None, seen, NOON, QUARTER)
    assert [one.tenant for one in found] == ["b", "c"]
    later = due_partitions(
        entity_config(), ["b"], None, {("materials", "b"): Seen(NOON, SETTINGS)}, NOON + QUARTER, QUARTER
    )
    assert later[0].state != found[0].state
    assert isinstance(found[0], Due)
