"""A run reads the stream it is told to: the source, or a snapshot; nothing that is live at the source is removed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vecsync_dagster.config import Config
from vecsync_dagster.errors import PartitionBusy, SourceRejected, StoreRejected
from vecsync_dagster.sources.base import Cursor, Read
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster_tests.world import ENTITY, World, retry_due

STORED_STAGES = ("documents", "embeddings", "vectors")


@pytest.fixture
def world(embedded_world: World) -> World:
    """Two tenants, of which everything is synced and kept as a snapshot."""
    embedded_world.insert({"id": n, "tenant_id": "acme" if n < 10 else "brick"} for n in (1, 2, 3, 4, 11))
    embedded_world.sync(mode="full")
    return embedded_world


def use(world: World, **settings: Any) -> None:
    data = world.config.model_dump(mode="json", exclude_unset=True)
    world.config = Config.model_validate({**data, **settings}).with_folder(world.config.folder)


def names(world: World) -> dict[str, str]:
    return {payload["dbId"]: payload["name"] for payload in world.stored().values()}


def test_a_run_by_ids_reads_the_source(world: World) -> None:
    """Under checks.max_invalid_share too: what was asked for is there in its new version, and nothing else changed."""
    use(world, checks={"max_invalid_share": 0.2, "min_invalid": 1})
    world.update(2, name="later")
    world.sync("acme")  # the last snapshot has record 2 alone
    world.update(1, name="changed")
    [result] = world.sync("acme", ids=("1",))
    assert (result.figures.fetched, result.figures.changed, result.figures.removed) == (1, 1, 0)
    world.assert_exact()


def test_a_retry_reads_the_source(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that failed is tried again, not removed, whatever the share of invalid records may be."""
    use(world, checks={"max_invalid_share": 0.2, "min_invalid": 1}, sync={"retry": {"base": "PT0S"}})
    world.insert([{"id": 5, "tenant_id": "acme", "name": "poison"}])
    with world.workspace() as workspace:
        refuse(workspace, monkeypatch, lambda point: point.payload["dbId"] == "5")
        [result] = workspace.sync(next(workspace.select([ENTITY], ["acme"])))
        assert result.figures.failed == 1
    monkeypatch.undo()
    world.sync("brick")
    world.update(2, name="later")
    world.sync("brick")
    with world.workspace() as workspace:
        [result] = retry_due(workspace, ENTITY)
    assert (result.figures.fetched, result.figures.upserted, result.figures.removed) == (1, 1, 0)
    world.sync()
    world.assert_exact()


def refuse(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, bad: Callable[[Any], bool]) -> None:
    store = workspace.store_of(ENTITY, ENTITY)
    upsert = store.upsert

    def refusing(collection: str, points: Any) -> None:
        if any(map(bad, points)):
            raise StoreRejected("no", service="store")
        upsert(collection, points)

    monkeypatch.setattr(store, "upsert", refusing)


def test_a_run_by_ids_without_export_asks_the_source(world: World) -> None:
    """Whatever the stages: a snapshot that does not have the record is no reason to remove it."""
    world.insert([{"id": 5, "tenant_id": "acme"}])
    world.sync("acme", ids=("5",))
    [result] = world.sync("acme", ids=("5",), stages=STORED_STAGES)
    assert (result.figures.fetched, result.figures.removed) == (1, 0)
    world.assert_exact()


@pytest.mark.parametrize("bounds", [{"limit": 1}, {"offset": 1}, {"limit": 1, "offset": 2}, {"limit": 0}])
def test_a_limited_run_by_ids_removes_nothing(world: World, bounds: dict[str, Any]) -> None:
    """What lies beyond the limit was not looked for."""
    [result] = world.sync("acme", ids=("1", "2", "3"), **bounds)
    assert result.figures.removed == 0
    world.assert_exact()


def test_a_limit_bounds_a_snapshot_too(world: World) -> None:
    """A limited run without the export takes so many of the snapshot's records, and removes nothing."""
    world.insert([{"id": 5, "tenant_id": "acme"}])
    world.sync("acme", ids=("5",))
    use(world, sync={"page": 2})
    for limit, offset, fetched in ((3, 0, 3), (2, 1, 2), (None, 3, 1), (0, 0, 0), (9, 9, 0)):
        [result] = world.sync("acme", stages=STORED_STAGES, limit=limit, offset=offset)
        assert (result.mode, result.figures.fetched, result.figures.removed) == ("partial", fetched, 0)
    world.assert_exact()


def test_an_old_snapshot_removes_nothing_that_is_live(world: World) -> None:
    """What it does not have was written after it: the source is asked, and only what is gone there is removed."""
    world.insert([{"id": 5, "tenant_id": "acme"}])
    world.sync("acme", ids=("5",))
    [result] = world.sync("acme", stages=STORED_STAGES)
    assert (result.ok, result.figures.removed) == (True, 0)
    world.assert_exact()
    world.delete(5)
    [result] = world.sync("acme", stages=STORED_STAGES)
    assert (result.ok, result.figures.removed) == (True, 1)
    world.assert_exact()


def test_a_tombstone_of_an_old_snapshot_is_asked_about(world: World) -> None:
    """A record that was deleted then, and has come back since, stays."""
    world.update(1, deleted_at=world.now.isoformat())
    world.sync("acme", stages=("export",))
    world.update(1, deleted_at=None)
    [result] = world.sync("acme", stages=STORED_STAGES)
    assert result.figures.removed == 0
    assert set(names(world)) == {"1", "2", "3", "4", "11"}
    world.update(2, deleted_at=world.now.isoformat())
    world.sync("acme", stages=("export",))
    [result] = world.sync("acme", stages=STORED_STAGES)
    assert result.figures.removed == 1
    world.assert_exact()


@pytest.mark.parametrize("elsewhere", [{"tenant_id": "brick"}, {"tenant_id": None, "is_global": True}])
def test_what_moved_since_a_snapshot_stays_where_it_is(world: World, elsewhere: dict[str, Any]) -> None:
    """A record of an old snapshot that another tenant has by now is not taken from there."""
    world.update(1, **elsewhere)
    world.sync("brick", "global")
    world.assert_exact()
    world.sync("acme", stages=STORED_STAGES)
    world.assert_exact()
    world.sync(mode="full")
    world.assert_exact()


def test_a_snapshot_of_other_settings_is_refused(world: World) -> None:
    """Another filter has other records: the export is to be run again, and nothing was removed."""
    before = world.stored()
    entities = world.config.model_dump(mode="json", exclude_unset=True)["entities"]
    use(world, entities={ENTITY: {**entities[ENTITY], "filter": {"unit": "шт"}}})
    [result] = world.sync("acme", stages=STORED_STAGES)
    assert isinstance(result.error, SourceRejected)
    assert "was made under other settings: run its export again" in str(result.error)
    assert world.stored() == before
    assert world.sync("acme", stages=("export",))[0].ok
    assert world.sync("acme", stages=STORED_STAGES)[0].ok


def test_a_checked_run_reads_the_snapshot_it_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another run has replaced it meanwhile, the run fails rather than take that one's records for its own."""
    use(world, checks={"max_invalid_share": 0.2})
    world.update(1, name="changed")
    with world.workspace() as workspace:
        pages = workspace.snapshots.pages

        def replaced(*args: Any, **kwargs: Any) -> Any:
            with workspace.snapshots.writer(ENTITY, "acme", complete=True, made_by="another"):
                pass
            return pages(*args, **kwargs)

        monkeypatch.setattr(workspace.snapshots, "pages", replaced)
        [result] = workspace.sync(next(workspace.select([ENTITY], ["acme"])), SyncOptions(mode="full"))
    assert isinstance(result.error, PartitionBusy)
    assert result.figures.removed == 0
    assert len(world.stored()) == 5


def test_a_snapshot_that_began_elsewhere_moves_no_watermark(world: World) -> None:
    """A partition that has not come as far as the snapshot's read began still misses what lies between."""
    with world.workspace() as workspace:
        before = workspace.ledger.watermark(ENTITY, ENTITY, "acme", world.config.entities[ENTITY].fingerprint(ENTITY))
    world.update(1, name="first")
    world.sync("acme")
    world.update(2, name="second")
    world.sync("acme", stages=("export",))
    with world.workspace() as workspace:
        assert before is not None
        settings = world.config.entities[ENTITY].fingerprint(ENTITY)
        workspace.ledger.set_watermark(ENTITY, ENTITY, "acme", before, settings)
        world._open = workspace
        world.sync("acme", stages=STORED_STAGES)
        world._open = None
        assert workspace.ledger.watermark(ENTITY, ENTITY, "acme", settings) == before


def test_an_old_format_of_snapshots_is_read(world: World) -> None:
    """A snapshot of the version before says neither who made it nor since when; it is read all the same."""
    with (
        world.workspace() as workspace,
        workspace.snapshots.writer(ENTITY, "acme", complete=True) as writer,
    ):
        for page in workspace.source(ENTITY).read(Read("acme")):
            writer.write(page)
    assert world.sync("acme", stages=STORED_STAGES)[0].ok
    world.assert_exact()


def test_a_collection_that_goes_to_another_store_and_back_is_read_whole(world: World) -> None:
    """Each store ends as the source, whatever happened while the collection was in the other one; nothing is embedded
    for it."""
    stores = world.config.model_dump(mode="json", exclude_unset=True)["stores"]
    use(world, stores={**stores, "other": {"type": "qdrant", "path": "other"}})
    for number, store in enumerate(("other", "main")):
        world.update(2, name=f"new {number}")
        world.delete(3 + number)
        entities = world.config.model_dump(mode="json", exclude_unset=True)["entities"]
        entities[ENTITY]["collections"][ENTITY]["store"] = store
        use(world, entities=entities)
        results = world.sync(mode="incremental")
        assert all(result.ok for result in results)
        assert sum(result.figures.embedded for result in results) == 1
        world.assert_exact()


def test_a_watermark_ahead_of_the_clock_is_none(world: World) -> None:
    """The source's clock was days ahead for a while: the first run after it was set right reads all, and says why; the
    next one goes on from now, though there are rows that are dated ahead."""
    now = datetime.now(UTC)
    world.now = now + timedelta(days=3)
    world.insert({"id": n, "tenant_id": "acme"} for n in (21, 22))
    world.sync("acme")
    settings = world.config.entities[ENTITY].fingerprint(ENTITY)
    with world.workspace() as workspace:
        ahead = Cursor((now + timedelta(days=3)).isoformat(), "2")
        workspace.ledger.set_watermark(ENTITY, ENTITY, "acme", ahead, settings)
    world.now = now - timedelta(hours=1)
    world.update(21, name="changed since")
    [first] = world.sync("acme", mode="incremental")
    assert (first.ok, first.figures.changed, first.mode) == (True, 1, "full")
    assert "the source's clock is not there yet" in first.note
    [second] = world.sync("acme", mode="incremental")
    assert (second.ok, second.mode, second.note) == (True, "incremental", "")
    world.assert_exact()
