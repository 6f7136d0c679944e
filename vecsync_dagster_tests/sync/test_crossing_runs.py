"""Two tenants' runs have the same record in hand, because it moves from one to the other: their writes cross.

Each run tells the store first and the ledger second. Where one does all of its work between the other's two, the
store ends with one's word and the ledger with the other's; one full run of all tenants must still make it right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from vecsync_dagster.errors import PartitionBusy
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace
from vecsync_dagster.sync.compare import Difference
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World

EVERYBODYS: dict[str, Any] = {"tenant_id": None, "is_global": True}
ACMES: dict[str, Any] = {"tenant_id": "acme", "is_global": False}
BRICKS: dict[str, Any] = {"tenant_id": "brick", "is_global": False}


class Case(NamedTuple):
    """`first` changes; then `outer` is synced, and where it comes to `moment`, `second` changes and `inner` is synced
    from beginning to end. At last `back` changes."""

    name: str
    first: Callable[[World], None]
    outer: str
    moment: str
    second: Callable[[World], None]
    inner: str
    back: Callable[[World], None] = lambda _: None


def new(world: World) -> None:
    world.insert([{"id": 50, "tenant_id": "acme", "name": "A"}])


CASES = [
    *(
        Case(f"a new record moves, {moment}", new, "acme", moment, lambda w: w.update(50, name="B", **BRICKS), "brick")
        for moment in ("store.upsert", "ledger.confirm")
    ),
    *(
        Case(
            f"a record changes and moves, {moment}",
            lambda w: w.update(2, name="B"),
            "acme",
            moment,
            lambda w: w.update(2, name="C", **BRICKS),
            "brick",
        )
        for moment in ("store.upsert", "ledger.confirm")
    ),
    *(
        Case(
            f"a record moves and changes and goes back, {moment}",
            lambda w: w.update(2, name="B", **BRICKS),
            "brick",
            moment,
            lambda w: w.update(2, name="A", code="W", **ACMES),
            "acme",
        )
        for moment in ("store.upsert", "ledger.confirm")
    ),
    Case(
        "a text changes, and comes back as the record moves",
        lambda w: w.update(2, name="B"),
        "acme",
        "ledger.confirm",
        lambda w: w.update(2, name="A", **BRICKS),
        "brick",
    ),
    Case(
        "a record moves and changes, goes back, and does both again",
        lambda w: w.update(2, name="B", **BRICKS),
        "brick",
        "ledger.confirm",
        lambda w: w.update(2, name="A", code="W", **ACMES),
        "acme",
        lambda w: w.update(2, name="B", code=None, **BRICKS),
    ),
    *(
        Case(
            f"a payload is set while the text goes to another tenant and comes back, {moment}",
            lambda w: w.update(2, code="W"),
            "acme",
            moment,
            lambda w: w.update(2, name="C", **BRICKS),
            "brick",
            lambda w: w.update(2, name="A", **ACMES),
        )
        for moment in ("store.set_payload", "ledger.confirm")
    ),
    *(
        Case(
            f"a global record changes, is a tenant's, and global again, {moment}",
            lambda w: w.update(1001, name="B"),
            GLOBAL,
            moment,
            lambda w: w.update(1001, name="B", **ACMES),
            "acme",
            lambda w: w.update(1001, name="B", **EVERYBODYS),
        )
        for moment in ("store.upsert", "ledger.confirm")
    ),
    *(
        Case(
            f"a global record is a tenant's for a moment, {moment}",
            lambda w: w.update(1001, **ACMES),
            "acme",
            moment,
            lambda w: w.update(1001, name="B", **EVERYBODYS),
            GLOBAL,
        )
        for moment in ("store.upsert", "ledger.confirm", "store.delete", "ledger.forget")
    ),
]


def sync_crossed(world: World, case: Case) -> list[PartitionResult]:
    """The results of both runs; both end well."""
    results: list[PartitionResult] = []
    with world.workspace() as workspace:
        name, _, method = case.moment.partition(".")
        owner: Any = workspace.ledger if name == "ledger" else workspace.store("main")
        real = getattr(owner, method)

        def crossed(*args: Any, **kwargs: Any) -> Any:
            setattr(owner, method, real)
            case.second(world)
            results.extend(sync(workspace, case.inner))
            return real(*args, **kwargs)

        setattr(owner, method, crossed)
        results += sync(workspace, case.outer)
    return results


def sync(workspace: Workspace, tenant: str) -> list[PartitionResult]:
    [selection] = workspace.select([ENTITY], [tenant])
    return workspace.sync(selection, SyncOptions(mode="full"))


@pytest.mark.in_turn
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_full_run_makes_right_what_two_runs_crossed(world: World, case: Case) -> None:
    """Afterwards store == source == ledger, each vector is its own text's, and nothing is left to do."""
    seed(world, {"acme": 4, GLOBAL: 3, "brick": 3})
    world.update(2, name="A")
    with world.kept_open():
        world.sync()
        case.first(world)
        results = sync_crossed(world, case)
        assert {result.tenant for result in results} == {case.outer, case.inner}
        assert [result.error for result in results] == [None, None]
        case.back(world)
        world.sync_one_by_one()
        world.assert_exact()
        world.assert_vectors()
        again = world.sync(mode="full")
        assert all(result.ok and not result.figures.touched for result in again)


def test_a_move_leaves_a_mark_that_the_next_full_run_takes_away(world: World) -> None:
    """The tenant a record came to is compared once more, and then no more."""
    seed(world, {"acme": 3, "brick": 3})
    world.sync()
    world.update(1, **BRICKS)
    world.sync()
    with world.workspace() as workspace:
        assert len(workspace.ledger.unfinished(ENTITY, ENTITY, "brick")) == 1
        assert workspace.ledger.unfinished(ENTITY, ENTITY, "acme") == []
    world.sync(mode="full")
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(ENTITY, ENTITY, "brick") == []
    world.assert_exact()


def test_what_is_another_tenants_too_waits_until_that_one_is_free(world: World) -> None:
    """A run that repairs does not touch a point whose row lies with a tenant that is being synced: it ends well, and
    leaves the mark for the next."""
    seed(world, {"acme": 3, "brick": 3})
    world.sync()
    with world.workspace() as workspace:  # a point of brick's lies under acme, and acme has a mark
        store, ledger = workspace.store("main"), workspace.ledger
        [points] = list(store.scan(ENTITY, "brick"))
        store.set_payload(ENTITY, [Point(points[0].point_id, {**points[0].payload, "tenantId": "acme"})])
        ledger.begin_writing(ENTITY, ENTITY, "acme", "killed")
        with ledger.hold(ENTITY, "brick"):
            [result] = sync(workspace, "acme")
        assert (result.error, result.figures.writes) == (None, 0)
        assert ledger.unfinished(ENTITY, ENTITY, "acme") == ["killed"]
        assert one(sync(workspace, "acme"), "acme").ok
        assert ledger.unfinished(ENTITY, ENTITY, "acme") == []
    world.assert_exact()


@pytest.mark.parametrize("moment", ["store.upsert", "ledger.confirm"])
def test_what_moved_while_it_was_written_for_everybody_stays_with_its_tenant(world: World, moment: str) -> None:
    """The run that reads it as everybody's ends after that of its tenant."""
    seed(world, {GLOBAL: 3, "acme": 3})
    world.sync()
    case = Case(
        "", lambda w: w.insert([{"id": 70, **EVERYBODYS}]), GLOBAL, moment, lambda w: w.update(70, **ACMES), "acme"
    )
    case.first(world)
    sync_crossed(world, case)
    assert [p["dbId"] for p in world.stored().values() if (p["dbId"], p["tenantId"]) == ("70", "acme")] == ["70"]
    world.sync(mode="full")
    world.assert_exact()


def test_a_repair_does_not_disturb_a_run_in_the_middle_of_a_move(world: World) -> None:
    """The tenant under which a point already lies is busy for a repair too; and what was found then is looked at
    again before anything is done."""
    seed(world, {"acme": 3, "brick": 3})
    world.sync()
    with world.workspace() as workspace:
        world.update(1, **BRICKS)
        real = workspace.ledger.confirm
        differences: list[Difference] = []

        def confirm(*args: Any, **kwargs: Any) -> Any:
            differences.extend(workspace.differences(ENTITY, ENTITY))
            with pytest.raises(PartitionBusy):
                workspace.repair(ENTITY, ENTITY, differences)
            return real(*args, **kwargs)

        workspace.ledger.confirm = confirm  # type: ignore[method-assign]
        sync(workspace, "brick")
        assert [(d.kind, d.tenant, d.stored_tenant) for d in differences] == [("wrong_tenant", "acme", "brick")]
        workspace.ledger.confirm = real  # type: ignore[method-assign]
        assert workspace.repair(ENTITY, ENTITY, differences).writes == 0
    world.assert_exact()
