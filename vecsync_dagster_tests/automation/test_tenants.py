"""The tenants sensor: who comes, who goes, and a source that is not to be believed."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from vecsync_dagster.alerts import book_of, sync_failed
from vecsync_dagster.checks.headlines import runs_outcome
from vecsync_dagster.cli.overview import overview
from vecsync_dagster.cli.running import Wanted, run_sync
from vecsync_dagster.cli.signals import Stop
from vecsync_dagster.ledger.base import LISTING, Rejected
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import CheckOutcome, SyncOptions
from vecsync_dagster.sync.health import health
from vecsync_dagster.sync.rollcall import call_the_roll
from vecsync_dagster.sync.verify import kept
from vecsync_dagster_tests.automation.ticks import Automated, config_of_op, keys_of
from vecsync_dagster_tests.fakes.alert_servers import Inbox
from vecsync_dagster_tests.world import ENTITY, WORKS


def drop_tenant(automated: Automated, *tenants: str) -> None:
    world = automated.world
    world.delete(*(row["id"] for row in world.rows() if row["tenant_id"] in tenants))


def test_new_tenants_are_synced_in_the_tick_that_finds_them(automated: Automated) -> None:
    """They become partitions and get their runs in one tick; the next tick has nothing to say."""
    requests = automated.asked("tenants")
    assert automated.partitions() == {"acme", "brick", "cord"}
    assert sorted(key for request in requests for key in keys_of(request)) == [
        "works|acme",
        "works|brick",
        "works|cord",
    ]
    assert all(result.success for result in automated.run(requests))
    assert {payload["tenantId"] for payload in automated.world.stored().values()} == {"acme", "brick", "cord"}
    quiet = automated.tick("tenants")
    assert (quiet.run_requests, quiet.skip_reason.skip_message if quiet.skip_reason else None) == (
        [],
        "no tenant came or went",
    )


def test_what_is_synced_already_is_new_to_dagster_alone(automated: Automated) -> None:
    """By the command line, before there was this Dagster, or by who listens: a partition, and no run."""
    automated.world.sync()
    automated.world.insert([{"id": 500, "tenant_id": "new"}])
    result = automated.tick("tenants")
    assert [keys_of(request) for request in result.run_requests or []] == [["works|new"]]
    assert automated.partitions() == {"acme", "brick", "cord", "new"}


def test_a_tick_shows_what_a_run_that_was_killed_did_not(settled: Automated) -> None:
    """The ledger knows that a check failed, and that it passes again; the headline follows with the next tick."""
    key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "counts")

    def headline() -> bool:
        [record] = settled.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.evaluation is not None
        return record.evaluation.passed

    for passed in (False, True, False):
        with settled.world.workspace() as workspace:
            outcome = CheckOutcome("counts", passed, "as it is")
            workspace.ledger.record_checks([kept(outcome, ENTITY, ENTITY, "acme", utc_now())])
        settled.tick("tenants")
        settled.tick("tenants")
        assert headline() is passed


def test_many_new_tenants_share_a_run(automated: Automated) -> None:
    """More than a few partitions are one run over a scattered set of them."""
    automated.world.insert({"id": 1000 + n, "tenant_id": f"tenant-{n:02}"} for n in range(20))
    [request] = automated.asked("tenants")
    assert len(keys_of(request)) == 23
    [result] = automated.run([request])
    assert result.success
    automated.settle()
    automated.world.assert_exact()


def test_a_tenant_that_is_gone_leaves_nothing(settled: Automated) -> None:
    """Its points, ledger rows, watermark and snapshot go, its partition says so, and then leaves the partitions."""
    world = settled.world
    drop_tenant(settled, "brick")
    assert settled.asked("tenants") == []
    [request] = settled.asked("tenants")
    assert keys_of(request) == ["works|brick"]
    assert config_of_op(request) == {
        "mode": "full",
        "allow_removals": False,
        "tenant_gone": True,
        "partitions": ["works|brick"],
    }
    assert settled.partitions() == {"acme", "brick", "cord", GLOBAL}
    [result] = settled.run([request])
    assert result.success
    world.assert_exact()
    assert settled.last_materialization("works|brick").metadata["state"].value == "removed, 0 points"
    with world.workspace() as workspace:
        assert "brick" not in workspace.ledger.with_rows_or_marks(ENTITY)
        assert (
            workspace.ledger.watermark(ENTITY, ENTITY, "brick", world.config.entities[ENTITY].fingerprint(ENTITY))
            is None
        )
        assert (ENTITY, "brick") not in workspace.ledger.seen(ENTITY)
        assert not workspace.snapshots.path(ENTITY, "brick").exists()
    assert settled.asked("tenants") == []
    assert settled.partitions() == {"acme", "cord", GLOBAL}
    assert settled.tick("tenants").dynamic_partitions_requests == []


def test_a_tenant_without_documents_leaves_nothing_either(settled: Automated) -> None:
    """One whose last document went before it did, and of which no more is known than which records were rejected."""
    world = settled.world
    with world.workspace() as workspace:
        rejected = [Rejected(None, "VALIDATION_FAILED", "id", "the id is missing", ENTITY)]
        workspace.ledger.reject("run", ENTITY, "former", rejected, utc_now())
    assert settled.asked("tenants") == []
    [request] = settled.asked("tenants")
    assert keys_of(request) == ["works|former"]
    [result] = settled.run([request])
    assert result.success
    with world.workspace() as workspace:
        assert "former" not in workspace.traces(ENTITY)
    assert settled.asked("tenants") == []


def test_a_tenant_that_comes_back_is_synced_again(settled: Automated) -> None:
    """The same rows as before, gone and back again, are the same points again."""
    rows = [row for row in settled.world.rows() if row["tenant_id"] == "brick"]
    drop_tenant(settled, "brick")
    settled.tick("tenants")
    settled.settle()
    settled.world.insert({key: row[key] for key in ("id", "name", "tenant_id")} for row in rows)
    settled.settle()
    settled.world.assert_exact()
    assert "brick" in settled.partitions()


def test_a_missing_tenant_that_is_back_is_due_in_full(settled: Automated) -> None:
    """Its rows have the times that they had: no watermark finds what went to others meanwhile."""
    rows = [row for row in settled.world.rows() if row["tenant_id"] == "brick"]
    drop_tenant(settled, "brick")
    settled.tick("tenants")
    with settled.world.engine.begin() as connection:
        connection.execute(sa.insert(WORKS), rows)
    settled.tick("tenants")
    with settled.world.workspace() as workspace:
        assert workspace.ledger.doubted(ENTITY).keys() == {("works", "brick")}
    [request] = settled.asked("changes")
    assert keys_of(request) == ["works|brick"]
    settled.run([request])
    with settled.world.workspace() as workspace:
        assert workspace.ledger.doubted(ENTITY) == {}
    assert settled.asked("changes") == []


def test_a_tenant_that_only_the_ledger_knows_is_found(settled: Automated) -> None:
    """Fault 4: one that vanished is visited again though it is no partition any more."""
    settled.instance.delete_dynamic_partition(f"vecsync_{ENTITY}_tenants", "brick")
    drop_tenant(settled, "brick")
    settled.tick("tenants")
    settled.run(settled.asked("tenants"))
    settled.world.assert_exact()


@pytest.mark.parametrize("gone", [("acme", "brick"), ("acme", "brick", "cord")], ids=["too many", "all"])
def test_a_source_that_lists_far_fewer_removes_nothing(settled: Automated, gone: tuple[str, ...]) -> None:
    """Neither the sensor nor a full run over everything removes; people are told, and the tick says why."""
    before = settled.world.stored()
    drop_tenant(settled, *gone)
    result = settled.tick("tenants")
    assert (result.run_requests, result.dynamic_partitions_requests) == ([], [])
    assert result.skip_reason is not None
    assert "taken for broken" in str(result.skip_reason.skip_message)
    figures = {"known": 3, "found": 3 - len(gone)}
    assert listings(settled) == [("failed", figures)]
    schedule = settled.definitions.resolve_schedule_def("works_nightly")
    job = settled.definitions.resolve_job_def(schedule.job_name)
    config = {"ops": {"works_sync": {"config": {"mode": "full"}}}}
    ran = job.execute_in_process(instance=settled.instance, run_config=config, raise_on_error=False)
    assert not ran.success  # as `vecsync sync --full` does not end well
    assert settled.world.stored() == before
    with settled.world.workspace() as workspace:
        shown = runs_outcome(workspace, ENTITY, {})
        assert shown.message.startswith(
            f"the source lacks tenants: TENANTS_LOST: works: the source lists {3 - len(gone)}"
        )
        found = health(workspace.config, workspace.ledger.last_runs(), workspace.ledger.now())
        assert (found["failing"], overview(workspace, entity=None, tenant=None, days=7).healthy) == (1, False)
    settled.tick("changes")  # it can ask, which says nothing of the tenants
    assert listings(settled) == [("failed", figures)]
    removing = SyncOptions(mode="full", allow_removals=True)
    for tenant in gone:
        run_sync(settled.world.config, Wanted("tenant", tenant), removing, stop=Stop(), record=False)
    assert listings(settled)[0] == ("success", {})


@pytest.mark.parametrize("full", [True, False])
def test_the_command_line_and_a_tick_tell_the_same_of_lost_tenants(
    settled: Automated, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """One alert, told once, whoever looks first; also where a sync of the changed rows alone met one of them."""
    settled.use(alerts={"slack": {"url": {"env": "SLACK_URL"}}})
    drop_tenant(settled, "acme", "brick")
    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        for _ in range(2):
            options = SyncOptions(mode="full" if full else "incremental")
            run_sync(settled.world.config, Wanted(), options, stop=Stop(), record=False)
            settled.tick("tenants")
            deliver(settled)
        told = "\n".join(post.json["text"] for post in inbox.posts)
    assert told.count("works: tenants lost: the source lists 1 of 3 tenants") == 1
    assert "not synced" not in told
    assert len(listings(settled)) == 1


def listings(automated: Automated) -> list[tuple[str, object]]:
    """What the ledger has of attempts to ask the source for its tenants."""
    with automated.world.workspace() as workspace:
        found = workspace.ledger.runs(ENTITY, "", 10, collection="", mode=LISTING)
        return [(run.outcome, dict(run.figures)) for run in found]


def test_lost_tenants_are_an_alert_until_they_are_back(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ticks see them lost they are one open alert, with figures; the tick that sees them again ends it."""
    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        settled.use(alerts={"slack": {"url": {"env": "SLACK_URL"}}})
        rows = [row for row in settled.world.rows() if row["tenant_id"]]
        settled.world.delete(*(row["id"] for row in rows))
        told = []
        for _ in range(2):
            settled.tick("tenants")
            told.append(deliver(settled))
        settled.world.insert({name: row[name] for name in ("id", "name", "tenant_id")} for row in rows)
        settled.tick("tenants")
        told.append(deliver(settled))
        assert told == [1, 0, 1]
        lost, well = (post.json["text"] for post in inbox.posts)
    assert "known 3, found 0" in lost
    assert "resolved" in well


def deliver(automated: Automated) -> int:
    with automated.world.workspace() as workspace:
        delivery = book_of(automated.world.config, workspace.ledger).deliver()
    assert delivery.errors == {}
    return delivery.sent.get("slack", 0)


def test_an_alert_of_a_tenant_that_left_before_its_first_sync_is_over(settled: Automated) -> None:
    """Its first run was killed before it wrote anything: no run will ever make up for that."""
    settled.use(alerts={"slack": {"url": {"env": "SLACK_URL"}}})
    settled.world.insert([{"id": 99, "tenant_id": "new"}])
    settled.tick("tenants")

    def opened() -> list[str | None]:
        with settled.world.workspace() as workspace:
            return [known.alert.partition for known in book_of(workspace.config, workspace.ledger).opened]

    with settled.world.workspace() as workspace:
        died = sync_failed(ENTITY, "works|new", "the process ended")
        book_of(workspace.config, workspace.ledger).observe([died], lambda _: False)
    settled.tick("tenants")
    assert opened() == ["works|new"]
    settled.world.delete(99)
    settled.tick("changes")
    assert opened() == ["works|new"]
    settled.tick("tenants")
    assert opened() == []


def test_the_nightly_run_visits_tenants_that_are_gone(settled: Automated) -> None:
    """It is full, over everything that source or ledger know: without any sensor a vanished tenant goes too, in the
    second night."""
    settled.use(sync={})
    drop_tenant(settled, "brick")
    settled.world.sync(mode="full")
    schedule = settled.definitions.resolve_schedule_def("works_nightly")
    with dg.build_schedule_context(instance=settled.instance) as context:
        [request] = schedule.evaluate_tick(context).run_requests or []
    assert config_of_op(request) == {"mode": "full"}
    [result] = settled.run([request])
    assert result.success
    settled.world.assert_exact()
    assert settled.last_materialization("works|brick").metadata["state"].value == "removed, 0 points"


def test_a_tenant_is_missed_for_a_while_before_it_is_removed(settled: Automated) -> None:
    """Ticks that miss it say since when and until when, and ask for nothing; one that finds it forgets that."""
    settled.use(automation={"tenants": {"missing_for": "PT15M"}})
    rows = [row for row in settled.world.rows() if row["tenant_id"] == "brick"]
    for _ in range(2):
        drop_tenant(settled, "brick")
        for _ in range(3):
            result = settled.tick("tenants")
            assert (result.run_requests, result.dynamic_partitions_requests) == ([], [])
            assert result.skip_reason is not None
            assert "tenant brick: missing since" in str(result.skip_reason.skip_message)
        assert looks(settled) == {"brick": 3}
        settled.world.insert(rows)
        settled.tick("tenants")
        assert looks(settled) == {}
    with_clock_behind(settled, "brick")
    [request] = settled.asked("tenants")
    assert keys_of(request) == ["works|brick"]
    settled.world.insert(rows)
    [run] = settled.run([request])
    assert run.success
    settled.world.assert_exact()


def with_clock_behind(settled: Automated, tenant: str) -> None:
    """The tenant goes, and a full run missed it twenty minutes ago."""
    drop_tenant(settled, tenant)
    settled.world.wait(timedelta(minutes=-20))
    settled.world.sync(tenant, mode="full")
    settled.world.clock = utc_now


def looks(settled: Automated) -> dict[str, int]:
    with settled.world.workspace() as workspace:
        return {tenant: one.looks for tenant, one in workspace.ledger.missing(ENTITY).items()}


def test_the_share_is_configurable(settled: Automated) -> None:
    """Where losing all tenants is nothing unusual, all are removed."""
    settled.use(automation={"tenants": {"max_lost_share": 1, "missing_for": 0}})
    drop_tenant(settled, "acme", "brick", "cord")
    settled.tick("tenants")
    settled.settle()
    assert listings(settled) == []
    settled.world.assert_exact()
    assert settled.partitions() == {GLOBAL}


def test_keys_that_cannot_be_partitions_are_named(settled: Automated) -> None:
    """A tenant with a `|` in its key is no partition, is asked for in no run, and the tick says so."""
    settled.world.insert([{"id": 99, "tenant_id": "a|b"}])
    result = settled.tick("tenants")
    assert (result.run_requests, result.dynamic_partitions_requests) == ([], [])
    assert result.skip_reason is not None
    assert "1 tenant key cannot be a partition: 'a|b'" in str(result.skip_reason.skip_message)
    assert settled.asked("changes") == []


def test_a_removal_is_asked_for_once_while_it_waits(settled: Automated) -> None:
    """While its run is queued no other is asked for; when that failed, the next one waits for the back-off."""
    drop_tenant(settled, "brick")
    settled.tick("tenants")
    [request] = settled.asked("tenants")
    queued = settled.queue(keys_of(request))
    assert settled.asked("tenants") == []
    run = settled.instance.get_run_by_id(queued)
    assert run is not None
    settled.instance.report_run_failed(run)
    assert settled.asked("tenants") == []
    settled.cursors["works_tenants"] = None
    assert [keys_of(again) for again in settled.asked("tenants")] == [["works|brick"]]


@pytest.mark.parametrize(
    ("at_source", "holders", "share", "vanished", "lost"),
    [
        (["a", "b"], ["a", "b"], 0.5, (), False),
        (["a"], ["a", "b"], 0.5, ("b",), False),
        (["a"], ["a", "b"], 0.4, ("b",), True),
        ([], ["a"], 0.99, ("a",), True),
        ([], ["a"], 1.0, ("a",), False),
        ([], [], 0.0, (), False),
        (["x", "global"], ["global", "a"], 0.5, ("a",), True),
    ],
)
def test_who_is_believed(
    at_source: list[str], holders: list[str], share: float, vanished: tuple[str, ...], lost: bool
) -> None:
    """A source may lack that share of the tenants that have documents, and no more; `global` is no tenant."""
    roll = call_the_roll("works", at_source, holders, (), share)
    assert (roll.vanished, roll.lost is not None) == (vanished, lost)
