"""Tenancy that is added, changed or taken away: what the configuration can no longer have does not stay searchable."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster.config.entities import Tenancy
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync.dropping import leftovers
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World

COLUMN, FLAG = Tenancy(column="tenant_id"), Tenancy(column="tenant_id", global_flag="is_global")


def owned_by(world: World, tenancy: Tenancy | None) -> None:
    """From now on the entity has this tenancy."""
    entity = world.config.entities[ENTITY].model_copy(update={"tenancy": tenancy})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})


def owners(world: World) -> dict[str, Any]:
    return {payload["dbId"]: payload["tenantId"] or GLOBAL for payload in world.stored().values()}


@pytest.mark.in_turn
@pytest.mark.parametrize(("before", "after"), [(None, COLUMN), (FLAG, COLUMN), (FLAG, None)])
def test_what_cannot_be_any_more_goes(world: World, before: Tenancy | None, after: Tenancy | None) -> None:
    """One sync after the change every record is its new owner's, and what is nobody's or deleted since is gone."""
    seed(world, {"acme": 3, "brick": 2, GLOBAL: 2})
    owned_by(world, before)
    world.sync()
    world.delete(1, 1002)
    owned_by(world, after)
    with world.workspace() as workspace:
        assert leftovers(workspace)
    assert all(result.ok for result in world.sync())
    rows = {"2": "acme", "3": "acme", "1001": "brick"}
    if after is None:
        rows = dict.fromkeys([*rows, "2001", "2002"], GLOBAL)
    assert owners(world) == rows
    assert not any(result.figures.touched for result in world.sync())
    with world.workspace() as workspace:
        assert (leftovers(workspace), set(workspace.ledger.with_rows(ENTITY))) == ([], set(rows.values()))


def test_the_guard_holds_for_it_and_says_so(embedded_world: World) -> None:
    """More than the removal guard lets go stays, every run fails, and --allow-removals removes it."""
    world = embedded_world
    seed(world, {GLOBAL: 60, "acme": 2})
    world.sync()
    owned_by(world, COLUMN)
    for _ in range(2):
        left = one(world.sync(mode="full"), GLOBAL)
        assert (left.figures.removals_blocked, left.ok) == (60, False)
    with world.workspace() as workspace:
        assert "vecsync sync global --entity works --full" in str(leftovers(workspace)[0])
    assert one(world.sync(GLOBAL, mode="full", allow_removals=True), GLOBAL).figures.removed == 60
    assert set(owners(world).values()) == {"acme"}
