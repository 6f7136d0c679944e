"""Exports that break, clocks that lie and rows that vanish, seen through a whole sync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from vecsync_dagster.errors import SourceUnavailable
from vecsync_dagster.ledger import SqlLedger, ledger_url
from vecsync_dagster.sources.base import Cursor, Page, Read, Source
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, SyncOptions
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World

PAGE = 10


class Breaking:
    """A source whose reads break after some pages, and which is real otherwise."""

    def __init__(self, source: Source, pages: int) -> None:
        self._source, self._pages = source, pages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        for number, part in enumerate(self._source.read(what, page)):
            if number == self._pages:
                raise SourceUnavailable("the database is away")
            yield part


@pytest.fixture
def paged(world: World) -> World:
    """A world whose exports have several pages."""
    world.config = world.config.model_copy(
        update={"sync": world.config.sync.model_copy(update={"page": PAGE, "batch": PAGE})}
    )
    return world


def sync_breaking(world: World, pages: int, **options: Any) -> PartitionResult:
    with world.workspace() as workspace:
        workspace._sources[ENTITY] = Breaking(workspace.source(ENTITY), pages)
        [selection] = workspace.select([ENTITY], ["acme"])
        [result] = workspace.sync(selection, SyncOptions(**options))
    return result


def test_what_came_before_an_export_broke_is_written(paged: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what still waits behind a slow store when the export breaks."""
    seed(paged, {"acme": 5 * PAGE})
    broken = threading.Event()

    class BreakingAloud(Breaking):
        def read(self, what: Read, page: int = 500) -> Iterator[Page]:
            try:
                yield from super().read(what, page)
            except SourceUnavailable:
                broken.set()
                raise

    with paged.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        real = store.upsert

        def upsert(*arguments: Any) -> None:
            assert broken.wait(30)
            real(*arguments)

        monkeypatch.setattr(store, "upsert", upsert)
        workspace._sources[ENTITY] = BreakingAloud(workspace.source(ENTITY), 4)
        [selection] = workspace.select([ENTITY], ["acme"])
        [result] = workspace.sync(selection, SyncOptions(mode="full"))
        assert store.count(ENTITY, "acme") == 4 * PAGE
    assert (result.outcome, result.figures.upserted, result.figures.fetched) == ("failed", 4 * PAGE, 4 * PAGE)


def kept(world: World) -> tuple[Cursor | None, bytes]:
    """What only a complete export may change: the watermark and the snapshot."""
    with world.workspace() as workspace:
        watermark = workspace.ledger.watermark(ENTITY, ENTITY, "acme")
        return watermark, workspace.snapshots.path(ENTITY, "acme").read_bytes()


# -- fault 11: an export that breaks -------------------------------------------------------------------
@pytest.mark.in_turn
@pytest.mark.parametrize("pages", [0, 2])
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_fault_11_an_export_that_breaks_removes_nothing(paged: World, mode: str, pages: int) -> None:
    """Nothing is removed, the watermark stays, the snapshot is the one of before; the next run makes it right."""
    seed(paged, {"acme": 40})
    paged.sync()
    before = kept(paged)
    paged.update(*range(1, 31), code="neu")
    paged.delete(38)
    result = sync_breaking(paged, pages, mode=mode)
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "SOURCE_UNAVAILABLE"
    assert result.figures.removed == 0
    assert bool(result.figures.payload_only) == bool(pages)  # what came before the break was written
    assert len(paged.stored()) == 40
    assert kept(paged) == before
    assert one(paged.sync(mode="full"), "acme").figures.removed == 1
    paged.assert_exact()


def test_fault_11_a_connection_cut_by_the_server_removes_nothing(paged: World) -> None:
    """PostgreSQL ends the reading connection in mid-stream: a failed run, and nothing is lost."""
    if paged.engine.dialect.name == "sqlite":
        pytest.skip("a file has no connection to cut")
    seed(paged, {"acme": 40})
    paged.sync()
    before = kept(paged)
    paged.delete(1, 2)
    url = paged.source_url.replace("+psycopg", "")

    def cut(_: object) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'FETCH%'"
            )

    with paged.workspace() as workspace:
        [selection] = workspace.select([ENTITY], ["acme"])
        [result] = workspace.sync(selection, SyncOptions(mode="full"), progress=cut)
    assert result.error is not None
    assert result.error.code == "SOURCE_UNAVAILABLE"
    assert (result.figures.removed, len(paged.stored())) == (0, 40)
    assert kept(paged) == before
    assert one(paged.sync(mode="full"), "acme").figures.removed == 2
    paged.assert_exact()


# -- fault 13: times that are equal, late, or go backwards ---------------------------------------------
def set_time(world: World, time: datetime, *ids: int, **values: Any) -> None:
    """Change rows, dated as the test says."""
    world.now = time - timedelta(seconds=1)  # the world's clock ticks before each write
    world.update(*ids, **values)


def without_overlap(world: World) -> None:
    works = world.config.entities[ENTITY].model_copy(update={"overlap": timedelta(0)})
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})


def test_fault_13_rows_dated_like_the_watermark_are_found(world: World) -> None:
    """Rows with the very time of the last row that was read are read, even without any overlap."""
    without_overlap(world)
    seed(world, {"acme": 5})
    world.sync()
    now = world.now
    set_time(world, now, 1, 2, name="в ту же секунду")
    assert one(world.sync(mode="incremental"), "acme").figures.changed == 2
    world.assert_exact()
    set_time(world, now, 3, name="и ещё раз")
    assert one(world.sync(mode="incremental"), "acme").figures.changed == 1
    world.assert_exact()


def test_fault_13_a_transaction_that_commits_late_is_found(world: World) -> None:
    """One connection writes first and commits last; between the two another's later row was synced."""
    if world.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time: no transaction commits after a later one")
    seed(world, {"acme": 3})
    world.sync()
    url = world.source_url.replace("+psycopg", "")
    insert = (
        "INSERT INTO works (id, name, unit, tenant_id, is_global, updated_at) VALUES (%s, %s, 'm', 'acme', false, %s)"
    )
    with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
        slow.execute(insert, (101, "slow", world.now + timedelta(seconds=1)))
        quick.execute(insert, (102, "quick", world.now + timedelta(seconds=2)))
        quick.commit()
        assert one(world.sync(mode="incremental"), "acme").figures.new == 1
        slow.commit()
    assert one(world.sync(mode="incremental"), "acme").figures.new == 1
    world.assert_exact()


def test_fault_13_a_source_whose_clock_goes_backwards(world: World) -> None:
    """A row dated before the watermark is found within the overlap at once, and beyond it by the full run."""
    seed(world, {"acme": 5})
    world.sync()
    watermark = world.now
    set_time(world, watermark - timedelta(minutes=9), 1, name="немного раньше")
    assert one(world.sync(mode="incremental"), "acme").figures.changed == 1
    world.assert_exact()
    set_time(world, watermark - timedelta(hours=2), 2, name="намного раньше")
    assert one(world.sync(mode="incremental"), "acme").figures.changed == 0
    assert one(world.sync(mode="full"), "acme").figures.changed == 1
    world.assert_exact()


def stopped(at: datetime) -> Callable[[], datetime]:
    return lambda: at


def test_fault_13_our_own_clock_goes_backwards(world: World) -> None:
    """A machine whose clock was put back neither takes seen rows for gone nor gone rows for seen."""
    seed(world, {GLOBAL: 3, "acme": 12})
    world.sync()
    url = ledger_url(world.config.ledger, state_folder=world.config.state_folder)
    for hours in (1, 2, 48):
        world.delete(1000 + hours)
        world.update(1000 + 3 + hours % 5, code=f"W-{hours}")
        past = datetime.now(UTC) - timedelta(hours=hours)
        with world.workspace() as workspace:
            workspace.__dict__["ledger"] = SqlLedger.open(url, clock=stopped(past))
            [selection] = workspace.select([ENTITY], ["acme"])
            [result] = workspace.sync(selection, SyncOptions(mode="full"))
        assert result.ok
        assert (result.figures.removed, result.figures.payload_only) == (int(hours < 10), 1)
        world.assert_exact()


# -- fault 14: a delete that leaves no row -------------------------------------------------------------
def test_fault_14_a_deleted_row_is_found_by_the_full_run(world: World) -> None:
    """No timestamp tells of a row that is gone: incremental runs keep it and say that counts differ, a full run
    removes it."""
    seed(world, {"acme": 6, "brick": 2})
    world.sync()
    world.delete(2)
    result = one(world.sync(mode="incremental"), "acme")
    assert (result.figures.removed, len(world.stored())) == (0, 8)
    [counts] = [check for check in result.checks if check.name == "counts"]
    assert (counts.passed, counts.warning) == (False, True)
    assert one(world.sync(mode="full"), "acme").figures.removed == 1
    world.assert_exact()


def test_fault_14_a_tombstone_is_enough_for_an_incremental_run(world: World) -> None:
    """A row that is marked as deleted goes at once, whether or not its modification was dated too."""
    seed(world, {"acme": 6})
    world.sync()

    def moment() -> Any:
        return world.now.isoformat() if world.engine.dialect.name == "sqlite" else world.now

    world.update(1, deleted_at=moment())
    assert one(world.sync(mode="incremental"), "acme").figures.removed == 1
    world.assert_exact()
    world.now -= timedelta(days=30)
    old = world.now
    world.now += timedelta(days=30)
    deleted_at = moment()
    world.now = old
    world.update(2, deleted_at=deleted_at)  # dated a month back, deleted now
    assert one(world.sync(mode="incremental"), "acme").figures.removed == 1
    world.assert_exact()
