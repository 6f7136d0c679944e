"""Tenants that only the store knows any more: no run visits them, so a check over all partitions must find them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from vecsync_dagster.cli.comparing import check_repaired, compare_all, repair_all
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster.sync.standing import check_again
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.world import ENTITY, World


def reconciliation(world: World) -> tuple[CheckResult | None, bool]:
    """Its last result, and whether `status` says that all is well."""
    with world.workspace() as workspace:
        results = workspace.ledger.check_results(ENTITY, "")
        found = next((one for one in results if one.check == "reconciliation"), None)
        return found, overview(workspace, entity=None, tenant=None, days=7).healthy


def sync_all(world: World) -> None:
    """A full run over all tenants, to its end."""
    results = world.sync(mode="full")
    with world.workspace() as workspace:
        check_again(workspace, results)


def repair(world: World, *, allow_removals: bool = False) -> None:
    with world.workspace() as workspace:
        found = compare_all(workspace, None, None)
        repair_all(workspace, found, allow_removals=allow_removals)
        check_repaired(workspace, found)


def test_a_tenant_that_left_while_the_ledger_was_lost_is_named(embedded_world: World) -> None:
    """Its documents are nobody's: `status` is not well until they are repaired, however many runs succeed."""
    world = embedded_world
    seed(world, {"acme": 2, "brick": 3})
    world.sync(mode="full")
    (world.config.state_folder / "ledger.sqlite").unlink()
    world.delete(*(row["id"] for row in world.rows() if row["tenant_id"] == "brick"))
    for _ in range(2):
        world.sync(mode="full")
        assert reconciliation(world)[1] is False
    sync_all(world)
    found, healthy = reconciliation(world)
    assert found is not None
    assert (found.message[:36], healthy) == ("3 differences: 3 orphan of works|bri", False)
    with pytest.raises(SourceRejected, match=r"no record of them at all.*--allow-removals"):
        repair(world)
    repair(world, allow_removals=True)
    found, healthy = reconciliation(world)
    assert (found is not None and found.passed, healthy) == (True, True)


def test_a_first_run_that_does_not_reach_the_store_hides_nothing(embedded_world: World) -> None:
    """Until the ledger has a document of the collection, every run asks what the store holds; the severity is the
    configuration's."""
    world = embedded_world
    seed(world, {"acme": 2, "brick": 3})
    world.sync(mode="full")
    (world.config.state_folder / "ledger.sqlite").unlink()
    world.delete(*(row["id"] for row in world.rows() if row["tenant_id"] == "brick"))
    checks = world.config.checks.model_copy(update={"severity": {"identity": "warn", "reconciliation": "warn"}})
    world.config = world.config.model_copy(update={"checks": checks})
    world.sync(mode="full", stages=("export", "documents", "embeddings"))
    assert reconciliation(world)[0] is None
    world.sync("acme", mode="full", limit=1)
    found, _ = reconciliation(world)
    assert found is not None
    assert (found.passed, found.warning) == (False, True)
    with world.workspace() as workspace:
        results = {one.check: one for one in workspace.ledger.check_results(ENTITY, "acme")}
    assert (results["identity"].passed, results["identity"].warning) == (False, True)


def test_a_ledger_that_was_lost_alone_makes_nothing_red(embedded_world: World) -> None:
    """Where all tenants are still there, the first full run over all takes their documents in."""
    world = embedded_world
    seed(world, {"acme": 2, "brick": 3})
    world.sync(mode="full")
    (world.config.state_folder / "ledger.sqlite").unlink()
    sync_all(world)
    assert reconciliation(world)[1] is True


def test_points_of_a_tenant_that_the_ledger_forgot_are_found_by_a_run_over_all(embedded_world: World) -> None:
    """As after an older ledger came back from a backup; a run of one tenant compares nobody else's."""
    world = embedded_world
    seed(world, {"acme": 2, "brick": 3})
    sync_all(world)
    found, healthy = reconciliation(world)
    assert (found is not None and found.passed, healthy) == (True, True)
    world.delete(*(row["id"] for row in world.rows() if row["tenant_id"] == "brick"))
    with world.workspace() as workspace, workspace.ledger.database.write() as connection:
        connection.execute(sa.delete(index_state).where(index_state.c.tenant_id == "brick"))
    with world.workspace() as workspace:
        check_again(workspace, world.sync("acme", mode="full"))
    sync_all(world)
    found, healthy = reconciliation(world)
    assert found is not None
    assert (found.passed, healthy) == (False, False)
    assert found.message.startswith("1 partition: works|brick: 3 foreign; ")
    world.insert({"id": 100 + n, "tenant_id": "brick"} for n in range(2))
    sync_all(world)
    assert reconciliation(world)[1] is False
    repair(world)
    sync_all(world)
    assert reconciliation(world)[1] is True
