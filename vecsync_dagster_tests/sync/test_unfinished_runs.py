"""A run ends between the store's answer and the ledger's entry, and then the source changes back: nobody would look.

The ledger says what it said before, and so does the source; only the store is different. The next full run must see
that the one before it never finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, SyncOptions
from vecsync_dagster_tests.sync.test_drift import KNOWN, write_as_stranger
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World


class Killed(BaseException):
    """The process ends here."""


def sync_until(world: World, tenant: str, method: str) -> None:
    """A full run of a tenant that dies where it calls this method of the ledger."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with world.workspace() as workspace:
        setattr(workspace.ledger, method, die)
        [selection] = workspace.select([ENTITY], [tenant])
        with pytest.raises(Killed):
            workspace.sync(selection, SyncOptions(mode="full"))


def undelete(world: World) -> None:
    world.insert([{"id": 2, "tenant_id": "acme"}])


class Case(NamedTuple):
    """`change`, then a run of `tenant` that dies at `method`, then `back`."""

    name: str
    change: Callable[[World], None]
    tenant: str
    method: str
    back: Callable[[World], None]


CASES = [
    Case(
        "a new row goes again",
        lambda w: w.insert([{"id": 50, "tenant_id": "acme"}]),
        "acme",
        "confirm",
        lambda w: w.delete(50),
    ),
    Case("a text changes back", lambda w: w.update(2, name="B"), "acme", "confirm", lambda w: w.update(2, name="A")),
    Case("a payload changes back", lambda w: w.update(2, code="B"), "acme", "confirm", lambda w: w.update(2, code="A")),
    Case("a deleted row comes back", lambda w: w.delete(2), "acme", "forget", undelete),
    Case(
        "a row that everybody may see is a tenant's again",
        lambda w: w.update(2, tenant_id=None, is_global=True),
        GLOBAL,
        "confirm",
        lambda w: w.update(2, tenant_id="acme", is_global=False),
    ),
    Case(
        "a global document was removed and is global again",
        lambda w: w.update(1001, tenant_id="acme", is_global=False),
        "acme",
        "forget",
        lambda w: w.update(1001, tenant_id=None, is_global=True),
    ),
    Case(
        "a row goes back to its first tenant",
        lambda w: w.update(2, tenant_id="brick"),
        "brick",
        "confirm",
        lambda w: w.update(2, tenant_id="acme"),
    ),
    Case(
        "a row goes while it moves",
        lambda w: w.update(2, tenant_id="brick"),
        "brick",
        "confirm",
        lambda w: w.delete(2),
    ),
]


@pytest.mark.parametrize("last_first", [False, True], ids=["in order", "in reverse order"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_full_run_mends_what_was_left_half_done(world: World, case: Case, last_first: bool) -> None:
    """After one full run of all tenants, in any order, store == source == ledger, and nothing known is embedded."""
    seed(world, {"acme": 4, GLOBAL: 3, "brick": 3})
    world.update(2, name="A", code="A")
    if case.name == "a deleted row comes back":
        undelete_first(world)
    world.sync()
    case.change(world)
    sync_until(world, case.tenant, case.method)
    case.back(world)
    results: list[PartitionResult] = []
    for tenant in sorted(["acme", GLOBAL, "brick"], reverse=last_first):
        results += world.sync(tenant, mode="full")
    assert sum(result.figures.embedded for result in results) == 0
    world.assert_exact()
    again = world.sync(mode="full")
    assert all(result.ok and not result.figures.touched for result in again)


def undelete_first(world: World) -> None:
    """The row as `undelete` makes it."""
    world.delete(2)
    undelete(world)


def test_foreign_points_are_named_and_not_removed_by_a_run_that_mends(world: World) -> None:
    """What an unfinished run left is told from what strangers wrote: that is only named."""
    seed(world, {"acme": 4})
    world.sync()
    write_as_stranger(world, KNOWN)
    world.insert([{"id": 50, "tenant_id": "acme"}])
    sync_until(world, "acme", "confirm")
    world.delete(50)
    result = one(world.sync(mode="full"), "acme")
    [identity] = [check for check in result.checks if check.name == "identity"]
    assert set(identity.facts) == {"orphan"}
    assert len(world.stored()) == 4 + len(KNOWN)


def test_a_run_that_finished_leaves_no_trace(world: World) -> None:
    """Success and interruption leave nothing to mend; a failed run does, until a full one has succeeded."""
    seed(world, {"acme": 4})
    partition = (ENTITY, ENTITY, "acme")
    world.sync()
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(*partition) == []
    world.update(1, code="neu")
    sync_until(world, "acme", "confirm")
    with world.workspace() as workspace:
        assert len(workspace.ledger.unfinished(*partition)) == 1
    world.sync(mode="incremental")  # does not read everything: whoever looks must look at it all
    with world.workspace() as workspace:
        assert len(workspace.ledger.unfinished(*partition)) == 1
    world.sync(mode="full")
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(*partition) == []
    world.assert_exact()
