"""Modification times of every type and format, and the clock that bounds a cursor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import Cursor, Read
from vecsync_dagster_tests.sources.backends import SqlBackend, ids, read, time


def cursor_of(backend: SqlBackend, **entity: object) -> Cursor:
    cursor = read(backend.source(**entity))[-1].cursor
    assert cursor is not None
    return cursor


@pytest.mark.parametrize("declared", ["timestamptz", "timestamp", "date"])
def test_types_of_times_in_postgres(postgres: SqlBackend, declared: str) -> None:
    """A cursor of any type of time leads to the rows at or after it, tombstones included."""
    postgres.create(updated_at=declared, deleted_at=declared)
    postgres.put(*({"id": day, "tenant_id": "a", "updated_at": time(0, day=day)} for day in (1, 2, 3)))
    cursor = cursor_of(postgres)
    postgres.put({"id": 4, "tenant_id": "a", "updated_at": time(0, day=3)})
    postgres.put({"id": 5, "tenant_id": "a", "updated_at": time(0, day=1), "deleted_at": time(5, day=3)})
    (page,) = read(postgres.source(), since=cursor)
    assert (ids([page]), page.tombstones, page.cursor) == (["3", "4"], ("5",), Cursor(cursor.value, "4"))


def test_deletions_may_be_dated_otherwise(postgres: SqlBackend) -> None:
    """A deletion dated by the day alone is found by a cursor of that day's afternoon."""
    postgres.create(deleted_at="date")
    postgres.put({"id": 1, "tenant_id": "a", "updated_at": time(1), "deleted_at": "2024-05-03"})
    since = Cursor(time(300, day=3), "")
    assert [page.tombstones for page in read(postgres.source(), since=since)] == [("1",)]
    assert read(postgres.source(), since=Cursor(time(0, day=4), "")) == []


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Lima"])
def test_local_times_go_by_the_servers_own_clock(postgres: SqlBackend, zone: str) -> None:
    """Times without a zone are written by the server's wall clock: it bounds the cursor, not UTC."""
    postgres.run(f"ALTER DATABASE {postgres.engine.url.database} SET timezone = '{zone}'")
    postgres.create(updated_at="timestamp DEFAULT localtimestamp")
    postgres.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "a", "updated_at": "2199-01-01"})
    with psycopg.connect(str(postgres.engine.url).replace("+psycopg", "")) as connection:
        (wall,) = connection.execute("SELECT localtimestamp").fetchone() or (None,)
    cursor = datetime.fromisoformat(cursor_of(postgres).value)
    assert cursor.tzinfo is None
    assert wall is not None
    assert abs(cursor - wall) < timedelta(minutes=2)
    assert ids(read(postgres.source(overlap=timedelta(minutes=2)), since=Cursor(cursor.isoformat(), ""))) == ["1", "2"]


def test_infinite_times_are_read_and_move_no_cursor(postgres: SqlBackend) -> None:
    """A row modified at infinity comes with every read, and leaves the cursor where it is."""
    postgres.create()
    postgres.put(
        {"id": 1, "tenant_id": "a", "updated_at": "infinity"}, {"id": 2, "tenant_id": "a", "updated_at": time(5)}
    )
    pages = read(postgres.source(), since=Cursor(time(5), ""), page=1)
    assert ids(pages) == ["2", "1"]
    assert {datetime.fromisoformat(page.cursor.value) for page in pages if page.cursor} == {
        datetime.fromisoformat(time(5))
    }


def test_a_time_before_all_time_says_nothing(postgres: SqlBackend) -> None:
    """A row modified at -infinity is in every incremental read, as one is that has no time."""
    postgres.create()
    for number, at in enumerate(["-infinity", None, time(1), "infinity"]):
        postgres.put({"id": number, "tenant_id": "a", "updated_at": at})
    assert sorted(ids(read(postgres.source(), since=Cursor(time(5), "")))) == ["0", "1", "3"]


def test_a_column_that_is_no_time_is_refused(postgres: SqlBackend) -> None:
    """PostgreSQL knows times: a modification column of another type is a mistake that the message names."""
    postgres.create(updated_at="bigint")
    with pytest.raises(SourceRejected, match=r"entities\.materials\.updated_at: column 'updated_at'.*BIGINT"):
        read(postgres.source())


def test_fault_13_a_transaction_that_commits_late_is_read(postgres: SqlBackend) -> None:
    """A row whose transaction began before a later one was read, and committed after it, is found by the overlap."""
    postgres.create()
    url = str(postgres.engine.url).replace("+psycopg", "")
    insert = "INSERT INTO materials (id, tenant_id, is_global, updated_at) VALUES (%s, 'a', false, %s)"
    with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
        slow.execute(insert, (1, time(1)))
        quick.execute(insert, (2, time(2)))
        quick.commit()
        source = postgres.source(overlap=timedelta(minutes=5))
        pages = read(source)
        assert ids(pages) == ["2"]
        slow.commit()
    assert ids(read(source, since=pages[-1].cursor)) == ["1", "2"]


def test_formats_of_times_mix_in_sqlite(sqlite: SqlBackend) -> None:
    """ISO texts with and without T, zone and fraction, dates and epoch numbers are one order of time."""
    sqlite.create(updated_at="", deleted_at="")
    base = datetime(2024, 5, 1, 10, tzinfo=UTC)
    epoch = int(base.timestamp())
    moments: list[object] = [
        "2024-05-01",
        "2024-05-01 10:00",
        "2024-05-01T10:00:01Z",
        "2024-05-01T12:00:02+02:00",
        epoch + 3,
        (epoch + 4) * 1000,
        (epoch + 5) * 1_000_000,
        epoch + 6.5,
        "2024-05-01T10:00:07.123456+00:00",
        "2024-05-02",
    ]
    sqlite.put(*({"id": n, "tenant_id": "a", "updated_at": moment} for n, moment in enumerate(moments)))
    source = sqlite.source()
    assert ids(read(source, since=Cursor("2024-04-30T00:00:00", ""))) == [str(n) for n in range(10)]
    for n in range(1, 9):
        page = read(source, since=Cursor("2024-04-30T00:00:00", ""), page=n + 1)[0]
        assert page.cursor is not None
        # A date alone may be any time of its day: it is read until the day is over.
        assert ids(read(source, since=page.cursor)) == ["0", *(str(later) for later in range(n, 10))]
    assert ids(read(source, since=Cursor("2024-05-02T15:00:00+00:00", ""))) == ["9"]
    assert read(source, since=Cursor("2024-05-03T00:00:00+00:00", "")) == []


@pytest.mark.parametrize(
    "odd", ["now", "12:00", "last week", " ", "20240501", b"\x01", 10**18, -(10**18), "2024-13-45", 9e999]
)
def test_times_that_cannot_be_understood_are_always_read(sqlite: SqlBackend, odd: object) -> None:
    """Nonsense for a time makes a row come with every read, a deleted one as a tombstone, and moves no cursor."""
    sqlite.create(updated_at="", deleted_at="")
    sqlite.put(
        {"id": 1, "tenant_id": "a", "updated_at": odd},
        {"id": 2, "tenant_id": "a", "updated_at": time(1), "deleted_at": odd},
        {"id": 3, "tenant_id": "a", "updated_at": time(1)},
    )
    source = sqlite.source()
    full = read(source)
    assert full[-1].cursor == Cursor("2024-05-01T10:01:00+00:00", "3")
    (page,) = read(source, since=Cursor(time(0, day=9), ""))
    assert (ids([page]), page.tombstones) == (["1"], ("2",))
    assert [len(list(source.read(Read("b"))))] == [0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([0, 0, 0, 1, 7])), max_size=6))
def test_whatever_is_dated_ahead_each_change_is_seen_and_read(sqlite: SqlBackend, steps: list[tuple[int, int]]) -> None:
    """Rows are changed, dated now or days ahead, in any order: each time the look differs, and the next incremental
    read has the row."""
    sqlite.run("DROP TABLE IF EXISTS materials")
    sqlite.create()
    sqlite.put(*({"id": n, "tenant_id": "a", "updated_at": time(n)} for n in (1, 2, 3)))
    source, cursor = sqlite.source(), cursor_of(sqlite)
    for number, (row, days) in enumerate(steps):
        before = source.fingerprints("a")
        at = datetime.now(UTC) + timedelta(days=days, seconds=number if days else 0)
        sqlite.change(row, updated_at=at.isoformat(" ", "milliseconds"))
        assert source.fingerprints("a") != before
        pages = read(source, since=cursor)
        assert str(row) in ids(pages)
        assert pages[-1].cursor is not None
        cursor = pages[-1].cursor
