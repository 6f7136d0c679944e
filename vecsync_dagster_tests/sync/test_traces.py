"""A tenant whose last document goes while the source still lists it, and which leaves the source only then: it must not
leave its snapshot, its rejected records, its vectors or any row of the ledger for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.tables import alert, embedding_cache, metadata, sync_run
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Selection, SyncOptions
from vecsync_dagster.sync.health import health
from vecsync_dagster.sync.watching import Watch
from vecsync_dagster_tests.ledger.samples import DAY
from vecsync_dagster_tests.sync.failing_services import befall
from vecsync_dagster_tests.sync.test_absence import deletion
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.sync.test_watching import QUICK, use, watch
from vecsync_dagster_tests.world import ENTITY, World

BRICK = (1001, 1002, 1003)


def left_of(world: World, tenant: str = "brick") -> set[str]:
    """Where something of the tenant is: tables of the ledger but for the history, and files."""
    with world.workspace() as workspace:
        found = {"snapshot"} if workspace.snapshots.path(ENTITY, tenant).exists() else set()
        with workspace.ledger.database.read() as connection:
            for table in set(metadata.tables.values()) - {sync_run, alert}:
                if (
                    "tenant_id" in table.c
                    and connection.execute(sa.select(table).where(table.c.tenant_id == tenant)).first()
                ):
                    found.add(table.name)
        files = workspace.config.state_folder.glob("invalid_records.jsonl*")
        return found | {file.name for file in files if f'"{tenant}"' in file.read_text(encoding="utf-8")}


def vectors(world: World) -> int:
    with world.workspace() as workspace, workspace.ledger.database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(embedding_cache)) or 0


def overdue(world: World) -> int:
    with world.workspace() as workspace:
        in_a_week = datetime.now(UTC) + 7 * DAY
        return int(health(world.config, workspace.ledger.last_runs(), in_a_week)["overdue"])


def mark_deleted(world: World) -> None:
    world.update(*BRICK, deleted_at=deletion(world))
    world.sync(mode="incremental")
    world.delete(*BRICK)


def ask_by_id(world: World) -> None:
    """One after the other: the first ones are removed while there is another one."""
    world.delete(*BRICK)
    for identity in BRICK:
        world.sync("brick", ids=(str(identity),), allow_removals=True)


def reject_before(world: World) -> None:
    """Deleted one by one are those that the store has; those that were never valid go with the tenant."""
    world.update(1001, 1003, deleted_at=deletion(world))
    world.sync(mode="incremental")
    world.delete(*BRICK)


@pytest.mark.parametrize("go", [mark_deleted, ask_by_id, reject_before])
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_tenant_that_left_after_its_documents_leaves_nothing(
    world: World, go: Callable[[World], None], mode: Any
) -> None:
    """By whichever run: what a run of all tenants finds of it goes, and the next one does not visit it any more."""
    seed(world, {"acme": 4, "brick": 3, "cord": 1, GLOBAL: 1})
    world.update(1002, name=None)
    world.sync(mode="full")
    go(world)
    assert {"snapshot", "watermark", "source_state", "check_result", "invalid_record"} <= left_of(world)
    world.sync(mode=mode)
    world.wait()
    world.sync(mode=mode)
    assert left_of(world) == set()
    assert {result.tenant for result in world.sync(mode=mode)} == {GLOBAL, "acme", "cord"}
    world.assert_exact()
    assert vectors(world) == len(world.stored())


def test_a_tenant_that_is_forgotten_is_not_overdue(embedded_world: World) -> None:
    """Also where only incremental runs came after its documents were gone."""
    world = embedded_world
    seed(world, {"acme": 4, "brick": 3})
    world.sync(mode="full")
    mark_deleted(world)
    assert overdue(world) == 3
    world.sync(mode="incremental")
    assert overdue(world) == 2


def test_a_tenant_whose_removal_waits_is_overdue(embedded_world: World) -> None:
    """As long as its documents are there: if the second look never comes, somebody must hear of it."""
    world = embedded_world
    seed(world, {"acme": 4, "brick": 3})
    world.sync(mode="full")
    world.delete(*BRICK)
    assert one(world.sync(mode="full"), "brick").figures.removals_waiting == 3
    assert overdue(world) == 3
    world.wait()
    assert one(world.sync(mode="full"), "brick").figures.removed == 3
    assert overdue(world) == 2


def test_a_tenant_of_rejected_records_without_ids_leaves_nothing(embedded_world: World) -> None:
    """The ledger never had a row of it."""
    world = embedded_world
    data = world.config.model_dump(mode="json", exclude_unset=True)
    use(world, entities={ENTITY: {**data["entities"][ENTITY], "id": "code"}})
    world.insert([{"id": 1, "code": "a", "tenant_id": "acme"}, {"id": 2, "code": None, "tenant_id": "brick"}])
    world.sync(mode="full")
    assert {"invalid_record", "invalid_records.jsonl", "snapshot"} <= left_of(world)
    world.delete(2)
    world.sync(mode="full")
    assert left_of(world) == set()


def test_a_snapshot_alone_is_found(embedded_world: World) -> None:
    """Of a tenant that was only ever exported: the ledger has no more than the history of it."""
    world = embedded_world
    seed(world, {"acme": 2, "Brick & Co.": 3})
    world.sync("acme")
    world.sync("Brick & Co.", stages=("export",))
    world.delete(*BRICK)
    assert left_of(world, "Brick & Co.") == {"snapshot"}
    world.sync()
    assert left_of(world, "Brick & Co.") == set()
    assert {result.tenant for result in world.sync()} == {GLOBAL, "acme"}


def test_a_vector_that_somebody_needs_stays(world: World) -> None:
    """And one of a deleted document of a tenant that is still there stays, as its text may come back."""
    seed(world, {"acme": 1, "brick": 3})
    world.update(1, name="Same")
    world.update(1001, name="Same")
    world.sync(mode="full")
    world.update(*BRICK[:2], deleted_at=deletion(world))
    world.sync(mode="incremental")
    assert vectors(world) == 3
    world.update(1002, deleted_at=None)
    assert sum(result.figures.embedded for result in world.sync(mode="incremental")) == 0
    mark_deleted(world)
    assert vectors(world) == 3
    world.sync(mode="full")
    assert (vectors(world), left_of(world)) == (1, set())
    world.assert_exact()


def test_a_vector_that_two_tenants_left_goes_with_the_last_of_them(world: World) -> None:
    """Both may need it again, as long as they are there."""
    seed(world, {"acme": 2, "brick": 2})
    world.update(1, name="Same")
    world.update(1001, name="Same")
    world.sync(mode="full")
    assert vectors(world) == 3
    world.update(1, 1001, deleted_at=deletion(world))
    world.sync(mode="incremental")
    world.update(1002, deleted_at=deletion(world))
    world.sync(mode="incremental")
    world.delete(1001, 1002)
    world.sync(mode="full", allow_removals=True)
    assert left_of(world) == set()
    world.update(1, deleted_at=None)
    assert sum(result.figures.embedded for result in world.sync(mode="incremental")) == 0
    world.assert_exact()


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_what_moved_and_was_deleted_at_once_leaves_its_former_tenant(world: World, mode: Any, listed: bool) -> None:
    """Also where nobody ever read its new one, which has no live row, however that is run."""
    seed(world, {"acme": 3})
    world.sync(mode="full")
    world.update(2, tenant_id="cord", deleted_at=deletion(world))
    with world.workspace() as workspace:
        if listed:
            assert "cord" not in workspace.tenants(ENTITY)
        [result] = workspace.sync(Selection(ENTITY, "cord", (ENTITY,)), SyncOptions(mode=mode))
    assert (result.outcome, result.figures.removed) == ("success", 1)
    assert len(world.stored()) == 2
    world.sync(mode="incremental")
    world.assert_exact()


def test_a_tenant_that_comes_back_is_new(world: World) -> None:
    """After all of it was forgotten, and also where it comes back before that."""
    seed(world, {"acme": 1, "brick": 3})
    world.sync(mode="full")
    rows = [row for row in world.rows() if row["tenant_id"] == "brick"]
    for forgotten in (True, False):
        mark_deleted(world)
        if forgotten:
            world.sync(mode="full")
            assert left_of(world) == set()
        world.insert(rows)
        assert sum(result.figures.upserted for result in world.sync(mode="incremental")) == 3
        world.assert_exact()


def test_what_was_cut_short_is_found_again(embedded_world: World) -> None:
    """Wherever the forgetting ends, what is left names the tenant, and the next run does the rest."""
    world = embedded_world
    seed(world, {"acme": 1, "brick": 3})

    def die() -> None:
        raise KeyboardInterrupt

    for method in ("forget_rejected", "drop_partition", "forget_tenant_names", "found"):
        if method != "forget_rejected":
            world.insert({"id": n, "tenant_id": "brick"} for n in BRICK)
        world.update(1002, name=None)
        world.sync(mode="full")
        mark_deleted(world)
        with world.kept_open() as workspace:
            workspace.ledger.miss(ENTITY, ["brick"])
            befall(workspace.ledger, method, die)
            with pytest.raises(KeyboardInterrupt):
                world.sync(mode="full")
        world.sync(mode="full")
        assert left_of(world) == set()


def in_two_collections(world: World) -> EntityConfig:
    """Synced to both, and then brick's records were deleted. Returns the entity as it is with one of them."""
    works = world.config.entities[ENTITY]
    both = works.model_copy(update={"collections": {ENTITY: works.collections[ENTITY], "b": works.collections[ENTITY]}})
    world.config = world.config.model_copy(update={"entities": {ENTITY: both}})
    seed(world, {"acme": 1, "brick": 3})
    world.sync(mode="full")
    mark_deleted(world)
    return works


def test_one_collection_leaves_the_other_s_traces(embedded_world: World) -> None:
    """A run of one of them says nothing of when the other one was synced: that is found by the next run."""
    world = embedded_world
    in_two_collections(world)
    world.sync(mode="full", collections=["b"])
    assert {"watermark", "source_state"} <= left_of(world)
    world.sync(mode="full", collections=[ENTITY])
    assert left_of(world) == set()


def test_a_collection_that_left_the_configuration_keeps_no_tenant(embedded_world: World) -> None:
    """What was noted of the tenant there goes with it: its documents there are none."""
    world = embedded_world
    works = in_two_collections(world)
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})
    world.sync(mode="full")
    assert left_of(world) == set()


def test_documents_in_a_collection_that_left_keep_no_tenant(embedded_world: World) -> None:
    """Nor does a run into it that failed: no run can do anything about them. Their rows stay for whoever drops it."""
    world = embedded_world
    works = world.config.entities[ENTITY]
    both = works.model_copy(update={"collections": {ENTITY: works.collections[ENTITY], "b": works.collections[ENTITY]}})
    world.config = world.config.model_copy(update={"entities": {ENTITY: both}})
    seed(world, {"acme": 1, "brick": 3})
    world.sync(mode="full")
    with world.workspace() as workspace:
        ledger, now = workspace.ledger, datetime.now(UTC)
        ledger.begin_writing(ENTITY, "b", "brick", "killed")
        ledger.record_run(Run("killed", ENTITY, "b", "brick", "full", "failed", now, now))
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})
    world.delete(*BRICK)
    world.sync(mode="full", allow_removals=True)
    assert left_of(world) == {"index_state", "unfinished_run"}
    assert {result.tenant for result in world.sync(mode="full")} == {GLOBAL, "acme"}


def test_documents_in_a_collection_that_left_make_no_source_broken(embedded_world: World) -> None:
    """Tenants that have some there alone are none that the source has lost."""
    world = embedded_world
    works = world.config.entities[ENTITY]
    both = works.model_copy(update={"collections": {ENTITY: works.collections[ENTITY], "b": works.collections[ENTITY]}})
    world.config = world.config.model_copy(update={"entities": {ENTITY: both}})
    seed(world, {"acme": 1, "brick": 3, "cord": 1})
    world.sync(mode="full")
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})
    world.delete(1, *BRICK)
    for tenant in ("acme", "brick"):
        world.sync(tenant, mode="full", allow_removals=True)
    with world.workspace() as workspace:
        assert workspace.believable_tenants(ENTITY) == ([GLOBAL, "cord"], None)
    world.delete(2001)
    world.sync(mode="full", allow_removals=True)
    world.assert_exact()


def test_a_dry_run_forgets_nothing(embedded_world: World) -> None:
    """Nor does one of a few records."""
    world = embedded_world
    seed(world, {"acme": 1, "brick": 3})
    world.sync(mode="full")
    mark_deleted(world)
    before = left_of(world)
    for options in ({"dry_run": True}, {"limit": 1}, {"ids": ("1",)}):
        world.sync(**options)
    assert left_of(world) == before


def test_whoever_watches_forgets_it_too(embedded_world: World) -> None:
    """By two looks of its own, as a tenant that has documents."""
    world = embedded_world
    seed(world, {"acme": 4, "brick": 3})
    use(world, automation=QUICK)
    world.sync(mode="full")
    mark_deleted(world)
    [found] = watch(world.config, lambda rounds: len(rounds) == 1)
    assert [(one.tenant, one.mode, one.ok) for one in found.results] == [("brick", "full", True)]
    assert left_of(world) == set()
    world.assert_exact()


def test_whoever_watches_waits(embedded_world: World) -> None:
    """As long as a tenant must be missing."""
    world = embedded_world
    seed(world, {"acme": 4, "brick": 3})
    use(world, automation={"watch": QUICK["watch"], "tenants": {"missing_for": 900}})
    world.sync(mode="full")
    mark_deleted(world)
    before = left_of(world)
    looks: list[int] = []

    def look() -> None:
        with world.workspace() as workspace:
            looks.append(sum(one.looks for one in workspace.ledger.missing(ENTITY).values()))

    end = datetime.now(UTC) + timedelta(seconds=60)
    Watch(
        world.config,
        [ENTITY],
        (),
        stop=lambda: max(looks, default=0) > 1 or datetime.now(UTC) > end,
        done=lambda *_: None,
        rest=look,
    ).run()
    assert left_of(world) == {*before, "missing_tenant"}
