"""The contract of `vecsync_dagster.sources.base.Source`, one body for every implementation.

A test class inherits `SourceContract` and gives a fixture `backend` (backends.py).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import Cursor, Read, Source
from vecsync_dagster.sources.base import FindsByRest, Losable
from vecsync_dagster_tests.sources.backends import Backend, id_of, ids, keys, read, time, values

__all__ = ["SourceContract"]

UUIDS = [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))) for number in range(5)]
STRANGE = [
    "it's",
    'say "hi"',
    "x'; DROP TABLE materials; --",
    "a|b",
    "100%s %(x)s",
    "naïve 🧱",
    " spaced ",
    "Ключ",
    "-1",
]


def last(source: Source, **what: Any) -> Cursor:
    """The cursor at the end of a read."""
    cursor = read(source, **what)[-1].cursor
    assert cursor is not None
    return cursor


class SourceContract:
    # -- full reads --------------------------------------------------------------------------------
    def test_a_full_read_gives_every_row_in_the_order_of_ids(self, backend: Backend) -> None:
        """All rows of the tenant come, in the order of their ids, in pages of the wanted size."""
        backend.create()
        backend.put(*({"id": number, "name": f"n{number}", "tenant_id": "a"} for number in (9, 10, -3, 1, 7)))
        pages = read(backend.source(), page=2)
        assert ids(pages) == ["-3", "1", "7", "9", "10"]
        assert [page.records.num_rows for page in pages] == [2, 2, 1]
        assert values(pages, "name") == ["n-3", "n1", "n7", "n9", "n10"]

    def test_a_record_has_the_fields_that_the_source_names(self, backend: Backend) -> None:
        """`fields` are the columns of every batch, the id and all that the configuration uses among them."""
        backend.create()
        backend.put({"id": 1, "name": "Brick", "unit": "pc", "price": 12.5, "tenant_id": "a"})
        source = backend.source()
        (page,) = read(source)
        assert tuple(page.records.schema.names) == source.fields()
        assert {id_of(page), "name", "unit", "price"} <= set(source.fields())
        assert source.id_field == id_of(page)
        assert values([page], "price") == [12.5]

    def test_an_empty_tenant_gives_no_page(self, backend: Backend) -> None:
        """A tenant without rows, known or not, is read as nothing at all."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "b"})
        source = backend.source()
        assert read(source, "a") == []
        assert read(source, "global") == []
        assert source.count("a") == 0

    @pytest.mark.parametrize(
        ("limit", "offset", "wanted"),
        [
            (3, 0, [0, 1, 2]),
            (3, 2, [2, 3, 4]),
            (None, 8, [8, 9]),
            (5, 8, [8, 9]),
            (0, 0, []),
            (5, 10, []),
            (100, 0, [*range(10)]),
        ],
    )
    def test_limit_and_offset_are_exact(
        self, backend: Backend, limit: int | None, offset: int, wanted: list[int]
    ) -> None:
        """Limit and offset cut one stable order, across the borders of pages."""
        backend.create()
        backend.put(*({"id": number, "tenant_id": "a"} for number in range(10)))
        pages = read(backend.source(), page=2, limit=limit, offset=offset)
        assert ids(pages) == [str(number) for number in wanted]

    def test_a_full_read_is_one_snapshot(self, backend: Backend) -> None:
        """What others write while a full read goes on is not seen by it."""
        backend.create()
        backend.put(*({"id": number, "name": "old", "tenant_id": "a"} for number in range(6)))
        source = backend.source()
        pages = source.read(Read("a"), 2)
        first = next(pages)
        backend.drop(5)
        backend.change(4, name="new")
        backend.put({"id": 99, "name": "late", "tenant_id": "a"})
        rest = list(pages)
        assert ids([first, *rest]) == ["0", "1", "2", "3", "4", "5"]
        assert set(values([first, *rest], "name")) == {"old"}

    def test_a_read_may_be_left_and_begun_again(self, backend: Backend) -> None:
        """A reader that stops early leaves a source that works."""
        backend.create()
        backend.put(*({"id": number, "tenant_id": "a"} for number in range(6)))
        source = backend.source()
        pages = source.read(Read("a"), 2)
        assert ids([next(pages)]) == ["0", "1"]
        pages.close()  # type: ignore[attr-defined]
        assert len(ids(read(source))) == 6

    def test_reads_may_go_on_side_by_side(self, backend: Backend) -> None:
        """A source counts and reads while another read of it is open."""
        backend.create()
        backend.put(*({"id": number, "tenant_id": "a"} for number in range(4)))
        source = backend.source()
        one, other = source.read(Read("a"), 2), source.read(Read("a"), 2)
        assert ids([next(one), next(other)]) == ["0", "1", "0", "1"]
        assert source.count("a") == 4
        assert ids([*one, *other]) == ["2", "3", "2", "3"]

    # -- tenants -----------------------------------------------------------------------------------
    def test_the_flag_decides_between_global_and_tenant(self, backend: Backend) -> None:
        """`global` is the flagged rows whatever their tenant; a tenant is its own rows that are not flagged."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a"},
            {"id": 2, "tenant_id": "a", "is_global": True},
            {"id": 3, "is_global": True},
            {"id": 4, "tenant_id": "a", "is_global": None},
            {"id": 5},
            {"id": 6, "is_global": None},
            {"id": 7, "tenant_id": "b"},
            {"id": 8, "tenant_id": "c", "is_global": True},
        )
        source = backend.source()
        assert ids(read(source, "global")) == ["2", "3", "8"]
        assert ids(read(source, "a")) == ["1", "4"]
        assert ids(read(source, "b")) == ["7"]
        assert ids(read(source, "c")) == []
        assert source.tenants() == ["a", "b"]
        assert source.unassigned() == 2
        assert [source.count(tenant) for tenant in ("global", "a", "b", "c")] == [3, 2, 1, 0]

    @pytest.mark.parametrize("tenant", STRANGE)
    def test_a_tenants_key_is_only_data(self, backend: Backend, tenant: str) -> None:
        """A key with quotes, SQL, bars or emoji finds its own rows and nobody else's."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": tenant}, {"id": 2, "tenant_id": "other"}, {"id": 3, "tenant_id": tenant + "x"}
        )
        source = backend.source()
        assert ids(read(source, tenant)) == ["1"]
        assert source.count(tenant) == 1
        assert source.tenants() == sorted([tenant, "other", tenant + "x"])

    @pytest.mark.parametrize("tenant", ["A", "a ", "%", "_", "", "a\x00", "\ud800"])
    def test_a_tenants_key_must_be_exact(self, backend: Backend, tenant: str) -> None:
        """Another case, blanks, wildcards and keys that no database can hold find nothing."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"})
        source = backend.source()
        assert read(source, tenant) == []
        assert source.count(tenant) == 0

    def test_a_tenant_that_is_called_global_is_not_the_global_partition(self, backend: Backend) -> None:
        """A tenant's key "global" is listed for the caller to refuse; reading `global` means the flag."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "global"}, {"id": 2, "is_global": True})
        source = backend.source()
        assert source.tenants() == ["global"]
        assert ids(read(source, "global")) == ["2"]
        assert source.count("global") == 1

    def test_without_tenancy_everything_is_global(self, backend: Backend) -> None:
        """An entity without tenancy has one partition, and no tenants."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"}, {"id": 2, "is_global": True}, {"id": 3})
        source = backend.source(tenancy=None)
        assert ids(read(source, "global")) == ["1", "2", "3"]
        assert read(source, "a") == []
        assert source.tenants() == []
        assert (source.count("global"), source.count("a"), source.unassigned()) == (3, 0, 0)

    def test_without_a_flag_nothing_is_global(self, backend: Backend) -> None:
        """Where tenancy has no flag, rows without a tenant belong to nobody."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "is_global": True}, {"id": 2, "is_global": True})
        source = backend.source(tenancy={"column": "tenant_id"})
        assert ids(read(source, "a")) == ["1"]
        assert read(source, "global") == []
        assert (source.tenants(), source.unassigned()) == (["a"], 1)

    # -- ids ---------------------------------------------------------------------------------------
    def test_ids_of_uuids(self, backend: Backend) -> None:
        """UUIDs come as text, and are found by it."""
        backend.create(id_type="uuid")
        backend.put(*({"id": key, "tenant_id": "a"} for key in UUIDS))
        source = backend.source()
        assert ids(read(source)) == sorted(UUIDS)
        foreign = ["not a uuid", "7", UUIDS[1].upper(), UUIDS[1].replace("-", ""), "{" + UUIDS[1] + "}"]
        assert ids(read(source, ids=[UUIDS[2], *foreign])) == [UUIDS[2]]

    def test_ids_of_any_text(self, backend: Backend) -> None:
        """Any text may be an id; a read by ids finds exactly those."""
        backend.create(id_type="text")
        backend.put(*({"id": key, "tenant_id": "a"} for key in [*STRANGE, "plain"]))
        source = backend.source()
        assert sorted(ids(read(source))) == sorted([*STRANGE, "plain"])
        for key in STRANGE:
            assert ids(read(source, ids=[key])) == [key]
        assert read(source, ids=["A|B", "it", "\x00", "\udfff", "1"]) == []

    def test_a_read_by_ids_takes_any_number(self, backend: Backend) -> None:
        """More ids than fit one statement are read in pages, each row once; ids that are none are ignored."""
        backend.create()
        backend.put(*({"id": number, "tenant_id": "a"} for number in range(1203)))
        backend.put({"id": 5000, "tenant_id": "b"}, {"id": 5001, "tenant_id": "a", "is_global": True})
        wanted = [str(number) for number in range(1203)]
        pages = read(
            backend.source(), page=400, ids=[*wanted, *wanted, "5000", "5001", "x", "007", " 8", "9.0", str(2**70)]
        )
        assert sorted(ids(pages), key=int) == wanted
        assert max(page.records.num_rows for page in pages) <= 400
        assert {page.cursor for page in pages} == {None}

    def test_a_read_by_ids_gives_live_rows_only(self, backend: Backend) -> None:
        """A deleted row is not read by its id, whatever the cursor; no ids give nothing."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "deleted_at": time(5)}, {"id": 2, "tenant_id": "a"})
        source = backend.source()
        assert ids(read(source, ids=["1", "2", "3"])) == ["2"]
        assert read(source, ids=[]) == []
        assert ids(read(source, ids=["1", "2"], limit=5)) == ["2"]

    def test_a_read_by_ids_names_dead_rows_where_it_is_asked(self, backend: Backend) -> None:
        """Rows of the tenant that are marked as deleted or kept out by the filter; not what is not there."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "unit": "pc", "deleted_at": time(5)},
            {"id": 2, "tenant_id": "a", "unit": "pc"},
            {"id": 3, "tenant_id": "a", "unit": "kg"},
            {"id": 4, "tenant_id": "b", "unit": "pc", "deleted_at": time(5)},
        )
        wanted = ["1", "2", "3", "4", "5"]
        pages = read(backend.source(filter={"unit": "pc"}), ids=wanted, dead=True)
        assert ids(pages) == ["2"]
        assert sorted(key for page in pages for key in page.tombstones) == ["1", "3"]

    def test_all_dead_rows_are_named_where_it_is_asked(self, backend: Backend) -> None:
        """Those of the tenant alone, and where the next read may go on from; nothing where no row can be dead."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "unit": "pc", "updated_at": time(5), "deleted_at": time(5)},
            {"id": 2, "tenant_id": "a", "unit": "pc", "updated_at": time(6)},
            {"id": 3, "tenant_id": "a", "unit": "kg", "updated_at": time(7)},
            {"id": 4, "tenant_id": "b", "unit": "pc", "updated_at": time(8), "deleted_at": time(5)},
        )
        source = backend.source(filter={"unit": "pc"})
        pages = read(source, dead=True)
        assert (ids(pages), sorted(key for page in pages for key in page.tombstones)) == ([], ["1", "3"])
        backend.put({"id": 5, "tenant_id": "a", "unit": "pc", "updated_at": time(9)})
        assert "5" in ids(read(source, since=pages[-1].cursor))
        assert read(backend.source(deleted_at=None), dead=True) == []

    def test_rows_without_an_id_are_delivered(self, backend: Backend) -> None:
        """A row whose id is null comes as it is, for validation to reject by name."""
        backend.create()
        backend.put({"id": None, "name": "nobody", "tenant_id": "a"}, {"id": 1, "name": "one", "tenant_id": "a"})
        pages = read(backend.source())
        assert sorted(values(pages, id_of(pages[0])), key=str) == [1, None]
        assert sorted(values(pages, "name")) == ["nobody", "one"]

    # -- values ------------------------------------------------------------------------------------
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "🧱👷🏽‍♀️",
            "'; DROP TABLE materials; --",
            "tab\tnew\nline\x01\x1f",
            "x" * 1_000_000,
            "Демонтаж вытяжки",
            "%s :name ?",
        ],
        ids=["empty", "emoji", "sql", "control", "huge", "cyrillic", "marks"],
    )
    def test_text_comes_as_it_is(self, backend: Backend, text: str) -> None:
        """Whatever text a field holds is delivered unchanged."""
        backend.create()
        backend.put({"id": 1, "name": text, "tenant_id": "a"})
        assert values(read(backend.source()), "name") == [text]

    def test_nulls_stay_null(self, backend: Backend) -> None:
        """Fields without a value are null, also where a whole page has none."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"}, {"id": 2, "name": "x", "price": 1.5, "tenant_id": "a"})
        pages = read(backend.source(), page=1)
        assert values(pages, "name") == [None, "x"]
        assert values(pages, "price") == [None, 1.5]

    # -- incremental reads -------------------------------------------------------------------------
    def test_an_incremental_read_is_in_the_order_of_time(self, backend: Backend) -> None:
        """Only rows modified since the cursor come, oldest first, by id where the times are equal."""
        backend.create()
        moments = {1: 9, 2: 1, 3: 7, 4: 7, 5: 3, 6: 8}
        backend.put(*({"id": key, "tenant_id": "a", "updated_at": time(at)} for key, at in moments.items()))
        source = backend.source()
        assert source.incremental
        assert ids(read(source, since=Cursor(time(7), "3"), page=2)) == ["3", "4", "6", "1"]
        assert ids(read(source, since=Cursor(time(7), "3"), limit=2, offset=1)) == ["4", "6"]

    def test_going_on_from_any_cursor_loses_nothing(self, backend: Backend) -> None:
        """After any page of an incremental read, its cursor leads to all that was not read yet."""
        backend.create()
        backend.put(*({"id": key, "tenant_id": "a", "updated_at": time(key // 3)} for key in range(12)))
        source = backend.source()
        seen: set[str] = set()
        for page in read(source, since=Cursor(time(0), ""), page=2):
            seen.update(ids([page]))
            assert page.cursor is not None
            assert seen.union(ids(read(source, since=page.cursor))) == {str(key) for key in range(12)}

    def test_the_cursor_of_a_full_read_is_the_latest_time(self, backend: Backend) -> None:
        """A full read ends at the latest modification, though that row was not the last; then nothing older comes."""
        backend.create()
        backend.put(*({"id": key, "tenant_id": "a", "updated_at": time(20 - key)} for key in range(6)))
        source = backend.source()
        cursor = last(source, page=2)
        assert ids(read(source, since=cursor)) == ["0"]
        backend.change(3, updated_at=time(30))
        pages = read(source, since=cursor)
        assert ids(pages) == ["0", "3"]
        assert pages[-1].cursor == last(source)

    def test_a_part_of_a_full_read_has_no_cursor(self, backend: Backend) -> None:
        """A limited full read saw some rows only: nothing may go on from there."""
        backend.create()
        backend.put(*({"id": key, "tenant_id": "a", "updated_at": time(key)} for key in range(6)))
        source = backend.source()
        pages = [
            *read(source, limit=4, page=2),
            *read(source, offset=2),
            *read(source, since=Cursor(time(0), ""), offset=1),
        ]
        assert {page.cursor for page in pages} == {None}

    def test_the_cursor_never_goes_back(self, backend: Backend) -> None:
        """What the overlap reads again does not take the cursor back."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "updated_at": time(50)}, {"id": 2, "tenant_id": "a", "updated_at": time(55)}
        )
        source = backend.source(overlap=timedelta(minutes=30))
        cursor = last(source)
        backend.drop(2)
        assert last(source, since=cursor) == cursor

    def test_fault_13_rows_dated_like_the_cursor_are_read(self, backend: Backend) -> None:
        """A row written later with the very time of the cursor is found, with no overlap at all."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "updated_at": time(7)})
        source = backend.source()
        cursor = last(source)
        backend.put(
            {"id": 0, "tenant_id": "a", "updated_at": time(7)}, {"id": 2, "tenant_id": "a", "updated_at": time(7)}
        )
        assert ids(read(source, since=cursor)) == ["0", "1", "2"]

    def test_fault_13_rows_that_come_late_are_read_by_the_overlap(self, backend: Backend) -> None:
        """A row that appears after later ones were read is found if the overlap reaches it, and only then."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "updated_at": time(20)})
        cursor = last(backend.source())
        backend.put(
            {"id": 2, "tenant_id": "a", "updated_at": time(11)}, {"id": 3, "tenant_id": "a", "updated_at": time(9)}
        )
        assert ids(read(backend.source(), since=cursor)) == ["1"]
        assert ids(read(backend.source(overlap=timedelta(minutes=10)), since=cursor)) == ["2", "1"]
        assert ids(read(backend.source(overlap=timedelta(days=4_000_000)), since=cursor)) == ["3", "2", "1"]

    def test_rows_without_a_time_are_always_read(self, backend: Backend) -> None:
        """A row that never says when it was modified comes with every incremental read."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "a", "updated_at": time(5)})
        source = backend.source()
        assert ids(read(source, since=Cursor(time(50), ""))) == ["1"]
        assert ids(read(source, since=Cursor(time(1), ""))) == ["2", "1"]

    def test_a_row_of_the_future_hides_nothing(self, backend: Backend) -> None:
        """The cursor stays at or before the clock of now, so that rows written after this read are found."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "updated_at": "2199-01-01 00:00:00+00:00"})
        source = backend.source(overlap=timedelta(minutes=1))
        cursor = last(source)
        assert datetime.fromisoformat(cursor.value) <= datetime.now(UTC) + timedelta(minutes=1)
        now = datetime.now(UTC).isoformat(" ", "milliseconds")
        backend.put({"id": 2, "tenant_id": "a", "updated_at": now})
        assert ids(read(source, since=cursor)) == ["2", "1"]

    def test_a_cursor_that_the_clock_has_not_reached_is_lost(self, backend: Backend) -> None:
        """It was made while the clock was ahead: what changed since it was set right lies before it. Rows that are
        dated ahead make no such cursor."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "updated_at": "2199-01-01 00:00:00+00:00"})
        source = backend.source(overlap=timedelta(minutes=10))
        assert isinstance(source, Losable)
        cursor = last(source)
        assert source.lost(Read("a", since=cursor)) is None
        ahead = (datetime.fromisoformat(cursor.value) + timedelta(minutes=5)).isoformat()
        assert f"begin at {ahead}" in (source.lost(Read("a", since=Cursor(ahead, "1"))) or "")

    def test_without_a_modification_column_every_read_is_full(self, backend: Backend) -> None:
        """There is no cursor then, and one that is given changes nothing."""
        backend.create()
        backend.put(*({"id": key, "tenant_id": "a", "updated_at": time(key)} for key in range(3)))
        source = backend.source(updated_at=None)
        assert not source.incremental
        pages = read(source, since=Cursor(time(2), "2"))
        assert ids(pages) == ["0", "1", "2"]
        assert {page.cursor for page in pages} == {None}

    def test_a_cursor_that_is_none_is_refused(self, backend: Backend) -> None:
        """A stored cursor that is no time is an error that says what to do."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"})
        with pytest.raises(SourceRejected, match="full sync"):
            read(backend.source(), since=Cursor("yesterday", "1"))

    # -- deleted rows ------------------------------------------------------------------------------
    def test_deleted_rows_are_tombstones_of_incremental_reads_alone(self, backend: Backend) -> None:
        """A deleted row is told once by its id to its own tenant; full reads and counts do not know it."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "updated_at": time(5)},
            {"id": 2, "tenant_id": "a", "updated_at": time(6), "deleted_at": time(6)},
            {"id": 3, "tenant_id": "b", "updated_at": time(7), "deleted_at": time(7)},
            {"id": 4, "is_global": True, "updated_at": time(8), "deleted_at": time(8)},
            {"id": 5, "updated_at": time(8), "deleted_at": time(8)},
        )
        source = backend.source()
        assert ids(read(source, "a")) == ["1"]
        assert [page.tombstones for page in read(source, "a")] == [()]
        assert (source.count("a"), source.count("b"), source.count("global")) == (1, 0, 0)
        assert (source.tenants(), source.unassigned()) == (["a"], 0)
        (page,) = read(source, "a", since=Cursor(time(0), ""))
        assert (ids([page]), page.tombstones) == (["1"], ("2",))
        (page,) = read(source, "b", since=Cursor(time(0), ""))
        assert (page.records.num_rows, page.tombstones) == (0, ("3",))
        assert tuple(page.records.schema.names) == source.fields()
        (page,) = read(source, "global", since=Cursor(time(0), ""))
        assert page.tombstones == ("4",)

    def test_fault_14_a_deletion_is_found_by_its_own_time(self, backend: Backend) -> None:
        """A row that is marked as deleted, its modification time left as it was, is a tombstone all the same."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "updated_at": time(1), "deleted_at": time(30)},
            {"id": 2, "tenant_id": "a", "updated_at": time(2), "deleted_at": time(3)},
            {"id": 3, "tenant_id": "a", "updated_at": time(25)},
        )
        (page,) = read(backend.source(), since=Cursor(time(20), ""))
        assert (ids([page]), page.tombstones) == (["3"], ("1",))
        assert page.cursor is not None
        assert datetime.fromisoformat(page.cursor.value) == datetime.fromisoformat(time(25))

    def test_check_answers_in_one_line(self, backend: Backend) -> None:
        """A working source says what answered, on one line, and can be closed and used again."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a"})
        source = backend.source()
        line = source.check()
        assert "materials" in line
        assert "\n" not in line
        source.close()
        source.close()
        assert ids(read(source)) == ["1"]

    # -- keys of several columns -------------------------------------------------------------------
    def test_rows_are_told_apart_by_all_columns_of_the_key(self, backend: Backend) -> None:
        """The text of a compound key names its columns; a row is read by it, and comes in the order of the columns."""
        backend.create()
        backend.put(
            {"id": 2, "tenant_id": "a", "unit": "x/y", "name": "two"},
            {"id": 1, "tenant_id": "a", "unit": "x~y", "name": "one"},
            {"id": 3, "tenant_id": "a", "unit": None, "name": "three"},
            {"id": 4, "tenant_id": "b", "unit": "x/y", "name": "other"},
        )
        source = backend.source(id=["unit", "id"])
        every = read(source, page=2)
        assert sorted(keys(every)) == ["x~0y/1", "x~1y/2", "~/3"]
        for key, name in (("x~0y/1", "one"), ("x~1y/2", "two"), ("~/3", "three")):
            assert values(read(source, ids=[key]), "name") == [name]
        assert sorted(keys(read(source, ids=["x~1y/2", "~/3", "x~1y/4", "x/y/2", "~/1", "~/~", "2"]))) == [
            "x~1y/2",
            "~/3",
        ]
        assert tuple(every[0].records.schema.names) == source.fields()

    def test_compound_keys_are_read_in_any_number(self, backend: Backend) -> None:
        """More keys than fit one statement are read in pages, each row once."""
        backend.create()
        backend.put(*({"id": n, "tenant_id": "a", "unit": f"u{n % 7}"} for n in range(350)))
        wanted = [f"u{n % 7}/{n}" for n in range(350)]
        pages = read(backend.source(id=["unit", "id"]), page=120, ids=[*wanted, *wanted, "u0/1"])
        assert sorted(keys(pages)) == sorted(wanted)

    def test_a_tombstone_has_the_text_of_the_whole_key(self, backend: Backend) -> None:
        """What is marked as deleted is told by the key that the record had."""
        backend.create()
        backend.put({"id": 1, "tenant_id": "a", "unit": "u", "updated_at": time(1)})
        source = backend.source(id=["unit", "id"])
        since = last(source)
        backend.change(1, deleted_at=time(2))
        assert [gone for page in read(source, since=since) for gone in page.tombstones] == ["u/1"]

    @pytest.mark.parametrize("key", [["tenant_id", "id"], ["id", "tenant_id"], "id"], ids=str)
    def test_rows_are_found_by_the_rest_of_the_key(self, backend: Backend, key: Any) -> None:
        """Live rows of everybody, or of one tenant, by what their keys say without one column, with what that says."""
        backend.create()
        backend.put(
            {"id": 1, "tenant_id": "a", "is_global": True},
            {"id": 2, "tenant_id": None, "is_global": True},
            {"id": 3, "tenant_id": "a/b", "is_global": True},
            {"id": 4, "tenant_id": "a"},
            {"id": 5, "tenant_id": "a", "is_global": True, "deleted_at": time(1)},
            *({"id": number, "tenant_id": "c", "is_global": True} for number in range(1000, 1600)),
        )
        source = backend.source(id=key)
        assert isinstance(source, FindsByRest)
        wanted = ["1", "2", "3", "4", "5", "6", "x", *map(str, range(1000, 1600))]
        found = source.by_rest("global", "tenant_id", wanted)
        assert len(found) == 603
        told = {one.rest: (one.part, str(one.key)) for one in found}
        parts = {"1": ("a", "a"), "2": (None, "~"), "3": ("a/b", "a~1b")}
        for rest, (part, text) in parts.items():
            assert told[rest] == (part, rest if key == "id" else "/".join({"id": rest}.get(name, text) for name in key))
        assert [one.rest for one in source.by_rest("a", "tenant_id", wanted)] == ["4"]

    def test_rows_are_found_by_a_rest_of_several_columns(self, backend: Backend) -> None:
        """In any number; an empty column is a part of it."""
        backend.create()
        rows = [{"id": n, "tenant_id": "a", "unit": f"u{n % 7}" if n % 5 else None} for n in range(350)]
        backend.put(*rows)
        source = backend.source(id=["unit", "tenant_id", "id"])
        assert isinstance(source, FindsByRest)
        wanted = [f"{row['unit'] or '~'}/{row['id']}" for row in rows]
        found = source.by_rest("a", "tenant_id", [*wanted, "u0/1", "1"])
        assert sorted(one.rest for one in found) == sorted(wanted)
        assert {str(one.key) for one in found} == {text.replace("/", "/a/") for text in wanted}
