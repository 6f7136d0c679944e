"""Records that get another owner, and are rejected or fail there in the same change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from vecsync_dagster.config.models import RetryConfig, SyncConfig
from vecsync_dagster.ledger.base import LastRuns, Partition
from vecsync_dagster.sources.base import Page, Read
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import SyncOptions, Workspace, due_rows
from vecsync_dagster_tests.sync.failing_services import Services
from vecsync_dagster_tests.world import ENTITY, WORKS, World, config_of, retry_due

OWNERS: dict[str, dict[str, Any]] = {
    "acme": {"tenant_id": "acme", "is_global": False},
    "brick": {"tenant_id": "brick", "is_global": False},
    GLOBAL: {"tenant_id": None, "is_global": True},
}
MOVES = [("acme", "brick"), (GLOBAL, "brick"), ("acme", GLOBAL)]
"""Of each pair of records 1 and 2, 3 and 4, 5 and 6: the first is rejected, the text of the second fails."""
DUE = {"2": "brick", "4": "brick", "6": GLOBAL}
INVALID = {"1": "brick", "3": "brick", "5": GLOBAL}
MOVED = DUE.keys() | INVALID.keys()
INCREMENTAL: dict[str, Any] = {"mode": "incremental"}


@pytest.fixture
def moved(services: Services) -> World:
    world, services.provider.rejects = services.world, "FORBIDDEN"
    world.config = world.config.model_copy(update={"sync": SyncConfig(retry=RetryConfig(base=timedelta(0)))})
    world.insert({"id": n, **whose} for n, whose in enumerate(OWNERS.values(), 11))
    for n, (first, _) in enumerate(MOVES):
        world.insert({"id": number, **OWNERS[first]} for number in (2 * n + 1, 2 * n + 2))
    world.sync(mode="full")
    for n, (_, then) in enumerate(MOVES):
        world.update(2 * n + 1, **OWNERS[then], unit=None)
        world.update(2 * n + 2, **OWNERS[then], name=f"FORBIDDEN {n}")
    return world


def held(world: World) -> set[str]:
    return MOVED & {payload["dbId"] for payload in world.stored().values()}


def due(world: World) -> dict[str, str]:
    with world.workspace() as workspace:
        return {row.db_id: row.tenant for row in due_rows(workspace, ENTITY)}


def invalid(world: World) -> dict[str | None, str]:
    places: dict[Partition, LastRuns | None] = {Partition(ENTITY, ENTITY, one): None for one in OWNERS}
    with world.workspace() as workspace:
        return {one.id: one.tenant for one in workspace.ledger.invalid(places)}


@pytest.mark.parametrize(
    ("services", "kind"),
    [
        ("local", INCREMENTAL),
        ("remote", INCREMENTAL),
        ("local", {"mode": "full"}),
        ("local", {"ids": tuple(sorted(MOVED))}),
    ],
    indirect=["services"],
    ids=str,
)
def test_what_moved_is_its_former_owners_no_more(moved: World, services: Services, kind: dict[str, Any]) -> None:
    """One run of the new owner removes what the former one has of records that are rejected or fail here; they are the
    new owner's to retry and to put right, and end there."""
    world = moved
    with world.kept_open() as workspace:
        figures = [result.figures for result in world.sync("brick", GLOBAL, **kind)]
        assert (sum(one.removed for one in figures), held(world)) == (6, set())
        assert (due(world), invalid(world)) == (DUE, INVALID)
        world.sync("acme", mode="full")
        assert (due(world), invalid(world)) == (DUE, INVALID)
        services.provider.rejects = ""
        assert sum(result.figures.upserted for result in retry_due(workspace, ENTITY)) == len(DUE)
        world.update(1, 3, 5, unit="шт")
        world.sync(**INCREMENTAL)
        world.assert_exact()


@pytest.mark.parametrize("services", ["local", "remote"], indirect=True)
def test_what_moved_and_was_deleted_leaves_its_former_owner(services: Services) -> None:
    """The incremental run that sees the deletion removes the document from the partition that has it, unless its owner
    has a live record of this id."""
    world = services.world
    world.insert({"id": n, **whose} for n, whose in enumerate(OWNERS.values(), 11))
    for n, (first, _) in enumerate(MOVES, 1):
        world.insert([{"id": n, **OWNERS[first]}])
    world.sync(mode="full")
    for n, (_, then) in enumerate(MOVES, 1):
        world.update(n, **OWNERS[then], deleted_at=world.now)
    with world.kept_open():
        plan = world.sync("brick", GLOBAL, **INCREMENTAL, dry_run=True)
        assert sum(result.figures.removed for result in plan) == 0
        results = world.sync("brick", GLOBAL, **INCREMENTAL)
        assert sum(result.figures.removed for result in results) == len(MOVES)
        world.assert_exact()
        assert sum(result.figures.removed for result in world.sync(mode="full")) == 0


@pytest.mark.parametrize("then", ["deleted", "filtered"])
def test_what_went_where_nothing_was_synced_leaves_its_former_owner_too(world: World, then: str) -> None:
    """The first run of a partition reads what is live, and finds what moved there and was deleted, or kept out by the
    filter, in the same change. Where it has nothing else, the next run goes on from there."""
    entity = world.config.entities[ENTITY].model_copy(update={"filter": {"price": ("1",)}})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    world.insert({"id": n, **OWNERS["acme"], "price": "1"} for n in (1, 2, 3))
    world.sync(mode="full")
    gone = {"deleted_at": world._moment()} if then == "deleted" else {"price": "2"}
    world.update(1, **OWNERS["brick"], **gone)
    world.update(2, **OWNERS[GLOBAL], **gone)
    world.insert([{"id": 4, **OWNERS["brick"], "price": "1"}])
    with world.kept_open() as workspace:
        results = world.sync(GLOBAL, "brick", "acme", **INCREMENTAL)
        assert [result.figures.removed for result in results] == [1, 1, 0]
        assert {payload["dbId"] for payload in world.stored().values()} == {"3", "4"}
        settings = entity.synced_as(ENTITY)
        assert workspace.ledger.watermark(ENTITY, ENTITY, GLOBAL, settings) is not None
        assert {result.mode for result in world.sync(GLOBAL, "brick", **INCREMENTAL)} == {"incremental"}


@pytest.mark.parametrize("services", ["local"], indirect=True)
def test_in_an_outage_too(moved: World, services: Services) -> None:
    """Where the provider is away, what moved leaves its former owner all the same, and the retries bring it back."""
    world = moved
    services.provider.rejects = ""
    services.provider.fail("unauthorized", times=9)
    with world.kept_open() as workspace:
        assert {result.outcome for result in world.sync("brick", GLOBAL, **INCREMENTAL)} == {"failed"}
        assert (held(world), due(world), invalid(world)) == (set(), DUE, INVALID)
        services.provider.recover()
        retry_due(workspace, ENTITY)
        world.update(1, 3, 5, unit="шт")
        world.sync(**INCREMENTAL)
        world.assert_exact()


@pytest.mark.parametrize("services", ["local"], indirect=True)
def test_the_source_is_asked_about_records_that_moved_alone(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New and old records that are rejected or fail where nobody else ever had them cost no look at the source."""
    world, services.provider.rejects = services.world, "FORBIDDEN"
    world.insert({"id": n, **whose} for n, whose in enumerate(OWNERS.values(), 11))
    world.insert({"id": n, **OWNERS["brick"]} for n in (1, 2))
    world.sync(mode="full")
    world.insert({"id": n, **OWNERS["brick"], "unit": None} for n in (3, 4))
    world.update(1, unit=None)
    world.update(2, name="FORBIDDEN")
    asked: list[Read] = []
    read = SqlSource.read

    def watched(source: SqlSource, what: Read, page: int = 500) -> Iterator[Page]:
        asked.append(what)
        return read(source, what, page)

    monkeypatch.setattr(SqlSource, "read", watched)
    [result] = world.sync("brick", mode="full")
    assert (result.figures.invalid, result.figures.failed, result.figures.removed) == (3, 1, 0)
    assert [what.ids for what in asked] == [None]


@pytest.mark.parametrize(("other", "failing"), [("brick", {"unit": None}), (GLOBAL, {"name": "FORBIDDEN"})])
@pytest.mark.parametrize("services", ["local"], indirect=True)
def test_a_live_record_of_the_same_id_keeps_its_point(services: Services, other: str, failing: dict[str, Any]) -> None:
    """Where both owners have a record with this id, what becomes of the one takes nothing from the other."""
    world, services.provider.rejects = services.world, "FORBIDDEN"
    with world.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE works")
        columns = ", ".join(f"{column.name} {column.type}" for column in WORKS.columns)
        connection.exec_driver_sql(f"CREATE TABLE works ({columns})")
    world.insert([{"id": 1, **OWNERS["acme"]}, {"id": 2, **OWNERS[other]}])
    world.sync(mode="full")
    world.insert([{"id": 1, **OWNERS[other], **failing}])
    for kind in (INCREMENTAL, {"mode": "full"}):
        world.sync(other, **kind)
        assert {payload["dbId"] for payload in world.stored().values()} == {"1", "2"}


def test_in_mongodb_too(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of documents of MongoDB that moved and are rejected or deleted, and of one whose other type's namesake
    moved."""
    monkeypatch.setenv("DB", mongo_url)
    source = {"type": "mongo", "url": {"env": "DB"}, "database": mongo_database, "change_stream": "never"}
    config = config_of(tmp_path, source=source, store={"type": "qdrant", "path": "qdrant"})
    entity = config.entities[ENTITY].model_copy(update={"id": ("_id",)})
    config = config.model_copy(update={"entities": {ENTITY: entity}})
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url)
    works = client[mongo_database].works
    now = datetime.now(UTC)
    base = {"name": "n", "unit": "шт", "code": None, "price": None, "is_global": False, "updated_at": now}
    with closing(client), Workspace(config) as workspace:
        works.insert_many([{"_id": n, **base, "tenant_id": "acme"} for n in (1, "2", 3)])
        works.insert_one({"_id": 4, **base, "tenant_id": "brick"})
        [acme, brick] = workspace.select([ENTITY], ["acme", "brick"])
        works.insert_one({"_id": 5, **base, "tenant_id": "acme"})
        for selection in (acme, brick):
            [result] = workspace.sync(selection, SyncOptions(mode="full"))
        moved = {"tenant_id": "brick", "unit": None, "updated_at": datetime.now(UTC)}
        works.update_one({"_id": 1}, {"$set": moved})
        works.insert_one({"_id": 2, **base, **moved})
        works.update_one({"_id": 5}, {"$set": {**moved, "deleted_at": datetime.now(UTC)}})
        [result] = workspace.sync(brick, SyncOptions(mode="incremental"))
        store = workspace.store_of(ENTITY, ENTITY)
        assert (result.figures.invalid, result.figures.removed) == (2, 2)
        assert {p.payload["dbId"] for page in store.scan(ENTITY) for p in page} == {"2", "3", "4"}
