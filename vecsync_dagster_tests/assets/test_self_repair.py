"""What Dagster shows of a run that repaired what it found."""

from __future__ import annotations

from typing import Any

import dagster as dg

from vecsync_dagster_tests.assets.test_assets import checked, run
from vecsync_dagster_tests.world import ENTITY, World


def told(result: dg.ExecuteInProcessResult) -> tuple[Any, ...]:
    """What the check `identity` says of the partition."""
    [found] = [one for one in checked(result) if one.check_name == "identity"]
    return found.passed, found.severity, found.description


def test_a_repair_warns_once(world: World) -> None:
    """The run that repairs succeeds, with a warning that says how many and a figure; the next one passes the check."""
    config = {"mode": "full", "partitions": ["works|acme"]}
    world.sync("acme", mode="full")
    with world.workspace() as workspace:
        store = workspace.store("main")
        ids = [point.point_id for page in store.scan(ENTITY, "acme") for point in page]
        store.delete(ENTITY, "acme", ids[:2])
    with dg.DagsterInstance.ephemeral() as instance:
        repairing, clean = (run(world, instance, config=config) for _ in range(2))
    assert repairing.success
    assert told(repairing) == (False, dg.AssetCheckSeverity.WARN, "repaired: 2 missing")
    [identity] = [one for one in checked(repairing) if one.check_name == "identity"]
    assert identity.metadata["result"].value == "warning: repaired: 2 missing", "its row in the log says no severity"
    [vectors] = [
        event.materialization
        for event in repairing.all_events
        if event.is_step_materialization and event.materialization.asset_key.path[-1] == "vectors"
    ]
    assert vectors.metadata["repaired"].value == 2
    assert clean.success
    assert told(clean)[0] is True


def test_a_check_that_fails_is_not_shown_as_passed_while_others_are_synced(world: World) -> None:
    """What passes of it is told with what fails, once all is done: Dagster shows what was told last."""
    world.sync(mode="full")
    world.only_report()
    with world.workspace() as workspace:
        store = workspace.store("main")
        [lost, *_] = [point.point_id for page in store.scan(ENTITY, "acme") for point in page]
        store.delete(ENTITY, "acme", [lost])
    with dg.DagsterInstance.ephemeral() as instance:
        run(world, instance, config={"mode": "full"})
        world.update(*(row["id"] for row in world.rows() if row["tenant_id"] != "acme"), name="иначе")
        told_of = [one.check_name for one in checked(run(world, instance, config={"mode": "full"}))]
    first = told_of.index("identity")
    assert told_of[first : first + 3] == ["identity"] * 3, "of three partitions, one right after the other"
    assert told_of.count("isolation") == told_of[:first].count("isolation") == 3, "what fails nowhere does not wait"
