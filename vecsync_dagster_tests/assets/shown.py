"""A world whose runs go through Dagster, and all that people look at afterwards: `status`, open alerts, the instance.

What is shown is compared with `truly_broken`, which asks the store and the source alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.api import execute_run
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus as Status
from dagster._core.storage.asset_check_state import AssetCheckState, bulk_update_asset_check_state

from vecsync_dagster.assets.recording import prepare_instance
from vecsync_dagster.automation.alerting import OBSERVERS
from vecsync_dagster.automation.partitions import partitions_of
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.cli.running import Wanted, run_sync
from vecsync_dagster.cli.signals import Stop
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import SyncOptions
from vecsync_dagster.sync.health import RED_PARTITIONS
from vecsync_dagster_tests.cli.program import vecsync
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.world import ENTITY, START, World, config_of, file_of

__all__ = ["ALL", "TENANTS", "Shown", "Status", "shown_world"]

TENANTS = ("acme", "brick", "cedar")
ALL = {f"{ENTITY}|{tenant}" for tenant in (GLOBAL, *TENANTS)}
OF_ALL = ("reconciliation", "isolation_of_all")


class Shown:
    def __init__(self, world: World, instance: dg.DagsterInstance) -> None:
        self.world = world
        self.instance = instance
        self.definitions = build_definitions(world.config)
        self.file = file_of(world.config, world.config.state_folder.parent)

    # -- runs, as Dagster makes them ---------------------------------------------------------------

    def run(self, job: str = "works_job", partition: str | None = None, **config: Any) -> None:
        ops = {"ops": {"works_sync": {"config": config}}} if config else {}
        self._execute(self.definitions.resolve_job_def(job), run_config=ops, partition_key=partition)

    def full(self, *tenants: str) -> None:
        self.run(mode="full", partitions=[f"works|{tenant}" for tenant in tenants] or None)

    def single(self, tenant: str) -> None:
        """What "Materialize" does with one partition."""
        self.run(partition=f"works|{tenant}", mode="full")

    def repairing(self, tenant: str) -> None:
        """A full run that repairs what it finds, as it does where the configuration does not say otherwise."""
        with self._repair("write"):
            self.full(tenant)

    def incremental(self, *tenants: str) -> None:
        """Of tenants that have a changed row each."""
        self.change(*tenants)
        self.run(mode="incremental", partitions=[f"works|{tenant}" for tenant in tenants])

    def retried(self) -> None:
        """A document that failed before, tried again by the worker."""
        self.fail_a_document("acme")
        self.run("vecsync_retry_job")

    def execute_all(self) -> None:
        """The button of that name on the page of `checks`."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [key for check in self.definitions.asset_checks or () for key in check.check_keys]
        grid = {key for key in keys if key.asset_key.path[-1] == "checks"}
        chosen = job.get_subset(asset_check_selection=grid)
        # Not in process, where a run does not know what it was to check.
        run = dg.DagsterRun(job_name=chosen.name, asset_selection=frozenset(), asset_check_selection=frozenset(grid))
        self.instance.add_run(run)
        self._ended(execute_run(InMemoryJob(chosen), run, self.instance).run_id)

    def _execute(self, job: dg.JobDefinition, **arguments: Any) -> None:
        self._ended(job.execute_in_process(instance=self.instance, raise_on_error=False, **arguments).run_id)

    def _ended(self, run_id: str) -> None:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        if not run.is_success:  # only because of what its checks found
            steps = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
            [told] = [entry.get_dagster_event().step_failure_data.user_failure_data for entry in steps]
            assert str(told and told.description).startswith("failed checks: ")
        self._observe(run)
        # Dagster misses an output in the log of a run where a check that it planned is not made.
        assert not [entry for entry in self.instance.all_logs(run.run_id) if "did not yield" in entry.user_message]

    def _observe(self, run: dg.DagsterRun) -> None:
        """As the daemon does at a run's end."""
        kind = dg.DagsterEventType.RUN_SUCCESS if run.is_success else dg.DagsterEventType.RUN_FAILURE
        [record] = self.instance.get_records_for_run(run.run_id, of_type=kind).records
        event = record.event_log_entry.dagster_event
        assert event is not None
        [name] = [name for name, status in OBSERVERS.items() if status is run.status]
        self.definitions.resolve_sensor_def(name)(dg.build_run_status_sensor_context(name, event, self.instance, run))

    # -- runs and repairs, as people make them -----------------------------------------------------

    def by_id(self, tenant: str) -> None:
        """Single records, by the command line."""
        number = 10 * (TENANTS.index(tenant) + 1)
        self.change(tenant)
        wanted = Wanted("tenant", tenant, ENTITY, ids=(str(number),))
        assert run_sync(self.world.config, wanted, SyncOptions(), stop=Stop(), record=True).ok

    def full_by_command(self, tenant: str) -> None:
        wanted = Wanted("tenant", tenant, ENTITY)
        run_sync(self.world.config, wanted, SyncOptions(mode="full"), stop=Stop(), record=True)

    def reconciled(self) -> None:
        self.command("reconcile", "--repair")

    def command(self, *words: str) -> None:
        ran = vecsync(*words, "--config", self.file)
        assert ran.code == 0, ran.err

    # -- changes, breakages ------------------------------------------------------------------------

    def change(self, *tenants: str) -> None:
        for tenant in tenants:
            self.world.update(10 * (TENANTS.index(tenant) + 1), name=f"иначе {self.world.now}")

    def lose_points(self, tenant: str, count: int = 2) -> None:
        """Outside vecsync; of records that no `change` writes again."""
        with self.world.workspace() as workspace:
            store = workspace.store("main")
            points = sorted(
                (point for page in store.scan(ENTITY, tenant) for point in page), key=lambda one: one.payload["id"]
            )
            store.delete(ENTITY, tenant, [point.point_id for point in points[-count:]])

    def write_again(self, tenant: str) -> None:
        """New versions of all records, by their ids."""
        first = 10 * (TENANTS.index(tenant) + 1)
        ids = tuple(range(first, first + 4))
        self.world.update(*ids, name=f"заново {self.world.now}")
        wanted = Wanted("tenant", tenant, ENTITY, ids=tuple(map(str, ids)))
        assert run_sync(self.world.config, wanted, SyncOptions(), stop=Stop(), record=True).ok

    def fail_a_document(self, tenant: str) -> None:
        """As a provider that was down a minute ago leaves it."""
        due = datetime.now(UTC) - timedelta(minutes=1)
        row = index_state.c
        one = sa.select(sa.func.min(row.document_id)).where(row.tenant_id == tenant).scalar_subquery()
        failed = {"status": "failed", "error_code": "EMBEDDING_UNAVAILABLE", "retry_count": 1, "next_attempt_at": due}
        engine = sa.create_engine(f"sqlite:///{self.world.config.state_folder / 'ledger.sqlite'}")
        with engine.begin() as connection:
            connection.execute(sa.update(index_state).where(row.document_id == one).values(failed))
        engine.dispose()

    @contextmanager
    def _repair(self, how: str) -> Iterator[None]:
        before = self.world.config, self.definitions
        sync = self.world.config.sync.model_copy(update={"repair": how})
        self.world.config = self.world.config.model_copy(update={"sync": sync})
        self.definitions = build_definitions(self.world.config)
        try:
            yield
        finally:
            self.world.config, self.definitions = before

    # -- what is shown -----------------------------------------------------------------------------

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

    def failing(self, *, errors: bool = False, alerted: bool = False) -> set[tuple[str, str]]:
        """Checks with their partitions that `status` names as failed; the partition is empty for one over all.
        `errors`: without those that only warn; `alerted`: without those over all that fail because of partitions."""
        with self.world.workspace() as workspace:
            seen = overview(workspace, entity=ENTITY, tenant=None, days=7)
        checks = [*seen.failed_checks, *(one for partition in seen.partitions for one in partition.failed_checks)]
        assert seen.healthy is all(check.warning for check in checks)
        return {
            (check.check, f"{check.collection}|{check.tenant}".strip("|"))
            for check in checks
            if not (errors and check.warning) and not (alerted and RED_PARTITIONS in check.facts)
        }

    def alerts(self) -> set[tuple[str, str]]:
        """Checks with their partitions of the open alerts."""
        with self.world.workspace() as workspace:
            opened = [known.alert for known in workspace.ledger.alerts() if known.closed_at is None]
        return {(alert.check or alert.kind, alert.partition or "") for alert in opened}

    def truly_broken(self) -> set[str]:
        """Partitions whose points are not what the source says."""
        stored, expected = self.world.stored(), self.world.expected()
        wrong = [
            payload
            for point in stored.keys() | expected.keys()
            if stored.get(point) != expected.get(point)
            for payload in [stored.get(point) or expected[point]]
        ]
        return {f"works|{payload['tenantId'] or GLOBAL}" for payload in wrong}


@contextmanager
def shown_world(folder: Path, min_severity: str = "warning") -> Iterator[Shown]:
    """Three tenants with four works each, and a `global` without one; runs report what differs, and repair none."""
    with Inbox() as inbox, pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLACK_URL", inbox.url)
        environment.delenv("DAGSTER_HOME", raising=False)
        environment.delenv("VECSYNC_CONFIG", raising=False)
        yield from _shown(folder, min_severity)


def _shown(folder: Path, min_severity: str) -> Iterator[Shown]:
    config = config_of(
        folder,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        sync={"repair": "report"},
        alerts={"slack": {"url": {"env": "SLACK_URL"}}, "min_severity": min_severity},
    )
    world = World(f"sqlite:///{folder / 'source.db'}", config, now=START)
    for number, tenant in enumerate(TENANTS):
        world.insert({"id": 10 * (number + 1) + n, "tenant_id": tenant} for n in range(4))
    with dg.DagsterInstance.from_config(str(prepare_instance(config))) as instance:
        yield Shown(world, instance)
