"""Which problems there are the ledger says, whoever looks, and however late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from vecsync_dagster.alerts import Alert, Seen, book_of, observe
from vecsync_dagster.assets import factory
from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.cli.running import Wanted, run_sync
from vecsync_dagster.cli.signals import Stop
from vecsync_dagster.config import Config
from vecsync_dagster.errors import StoreRejected
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.not_begun import failed_results
from vecsync_dagster_tests.alerts.conftest import nothing
from vecsync_dagster_tests.alerts.test_dagster import Daemon, lose_point, repair, texts, world
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.world import ENTITY, World

__all__ = ["world"]

ACME = f"{ENTITY}|acme"


@pytest.fixture
def synced(world: World, slack: Inbox) -> World:
    assert world.sync(mode="full")
    return world


@pytest.fixture
def daemon(synced: World) -> Iterator[Daemon]:
    with dg.DagsterInstance.ephemeral() as instance:
        add_tenants(instance, ENTITY, ["acme", "global"])
        yield Daemon(synced, instance)


def look(world: World, config: Config | None = None) -> list[tuple[str, str | None]]:
    """The open alerts after somebody looked and told; with another configuration of the same ledger."""
    config = config or world.config
    with world.workspace() as workspace:
        observe(config, workspace.ledger).deliver()
        return [(one.alert.kind, one.alert.partition) for one in book_of(config, workspace.ledger).opened]


def is_healthy(world: World) -> bool:
    with world.workspace() as workspace:
        return overview(workspace, entity=None, tenant=None, days=7).healthy


def test_whoever_looks_finds_what_others_found(synced: World, slack: Inbox) -> None:
    """Once however often they look, and its end with the first look after it."""
    lose_point(synced)
    synced.sync("acme", mode="full")
    found = [("reconciliation", ACME)] * 2
    assert [look(synced), look(synced)] == [found, found]
    assert len(slack.posts) == 1
    repair(synced)
    synced.sync("acme", mode="full")
    assert [look(synced), look(synced)] == [[], []]
    assert len(slack.posts) == 2
    assert texts(slack)[1].startswith("vecsync: 2 resolved in works\n")


def test_a_killed_run_is_an_alert_whoever_recorded_it(synced: World, slack: Inbox) -> None:
    """`vecsync health` or `status` mostly comes first."""
    with synced.workspace() as workspace:
        workspace.ledger.begin_writing(ENTITY, ENTITY, "acme", "dead", "incremental")
        assert len(workspace.ledger.end_dead_runs()) == 1
    assert look(synced) == [("run_failure", ACME)]
    assert "works of acme: sync failed: RUN_DIED" in texts(slack)[0]
    assert "have the partition synced again" in texts(slack)[0]
    synced.sync("acme")
    assert look(synced) == []


def test_what_is_no_sync_of_a_partition_fails_none(synced: World, slack: Inbox) -> None:
    """A few records by id, as the ledger and `status` have it; a killed run of them neither."""
    with Workspace(synced.config) as other:
        other.store("main").count(ENTITY)  # the embedded store belongs to one process
        wanted = Wanted("all", None, ENTITY, ids=("11",))
        assert run_sync(synced.config, wanted, SyncOptions(), stop=Stop(), record=False).exit_code == 1
    with synced.workspace() as workspace:
        workspace.ledger.begin_writing(ENTITY, ENTITY, "acme", "dead", "ids")
    assert (look(synced), slack.posts, is_healthy(synced)) == ([], [], True)


def test_what_was_made_up_for_before_a_run_ended_is_no_problem(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, slack: Inbox
) -> None:
    """A partition failed early in a long run, and another process has synced it since."""
    monkeypatch.setattr(factory, "RETRY_SECONDS", 0.0)
    real = Workspace.sync

    def refused(
        self: Workspace, selection: Selection, options: SyncOptions | None = None, **more: object
    ) -> list[PartitionResult]:
        if selection.tenant != "acme":
            return real(self, selection, options)
        error = StoreRejected("no", service="qdrant")
        return failed_results(self.ledger, selection, options or SyncOptions(), "full", datetime.now(UTC), error)

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "sync", refused)
        job = daemon.definitions.resolve_job_def("works_job")
        ended = job.execute_in_process(instance=daemon.instance, raise_on_error=False)
    run = daemon.instance.get_run_by_id(ended.run_id)
    assert run is not None
    assert run.is_failure
    daemon.world.sync("acme", mode="full")
    daemon.observe(run)
    daemon.deliver()
    assert (look(daemon.world), slack.posts) == ([], [])


def test_what_a_canceled_run_found_is_told(daemon: Daemon, slack: Inbox) -> None:
    lose_point(daemon.world)
    run = daemon.instance.add_run(dg.DagsterRun(job_name="works_job", status=dg.DagsterRunStatus.STARTED))
    daemon.world.sync("acme", mode="full")
    daemon.instance.report_run_canceled(run)
    ended = daemon.instance.get_run_by_id(run.run_id)
    assert ended is not None
    daemon.observe(ended)
    daemon.deliver()
    assert texts(slack)[0].startswith("vecsync: 2 problems in works\n")


def test_a_problem_has_the_run_that_found_it(synced: World, slack: Inbox) -> None:
    """Not another one, whose end was looked at first."""
    began = datetime.now(UTC)
    lose_point(synced)
    synced.sync("acme", mode="full")
    with synced.workspace() as workspace:
        observe(synced.config, workspace.ledger, Seen("r1", datetime.now(UTC)))
        observe(synced.config, workspace.ledger, Seen("r2", began, lambda one: one.partition != ACME))
        assert {one.alert.run_id for one in workspace.ledger.alerts()} == {""}
        observe(synced.config, workspace.ledger, Seen("r3", began))
        observe(synced.config, workspace.ledger, Seen("r4", began))
        assert {one.alert.run_id for one in workspace.ledger.alerts()} == {"r3"}


def test_whoever_looks_at_an_entity_leaves_the_others_as_they_are(synced: World, slack: Inbox) -> None:
    """Nothing of them is raised or ended; what no entity has any more is."""
    data = synced.config.model_dump(mode="json", exclude_unset=True)
    works = data["entities"][ENTITY]
    data["entities"]["notes"] = {**works, "collections": {"notes": works["collections"][ENTITY]}}
    config = Config.model_validate(data).with_folder(synced.config.folder)
    gone = Alert("check_failure", "gone", "as it was", "gone|acme", "validation")
    with synced.workspace() as workspace:
        ledger = workspace.ledger
        book_of(config, ledger).observe([gone], nothing)

        def seen(only: str | None) -> set[str]:
            observe(config, ledger, only=only)
            return {one.alert.entity for one in ledger.alerts()}

        broken = CheckResult(ENTITY, "counts", False, "differ", datetime.now(UTC), ENTITY, "acme")
        ledger.record_checks([broken])
        assert seen("notes") == set()
        assert seen(ENTITY) == {ENTITY}
        ledger.record_checks([replace(broken, passed=True, at=datetime.now(UTC))])
        assert seen("notes") == {ENTITY}
        assert seen(None) == set()


def test_alerts_that_are_off_are_not_kept(synced: World, slack: Inbox) -> None:
    lose_point(synced)
    synced.sync("acme", mode="full")
    off = synced.config.alerts.model_copy(update={"enabled": False})
    config = synced.config.model_copy(update={"alerts": off})
    assert look(synced, config) == []
    assert slack.posts == []


@pytest.mark.parametrize("name", ["notes", ENTITY])
def test_two_projects_with_one_ledger_tell_their_own(
    synced: World, slack: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither tells the other's channels, nor ends what it does not sync, also where both have an entity of one
    name."""
    lose_point(synced)
    synced.sync("acme", mode="full")
    slack.fail(503, times=100)
    assert len(look(synced)) == 2
    slack.recover()
    data = synced.config.model_dump(mode="json", exclude_unset=True)
    works = data["entities"][ENTITY]
    data["entities"] = {name: {**works, "collections": {"notes": works["collections"][ENTITY]}}}
    with Inbox() as theirs:
        monkeypatch.setenv("SLACK_OF_NOTES", theirs.url)
        data |= {"alerts": {"slack": {"url": {"env": "SLACK_OF_NOTES"}}}, "state": str(tmp_path / "notes")}
        notes = Config.model_validate(data).with_folder(tmp_path)
        assert look(synced, notes) == []
        assert theirs.posts == []
    assert len(look(synced)) == 2
    assert texts(slack)[-1].startswith("vecsync: 2 problems in works\n")
