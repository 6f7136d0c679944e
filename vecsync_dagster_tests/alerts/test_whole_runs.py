"""Alerts of whole entities and jobs: only what really made up for them resolves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from vecsync_dagster.alerts import Alert, KnownAlert, observe_results, observing, sync_failed
from vecsync_dagster.assets import factory
from vecsync_dagster.automation import add_tenants
from vecsync_dagster.automation.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_TAG
from vecsync_dagster.automation.run_outcomes import observe_run
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.sync import STAGES
from vecsync_dagster_tests.alerts.test_dagster import Daemon, world
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.world import ENTITY, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)

__all__ = ["world"]

WHOLE = [(None, ENTITY)]


@pytest.fixture
def daemon(world: World, slack: Inbox) -> Iterator[Daemon]:
    world.insert([{"id": 30, "tenant_id": "brick"}])
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(world, instance)
        assert daemon.run().is_success
        add_tenants(instance, ENTITY, ["acme", "brick", "global"])
        yield daemon


def opened(daemon: Daemon) -> list[tuple[str | None, str]]:
    with daemon.world.workspace() as workspace:
        return [(known.alert.partition, known.alert.entity) for known in workspace.ledger.alerts()]


def dies(daemon: Daemon, job: str = "works_job", **tags: str) -> None:
    """A run whose process is gone, as Dagster's monitor reports it."""
    run = daemon.instance.add_run(dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED, tags=tags))
    daemon.instance.report_run_failed(run, "its process ended")
    ended = daemon.instance.get_run_by_id(run.run_id)
    assert ended is not None
    daemon.observe(ended)


def test_a_run_of_one_tenant_is_not_all_of_it(daemon: Daemon) -> None:
    """The nightly run died: others still wait for what it was to do."""
    dies(daemon)
    assert opened(daemon) == WHOLE
    assert daemon.run(partition="works|acme").is_success
    assert opened(daemon) == WHOLE
    assert daemon.run().is_success
    assert opened(daemon) == []


def test_a_dead_run_over_a_range_is_about_all_of_it(daemon: Daemon) -> None:
    """Dagster names the range's first partition beside it."""
    first, last = "works|acme", "works|global"
    tags = {RANGE_TAG: first, RANGE_END_TAG: last, PARTITION_TAG: first}
    dies(daemon, **tags)
    assert opened(daemon) == WHOLE
    dies(daemon, **{PARTITION_TAG: first})
    assert sorted(opened(daemon), key=str) == [(first, ENTITY), *WHOLE]


def test_a_run_that_was_busy_everywhere_resolves_nothing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "RETRY_SECONDS", 0.0)
    dies(daemon, "sync_all_job")
    with daemon.world.workspace() as workspace, ExitStack() as holds:
        for tenant in ("acme", "brick", "global"):
            holds.enter_context(workspace.ledger.hold(ENTITY, tenant))
        assert daemon.run("sync_all_job").is_failure
    assert opened(daemon) == WHOLE
    assert daemon.run("sync_all_job").is_success
    assert opened(daemon) == []


@pytest.mark.parametrize(
    ("job", "stages", "is_over"),
    [
        ("works_job", (), {ENTITY, "works_job"}),
        ("works_job", STAGES, {ENTITY, "works_job"}),
        ("works_job", ["vectors"], set()),
        ("sync_all_job", STAGES, {ENTITY}),
        ("sync_all_job", (), {ENTITY, "parts", "sync_all_job"}),
    ],
)
def test_a_run_of_a_part_of_the_assets_is_not_all_of_it(
    daemon: Daemon, job: str, stages: Sequence[str], is_over: set[str]
) -> None:
    """Neither some stages, nor one entity of a job over several."""
    works = daemon.world.config.entities[ENTITY]
    config = daemon.world.config.model_copy(update={"entities": {ENTITY: works, "parts": works}})
    selection = frozenset(dg.AssetKey([ENTITY, stage]) for stage in stages) or None
    run = dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.SUCCESS, asset_selection=selection)
    with daemon.world.workspace() as workspace:
        observed = observe_run(config, workspace.ledger, daemon.instance, run)
    names = [ENTITY, "parts", "works_job", "sync_all_job"]
    dead = {name: KnownAlert(sync_failed(name, None, "died"), 1, NOW, NOW, None) for name in names}
    assert {name for name, one in dead.items() if observed.is_over(one)} == is_over


@pytest.mark.parametrize("tenants", [["acme"], None])
def test_the_command_line_knows_what_is_all_of_it(daemon: Daemon, tenants: list[str] | None) -> None:
    world = daemon.world
    with world.workspace() as workspace:
        results = [one for chosen in workspace.select([ENTITY], tenants) for one in workspace.sync(chosen)]
        observed = observe_results(world.config, workspace.ledger, results)
    dead = KnownAlert(sync_failed(ENTITY, None, "died"), 1, NOW, NOW, None)
    assert observed.is_over(dead) is (tenants is None)


@pytest.mark.parametrize(
    ("alert", "is_over"),
    [
        (sync_failed("former", None, "died"), True),
        (Alert("source_failure", "former", "away"), True),
        (Alert("tenants_lost", "former", "none"), True),
        (Alert("cost_limit", "former", "dear"), True),
        (Alert("cost_limit", f"former, {ENTITY}", "dear"), False),
        (Alert("source_failure", ENTITY, "away"), False),
        (sync_failed("sync_all_job", None, "died"), False),
        (sync_failed("__ASSET_JOB", None, "died"), False),
        (sync_failed("nightly", None, "died"), False),
        (Alert("cost_limit", "sync_all_job", "dear"), False),
    ],
)
def test_what_left_the_configuration_is_over(world: World, alert: Alert, is_over: bool) -> None:
    """But a job may be called anything, also what no entity is; and what somebody saw today may be another project's,
    which has the same ledger."""
    with world.workspace() as workspace:
        workspace.ledger.record_run(Run("r", "former", "former", "acme", "full", "success", NOW, NOW, {}))
        observed = observing(world.config, workspace.ledger)
        now = workspace.ledger.now()
    assert observed.is_over(KnownAlert(alert, 1, now, now - timedelta(days=2), None)) is is_over
    assert not observed.is_over(KnownAlert(alert, 1, now, now, None))
