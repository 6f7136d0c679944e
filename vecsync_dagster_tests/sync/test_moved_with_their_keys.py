"""Records whose keys hold their tenant: one that moves to another tenant has another key there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from pymongo import MongoClient

from vecsync_dagster.sources.base import Fingerprinting, Page, Read
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster.sync.due import due_partitions
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
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 2, **BRICK}, {"id": 3, "tenant_id": "acme"}])
    world.sync(mode="full")
    world.update(1, **BRICK)
    [result] = world.sync("brick", ids=("brick/1",))
    assert result.figures.removed == 1
    assert held(world) == {("brick", "brick/1"), ("brick", "brick/2"), ("acme", "acme/3")}


def test_a_tenant_all_of_whose_records_move_at_once(world: World) -> None:
    """The number alone is the table's primary key: so each is known to be the same record, which needs no second look
    and no full run of the tenant that it left."""
    world = keyed(world, ("tenant_id", "id"), "id")
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 3, "tenant_id": "acme"}, {"id": 2, **BRICK}])
    world.sync(mode="full")
    world.update(1, **BRICK)
    world.update(3, **BRICK, name=None)
    [result] = world.sync("brick", **INCREMENTAL)
    assert result.figures.removed == 2
    assert held(world) == {("brick", "brick/1"), ("brick", "brick/2")}


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


@pytest.mark.parametrize(("tenants", "looked_for"), [(20, 20), (21, 0)])
def test_full_runs_look_for_no_number_that_many_have(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch, tenants: int, looked_for: int
) -> None:
    """They meet each rejected record again: where many tenants count by themselves, all of theirs would be asked for
    in each. An incremental run meets what is new or has changed, and looks for all of it."""
    world = keyed(embedded_world, ("tenant_id", "id"), "tenant_id, id")
    world.insert({"id": 1, "tenant_id": f"t{n}", "name": f"t{n}"} for n in range(tenants))
    world.insert([{"id": 1, **BRICK, "name": None}, {"id": 9, **BRICK}])
    asked: list[str] = []
    there = SqlSource.there

    def watched(source: SqlSource, keys: Sequence[str]) -> set[str]:
        asked.extend(keys)
        return there(source, keys)

    monkeypatch.setattr(SqlSource, "there", watched)
    with world.kept_open():
        world.sync(mode="full")
        asked.clear()
        world.sync("brick", mode="full")
        assert len(asked) == looked_for
        asked.clear()
        world.update(1, name=None)
        world.sync("brick", **INCREMENTAL)
        assert len(asked) == tenants
    assert len(world.stored()) == tenants + 1


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


Rows = list[dict[str, Any]]


def take(world: World, *numbers: int) -> Rows:
    """Take these rows of acme, or all of them, from the table, as the first half of an import does; returns them."""
    where = [WORKS.c.tenant_id == "acme", *([WORKS.c.id.in_(numbers)] if numbers else [])]
    with world.engine.begin() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(WORKS).where(*where)).mappings()]
        connection.execute(sa.delete(WORKS).where(*where))
    return rows


def put(world: World, rows: Rows) -> None:
    """As they were, also with their times."""
    with world.engine.begin() as connection:
        connection.execute(sa.insert(WORKS), rows)


def of_brick(world: World, **values: Any) -> None:
    with world.engine.begin() as connection:
        brick = sa.update(WORKS).where(WORKS.c.tenant_id == "brick", WORKS.c.id < 90)
        connection.execute(brick.values(**values, updated_at=world._moment()))


def due(world: World) -> list[tuple[str, bool]]:
    """The partitions that are due, and whether in full."""
    with world.workspace() as workspace:
        source, entity = workspace.source(ENTITY), workspace.entity(ENTITY)
        assert isinstance(source, Fingerprinting)
        looks, seen = source.fingerprints(), workspace.ledger.seen(ENTITY)
        found = due_partitions(entity, ["acme", "brick"], looks, seen, datetime.now(UTC), timedelta(hours=1))
        return [(one.tenant, one.full) for one in found]


def acme(world: World) -> set[int]:
    return {int(next(filter(str.isdigit, key.split("/")))) for tenant, key in held(world) if tenant == "acme"}


CLAIMS: dict[str, Callable[[World], None]] = {
    "new records": lambda world: world.insert({"id": n, **BRICK, "name": f"other {n}"} for n in range(1, 9)),
    "old tombstones": lambda world: None,  # which the overlap reads once more
    "rejected": lambda world: of_brick(world, name=None, deleted_at=None),
}


@pytest.mark.parametrize("key", [("tenant_id", "id"), ("id",)], ids=["tenant in the key", "ids that are not unique"])
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_who_is_away_loses_nothing_to_a_namesake(
    world: World, mode: Literal["incremental", "full"], claim: str, key: tuple[str, ...]
) -> None:
    """Where each tenant counts by itself, a look between the DELETE and the INSERT of an import finds none of its
    records: that they moved to whoever has their numbers does not follow."""
    if (claim, key) == ("new records", ("id",)):
        pytest.skip("of two records with one id one is synced: here that of whoever is there")
    world = keyed(world, key, "tenant_id, id")
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 9))
    world.insert({"id": n, **BRICK} for n in ([99] if claim == "new records" else [*range(1, 9), 99]))
    if claim != "new records":
        of_brick(world, deleted_at=world._moment())
    world.sync(mode="full")
    before = acme(world)
    assert before == {*range(1, 9)}
    rows = take(world)
    CLAIMS[claim](world)
    [result] = world.sync("brick", mode=mode)
    assert (result.outcome, result.figures.removed, acme(world)) == ("success", 0, before)
    put(world, rows)
    assert [tenant for tenant, _ in due(world) if tenant == "acme"] == []
    assert [result.figures.new for result in world.sync("acme", mode="full")] == [0]


def test_who_lost_much_loses_nothing_to_a_namesake(embedded_world: World) -> None:
    """Its own full run has a guard: no more goes by another tenant's."""
    world = keyed(embedded_world, ("tenant_id", "id"), "tenant_id, id")
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 101))
    world.insert([{"id": 999, **BRICK}])
    world.sync(mode="full")
    take(world, *range(1, 52))
    world.insert([{"id": 1, **BRICK}])
    world.sync("brick", **INCREMENTAL)
    assert acme(world) == {*range(1, 101)}
    [result] = world.sync("acme", mode="full")
    assert result.figures.removals_blocked == 51


def test_who_lost_a_record_to_a_namesake_is_due_in_full(world: World) -> None:
    """It was there again a moment later, with an old time: nothing but a full run finds it, and until one has begun no
    other run makes up for it, nor one that was under way."""
    world = keyed(world, ("tenant_id", "id"), "tenant_id, id")
    world.insert({"id": n, "tenant_id": "acme"} for n in (1, 2, 3))
    world.insert([{"id": 9, **BRICK}])
    world.now += timedelta(days=3)
    world.insert([{"id": 4, "tenant_id": "acme"}, {"id": 10, **BRICK}])
    world.sync(mode="full")
    assert due(world) == []
    rows = take(world, 1)
    world.insert([{"id": 1, **BRICK}])
    [result] = world.sync("brick", **INCREMENTAL)
    assert (result.figures.removed, acme(world)) == (1, {2, 3, 4})
    put(world, rows)
    assert due(world) == [("acme", True)]
    for _ in range(2):
        world.sync("acme", **INCREMENTAL)
        assert (due(world), acme(world)) == ([("acme", True)], {2, 3, 4})
    world.sync("acme", mode="full")
    assert (due(world), acme(world)) == ([], {1, 2, 3, 4})


def test_a_record_that_surely_moved_costs_no_full_run(world: World) -> None:
    """Where no two records can have one id, a former owner is not asked for all that it has."""
    world.insert({"id": n, "tenant_id": "acme"} for n in (1, 2))
    world.insert([{"id": 9, **BRICK}])
    world.sync(mode="full")
    world.update(1, **BRICK, deleted_at=world._moment())
    world.update(2, tenant_id=None, is_global=True)
    world.sync("brick", GLOBAL, **INCREMENTAL)
    assert held(world) == {("brick", "9"), (GLOBAL, "2")}, "also where nothing is left of it"
    with world.workspace() as workspace:
        assert [seen.doubted_at for seen in workspace.ledger.seen(ENTITY).values()] == [None] * 3


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
