"""Snapshots: what was exported comes back, value by value, or the last whole export does."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecsync_dagster.documents import Document
from vecsync_dagster.errors import OutputUnwritable, SourceRejected
from vecsync_dagster.identity import native_of
from vecsync_dagster.sources.base import Cursor, Page
from vecsync_dagster.sync.snapshots import Snapshot, Snapshots, SnapshotWriter
from vecsync_dagster_tests.documents.records import build

ENTITY = {"source": "db", "table": "t", "collections": {"c": {"text": "{id} {value}", "payload": ["value"]}}}
JSON = {b"vecsync": b"json"}


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


def page(ids: Sequence[int], values: pa.Array, *, is_json: bool = False, **more: Any) -> Page:
    value = pa.field("value", values.type, metadata=JSON if is_json else None)
    columns = [pa.array(ids, pa.int64()), values]
    return Page(pa.RecordBatch.from_arrays(columns, schema=pa.schema([pa.field("id", pa.int64()), value])), **more)


def write(snapshots: Snapshots, pages: Iterable[Page], *, complete: bool = True, tenant: str = "t1") -> None:
    with snapshots.writer("works", tenant, complete=complete) as writer:
        for one in pages:
            writer.write(one)


def leave_half(snapshots: Snapshots, tenant: str) -> SnapshotWriter:
    """What a killed run leaves; its writer, which did not come to its end."""
    writer = snapshots.writer("works", tenant, complete=True).__enter__()
    writer.write(page([1], pa.array(["half"])))
    return writer


def documents(pages: Iterable[Page]) -> list[Document]:
    batches = [build(one.records, entity=ENTITY)["c"] for one in pages]
    assert all(not batch.rejections for batch in batches)
    return [made for batch in batches for made in batch.documents]


def files(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "snapshots").rglob("*") if file.is_file())


class TestRoundTrip:
    def test_pages(self, snapshots: Snapshots) -> None:
        """All records come back in their order, in pages of the size that is asked for."""
        write(snapshots, [page([1, 2, 3], pa.array(["a", None, "c"])), page([4, 5], pa.array(["d", "e"]))])
        pages = list(snapshots.pages("works", "t1", 2))
        assert [one.records.column("id").to_pylist() for one in pages] == [[1, 2], [3, 4], [5]]
        assert [v for one in pages for v in one.records.column("value").to_pylist()] == ["a", None, "c", "d", "e"]

    def test_description(self, snapshots: Snapshots) -> None:
        """A snapshot says how many rows it has, whether they are all, the last cursor, and what was deleted."""
        write(
            snapshots,
            [
                page([1], pa.array(["a"]), tombstones=("7",), cursor=Cursor("2026-01-01", "1")),
                page([2], pa.array(["b"]), tombstones=("8", "9"), cursor=Cursor("2026-01-02", "2")),
                page([3], pa.array(["c"])),
            ],
            complete=False,
        )
        cursor = Cursor("2026-01-02", "2")
        dead = ((1, "7"), (2, "8"), (2, "9"))
        assert snapshots.describe("works", "t1") == Snapshot(False, cursor, dead, 3)
        pages = list(snapshots.pages("works", "t1", 10))
        assert [(one.records.num_rows, one.tombstones) for one in pages] == [(1, ("7",)), (1, ("8", "9")), (1, ())]
        assert all(one.cursor == cursor for one in pages)

    @pytest.mark.parametrize("size", [1, 2, 3, 10])
    def test_rows_and_tombstones_keep_their_order(self, snapshots: Snapshots, size: int) -> None:
        """Whatever the size of the pages: what was deleted and came back is not deleted after all."""
        nothing = pa.array([], pa.string())
        write(
            snapshots,
            [
                page([], nothing, tombstones=("0",)),
                page([1, 2, 3], pa.array(["a", "b", "c"]), tombstones=("4",)),
                page([], nothing, tombstones=("1",)),
                page([4, 1], pa.array(["d", "a"])),
                page([5], pa.array(["e"]), tombstones=("2", "5")),
            ],
        )
        told: list[int | str] = []
        for one in snapshots.pages("works", "t1", size):
            assert one.records.num_rows <= size
            told += [*one.records.column("id").to_pylist(), *one.tombstones]
        assert told == ["0", 1, 2, 3, "4", "1", 4, 1, 5, "2", "5"]

    @pytest.mark.parametrize("told", ["7", ["7", None], ["7", '{"$oid": "7"}']])
    def test_tombstones_of_an_earlier_version(self, snapshots: Snapshots, told: Any) -> None:
        """Its file did not say where they came: they come last."""
        write(snapshots, [page([1, 2], pa.array(["a", "b"]), tombstones=("7",))])
        path = snapshots.path("works", "t1")
        with pq.ParquetFile(path) as file:
            table, about = file.read(), json.loads(file.metadata.metadata[b"vecsync"])
        pq.write_table(table.replace_schema_metadata({"vecsync": json.dumps({**about, "tombstones": [told]})}), path)
        pages = list(snapshots.pages("works", "t1", 1))
        assert [(one.records.num_rows, one.tombstones) for one in pages] == [(1, ()), (1, ("7",))]
        [(_, key)] = snapshots.describe("works", "t1").tombstones
        assert native_of(key) == (None if isinstance(told, str) else told[1])

    def test_an_empty_export(self, snapshots: Snapshots) -> None:
        """A tenant that has no rows any more has a snapshot that says so."""
        write(snapshots, [])
        assert snapshots.describe("works", "t1") == Snapshot(True, None, (), 0)
        assert list(snapshots.pages("works", "t1", 10)) == []
        assert snapshots.frame("works", "t1").empty

    @pytest.mark.parametrize("records", [pa.RecordBatch.from_arrays([], schema=pa.schema([])), None])
    def test_tombstones_alone(self, snapshots: Snapshots, records: pa.RecordBatch | None) -> None:
        """An export of deletions alone comes back as deletions, whether its page had columns or not."""
        empty = page([], pa.array([], pa.string()), tombstones=("7",))
        write(snapshots, [empty if records is None else Page(records, tombstones=("7",))])
        [back] = snapshots.pages("works", "t1", 10)
        assert (back.records.num_rows, back.tombstones) == (0, ("7",))
        assert documents([back]) == []

    def test_types_are_kept(self, snapshots: Snapshots) -> None:
        """Types and the mark of JSON columns come back, so that documents are the same."""
        when = pa.array([dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
        for number, (values, is_json) in enumerate(
            [(pa.array(['{"a": [1]}']), True), (when, False), (pa.array([["x", "y"]]), False), (pa.array([1.5]), False)]
        ):
            given_page = page([1], values, is_json=is_json)
            write(snapshots, [given_page], tenant=f"t{number}")
            [back] = snapshots.pages("works", f"t{number}", 10)
            assert back.records.schema.equals(given_page.records.schema)
            assert documents([back]) == documents([given_page])

    def test_frame(self, snapshots: Snapshots) -> None:
        """For notebooks a snapshot is a DataFrame."""
        write(snapshots, [page([1], pa.array(["a"])), page([2], pa.array(["b"]))])
        frame = snapshots.frame("works", "t1")
        assert list(frame.columns) == ["id", "value"]
        assert frame["value"].tolist() == ["a", "b"]


class TestChangingTypes:
    """SQLite may give a column of each batch another type."""

    NUMBERS = page([1, 2], pa.array([5, None], pa.int64()))
    TEXTS = page([3], pa.array(["5"]))
    MIXED = page([4, 5], pa.array(["5", '"5"']), is_json=True)
    DATES = page([6], pa.array([dt.date(2026, 3, 1)]))
    TIMES = page([7], pa.array([dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")))
    NOTHING = page([8], pa.array([None], pa.null()))
    FLOATS = page([9], pa.array([0.1]))
    LISTS = page([10], pa.array([["b", "a"]]))

    @pytest.mark.parametrize(
        "pages",
        [
            [NUMBERS, TEXTS],
            [TEXTS, NUMBERS],
            [TEXTS, MIXED],
            [MIXED, TEXTS],
            [NUMBERS, MIXED],
            [DATES, TEXTS, NUMBERS, TIMES],
            [NOTHING, NUMBERS, NOTHING],
            [NOTHING, MIXED, NOTHING],
            [NUMBERS, NOTHING, FLOATS, LISTS, MIXED, TEXTS],
        ],
    )
    def test_every_value_stays_what_it_was(self, snapshots: Snapshots, tmp_path: Path, pages: list[Page]) -> None:
        """A run over the snapshot decides as one over the source: a number stays a number, a text a text."""
        write(snapshots, pages)
        assert documents(snapshots.pages("works", "t1", 3)) == documents(pages)
        assert snapshots.describe("works", "t1").rows == sum(one.records.num_rows for one in pages)
        assert files(tmp_path) == ["t1.parquet"]

    def test_nan_is_still_refused(self, snapshots: Snapshots) -> None:
        """A value that no document may have is refused from the snapshot as it is from the source."""
        write(snapshots, [page([1], pa.array([float("nan")])), self.TEXTS])
        [back] = snapshots.pages("works", "t1", 10)
        batch = build(back.records, entity=ENTITY)["c"]
        assert [r.error for r in batch.rejections] == ["value is not a finite number"]
        assert [d.db_id for d in batch.documents] == ["3"]

    def test_other_columns_keep_their_type(self, snapshots: Snapshots) -> None:
        """Only the column that changed becomes JSON."""
        write(snapshots, [self.NUMBERS, self.TEXTS])
        schema = next(iter(snapshots.pages("works", "t1", 10))).records.schema
        assert schema.field("id").type == pa.int64()
        assert (schema.field("value").type, schema.field("value").metadata[b"vecsync"]) == (pa.string(), b"json")

    COLUMNS = st.one_of(
        st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3).map(
            lambda v: (pa.array(v, pa.int64()), False)
        ),
        st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(
            lambda v: (pa.array(v, pa.float64()), False)
        ),
        st.lists(st.none() | st.text(max_size=4), max_size=3).map(lambda v: (pa.array(v, pa.string()), False)),
        st.lists(st.none() | st.booleans(), max_size=3).map(lambda v: (pa.array(v, pa.bool_()), False)),
        st.lists(st.none() | st.text(max_size=4) | st.lists(st.integers(0, 9)), max_size=3).map(
            lambda v: (pa.array([None if x is None else json.dumps(x) for x in v], pa.string()), True)
        ),
    )

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(columns=st.lists(COLUMNS, min_size=1, max_size=5))
    def test_any_sequence_of_types(self, snapshots: Snapshots, columns: list[tuple[pa.Array, bool]]) -> None:
        """Whatever types the batches come in, the documents of the snapshot are those of the source."""
        pages = [
            page(range(100 * n, 100 * n + len(values)), values, is_json=is_json)
            for n, (values, is_json) in enumerate(columns)
        ]
        write(snapshots, pages)
        assert documents(snapshots.pages("works", "t1", 4)) == documents(pages)


class TestFailures:
    BEFORE = page([1], pa.array(["before"]))

    @pytest.mark.parametrize("pages", [0, 1, 2])
    def test_an_error_keeps_the_last_export(self, snapshots: Snapshots, tmp_path: Path, pages: int) -> None:
        """An export that ends in an error leaves the last whole one as it was, and nothing beside it."""
        write(snapshots, [self.BEFORE])

        def failing() -> Iterator[Page]:
            yield from [page([2], pa.array(["after"])), page([3], pa.array([5]))][:pages]
            raise RuntimeError

        with pytest.raises(RuntimeError):
            write(snapshots, failing())
        assert snapshots.frame("works", "t1")["value"].tolist() == ["before"]
        assert files(tmp_path) == ["t1.parquet"]

    def test_nothing_is_seen_before_the_end(self, snapshots: Snapshots) -> None:
        """While an export is written, readers see the one before it."""
        write(snapshots, [self.BEFORE])
        with snapshots.writer("works", "t1", complete=True) as writer:
            writer.write(page([2], pa.array(["after"])))
            assert snapshots.frame("works", "t1")["value"].tolist() == ["before"]
        assert snapshots.frame("works", "t1")["value"].tolist() == ["after"]

    def test_remains_of_a_killed_run(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """What a killed run left half written, also one of an earlier version, is in nobody's way and goes; what is
        another tenant's stays."""
        write(snapshots, [self.BEFORE])
        others = ("t1.x", "t1+x", "t1-", "t10", "t")
        for tenant in ("t1", *others):
            leave_half(snapshots, tenant)
        for name in ("t1.part", "t1.old"):
            (tmp_path / "snapshots" / "works" / name).write_bytes(b"half")
        write(snapshots, [page([2], pa.array([5])), page([3], pa.array(["after"]))])
        assert snapshots.describe("works", "t1").rows == 2
        assert len(files(tmp_path)) == 1 + len(others)
        for tenant in others:
            write(snapshots, [], tenant=tenant)
        assert files(tmp_path) == sorted(snapshots.path("works", tenant).name for tenant in ("t1", *others))

    def test_two_writers_of_one_snapshot(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """Who lost the right to sync the tenant without knowing mixes nothing into the other's file, and publishes
        nothing: its own was taken for a dead writer's."""
        first = leave_half(snapshots, "t1")
        with snapshots.writer("works", "t1", complete=True) as second:
            second.write(page([2], pa.array(["second"])))
            first.write(page([3], pa.array(["first"])))
        with pytest.raises(OutputUnwritable):
            first.__exit__(None, None, None)
        assert snapshots.frame("works", "t1")["id"].tolist() == [2]
        assert files(tmp_path) == ["t1.parquet"]

    def test_a_damaged_file(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """A file that is no Parquet any more is a clear error, not a crash."""
        write(snapshots, [self.BEFORE])
        (tmp_path / "snapshots" / "works" / "t1.parquet").write_bytes(b"not parquet at all")
        with pytest.raises(SourceRejected, match=r"t1\.parquet is damaged: run its export again"):
            snapshots.describe("works", "t1")

    def test_a_flipped_bit_is_no_other_value(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """A file whose end is sound, with a value that is not what was written, is damaged as well."""
        write(snapshots, [page([1, 2], pa.array(["unmistakable", "another"]))])
        path = tmp_path / "snapshots" / "works" / "t1.parquet"
        path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistakablf"))
        for read in (snapshots.frame, lambda e, t: list(snapshots.pages(e, t, 10))):
            with pytest.raises(SourceRejected, match=r"t1\.parquet is damaged: run its export again"):
                read("works", "t1")

    def test_no_snapshot(self, snapshots: Snapshots) -> None:
        """Without an export there is nothing to read, and the error says what to run."""
        for read in (snapshots.describe, snapshots.frame, lambda e, t: list(snapshots.pages(e, t, 10))):
            with pytest.raises(SourceRejected, match="no snapshot of works for tenant t1: run its export first"):
                read("works", "t1")

    def test_unwritable(self, tmp_path: Path) -> None:
        """A folder that cannot be made is an error that names the file."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputUnwritable, match=r"the snapshot .*t1\.parquet cannot be written: "):
            write(Snapshots(tmp_path / "file"), [])

    def test_unwritable_later(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """A file that cannot be written any more, or not be published, is the same error."""
        (tmp_path / "snapshots" / "works" / "t1.part").mkdir(parents=True)
        with pytest.raises(OutputUnwritable):
            write(snapshots, [self.BEFORE])
        (tmp_path / "snapshots" / "works" / "t2.parquet" / "in the way").mkdir(parents=True)
        with pytest.raises(OutputUnwritable):
            write(snapshots, [self.BEFORE], tenant="t2")


class TestNames:
    TENANTS = (
        *("global", "t1", "T1", "a.b", "a/b", "a\\b", "../up", "..", ".", "con", "ž", "a b", "a%2Fb", "a:b?*", "-"),
        *("я" * 128, "я" * 127, "x" * 128, "X" * 128, "🦊" * 60),
    )

    def test_every_key_has_a_file_of_its_own(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """Any tenant's key makes a file below the entity's folder, which is no other tenant's."""
        for number, tenant in enumerate(self.TENANTS):
            write(snapshots, [page([number], pa.array([tenant]))], tenant=tenant)
        for number, tenant in enumerate(self.TENANTS):
            assert snapshots.frame("works", tenant)["id"].tolist() == [number]
            assert snapshots.path("works", tenant).parent == tmp_path / "snapshots" / "works"
        assert len(files(tmp_path)) == len(self.TENANTS)

    def test_names_on_other_systems(self, snapshots: Snapshots) -> None:
        """Names stay apart where letter case does not count, and are short and plain enough for any system."""
        names = [snapshots.path("works", tenant).name for tenant in self.TENANTS]
        assert len({name.lower() for name in names}) == len(names)
        assert all(len(name.encode()) <= 128 and name.isascii() and not set(name) & set('/\\:?*"<>|') for name in names)

    def test_usual_keys_are_readable(self, snapshots: Snapshots) -> None:
        """A UUID's file has the UUID's name."""
        key = "263e32b1-64d7-5b21-86e5-f6843ac5e632"
        assert snapshots.path("works", key).name == f"{key}.parquet"

    def test_drop(self, snapshots: Snapshots, tmp_path: Path) -> None:
        """A tenant that is gone leaves no file, what killed runs left of it neither; dropping it again is no error.
        Other tenants' files stay, whatever they are called."""
        for tenant in (*self.TENANTS, "t1.x", "t1.part", "t1+x", "t1-x", "t10"):
            write(snapshots, [page([1], pa.array([tenant]))], tenant=tenant)
            leave_half(snapshots, tenant)
        before = files(tmp_path)
        snapshots.drop("works", "t1")
        snapshots.drop("works", "t1")
        gone = [name for name in before if name not in files(tmp_path)]
        assert [name.partition("+")[0] for name in gone] == ["t1", "t1.parquet"]
