"""Records whose keys hold their tenant: one that moves to another tenant has another key there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from vecsync_dagster.sources.base import Page, Read
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster_tests.world import ENTITY, WORKS, World, config_of

INCREMENTAL: dict[str, Any] = {"mode": "incremental"}
BRICK: dict[str, Any] = {"tenant_id": "brick"}


def keyed(world: World, key: tuple[str, ...] | None, primary: str = "") -> World:
    """The world with this key; None: what the table's own one makes of it."""
    if primary:
        dialect = world.engine.dialect
        columns = ", ".join(f"{column.name} {column.type.compile(dialect)}" for column in WORKS.columns)
        with world.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE works")
            connection.exec_driver_sql(f"CREATE TABLE works ({columns}, PRIMARY KEY ({primary}))")
    if key is not None:
        entity = world.config.entities[ENTITY].model_copy(update={"id": key})
        world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    return world


def held(world: World) -> set[tuple[str, str]]:
    """Whose each point is, and its key."""
    return {(payload.get("tenantId") or GLOBAL, payload["dbId"]) for payload in world.stored().values()}


@pytest.mark.parametrize(
    ("key", "primary"),
    [(("tenant_id", "id"), ""), (("id", "tenant_id"), ""), (None, "tenant_id, id")],
    ids=["tenant first", "tenant last", "by default"],
)
def test_an_incremental_run_takes_them_over(world: World, key: tuple[str, ...] | None, primary: str) -> None:
    """What moved, changed or not, was rejected or deleted there, or moved on, leaves its former owner; so do records
    that go to a tenant of which nothing was ever synced."""
    world = keyed(world, key, primary)
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 8))
    world.insert([{"id": 9, **BRICK}])
    world.sync(mode="full")
    world.update(1, **BRICK)
    world.update(2, **BRICK, name="иначе")
    world.update(3, **BRICK, name=None)
    world.update(4, **BRICK, deleted_at=world._moment())
    world.update(5, 6, tenant_id="new")
    world.update(6, deleted_at=world._moment())
    removed = sum(result.figures.removed for result in world.sync(**INCREMENTAL))
    expected = {("brick", "1"), ("brick", "2"), ("new", "5"), ("acme", "7"), ("brick", "9")}
    last = key == ("id", "tenant_id")
    assert (removed, held(world)) == (6, {(t, f"{n}/{t}" if last else f"{t}/{n}") for t, n in expected})
    assert sum(result.figures.removed for result in world.sync(mode="full")) == 0


def test_to_everybody_and_back(world: World) -> None:
    """A record that is everybody's, and has no tenant, is no tenant's any more; nor the other way round."""
    world = keyed(world, ("tenant_id", "id"))
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 2, "is_global": True}, {"id": 3, "tenant_id": "acme"}])
    world.sync(mode="full")
    world.update(1, tenant_id=None, is_global=True)
    world.update(2, tenant_id="acme", is_global=False)
    world.sync(**INCREMENTAL)
    assert held(world) == {(GLOBAL, "~/1"), ("acme", "acme/2"), ("acme", "acme/3")}


def test_one_record_by_its_new_key(world: World) -> None:
    world = keyed(world, ("tenant_id", "id"))
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 2, **BRICK}])
    world.sync(mode="full")
    world.update(1, **BRICK)
    [result] = world.sync("brick", ids=("brick/1",))
    assert (result.figures.removed, held(world)) == (1, {("brick", "brick/1"), ("brick", "brick/2")})


def test_the_same_number_in_other_tenants(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each tenant counts by itself, new records cost one look at the source, however many tenants have their
    numbers, and all of them keep theirs; but the first full sync of a tenant costs none."""
    world = keyed(world, ("tenant_id", "id"), "tenant_id, id")
    others = [f"t{n}" for n in range(5)]
    world.insert({"id": 1, "tenant_id": tenant, "name": tenant} for tenant in others)
    world.insert([{"id": 9, **BRICK}])
    world.sync(mode="full")
    world.insert([{"id": 1, **BRICK}])
    asked: list[Sequence[str] | None] = []
    read, there = SqlSource.read, SqlSource.there

    def watched(source: SqlSource, what: Read, page: int = 500) -> Iterator[Page]:
        asked.append(what.ids)
        return read(source, what, page)

    def watched_too(source: SqlSource, keys: Sequence[str]) -> set[str]:
        asked.append(keys)
        return there(source, keys)

    monkeypatch.setattr(SqlSource, "read", watched)
    monkeypatch.setattr(SqlSource, "there", watched_too)
    [result] = world.sync("brick", **INCREMENTAL)
    assert (result.figures.new, result.figures.removed) == (1, 0)
    assert [keys for keys in asked if keys is not None] == [[f"{tenant}/1" for tenant in others]]
    asked.clear()
    world.insert([{"id": 1, "tenant_id": "new"}])
    world.sync("new", mode="full")
    assert asked == [None, None], "its dead rows and its live ones"
    owners = [*others, "brick", "new"]
    assert held(world) == {(tenant, f"{tenant}/1") for tenant in owners} | {("brick", "brick/9")}


@pytest.mark.parametrize("key", [("tenant_id", "id"), ("id", "tenant_id")], ids=["tenant first", "tenant last"])
@pytest.mark.parametrize(
    "change", [{}, {"name": "иначе"}, {"name": None}, {"deleted_at": datetime(2026, 1, 1, tzinfo=UTC)}], ids=str
)
def test_of_many_with_one_number_that_goes_which_moved(
    world: World, key: tuple[str, ...], change: dict[str, Any]
) -> None:
    """Whichever of them it is, and whatever becomes of it: the others stay."""
    world = keyed(world, key, "tenant_id, id")
    owners = [f"t{n}" for n in range(5)]
    world.insert({"id": n, "tenant_id": tenant} for tenant in owners for n in (1, 2))
    world.insert([{"id": 9, **BRICK}])
    world.sync(mode="full")
    moved = WORKS.update().where(WORKS.c.tenant_id == "t3", WORKS.c.id == 1)
    with world.engine.begin() as connection:
        connection.execute(moved.values(**BRICK, **change, updated_at=world._moment()))
    world.sync("brick", **INCREMENTAL)
    left = {(tenant, n) for tenant in owners for n in (1, 2)} - {("t3", 1)} | {("brick", 9)}
    left |= {("brick", 1)} if change.keys() <= {"name"} and change.get("name", "") is not None else set()
    assert {(tenant, int(next(filter(str.isdigit, text.split("/"))))) for tenant, text in held(world)} == left


def test_an_old_snapshot_does_not_bring_them_back(embedded_world: World) -> None:
    """What it has of a record that moved away since is nobody's to write."""
    world = keyed(embedded_world, ("tenant_id", "id"))
    world.insert([{"id": 1, **BRICK}, {"id": 2, **BRICK}, {"id": 3, "tenant_id": "acme"}])
    world.sync("acme", mode="full")
    world.sync("brick", mode="full", stages=("export",))
    world.update(1, tenant_id="acme")
    world.sync("acme", **INCREMENTAL)
    world.sync("brick", mode="full", stages=("documents", "embeddings", "vectors"))
    assert held(world) == {("acme", "acme/1"), ("brick", "brick/2"), ("acme", "acme/3")}


@pytest.mark.parametrize("stream", ["never", "auto"])
def test_in_mongodb_too(
    tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setenv("DB", mongo_url)
    source = {"type": "mongo", "url": {"env": "DB"}, "database": mongo_database, "change_stream": stream}
    config = config_of(tmp_path, source=source, store={"type": "qdrant", "path": "qdrant"})
    entity = config.entities[ENTITY].model_copy(update={"id": ("tenant_id", "no")})
    config = config.model_copy(update={"entities": {ENTITY: entity}})
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url)
    works = client[mongo_database].works
    base = {"name": "n", "unit": "шт", "code": None, "price": None, "is_global": False, "updated_at": datetime.now(UTC)}
    with closing(client), Workspace(config) as workspace:
        works.insert_many([{"no": n, **base, "tenant_id": "acme"} for n in (1, 2, 3)] + [{"no": 9, **base, **BRICK}])
        for selection in workspace.select([ENTITY]):
            workspace.sync(selection, SyncOptions(mode="full"))
        now = datetime.now(UTC)
        works.update_one({"no": 1}, {"$set": {**BRICK, "updated_at": now}})
        works.update_one({"no": 2}, {"$set": {**BRICK, "updated_at": now, "deleted_at": now}})
        for selection in workspace.select([ENTITY]):
            workspace.sync(selection, SyncOptions(mode="incremental"))
        store = workspace.store_of(ENTITY, ENTITY)
        assert {p.payload["dbId"] for page in store.scan(ENTITY) for p in page} == {"brick/1", "acme/3", "brick/9"}
