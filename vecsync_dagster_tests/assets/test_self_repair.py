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
