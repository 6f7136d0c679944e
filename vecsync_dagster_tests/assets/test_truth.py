"""What Dagster shows of checks is what the ledger and the store say: for every tenant, in any order of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus as Status
from dagster._core.storage.asset_check_state import AssetCheckState, bulk_update_asset_check_state

from vecsync_dagster.assets.recording import prepare_instance, record_checks
from vecsync_dagster.automation.partitions import partitions_of
from vecsync_dagster.cli.comparing import check_repaired, compare_all, repair_all
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster_tests.world import ENTITY, START, World, config_of

TENANTS = ("acme", "brick", "cedar")
ALL = {"works|global", *(f"works|{tenant}" for tenant in TENANTS)}
BROKEN = "works|brick"


class Shown:
    """A world whose runs go through Dagster, and what its UI would show."""

    def __init__(self, world: World, instance: dg.DagsterInstance) -> None:
        self.world = world
        self.instance = instance
        self.definitions = build_definitions(world.config)

    def run(self, job: str = "works_job", op: str = "works_sync", **config: Any) -> None:
        ops = {"ops": {op: {"config": config}}} if config else {}
        result = self.definitions.resolve_job_def(job).execute_in_process(instance=self.instance, run_config=ops)
        assert result.success

    def full(self, *tenants: str) -> None:
        self.run(mode="full", partitions=[f"works|{tenant}" for tenant in tenants] or None)

    def incremental(self, *tenants: str) -> None:
        for number, tenant in enumerate(TENANTS):
            if tenant in tenants:
                self.world.update(10 * (number + 1), name=f"иначе {self.world.now}")
        self.run(mode="incremental", partitions=[f"works|{tenant}" for tenant in tenants])

    def headline(self, check: str) -> tuple[bool, str | None]:
        """As the UI resolves it: the last execution, if it is not outdated."""
        key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), check)
        record = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.evaluation is not None, f"{check} was planned and not evaluated"
        assert self.instance.get_latest_materialization_event(key.asset_key) is None
        return record.evaluation.passed, record.evaluation.description

    def grid(self, check: str) -> dict[Status, set[str]]:
        """Partitions by state, as the check's page has them."""
        key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "checks"]), check)
        partitions = partitions_of(ENTITY, self.world.config.entities[ENTITY])
        with partition_loading_context(dynamic_partitions_store=self.instance):
            state = bulk_update_asset_check_state(self.instance, [(key, partitions)], {key: AssetCheckState.empty()})
            subsets = state[key].subsets.items()
            found = {status: set(subset.subset_value.get_partition_keys()) for status, subset in subsets}
        return {status: keys for status, keys in found.items() if keys}

    def grid_headline(self, check: str) -> bool:
        key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "checks"]), check)
        record = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.evaluation is not None
        return record.evaluation.passed

    def failing(self) -> set[str]:
        """Partitions that the ledger has a failed check of."""
        with self.world.workspace() as workspace:
            return {
                f"{one.collection}|{one.tenant}"
                for one in workspace.ledger.check_results()
                if one.collection and not one.passed
            }

    def lose_points(self, tenant: str, count: int = 2) -> None:
        with self.world.workspace() as workspace:
            store = workspace.store("main")
            points = [point for page in store.scan(ENTITY, tenant) for point in page][:count]
            store.delete(ENTITY, tenant, [point.point_id for point in points])

    def assert_red(self) -> None:
        for check in ("counts", "identity"):
            passed, message = self.headline(check)
            assert not passed
            assert BROKEN in str(message)
            assert not self.grid_headline(check)
            assert self.grid(check) == {
                Status.FAILED: {BROKEN},
                Status.SUCCEEDED: ALL - {BROKEN},
            }
        assert self.failing() == {BROKEN}

    def assert_green(self) -> None:
        for check in ("counts", "identity", "isolation", "validation", "statuses", "removal_guard"):
            assert self.headline(check)[0], self.headline(check)
            assert self.grid(check) == {Status.SUCCEEDED: ALL}
        assert self.failing() == set()


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        sync={"repair": "report"},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config, now=START)
    for number, tenant in enumerate(TENANTS):
        world.insert({"id": 10 * (number + 1) + n, "tenant_id": tenant} for n in range(4))
    with dg.DagsterInstance.from_config(str(prepare_instance(config))) as instance:
        yield Shown(world, instance)


AFTER: dict[str, Callable[[Shown], None]] = {
    "full runs of the others": lambda shown: shown.full("acme", "cedar"),
    "incremental runs of the others": lambda shown: shown.incremental("acme", "cedar"),
    "an incremental run of the broken one": lambda shown: shown.incremental("brick"),
    "a nightly run": lambda shown: shown.full(),
    "the weekly comparison": lambda shown: shown.run("reconcile_job"),
    "the look for freshness": lambda shown: shown.run("freshness_job"),
}
"""What may run after a tenant was found broken."""


@pytest.mark.parametrize("after", AFTER)
def test_a_broken_tenant_stays_red(shown: Shown, after: str) -> None:
    """Whatever runs after it: headline, grid and ledger say which tenant is broken."""
    shown.full()
    shown.assert_green()
    shown.lose_points("brick")
    shown.full()
    shown.assert_red()
    AFTER[after](shown)
    if after == "an incremental run of the broken one":
        assert not shown.headline("identity")[0]
        assert shown.failing() == {BROKEN}
    else:
        shown.assert_red()


def repaired_by_command(shown: Shown) -> None:
    began = utc_now()
    with Workspace(shown.world.config) as workspace:
        found = compare_all(workspace, ENTITY, None)
        repair_all(workspace, found)
        check_repaired(workspace, found)
        workspace.close()
        record_checks(workspace, began)


def repaired_by_id(shown: Shown) -> None:
    """A new version of each record writes its point again; the next full run looks."""
    shown.world.update(20, 21, 22, 23, name="иначе")
    with Workspace(shown.world.config) as workspace:
        for selection in workspace.select([ENTITY], ["brick"]):
            workspace.sync(selection, SyncOptions(ids=("20", "21", "22", "23")))
    shown.full("brick")


REPAIRS: dict[str, Callable[[Shown], None]] = {
    "reconcile --repair": repaired_by_command,
    "records by id": repaired_by_id,
}


@pytest.mark.parametrize("repair", REPAIRS)
def test_a_repair_turns_everything_green(shown: Shown, repair: str) -> None:
    """After its repair headline, grid and ledger are green, by whichever way."""
    shown.full()
    shown.lose_points("brick")
    shown.full()
    shown.assert_red()
    REPAIRS[repair](shown)
    shown.assert_green()
