"""Changes that are not dated after the newest one already seen: late commits, coarse times, and the clock that goes on.

The source's clock is held by each test; the rows are real.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from vecsync_dagster.sources import Fingerprint, SqlSource
from vecsync_dagster.sources.sql_types import EPOCH, Clock
from vecsync_dagster_tests.sources.backends import SqlBackend, ids, read

NOON = datetime(2026, 6, 10, 12, 0, 0, 500_000, tzinfo=UTC)
MINUTES = timedelta(minutes=10)
KINDS = {"postgres": ["timestamptz", "timestamp", "date"], "sqlite": ["text", "integer", "date"]}
BOTH = [(product, kind) for product, kinds in KINDS.items() for kind in kinds]


def stop_clock(source: SqlSource, monkeypatch: pytest.MonkeyPatch, now: Callable[[], datetime]) -> None:
    """From now on the source takes this for its database's time, on the wall too."""
    begin = source._dialect.begin

    def begin_at(connection: Connection) -> Clock:
        begin(connection)
        moment = (now() - EPOCH) // timedelta(microseconds=1)
        return Clock(moment, moment)

    monkeypatch.setattr(source._dialect, "begin", begin_at)


class Held:
    """Rows of tenant a in a table whose times are of a `kind`, and a source that looks at them at `now`."""

    def __init__(self, database: SqlBackend, kind: str, monkeypatch: pytest.MonkeyPatch, **entity: object) -> None:
        self.database, self.kind, self.now = database, kind, NOON
        database.run("DROP TABLE IF EXISTS materials")
        database.create(updated_at=kind, deleted_at=kind)
        self.source = database.source(**{"overlap": MINUTES, **entity})
        stop_clock(self.source, monkeypatch, lambda: self.now)

    def time(self, at: datetime) -> object:
        if self.kind == "date":
            return f"{at:%Y-%m-%d}"
        return int(at.timestamp()) if self.kind == "integer" else at.isoformat(" ", "milliseconds")

    def put(self, *rows: tuple[int, datetime]) -> None:
        self.database.put(*({"id": n, "tenant_id": "a", "updated_at": self.time(at)} for n, at in rows))

    def change(self, row: int, at: datetime, column: str = "updated_at") -> None:
        self.database.change(row, **{column: self.time(at)})

    def look(self) -> Fingerprint:
        return self.source.fingerprints("a")["a"]


@pytest.fixture(params=BOTH, ids="-".join)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Held:
    product, kind = request.param
    return Held(request.getfixturevalue(product), kind, monkeypatch)


def test_a_change_that_is_committed_late_is_seen_and_read(held: Held) -> None:
    """Dated before the newest change that was seen, within the overlap: of any type of time."""
    old = NOON - timedelta(days=40)
    held.put((1, old), (2, old), (3, old))
    held.change(2, NOON - timedelta(seconds=30))
    before, cursor = held.look(), read(held.source)[-1].cursor
    held.change(1, NOON - timedelta(minutes=2))
    after = held.look()
    assert after.outline == before.outline
    assert after.differs_from(before)
    assert "1" in ids(read(held.source, since=cursor))
    assert not held.look().differs_from(after)


def test_a_deletion_that_is_committed_late_is_seen_beside_a_new_row(held: Held) -> None:
    """Though there are as many rows as before, none of them newer."""
    old = NOON - timedelta(days=40)
    held.put((1, old), (2, NOON - timedelta(seconds=30)))
    before = held.look()
    held.change(1, NOON - timedelta(minutes=2), "deleted_at")
    held.put((3, old))
    assert held.look().outline == before.outline
    assert held.look().differs_from(before)


def test_a_transaction_that_commits_late_is_seen(postgres: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import dates its rows with its own beginning; what somebody edits meanwhile is synced before it ends."""
    postgres.create()
    postgres.put(*({"id": n, "tenant_id": "a", "updated_at": "2024-05-01"} for n in (1, 2)))
    source = postgres.source(overlap=MINUTES)
    url, touch = (
        str(postgres.engine.url).replace("+psycopg", ""),
        "UPDATE materials SET updated_at = now() WHERE id = %s",
    )
    with psycopg.connect(url) as slow:
        slow.execute(touch, (1,))
        with psycopg.connect(url) as quick:
            quick.execute(touch, (2,))
        before = source.fingerprints()["a"]
    after = source.fingerprints()["a"]
    assert (after.outline, after.differs_from(before)) == (before.outline, True)


@pytest.mark.parametrize("overlap", [timedelta(0), MINUTES])
@pytest.mark.parametrize("again", [1, 2], ids=["the same row", "another row"])
@pytest.mark.parametrize(("kind", "lasts"), [("text", timedelta(seconds=1)), ("date", timedelta(days=1))])
def test_a_time_that_a_later_change_may_have_too(
    sqlite: SqlBackend, monkeypatch: pytest.MonkeyPatch, kind: str, lasts: timedelta, again: int, overlap: timedelta
) -> None:
    """Whole seconds, and dates: another row of the same one is seen at once; the same row once it is over, once."""
    held = Held(sqlite, kind, monkeypatch, overlap=overlap)
    held.put((1, NOON - timedelta(days=9)), (2, NOON - timedelta(days=9)))
    second = NOON.replace(microsecond=0)
    held.change(1, second)
    before = held.look()
    assert before.open
    assert not held.look().differs_from(before)
    held.change(again, second)
    assert held.look().differs_from(before) == (again == 2)
    synced = held.look()
    held.now += lasts
    assert held.look().differs_from(synced)
    synced = held.look()
    for _ in range(5):
        held.now += lasts
        assert not held.look().differs_from(synced)


def test_a_date_of_today_is_open_in_postgres(postgres: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its day is over by the server's wall clock."""
    held = Held(postgres, "date", monkeypatch)
    held.put((1, NOON))
    assert held.look().open
    held.now += timedelta(hours=12)
    assert not held.look().open


def test_with_a_checksum_nothing_else_is_looked_at(database: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees each change by itself, so that none of a whole second makes a run of its own."""
    held = Held(database, "date", monkeypatch, checksum=True)
    held.put((1, NOON), (2, NOON))
    before = held.look()
    assert (before.recent, before.open) == ((), False)
    held.database.change(1, name="x")
    assert held.look().differs_from(before)


def test_what_does_not_change_is_never_due_again(held: Held) -> None:
    """Whatever the hour: while days go by after the newest change, but for the second or the day that it is of."""
    held.put(*((n, NOON - timedelta(minutes=7 * n**2)) for n in range(40)))
    seen, due = held.look(), 0
    for _ in range(150):
        held.now += timedelta(minutes=47)
        look = held.look()
        if look.differs_from(seen):
            due += 1
            seen = look
    assert due == (1 if held.kind in ("date", "integer") else 0)


STEP = st.tuples(
    st.sampled_from(["edit", "late", "nothing"]),
    st.integers(0, 5),
    st.integers(0, 600),
    st.one_of(st.integers(1, 900), st.integers(1, 86_400)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=1, max_size=12), st.booleans())
def test_each_change_within_the_overlap_is_seen_and_nothing_else(
    sqlite: SqlBackend, steps: list[tuple[str, int, int, int]], whole: bool
) -> None:
    """Rows edited now, or by what commits late at a time within the overlap, and a clock that goes on by seconds or
    hours: the look differs when a row has got another time, and only then; but once more after an open one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        held = Held(sqlite, "text", monkeypatch)
        held.now = NOON.replace(microsecond=0) if whole else NOON
        times = {n: NOON - timedelta(days=30, seconds=n) for n in range(6)}
        held.put(*times.items())
        seen = held.look()
        for doing, row, back, passed in steps:
            held.now += timedelta(seconds=passed)
            newest, before = max(times.values()), times[row]
            if doing == "edit":
                times[row] = held.now
            elif doing == "late" and held.now - newest < timedelta(days=1):
                times[row] = newest - timedelta(seconds=back)
            if times[row] != before:
                held.change(row, times[row])
            look = held.look()
            assert look.differs_from(seen) == (times[row] != before or (seen.open and not look.open))
            seen = look
