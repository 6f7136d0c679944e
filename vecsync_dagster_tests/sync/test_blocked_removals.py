"""A removal that the guard blocked: what later looks, which do not read every record, make of the check."""

from __future__ import annotations

import pytest

from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.world import ENTITY, World


@pytest.fixture
def blocked(world: World) -> World:
    """acme lost six of ten rows, and the guard kept their documents."""
    sync = world.config.sync
    guard = sync.removal_guard.model_copy(update={"min_documents": 2, "share": 0.3})
    world.config = world.config.model_copy(update={"sync": sync.model_copy(update={"removal_guard": guard})})
    world.insert({"id": n, "tenant_id": "acme"} for n in range(10))
    world.sync("acme")
    world.delete(*range(6))
    [result] = world.sync("acme", mode="full")
    assert made(result)["removal_guard"] == "error"
    return world


def made(result: PartitionResult) -> dict[str, str]:
    return {one.name: "passed" if one.passed else "warning" if one.warning else "error" for one in result.checks}


def known(world: World) -> dict[str, CheckResult]:
    with world.workspace() as workspace:
        return {one.check: one for one in workspace.ledger.check_results(ENTITY, "acme")}


def verified(world: World) -> dict[str, CheckResult]:
    """As "Execute all" does."""
    with world.workspace() as workspace:
        [acme] = workspace.select([ENTITY], ["acme"])
        workspace.verify(acme)
    return known(world)


def test_an_incremental_run_leaves_it_blocked(blocked: World) -> None:
    """It did not read what the full run missed: the check stays red, and the counts are as wrong as before."""
    before = known(blocked)["removal_guard"]
    blocked.update(7, name="new")
    [result] = blocked.sync("acme", mode="incremental")
    assert (made(result)["counts"], result.ok) == ("error", False)
    assert "removal_guard" not in made(result)
    assert known(blocked)["removal_guard"] == before


def test_a_look_at_all_checks_leaves_it_blocked(blocked: World) -> None:
    """Nothing was read, so the last result holds."""
    before = known(blocked)["removal_guard"]
    after = verified(blocked)
    assert after["removal_guard"] == before
    assert after["counts"].severity == "error"


def test_a_removal_blocked_by_id_is_cleared_by_no_other_look(blocked: World) -> None:
    """A run of single records may have been the one that blocked it."""
    blocked.sync("acme", mode="full", allow_removals=True)
    blocked.delete(6, 7, 8)
    [result] = blocked.sync("acme", ids=("6", "7", "8"))
    assert made(result)["removal_guard"] == "error"
    assert verified(blocked)["removal_guard"].severity == "error"
    blocked.update(9, name="new")
    blocked.sync("acme", mode="incremental")
    assert known(blocked)["removal_guard"].severity == "error"


@pytest.mark.parametrize("look", ["incremental", "all checks", "full"])
def test_it_is_over_once_source_and_ledger_agree(blocked: World, look: str) -> None:
    """The rows came back: whoever looks next finds nothing to remove."""
    blocked.insert({"id": n, "tenant_id": "acme"} for n in range(6))
    if look != "all checks":
        blocked.sync("acme", mode=look)
    after = verified(blocked) if look == "all checks" else known(blocked)
    assert {one.severity for name, one in after.items() if name in ("removal_guard", "counts")} == {"passed"}


def test_what_waits_for_a_second_look_still_waits(world: World) -> None:
    """A tenant without any row: an incremental run neither ends the wait nor finds other counts."""
    world.insert({"id": n, "tenant_id": "acme"} for n in range(3))
    world.sync("acme")
    world.delete(*range(3))
    world.sync("acme", mode="full")
    before = known(world)["removal_guard"]
    assert before.severity == "warning"
    [result] = world.sync("acme", mode="incremental")
    assert (made(result)["counts"], result.ok) == ("passed", True)
    assert known(world)["removal_guard"] == before
