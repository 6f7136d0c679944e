"""Ids that are not unique: every kind of run, over two tenants that have the same one."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from vecsync_dagster.cli.probing import probe_all
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.world import ENTITY, WORKS, World

KINDS: list[dict[str, Any]] = [
    {"mode": "full"},
    {"mode": "incremental"},
    {"ids": ("1",)},
    {"ids": ("1",), "retry": True},
    {"mode": "full", "limit": 1},
    {"mode": "full", "dry_run": True},
]


@pytest.fixture
def shared(embedded_world: World) -> World:
    """Works of a table that lets two tenants have the same id."""
    world = embedded_world
    with world.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE works")
        columns = ", ".join(f"{column.name} {column.type}" for column in WORKS.columns)
        connection.exec_driver_sql(f"CREATE TABLE works ({columns})")
    return world


def owners(world: World) -> list[str]:
    return sorted(payload["tenantId"] or GLOBAL for payload in world.stored().values())


def refused(result: PartitionResult) -> int:
    return result.figures.invalid


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("other", ["brick", GLOBAL])
def test_a_live_record_keeps_its_point(shared: World, kind: dict[str, Any], other: str) -> None:
    """A run that meets an id which another owner's live record has refuses its own record and names both; the other's
    point stays, whatever the kind of run, and the counts add up."""
    world = shared
    world.insert([{"id": 1, "tenant_id": "acme"}])
    assert world.sync()[-1].ok
    world.insert([{"id": 1, "tenant_id": other, "is_global": other == GLOBAL}])
    [result] = world.sync(other, **kind)
    assert (result.outcome, refused(result)) == ("success", 1)
    assert owners(world) == ["acme"]
    for result in world.sync(mode="full"):
        assert all(check.passed for check in result.checks if check.name in ("counts", "identity", "isolation"))
    assert owners(world) == ["acme"]


def test_a_rejected_record_brings_no_contested_one_in(shared: World) -> None:
    """Of two records of a tenant with an id that another tenant's has, one is refused, and the other one is rejected
    now: the other tenant keeps its point."""
    world = shared
    world.insert([{"id": 1, "tenant_id": "acme"}])
    assert world.sync()[-1].ok
    world.insert([{"id": 1, "tenant_id": "brick", "code": "good"}, {"id": 1, "tenant_id": "brick", "code": "bad"}])
    world.sync("brick")
    with world.engine.begin() as connection:
        old = "2020-01-01T00:00:00+00:00"  # an incremental run meets the other one alone
        connection.execute(sa.update(WORKS).where(WORKS.c.code == "good").values(updated_at=old))
        connection.execute(sa.update(WORKS).where(WORKS.c.code == "bad").values(name=None, unit=None))
    [result] = world.sync("brick", mode="incremental")
    assert result.outcome == "success"
    assert owners(world) == ["acme"]


def test_both_owners_are_named(shared: World) -> None:
    """The refusal has its own code, and says whose the id is and what to write instead."""
    world = shared
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 1, "tenant_id": "brick"}])
    world.sync(mode="full")
    with sa.create_engine(f"sqlite:///{world.config.state_folder / 'ledger.sqlite'}").connect() as ledger:
        [(code, error, tenant)] = ledger.exec_driver_sql("SELECT code, error, tenant_id FROM invalid_record").all()
    assert (code, tenant) == ("ID_NOT_UNIQUE", "brick")
    assert "acme" in error
    assert "id: [tenant_id, id]" in error


def test_when_the_other_one_goes_the_record_takes_its_place(shared: World) -> None:
    """Once one of two records with the same id is gone, a full run syncs the one that was refused."""
    world = shared
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 1, "tenant_id": "brick"}])
    world.sync(mode="full")
    with world.engine.begin() as connection:
        connection.execute(sa.delete(WORKS).where(WORKS.c.tenant_id == "acme"))
    world.sync(mode="full")
    assert owners(world) == ["brick"]
    world.assert_exact()


@pytest.mark.parametrize("first", ["acme", "brick"])
def test_a_record_that_moved_ends_under_its_new_tenant(shared: World, first: str) -> None:
    """Whichever tenant runs first, a record that moved is there once, and nothing is refused."""
    world = shared
    world.insert([{"id": n, "tenant_id": "acme"} for n in (1, 2)])
    world.sync(mode="full")
    world.update(1, tenant_id="brick")
    results = world.sync(first, mode="full") + world.sync(mode="full")
    assert sum(map(refused, results)) == 0
    assert owners(world) == ["acme", "brick"]
    world.assert_exact()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_key_of_both_columns_tells_them_apart(shared: World, kind: dict[str, Any]) -> None:
    """With `id: [tenant_id, id]` each tenant has its own record, and no run of one touches the other's."""
    world = shared
    entity = world.config.entities[ENTITY].model_copy(update={"id": ("tenant_id", "id")})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 1, "tenant_id": "brick"}, {"id": 1, "is_global": True}])
    world.sync(mode="full")
    asked = {**kind, "ids": ("acme/1",)} if "ids" in kind else kind
    world.sync("acme", **asked)
    assert owners(world) == ["acme", "brick", GLOBAL]
    assert {payload["dbId"] for payload in world.stored().values()} == {"acme/1", "brick/1", "~/1"}
    with world.engine.begin() as connection:
        connection.execute(sa.delete(WORKS).where(WORKS.c.tenant_id == "acme"))
    world.sync("acme", ids=("acme/1",))
    assert owners(world) == ["brick", GLOBAL]


@pytest.mark.parametrize("first", ["acme", "brick"])
def test_a_record_that_moves_under_a_key_with_the_tenant_is_there_once(shared: World, first: str) -> None:
    """Its key changes with its owner: the old document goes and the new one comes, whoever runs first, unpaid."""
    world = shared
    entity = world.config.entities[ENTITY].model_copy(update={"id": ("tenant_id", "id")})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    world.insert([{"id": n, "tenant_id": tenant} for n in (1, 2) for tenant in ("acme", "brick")])
    world.insert([{"id": 3, "tenant_id": "acme"}])
    world.sync(mode="full")
    world.update(3, tenant_id="brick")
    results = world.sync(first, mode="full") + world.sync(mode="full")
    assert sum(result.figures.embedded for result in results) == 0
    assert sorted(payload["dbId"] for payload in world.stored().values()) == [
        *("acme/1", "acme/2", "brick/1", "brick/2", "brick/3")
    ]
    world.assert_exact()


# -- the key that the table itself declares ------------------------------------------------------------
def declared(world: World, key: str) -> World:
    with world.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE works")
        columns = ", ".join(f"{column.name} {column.type}" for column in WORKS.columns)
        connection.exec_driver_sql(f"CREATE TABLE works ({columns}, PRIMARY KEY ({key}))")
    return world


def test_the_declared_key_is_taken_where_none_is_named(embedded_world: World) -> None:
    """Without `id`, a primary key of the tenant's column and `id` is the key: each tenant has its own record."""
    world = declared(embedded_world, "tenant_id, id")
    world.insert([{"id": 1, "tenant_id": "acme"}, {"id": 1, "tenant_id": "brick"}])
    for _ in range(2):
        assert all(result.ok for result in world.sync(mode="full"))
        assert owners(world) == ["acme", "brick"]
    assert not sum(result.figures.touched for result in world.sync(mode="full"))


def test_what_is_synced_by_the_id_alone_stays_so(embedded_world: World) -> None:
    """A ledger that knows records by `id` alone keeps doing so: nothing is written again."""
    world = embedded_world
    world.insert([{"id": n, "tenant_id": "acme"} for n in (1, 2)])
    world.sync(mode="full")
    declared(world, "tenant_id, id")
    world.insert([{"id": n, "tenant_id": "acme"} for n in (1, 2)])
    assert not sum(result.figures.touched for result in world.sync(mode="full"))
    world.assert_exact()


def test_a_key_that_gets_the_tenants_column_doubles_nothing(embedded_world: World) -> None:
    """Where `id` becomes `[tenant_id, id]` a full run replaces all documents, whatever the removal guard says."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 5))
    world.insert({"id": n, "is_global": True} for n in range(11, 15))
    world.sync(mode="full")
    entity = world.config.entities[ENTITY].model_copy(update={"id": ("tenant_id", "id")})
    guard = world.config.sync.removal_guard.model_copy(update={"min_documents": 1, "share": 0.1})
    sync = world.config.sync.model_copy(update={"removal_guard": guard})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}, "sync": sync})
    assert [(result.ok, result.figures.removed) for result in world.sync(mode="full")] == [(True, 4)] * 2
    world.assert_exact()


def test_check_finds_ids_that_are_not_unique(shared: World) -> None:
    """`vecsync check` says how many ids are not unique, gives one, and names a key that would be."""
    world = shared
    world.insert([{"id": n, "tenant_id": tenant} for n in (1, 2) for tenant in ("acme", "brick")])
    world.insert([{"id": 3, "tenant_id": "acme"}])
    with world.workspace() as workspace:
        [told] = [probe for probe in probe_all(workspace) if probe.part == f"ids of {ENTITY}"]
    assert (told.state, "2 ids" in told.message, "'1'" in told.message) == ("FAIL", True, True)
    assert "id: [tenant_id, id]" in told.message


def test_check_compares_the_id_with_the_declared_key(embedded_world: World) -> None:
    """An id that is unique by chance alone is a warning that names the declared key; one that the table keeps unique
    is none."""
    world = embedded_world
    with world.workspace() as workspace:
        assert not [probe for probe in probe_all(workspace) if probe.part == f"ids of {ENTITY}"]
    declared(world, "tenant_id, code, id")
    world.insert([{"id": 1, "tenant_id": "acme", "code": "a"}])
    with world.workspace() as workspace:
        [told] = [probe for probe in probe_all(workspace) if probe.part == f"ids of {ENTITY}"]
    assert (told.state, "tenant_id, code, id" in told.message) == ("WARN", True)
