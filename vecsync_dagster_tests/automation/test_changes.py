"""The change sensor: what it asks for, how often, and that it loses nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable

from vecsync_dagster.assets import factory
from vecsync_dagster.automation import changes, under_way
from vecsync_dagster.automation.runs import run_over
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.sync import Selection, SyncOptions
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.metrics import METRICS
from vecsync_dagster_tests.automation.ticks import Automated, config_of_op, keys_of
from vecsync_dagster_tests.world import ENTITY, WORKS


def asked_keys(requests: list[dg.RunRequest]) -> list[str]:
    return sorted(key for request in requests for key in keys_of(request))


def test_nothing_changed_asks_for_nothing(settled: Automated) -> None:
    """After all was synced the sensor is quiet, and says why."""
    result = settled.tick("changes")
    assert result.run_requests == []
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "nothing has changed"


def test_a_changed_row_asks_for_its_partition_alone(settled: Automated) -> None:
    """A run for that one partition, of changed rows only; after it the sensor is quiet again."""
    settled.world.update(11, name="иначе")
    [request] = settled.asked("changes")
    assert (request.partition_key, config_of_op(request)["mode"]) == ("works|acme", "configured")
    settled.run([request])
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_row_that_is_dated_before_the_newest_one_is_asked_for(settled: Automated) -> None:
    """As a transaction leaves it that began before the newest change and was committed after it was synced."""

    def change(row: int, at: datetime, name: str) -> None:
        values = {"updated_at": at.isoformat(" ", "milliseconds"), "name": name}
        with settled.world.engine.begin() as connection:
            connection.execute(sa.update(WORKS).where(WORKS.c.id == row).values(values))

    now = datetime.now(UTC).replace(microsecond=1000)
    change(10, now, "иначе")
    settled.settle()
    assert settled.asked("changes") == []
    change(11, now - timedelta(minutes=2), "поздно")
    [request] = settled.asked("changes")
    assert (request.partition_key, config_of_op(request)["mode"]) == ("works|acme", "configured")
    settled.run([request])
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_row_dated_in_the_future_blinds_nobody(settled: Automated) -> None:
    """It is synced once; what changes after it is asked for all the same, and nothing is asked for again and again."""

    def change(row: int, at: str, **values: str) -> None:
        with settled.world.engine.begin() as connection:
            connection.execute(sa.update(WORKS).where(WORKS.c.id == row).values(updated_at=at, **values))

    change(10, "2124-01-01 00:00:00+00:00")
    settled.settle()
    for name in ("иначе", "опять"):
        change(11, datetime.now(UTC).isoformat(" ", "milliseconds"), name=name)
        [request] = settled.asked("changes")
        assert (request.partition_key, config_of_op(request)["mode"]) == ("works|acme", "configured")
        settled.run([request])
        settled.world.assert_exact()
        assert settled.asked("changes") == []


def test_rows_of_everybody_are_a_partition_too(automated: Automated) -> None:
    """`global` becomes a partition and is synced, though no tenant is called so."""
    assert asked_keys(automated.asked("changes")) == ["works|global"]
    assert automated.partitions() == {"global"}


def test_new_tenants_are_left_to_the_tenants_sensor(settled: Automated) -> None:
    """A tenant that is no partition yet is not asked for twice, by two sensors."""
    settled.world.insert([{"id": 77, "tenant_id": "delta"}])
    assert settled.asked("changes") == []


def test_a_deleted_row_asks_for_a_full_run(settled: Automated) -> None:
    """Fewer rows are no changed row that an incremental run could read."""
    settled.world.delete(11)
    [request] = settled.asked("changes")
    assert config_of_op(request)["mode"] == "full"
    settled.use(sync={"removal_guard": {"share": 0.3, "min_documents": 2}})
    settled.run([request])
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_row_that_is_marked_as_deleted_needs_its_changed_rows_alone(settled: Automated) -> None:
    """It is live no more and still in the table: an incremental run removes it, no full one has to."""
    with settled.world.engine.begin() as connection:
        marked = sa.update(WORKS).where(WORKS.c.id == 11)
        connection.execute(marked.values(deleted_at=datetime.now(UTC).isoformat(" ", "milliseconds")))
    [request] = settled.asked("changes")
    assert (request.partition_key, config_of_op(request)["mode"]) == ("works|acme", "configured")
    settled.run([request])
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_deletion_behind_an_insertion_is_found_one_run_later(settled: Automated) -> None:
    """As many rows as before and a newer time: the run misses the deletion, notices, and a full one follows."""
    settled.world.delete(11)
    settled.world.insert([{"id": 70, "tenant_id": "acme"}])
    settled.settle()
    settled.world.assert_exact()


@pytest.mark.parametrize("checksum", [False, True])
def test_a_row_dated_back_is_seen_by_a_checksum(settled: Automated, checksum: bool) -> None:
    """Count and newest time stay the same: only the checksum tells, and its run reads the tenant in full."""
    entities = settled.world.config.model_dump(mode="json", exclude_unset=True)["entities"]
    entities[ENTITY]["checksum"] = checksum
    settled.use(entities=entities)
    settled.settle()
    with settled.world.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE works SET name = 'иначе', updated_at = '2020-01-01T00:00:00' WHERE id = 11")
    requests = settled.asked("changes")
    assert asked_keys(requests) == (["works|acme"] if checksum else [])
    if checksum:
        settled.run(requests)
        settled.world.assert_exact()
        assert settled.asked("changes") == []


def test_many_partitions_share_a_run(settled: Automated) -> None:
    """More than `single_runs`: one run over those that changed, and one, in full, over those that lost rows."""
    settled.use(automation={"changes": {"single_runs": 2}})
    settled.world.update(1, 11, name="иначе")
    settled.world.delete(21, 31)
    requests = settled.asked("changes")
    assert [(config_of_op(request)["mode"], keys_of(request)) for request in requests] == [
        ("configured", ["works|acme", "works|global"]),
        ("full", ["works|brick", "works|cord"]),
    ]
    assert all(result.success for result in settled.run(requests))
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_tick_is_bounded(settled: Automated) -> None:
    """One tick asks for no more than `max_partitions`; the next one asks for the rest."""
    settled.use(automation={"changes": {"max_partitions": 2}})
    settled.world.update(1, 11, 21, 31, name="иначе")
    first, second = settled.asked("changes"), settled.asked("changes")
    assert [len(asked_keys(requests)) for requests in (first, second)] == [2, 2]
    assert asked_keys(first + second) == ["works|acme", "works|brick", "works|cord", "works|global"]


def test_a_change_between_tick_and_run_is_synced_by_that_run(settled: Automated) -> None:
    """The run reads what is there when it runs; nothing is asked for again."""
    settled.world.update(11, name="иначе")
    requests = settled.asked("changes")
    settled.world.update(12, name="тоже иначе")
    settled.run(requests)
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_change_while_a_run_reads_is_not_lost(settled: Automated) -> None:
    """What the run did not see is not taken for seen: the source was looked at before its read began."""
    world = settled.world
    added: list[int] = []
    with world.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # so that rows come while others are read

    def insert_once(_: Figures) -> None:
        if not added:
            added.append(1)
            world.insert([{"id": 70, "tenant_id": "acme"}])

    with world.workspace() as workspace:
        selection = Selection(ENTITY, "acme", (ENTITY,))
        [result] = workspace.sync(selection, SyncOptions(mode="full"), progress=insert_once)
    assert (result.outcome, result.figures.fetched) == ("success", 4)
    requests = settled.asked("changes")
    assert asked_keys(requests) == ["works|acme"]
    settled.run(requests)
    world.assert_exact()
    assert settled.asked("changes") == []


def test_a_state_that_returns_is_asked_for_again(settled: Automated) -> None:
    """Run keys hold for ever: a row that comes, goes and comes again is three runs all the same."""
    row = {"id": 70, "tenant_id": "acme"}
    for _ in range(2):
        now = settled.world.now
        settled.world.insert([row])
        settled.run(settled.asked("changes"))
        settled.world.assert_exact()
        settled.world.delete(70)
        settled.world.now = now
        settled.run(settled.asked("changes"))
        settled.world.assert_exact()


@pytest.mark.parametrize("queued", ["single", "set", "everything"])
def test_partitions_under_way_are_not_asked_for(settled: Automated, queued: str) -> None:
    """Not while a run for the partition, a set with it, or everything is queued; once that ended, again."""
    settled.world.update(11, 21, name="иначе")
    keys: dict[str, Any] = {"single": ["works|acme"], "set": ["works|acme", "works|cord"], "everything": None}
    run_id = settled.queue(keys[queued], single=queued == "single")
    assert asked_keys(settled.asked("changes")) == ([] if queued == "everything" else ["works|brick"])
    run = settled.instance.get_run_by_id(run_id)
    assert run is not None
    settled.instance.report_run_failed(run)
    assert "works|acme" in asked_keys(settled.asked("changes"))


def test_a_failed_run_waits_before_it_is_asked_for_again(settled: Automated) -> None:
    """The same state is asked for again only after the back-off, under another run key; others go on."""
    settled.use(automation={"changes": {"backoff": {"base": 3600, "cap": 3600}}})
    settled.world.update(11, name="иначе")
    [request] = settled.asked("changes")
    assert settled.asked("changes") == []  # it was never run: for the sensor that is a failure
    settled.world.update(21, name="иначе")
    assert asked_keys(settled.asked("changes")) == ["works|brick"]
    result = settled.tick("changes")
    assert result.skip_reason is not None
    assert "2 partitions to sync, 2 waiting after a failed run" in str(result.skip_reason.skip_message)
    settled.run([request])
    settled.world.update(11, name="снова иначе")  # that run succeeded: a new change does not wait
    assert asked_keys(settled.asked("changes")) == ["works|acme"]


def test_other_templates_make_every_partition_due(settled: Automated) -> None:
    """A changed template is a change of every document, though no row changed."""
    entities = settled.world.config.model_dump(mode="json", exclude_unset=True)["entities"]
    entities[ENTITY]["collections"][ENTITY]["text"] = "{name}"
    settled.use(entities=entities)
    requests = settled.asked("changes")
    assert len(asked_keys(requests)) == 4
    settled.run(requests)
    settled.world.assert_exact()
    assert settled.asked("changes") == []


def test_a_run_that_is_being_canceled_is_under_way(settled: Automated) -> None:
    """It finishes its batches and holds its tenants: nobody asks for them before it has ended."""
    settled.world.update(11, name="иначе")
    run_id = settled.queue(["works|acme"])
    run = settled.instance.get_run_by_id(run_id)
    assert run is not None
    settled.instance.report_run_canceling(run)
    assert settled.asked("changes") == []
    settled.instance.report_run_canceled(run)
    assert asked_keys(settled.asked("changes")) == ["works|acme"]


def test_a_run_without_news_for_a_day_is_not_waited_for(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing monitors runs, one whose process died would keep its partitions from being synced for ever."""
    settled.world.update(11, name="иначе")
    run = settled.instance.get_run_by_id(settled.queue(["works|acme"]))
    assert run is not None
    settled.instance.report_dagster_event(DagsterEvent(DagsterEventType.RUN_START.value, run.job_name), run.run_id)
    assert settled.asked("changes") == []
    monkeypatch.setattr(under_way, "_SILENT", timedelta(0))
    assert asked_keys(settled.asked("changes")) == ["works|acme"]


def test_a_run_of_more_than_a_day_is_under_way_while_it_logs(settled: Automated) -> None:
    """Dagster dates a run by its last status or tag: a first sync may have had none for days."""
    settled.world.update(11, name="иначе")
    run = settled.instance.get_run_by_id(settled.queue(["works|acme"]))
    assert run is not None
    storage = settled.instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=2)
        connection.execute(RunsTable.update().values(update_timestamp=before))
    assert under_way.runs_under_way(settled.instance) == []
    settled.instance.report_engine_event("so far 9 fetched", run)
    assert settled.asked("changes") == []


def test_a_run_logs_while_it_is_with_one_partition(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "NEWS_SECONDS", 0.0)
    [ended] = settled.run([run_over(ENTITY, ["works|acme"], ["acme"], mode="full", single=True)])
    assert "so far 4 fetched, 0 embedded" in [entry.user_message for entry in settled.instance.all_logs(ended.run_id)]


def test_a_partition_that_failed_runs_again_though_nothing_changed(settled: Automated) -> None:
    """A full run failed while the table was away, and all is as before: a tick asks for what is undone, in full, though
    an incremental run succeeded since; once it is done all is green, and nothing is asked for."""
    world, health = settled.world, dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "runs")

    def rename(old: str, new: str) -> None:
        with world.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    def shown() -> tuple[bool, str | None]:
        [record] = settled.instance.event_log_storage.get_asset_check_execution_history(health, limit=1)
        assert record.evaluation is not None
        return record.evaluation.passed, record.evaluation.description

    rename(ENTITY, "away")
    assert [result.outcome for result in world.sync("acme", mode="full")] == ["failed"]
    rename("away", ENTITY)
    settled.run([run_over(ENTITY, ["works|acme"], ["by hand"], mode="incremental", single=True)])
    passed, told = shown()
    assert (passed, str(told).startswith("the last full run failed: works|acme: ")) == (False, True)
    [request] = settled.asked("changes")
    assert (keys_of(request), config_of_op(request)["mode"]) == (["works|acme"], "full")
    assert settled.asked("changes") == [], "asked for once"
    settled.run([request])
    assert shown() == (True, "4 partitions, all ended well")
    assert settled.asked("changes") == []


def record_run(settled: Automated, mode: str, outcome: str, tenant: str = "acme") -> None:
    now = datetime.now(UTC)
    with settled.world.workspace() as workspace:
        run = Run(f"{mode} {outcome} {now}", ENTITY, ENTITY, tenant, mode, outcome, now, now, {}, None)
        workspace.ledger.record_run(run)


def modes(requests: Sequence[dg.RunRequest]) -> list[str]:
    return [config_of_op(request)["mode"] for request in requests]


@pytest.mark.parametrize(
    ("runs", "asked"),
    [
        ([("incremental", "failed")], ["configured"]),
        ([("full", "failed"), ("incremental", "success")], ["full"]),
        ([("full", "failed"), ("full", "interrupted")], ["full"]),
        ([("full", "failed"), ("full", "interrupted"), ("incremental", "failed")], ["full"]),
        ([("full", "interrupted")], []),
        ([("incremental", "interrupted")], []),
        ([("full", "failed"), ("full", "success"), ("incremental", "interrupted")], []),
        ([("incremental", "failed"), ("incremental", "success")], []),
    ],
)
def test_what_failed_is_asked_for_again(settled: Automated, runs: list[tuple[str, str]], asked: list[str]) -> None:
    """Though nothing changed, and once; what somebody interrupted is theirs."""
    for mode, outcome in runs:
        record_run(settled, mode, outcome)
    requests = settled.asked("changes")
    assert modes(requests) == asked
    assert settled.asked("changes") == []
    settled.run(requests)
    assert settled.asked("changes") == []


@pytest.mark.parametrize(("mode", "asked"), [("full", "full"), ("incremental", "configured")])
def test_what_a_killed_run_left_is_asked_for(settled: Automated, mode: str, asked: str) -> None:
    """Once nobody holds its tenant; until it is done `runs` is red and an alert is open."""
    settled.use(alerts={"slack": {"url": {"env": "SLACK_URL"}}})
    health = dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "runs")

    def seen() -> tuple[bool, int]:
        [record] = settled.instance.event_log_storage.get_asset_check_execution_history(health, limit=1)
        assert record.evaluation is not None
        with settled.world.workspace() as workspace:
            return record.evaluation.passed, len(workspace.ledger.alerts())

    with settled.world.workspace() as workspace:
        workspace.ledger.begin_writing(ENTITY, ENTITY, "acme", "killed", mode)
        with workspace.ledger.hold(ENTITY, "acme"):
            assert settled.asked("changes") == []
    requests = settled.asked("changes")
    assert (modes(requests), settled.asked("changes"), seen()) == ([asked], [], (False, 1))
    written = json.loads((settled.world.config.state_folder / METRICS).read_text(encoding="utf-8"))
    assert written["health"]["failing"] == 1
    settled.run(requests)
    assert settled.asked("changes") == []
    passed, _ = seen()
    assert passed


def test_a_failed_full_read_is_asked_for_once_whatever_it_was_for(settled: Automated) -> None:
    """A deleted row needs all rows read; that this failed is no second reason to read them at once."""
    settled.use(automation={"changes": {"backoff": {"base": 3600, "cap": 3600}}})
    settled.world.delete(11)
    assert modes(settled.asked("changes")) == ["full"]
    record_run(settled, "full", "failed")
    assert settled.asked("changes") == []


def test_what_reads_all_goes_before_what_changed(settled: Automated) -> None:
    """Of one partition; it reads the changed rows as well."""
    record_run(settled, "full", "failed")
    settled.world.update(11, 21, name="иначе")
    requests = settled.asked("changes")
    assert sorted(zip(asked_keys(requests), modes(requests), strict=True)) == [
        ("works|acme", "full"),
        ("works|brick", "configured"),
    ]


def test_a_tenant_may_be_called_anything(settled: Automated) -> None:
    """What is asked for again of one is nothing of another."""
    for tenant in ("acme again", "acme full"):
        settled.world.insert([{"id": len(tenant) * 100, "tenant_id": tenant}])
        settled.world.sync(tenant)
    settled.run(settled.asked("tenants"))
    record_run(settled, "full", "failed")
    assert asked_keys(settled.asked("changes")) == ["works|acme"]
    settled.world.update(1000, name="иначе")
    settled.world.update(900, name="иначе")
    assert asked_keys(settled.asked("changes")) == ["works|acme again", "works|acme full"]


def test_who_listens_begins_before_the_sensor_does(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is the listener's for some ticks; one that hears nothing, or has just begun to listen, keeps nobody
    waiting."""

    def listens(problem: str | None, since: timedelta = timedelta(hours=1)) -> None:
        with settled.world.workspace() as workspace:
            workspace.ledger.listens({ENTITY: problem}, datetime.now(UTC) - since)

    listens(None, since=timedelta(seconds=1))
    settled.world.update(31, name="иначе")
    requests = settled.asked("changes")
    assert asked_keys(requests) == ["works|cord"], "it may have come before anybody listened"
    settled.run(requests)
    listens(None)
    settled.world.update(11, name="иначе")
    told = settled.tick("changes")
    assert told.run_requests == []
    assert "1 partition to sync; listening to its changes since" in str(told.skip_reason)
    assert settled.tick("changes").run_requests == [], "it has begun with it"
    monkeypatch.setattr(changes, "_PATIENCE", timedelta(0))
    requests = settled.asked("changes")
    assert asked_keys(requests) == ["works|acme"]
    settled.run(requests)
    record_run(settled, "full", "failed", "cord")
    assert asked_keys(settled.asked("changes")) == ["works|cord"], "nobody tells of what failed"
    listens("SOURCE_UNAVAILABLE: away")
    settled.world.update(21, name="иначе")
    assert asked_keys(settled.asked("changes")) == ["works|brick"]
    assert "its changes are not heard now: SOURCE_UNAVAILABLE: away" in str(settled.tick("changes").skip_reason)


def test_a_full_run_that_keeps_failing_holds_up_no_change(settled: Automated) -> None:
    """It is asked for later and later, however many changes are synced meanwhile; and each of these at once."""
    with settled.world.workspace() as workspace:
        now = datetime.now(UTC)
        failed = Run("a run", ENTITY, ENTITY, "acme", "full", "failed", now, now, {}, "X: y")
        workspace.ledger.record_run(failed)
    [full] = settled.asked("changes")
    assert config_of_op(full)["mode"] == "full"
    for name in ("иначе", "опять", "снова"):
        settled.world.update(11, name=name)
        [request] = settled.asked("changes")
        assert config_of_op(request)["mode"] == "configured"
        assert all(result.success for result in settled.run([request]))
        assert settled.asked("changes") == [], "the full run has failed a moment ago"
    settled.run([full])
    assert settled.asked("changes") == []
