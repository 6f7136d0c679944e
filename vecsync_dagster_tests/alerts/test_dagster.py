"""Alerts of Dagster runs: real runs on an ephemeral instance, the sensors as the daemon calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from vecsync_dagster.assets import factory
from vecsync_dagster.automation.alerting import DELIVERY, OBSERVERS
from vecsync_dagster.automation.outages import tick
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import SqlSource
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.alerts.conftest import slack_config
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.world import ENTITY, World, config_of

UI = "https://dagster.example.com"
ENDED = {
    dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
}


class Daemon:
    """Runs jobs, and after each what the daemon would: the sensor for the run's end, then the delivery."""

    def __init__(self, world: World, instance: dg.DagsterInstance) -> None:
        self.world = world
        self.instance = instance
        self.definitions = build_definitions(world.config)

    def run(
        self,
        job: str = "works_job",
        partition: str | None = None,
        *,
        deliver: bool = True,
        look: bool = True,
        **config: Any,
    ) -> dg.DagsterRun:
        op = "all_sync" if job == "sync_all_job" else "works_sync"
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_config={"ops": {op: {"config": {"mode": "full", **config}}}},
            partition_key=partition,
            raise_on_error=False,
        )
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        if look:
            self.observe(run)
        if deliver:
            self.deliver()
        return run

    def check(self, asset: str, *, fails: bool = False) -> None:
        """Execute all checks of an asset by hand, as the UI does."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = {key for key in job.asset_layer.asset_graph.asset_check_keys if key.asset_key.path == [ENTITY, asset]}
        subset = job.get_subset(asset_selection=set(), asset_check_selection=keys)
        asked: dict[str, Any] = dict.fromkeys(signature(self.instance.create_run).parameters)
        asked |= {"job_name": job.name, "asset_graph": job.asset_layer.asset_graph}
        asked |= {"asset_selection": frozenset(), "asset_check_selection": frozenset(keys)}
        begun = self.instance.create_run(**asked)
        execute_run(InMemoryJob(subset), begun, self.instance)
        run = self.instance.get_run_by_id(begun.run_id)
        assert run is not None
        assert run.is_failure is fails
        self.observe(run)
        self.deliver()

    def observe(self, run: dg.DagsterRun) -> Any:
        [name] = [name for name, status in OBSERVERS.items() if status is run.status]
        [record] = self.instance.get_records_for_run(run.run_id, of_type=ENDED[run.status]).records
        event = record.event_log_entry.dagster_event
        assert event is not None
        sensor = self.definitions.resolve_sensor_def(name)
        context = dg.build_run_status_sensor_context(name, event, self.instance, run)
        return sensor(context)

    def deliver(self, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(instance=self.instance, cursor=cursor)
        return self.definitions.resolve_sensor_def(DELIVERY)(context)


@pytest.fixture
def world(tmp_path: Path) -> World:
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        alerts={**slack_config(), "ui_url": UI},
        sync={"repair": "report"},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    world.insert({"id": n, "is_global": True} for n in range(1, 6))
    world.insert({"id": n, "tenant_id": "acme"} for n in range(11, 15))
    return world


@pytest.fixture
def daemon(world: World, slack: Inbox) -> Iterator[Daemon]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(world, instance)


def texts(slack: Inbox) -> list[str]:
    return [post.json["text"] for post in slack.posts]


def lose_point(world: World) -> None:
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        [page, *_] = store.scan(ENTITY, "acme")
        store.delete(ENTITY, "acme", [page[0].point_id])


def repair(world: World) -> None:
    with world.workspace() as workspace:
        workspace.repair(ENTITY, ENTITY, list(workspace.differences(ENTITY, ENTITY)))


def test_sensors_are_there_where_a_channel_is(world: World, tmp_path: Path) -> None:
    """They run by themselves; without a channel there are none."""
    sensors = {sensor.name: sensor.default_status for sensor in build_definitions(world.config).sensors or ()}
    ours = {*OBSERVERS, DELIVERY}
    assert {name: status for name, status in sensors.items() if name in ours} == dict.fromkeys(
        ours, dg.DefaultSensorStatus.RUNNING
    )
    silent = config_of(tmp_path, source={"type": "sqlite", "path": "s.db"}, store={"type": "qdrant", "path": "qdrant"})
    assert not ours.intersection(sensor.name for sensor in build_definitions(silent).sensors or ())


def test_what_another_run_found_is_linked_to_that_run(daemon: Daemon, world: World, slack: Inbox) -> None:
    """Two runs end at the same time, and the first one that is looked at finds the problems of both."""
    daemon.run()
    lose_point(world)
    found = daemon.run(partition="works|acme", look=False, deliver=False)
    daemon.run(partition="works|global")
    [text] = texts(slack)
    assert "check identity" in text
    assert f"{UI}/runs/{found.run_id}" in json.dumps(slack.posts[0].json)


@pytest.mark.parametrize("fails", ["check", "sync"])
def test_what_a_sensor_sees_before_its_run_is_looked_at_is_linked_to_that_run(
    daemon: Daemon, world: World, slack: Inbox, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """The sensors that look for changes look every few seconds, also while the run is still under way."""
    daemon.run()
    if fails == "check":
        lose_point(world)
    else:
        monkeypatch.setattr(SqlSource, "read", _broken)
    failed = daemon.run(partition="works|acme", look=False, deliver=False)
    assert failed.is_failure
    with tick(daemon.instance, world.config, ENTITY):
        pass
    daemon.deliver()
    [post] = slack.posts
    assert f"{UI}/runs/{failed.run_id}" in json.dumps(post.json)


def _broken(*_: object) -> None:
    raise SourceRejected("a view of it is gone", entity=ENTITY)


def test_what_a_run_that_is_not_over_has_found_is_linked_to_it(daemon: Daemon, world: World, slack: Inbox) -> None:
    daemon.run()
    lose_point(world)
    for run_id, partition in {"r1": "works|global", "r2": "works|acme"}.items():
        status, tags = dg.DagsterRunStatus.STARTED, {"dagster/partition": partition}
        daemon.instance.add_run(dg.DagsterRun("works_job", run_id=run_id, status=status, tags=tags))
    world.sync("acme", mode="full")
    with tick(daemon.instance, world.config, ENTITY):
        pass
    daemon.deliver()
    assert [post.json["text"].count(f"{UI}/runs/r2") for post in slack.posts] == [1]


@pytest.mark.parametrize("job", ["works_job", "sync_all_job"])
def test_a_failing_check_is_told_once_and_so_is_its_end(daemon: Daemon, world: World, slack: Inbox, job: str) -> None:
    """Two failing checks of a run are one message with a link; unchanged again, the run says that it is well."""
    daemon.run(job)
    assert slack.posts == []
    lose_point(world)
    run = daemon.run(job)
    assert not run.is_success
    daemon.run(job)
    [text] = texts(slack)
    assert text.startswith("vecsync: 2 problems in works\n")
    assert "works of acme, check identity: store and ledger differ: 1 missing" in text
    assert "store 3" in text
    assert "ledger 4" in text
    assert f"Run {UI}/runs/{run.run_id}" in text
    repair(world)
    daemon.run(job)
    daemon.run(job)
    assert len(slack.posts) == 2
    assert texts(slack)[1].startswith("vecsync: 2 resolved in works\n")


def test_a_failed_partition_is_told_by_its_name(daemon: Daemon, world: World, slack: Inbox) -> None:
    """A run that fails tells which partitions and why; the next one that succeeds tells that it is over."""
    world.insert([{"id": 99, "tenant_id": "a|b"}])
    assert daemon.run().is_failure
    [text] = texts(slack)
    assert "works of a|b: sync failed: INVALID_TENANT" in text
    assert daemon.run(partition="works|global").is_success
    assert len(slack.posts) == 1  # another partition says nothing of this one
    world.delete(99)
    assert daemon.run().is_success
    assert "resolved" in texts(slack)[1]
    with world.workspace() as workspace:
        assert "a|b" not in {place.tenant for place in workspace.ledger.last_runs()}


def test_a_run_that_syncs_nothing_ends_no_failed_sync(daemon: Daemon, world: World, slack: Inbox) -> None:
    """Neither checks made by hand nor a run of other partitions says that a partition, or an entity, whose sync failed
    is well again: only its own next sync does. That a partition's run was refused as its source lacks tenants is no
    problem of its own."""
    assert daemon.run().is_success
    world.insert([{"id": 21, "tenant_id": "brick"}])
    assert daemon.run().is_success
    world.delete(*range(11, 15), 21)  # all tenants: the source is taken for broken
    assert daemon.run(partition="works|acme").is_failure
    assert "works: tenants lost: the source lists 0 of 2 tenants" in texts(slack)[0]
    assert "Missing: acme, brick" in texts(slack)[0]
    daemon.check("health")
    assert daemon.run(partition="works|global").is_success
    assert not any("sync failed" in text or "RESOLVED" in text for text in texts(slack))
    world.insert({"id": n, "tenant_id": "acme"} for n in range(11, 15))
    with tick(daemon.instance, world.config, ENTITY) as workspace:
        workspace.call_the_roll(ENTITY)
    daemon.deliver()
    assert not any("sync failed" in text or "RESOLVED" in text for text in texts(slack))
    assert daemon.run().is_success
    assert "RESOLVED works (was: tenants lost" in texts(slack)[-1]


def test_a_run_that_ended_in_another_way_is_told_without_its_text(
    daemon: Daemon, slack: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not ours may hold anything: only its type is told."""

    def broken(*_: object, **__: object) -> None:
        raise LookupError("Geheimnis")

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "select", broken)
        assert daemon.run().is_failure
    [text] = texts(slack)
    assert "works: not synced: INTERNAL_ERROR" in text
    assert "unexpected LookupError" in text
    assert "Geheimnis" not in text
    assert daemon.run().is_success
    assert "resolved" in texts(slack)[1]


def test_an_entity_is_well_although_a_partition_failed(
    daemon: Daemon, world: World, slack: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it could not be synced; then all of it is, but for a partition that has an alert of its own."""

    def gone(*_: object, **__: object) -> None:
        raise SourceRejected("gone", entity=ENTITY)

    with monkeypatch.context() as patched:
        for method in ("tenants", "believable_tenants"):
            patched.setattr(Workspace, method, gone)
        assert daemon.run().is_failure
    assert "works: not synced: SOURCE_ERROR" in texts(slack)[0]
    world.insert([{"id": 99, "tenant_id": "a|b"}])
    assert daemon.run().is_failure
    assert "RESOLVED works (was: not synced" in texts(slack)[1]
    assert "works of a|b: sync failed: INVALID_TENANT" in texts(slack)[1]


def test_partitions_that_another_run_syncs_are_not_told(
    daemon: Daemon, world: World, slack: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are; the run itself failed."""
    monkeypatch.setattr(factory, "RETRY_SECONDS", 0.0)
    world.insert({"id": 1000 + n, "tenant_id": f"t{n}"} for n in range(22))
    assert daemon.run().is_success
    with world.workspace() as workspace, ExitStack() as holds:
        for n in range(22):
            holds.enter_context(workspace.ledger.hold(ENTITY, f"t{n}"))
        assert daemon.run().is_failure
    assert slack.posts == []


def test_slack_is_down(daemon: Daemon, world: World, slack: Inbox) -> None:
    """The delivery's tick says so in one line, waits longer each time, and a later one tells; observing goes on."""
    daemon.run(deliver=False)
    lose_point(world)
    slack.fail(503, times=1000)
    daemon.run(deliver=False)
    failed = daemon.deliver()
    assert failed.skip_reason.skip_message == (
        "alerts were not sent: ALERT_UNSENT: alerts.slack: the server answered 503; the next attempt is in 30 s"
    )
    assert "alerts wait for the next attempt" in daemon.deliver(failed.cursor).skip_reason.skip_message
    assert "the next attempt is in 60 s" in daemon.deliver("1 0").skip_reason.skip_message
    slack.recover()
    sent = daemon.deliver("2 0")
    assert (sent.skip_reason.skip_message, sent.cursor) == ("sent: 1 to slack", "0 0")
    assert daemon.deliver().skip_reason.skip_message == "nothing to tell"
    assert len(slack.posts) == 1


def test_looking_at_a_run_twice_changes_nothing(daemon: Daemon, world: World, slack: Inbox) -> None:
    """A tick that is repeated after a crash, or late, neither doubles a message nor reopens what is over."""
    daemon.run()
    lose_point(world)
    failing = daemon.run()
    repair(world)
    daemon.run()
    daemon.observe(failing)
    daemon.deliver()
    assert len(slack.posts) == 2


def test_a_run_of_others_is_none_of_ours(daemon: Daemon, slack: Inbox) -> None:
    """Other jobs may live in the same code location; their failures are their own."""

    @dg.op
    def theirs() -> None:
        raise LookupError("theirs")

    @dg.job
    def other_job() -> None:
        theirs()

    result = other_job.execute_in_process(instance=daemon.instance, raise_on_error=False)
    run = daemon.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert "none of vecsync's" in daemon.observe(run).skip_message
    daemon.deliver()
    assert slack.posts == []


@contextmanager
def paid_daemon(folder: Path, **more: Any) -> Iterator[Daemon]:
    """A world whose vectors are paid for, at a server that refuses the text "unsagbar"."""
    with OpenAIServer(dimensions=8, rejects="unsagbar") as server, dg.DagsterInstance.ephemeral() as instance:
        provider = {"provider": "openai", "model": "m", "dimensions": 8, "base_url": server.base_url}
        config = config_of(
            folder,
            source={"type": "sqlite", "path": "source.db"},
            store={"type": "qdrant", "path": "qdrant"},
            embedding={"chain": [{**provider, "price_per_million_tokens": 1000}]},
            **more,
        )
        world = World(f"sqlite:///{folder / 'source.db'}", config)
        world.insert({"id": n, "is_global": True} for n in range(1, 6))
        yield Daemon(world, instance)


def test_what_a_run_may_cost(tmp_path: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The price of all its partitions stands in the run's tags, and is told where it passes the limit."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with paid_daemon(tmp_path, alerts={**slack_config(), "cost_usd_per_run": 0.001}) as daemon:
        run = daemon.run()
        assert float(run.tags["vecsync/price_usd"]) > 0.001
        daemon.run()
    first, second = texts(slack)
    assert "works: cost limit passed: one run paid US$ " in first
    assert "resolved" in second


def test_documents_that_failed_for_good_are_told(tmp_path: Path, slack: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number and their partition, not their text; and that it is over when they changed."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with paid_daemon(tmp_path, alerts=slack_config(), sync={"retry": {"max_retries": 0}}) as daemon:
        daemon.world.update(1, 2, name="unsagbar")
        daemon.run()
        [text] = texts(slack)
        assert "works of global: documents failed for good: 2 failed too often" in text
        assert "unsagbar" not in text
        daemon.world.update(1, 2, name="sagbar")
        daemon.run()
    assert "(was: documents failed for good" in texts(slack)[1]
