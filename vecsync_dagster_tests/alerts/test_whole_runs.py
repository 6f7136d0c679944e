"""Alerts of whole entities and jobs: only what really made up for them resolves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

import dagster as dg
import pytest

from vecsync_dagster.alerts import Alert, Seen, book_of, observe
from vecsync_dagster.assets import factory
from vecsync_dagster.automation.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_TAG, add_tenants
from vecsync_dagster.config import Config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.errors import SourceUnavailable
from vecsync_dagster.sources import SqlSource
from vecsync_dagster.sync import SyncOptions
from vecsync_dagster_tests.alerts.conftest import nothing
from vecsync_dagster_tests.alerts.test_dagster import Daemon, world
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.world import ENTITY, World

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


def dies(
    daemon: Daemon,
    job: str = "works_job",
    tags: Mapping[str, str] | None = None,
    checks: frozenset[dg.AssetCheckKey] | None = None,
) -> None:
    """A run whose process is gone, as Dagster's monitor reports it."""
    begun = dg.DagsterRun(job, status=dg.DagsterRunStatus.STARTED, tags=tags or {}, asset_check_selection=checks)
    run = daemon.instance.add_run(begun)
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
    dies(daemon, tags=tags)
    assert opened(daemon) == WHOLE
    dies(daemon, tags={PARTITION_TAG: first})
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


def test_a_run_that_will_be_tried_again_is_not_told(daemon: Daemon) -> None:
    """Dagster retries a crashed run by itself: only the last attempt's end is news."""
    dies(daemon, tags={"dagster/will_retry": "true"})
    assert opened(daemon) == []


def test_a_key_typed_wrongly_is_no_alert(daemon: Daemon, slack: Inbox) -> None:
    """The run says so to whoever started it; nothing is wrong with the entity."""
    assert daemon.run(partitions=["works|nobody"]).is_failure
    assert (opened(daemon), slack.posts) == ([], [])


def test_a_run_of_some_stages_is_not_all_of_it(daemon: Daemon) -> None:
    dies(daemon)
    for tenant in ("acme", "brick", "global"):
        with daemon.world.workspace() as workspace:
            [chosen] = workspace.select([ENTITY], [tenant])
            workspace.sync(chosen, SyncOptions(stages=("export", "documents")))
            observe(daemon.world.config, workspace.ledger)
    assert opened(daemon) == WHOLE
    daemon.run(mode="incremental")
    assert opened(daemon) == []


@pytest.mark.parametrize("job", ["vecsync_retry_job", "reconcile_job"])
def test_a_job_that_syncs_nothing_makes_up_for_itself(daemon: Daemon, slack: Inbox, job: str) -> None:
    """No sync says that retries, or checks, are made again."""
    dies(daemon, job)
    daemon.deliver()
    assert f"works, job {job}: sync failed: the run's process ended" in slack.posts[-1].json["text"]
    assert daemon.run().is_success
    dies(daemon, job)
    assert opened(daemon) == WHOLE
    result = daemon.definitions.resolve_job_def(job).execute_in_process(instance=daemon.instance)
    run = daemon.instance.get_run_by_id(result.run_id)
    assert run is not None
    daemon.observe(run)
    assert opened(daemon) == []


@pytest.mark.parametrize("asset", ["checks", "health"])
@pytest.mark.parametrize("listed", [False, True])
def test_checks_by_hand_that_cannot_be_made_are_no_alert(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, asset: str, listed: bool
) -> None:
    """Their run says why to whoever started it; no sync is missing, and none would end it before the night."""

    def away(*_: object, **__: object) -> None:
        raise SourceUnavailable("away", entity=ENTITY)

    with monkeypatch.context() as patched:
        patched.setattr(SqlSource, "count" if listed else "tenants", away)
        daemon.check(asset, fails=True)
    assert opened(daemon) == []


def with_notes(config: Config) -> Config:
    """The same with one more entity."""
    data = config.model_dump(mode="json", exclude_unset=True)
    works = data["entities"][ENTITY]
    data["entities"]["notes"] = {**works, "collections": {"notes": works["collections"][ENTITY]}}
    return Config.model_validate(data).with_folder(config.folder)


@pytest.mark.parametrize("grows", [True, False])
def test_a_job_makes_up_for_itself_after_entities_came_or_left(daemon: Daemon, slack: Inbox, grows: bool) -> None:
    """Its alert names the entities that there were."""
    before, after = (daemon.world.config, with_notes(daemon.world.config))[:: 1 if grows else -1]
    daemon.definitions = build_definitions(before)
    dies(daemon, "vecsync_retry_job")
    assert len(opened(daemon)) == 1
    daemon.world.config, daemon.definitions = after, build_definitions(after)
    job = daemon.definitions.resolve_job_def("vecsync_retry_job")
    run = daemon.instance.get_run_by_id(job.execute_in_process(instance=daemon.instance).run_id)
    assert run is not None
    daemon.observe(run)
    assert opened(daemon) == []


def test_the_price_of_an_entity_that_left_is_over_with_the_next_run_of_the_others(world: World, slack: Inbox) -> None:
    alerts = world.config.alerts.model_copy(update={"cost_usd_per_run": 1.0})
    config = world.config.model_copy(update={"alerts": alerts}).with_folder(world.config.folder)
    with world.workspace() as workspace:
        for dear, run, left in (
            (f"former, {ENTITY}", [ENTITY], 0),
            (ENTITY, [ENTITY, "notes"], 0),
            (f"notes, {ENTITY}", [ENTITY], 1),
        ):
            book_of(config, workspace.ledger).observe([replace(COST, entity=dear)], nothing)
            seen = Seen()
            seen.cost(config, run, 0.5)
            observe(with_notes(config) if "notes" in dear else config, workspace.ledger, seen)
            assert len(workspace.ledger.alerts()) == left


def test_what_somebody_chose_by_hand_is_made_up_for_by_a_sync(daemon: Daemon) -> None:
    """Nobody may ever choose the same again."""
    dies(daemon, "__ASSET_JOB", checks=frozenset([dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "counts")]))
    assert opened(daemon) == WHOLE
    assert daemon.run(mode="incremental").is_success
    assert opened(daemon) == []


@pytest.mark.parametrize("tenants", [["acme"], None])
def test_the_command_line_knows_what_is_all_of_it(daemon: Daemon, tenants: list[str] | None) -> None:
    dies(daemon)
    with daemon.world.workspace() as workspace:
        for chosen in workspace.select([ENTITY], tenants):
            workspace.sync(chosen)
        observe(daemon.world.config, workspace.ledger)
    assert opened(daemon) == ([] if tenants is None else WHOLE)


FORMER = Alert("run_failure", "former", "died")
COST = Alert("cost_limit", "former", "dear")


@pytest.mark.parametrize(
    ("alert", "stays"),
    [
        (FORMER, False),
        (replace(FORMER, kind="source_failure"), False),
        (replace(FORMER, kind="tenants_lost"), False),
        (replace(FORMER, entity=ENTITY, partition="former|acme"), False),
        (replace(FORMER, partition=f"{ENTITY}|acme"), False),
        (replace(FORMER, entity=ENTITY, partition="Acme Inc"), False),
        (replace(FORMER, partition=f"{ENTITY}|acme", check="validation", kind="check_failure"), False),
        (COST, False),
        (replace(COST, entity=f"former, {ENTITY}"), True),
        (replace(FORMER, entity=ENTITY), True),
        (replace(FORMER, entity=ENTITY, partition=f"{ENTITY}|acme"), True),
    ],
)
def test_what_left_the_configuration_is_over(world: World, slack: Inbox, alert: Alert, stays: bool) -> None:
    """Nothing would ever close it otherwise: also where another entity has taken over its collection."""
    config = world.config.model_copy(
        update={"alerts": world.config.alerts.model_copy(update={"cost_usd_per_run": 1.0})}
    ).with_folder(world.config.folder)
    with world.workspace() as workspace:
        book_of(config, workspace.ledger).observe([alert], nothing)
        observe(config, workspace.ledger)
        assert [known.alert for known in workspace.ledger.alerts()] == ([alert] if stays else [])
