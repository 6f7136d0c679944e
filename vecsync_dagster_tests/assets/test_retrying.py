"""The retry worker in Dagster: real ticks of its sensor on an ephemeral instance, and the runs it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from vecsync_dagster.assets import factory, retrying
from vecsync_dagster.automation import under_way
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster.errors import LedgerUnavailable
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.standing import FRESHNESS
from vecsync_dagster_tests.assets.test_assets import checked, evaluations, failure_of, records
from vecsync_dagster_tests.four import FOUR, Four, four_collections
from vecsync_dagster_tests.world import ENTITY

VECTORS = dg.AssetKey([ENTITY, "vectors"])


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Four]:
    """What failed is due at once: the runs' own clock is not the test's. A sync that fails is not run again."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setattr(factory, "MAX_RETRIES", 0)
    with four_collections(tmp_path, retry={"base": 0, "interval": 90, "batch": 3}) as four:
        yield four


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory: events cost little there."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def tick(four: Four, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason | None:
    definitions = build_definitions(four.world.config)
    sensor = definitions.resolve_sensor_def("vecsync_retry")
    with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
        data = sensor.evaluate_tick(context)
    if data.skip_message is not None:
        return dg.SkipReason(data.skip_message)
    return next(iter(data.run_requests or []), None)


def run(four: Four, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(four.world.config).resolve_job_def("vecsync_retry_job")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def sync(four: Four, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(four.world.config).resolve_job_def("works_job")
    settings = {"ops": {"works_sync": {"config": {"mode": "full"}}}}
    return job.execute_in_process(instance=instance, run_config=settings, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> list[tuple[str, str | None]]:
    events = [event for event in result.all_events if event.is_step_materialization]
    return [(event.asset_key.path[-1], event.partition) for event in events if event.asset_key]


def test_the_sensor_is_set_up_as_the_settings_say(four: Four) -> None:
    """It runs by itself, at the configured interval, and the definitions are loadable with it."""
    definitions = build_definitions(four.world.config)
    dg.Definitions.validate_loadable(definitions)
    sensor = definitions.resolve_sensor_def("vecsync_retry")
    assert sensor.minimum_interval_seconds == 90
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.job.name == "vecsync_retry_job"


def test_nothing_is_asked_for_while_nothing_is_due(four: Four, instance: dg.DagsterInstance) -> None:
    """Neither before the first sync, which leaves no folder behind, nor while all is synced."""
    assert tick(four, instance) == dg.SkipReason("no failed document is due")
    assert not four.world.config.state_folder.exists()
    four.insert(1)
    four.sync()
    assert tick(four, instance) == dg.SkipReason("no failed document is due")


def test_what_failed_is_retried_by_the_run_that_the_sensor_asks_for(four: Four, instance: dg.DagsterInstance) -> None:
    """One collection failed, the others were materialized; the retry synces just its documents, batch by batch, and
    materializes just that partition, with the checks that may be over."""
    four.insert(1, 2, 3, 4)
    four.store_refuses("functionality")
    failed = sync(four, instance)
    four.store.recover()
    assert evaluations(failed)["statuses", "functionality|global"] is False
    [outcome] = [e for e in checked(failed) if (e.check_name, e.partition) == ("statuses", "functionality|global")]
    assert outcome.severity is dg.AssetCheckSeverity.WARN
    assert {row.data["document"] for row in records(outcome.metadata["records"])} == {
        f"global-work-{n}" for n in range(1, 5)
    }
    request = tick(four, instance)
    assert isinstance(request, dg.RunRequest)
    first = run(four, instance)
    assert first.success
    assert materialized(first) == [("vectors", "functionality|global")]
    of_it = [("statuses", "functionality|global"), ("collections", "functionality|global")]
    assert evaluations(first) == dict.fromkeys(of_it, False)
    assert isinstance(tick(four, instance), dg.RunRequest)
    second = run(four, instance)
    assert evaluations(second) == dict.fromkeys(of_it, True)
    assert tick(four, instance) == dg.SkipReason("no failed document is due")
    assert {four.states()[n].overall for n in range(1, 5)} == {"synced"}
    for name in FOUR:
        four.world.assert_exact(name)


def test_monitoring_reads_what_a_retry_left(four: Four, instance: dg.DagsterInstance) -> None:
    """sync_metrics.json is right after a retry, too."""
    four.insert(1)
    four.store_refuses("functionality")
    for _ in range(7):
        four.sync()
        four.later(seconds=300)
    four.store.recover()
    file = four.world.config.state_folder / "sync_metrics.json"
    with four.world.workspace() as workspace:
        refresh_metrics(four.world.config, workspace.ledger)
        workspace.ledger.reset(ENTITY, ["functionality"])
    assert json.loads(file.read_text(encoding="utf-8"))["health"]["failing"] == 1
    assert run(four, instance).success
    assert json.loads(file.read_text(encoding="utf-8"))["health"]["failing"] == 0


def test_a_retry_makes_the_checks_again_that_may_be_over(four: Four, instance: dg.DagsterInstance) -> None:
    """As a sync does, and a retry by hand."""
    four.insert(1)
    four.store_refuses("functionality")
    four.sync(mode="full")
    four.store.recover()
    with four.world.workspace() as workspace:
        before = CheckResult(ENTITY, FRESHNESS, False, "as it was", datetime.now(UTC))
        workspace.ledger.record_checks([before])
    assert run(four, instance).success
    with four.world.workspace() as workspace:
        [fresh] = [one for one in workspace.ledger.check_results(ENTITY, "") if one.check == FRESHNESS]
    assert fresh.message.startswith("4 partitions not synced")  # by the test's clock, which is another one


def test_a_retry_that_loses_its_ledger_says_what_it_did(
    four: Four, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures and its failure are there, and sync_metrics.json follows."""
    four.insert(1)
    four.store_refuses("functionality")
    four.sync()
    four.store.recover()

    def busy(*_: object, **__: object) -> None:
        raise LedgerUnavailable("ledger: another process is writing it", ledger="ledger")

    file = four.world.config.state_folder / "sync_metrics.json"
    file.unlink(missing_ok=True)
    monkeypatch.setattr(retrying, "headlines", busy)
    ended = run(four, instance)
    assert "LEDGER_UNAVAILABLE: ledger: another process" in failure_of(ended)
    assert "1 partitions: 1 documents synced or removed, 0 failed again" in [
        entry.user_message for entry in instance.all_logs(ended.run_id)
    ]
    assert json.loads(file.read_text(encoding="utf-8"))["health"]["failing"] == 0


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_never_two_at_once(
    four: Four, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a retry waits in the queue or runs, no other one is asked for; once it has ended, or nothing was heard of
    it for a day, one is."""
    four.insert(1)
    four.store_refuses("tools")
    four.sync()
    job = build_definitions(four.world.config).resolve_job_def("vecsync_retry_job")
    other = instance.create_run_for_job(job, status=status)
    assert tick(four, instance) == dg.SkipReason("the last retry has not ended yet")
    with monkeypatch.context() as patched:
        patched.setattr(under_way, "_SILENT", timedelta(0))
        assert isinstance(tick(four, instance), dg.RunRequest)
    instance.report_run_failed(other)
    assert isinstance(tick(four, instance), dg.RunRequest)


def test_a_collection_that_fails_leaves_the_others_materialized(four: Four, instance: dg.DagsterInstance) -> None:
    """The run fails at the end and names the one partition; the other three are synced and materialized."""
    four.insert(1)
    four.store_is_down("functionality")
    failed = sync(four, instance)
    assert not failed.success
    assert "1 of 4 partitions failed: functionality|global (QDRANT_UNAVAILABLE" in failure_of(failed)
    others = {f"{name}|global" for name in FOUR if name != "functionality"}
    assert instance.get_materialized_partitions(VECTORS) == others
    assert four.statuses(1) == ("synced", "failed", "synced", "synced")


def test_a_retry_that_fails_as_a_whole_fails_its_run(four: Four, instance: dg.DagsterInstance) -> None:
    """A store that is still away fails the retry's run, which names the partition; a text that is refused does not."""
    four.insert(1)
    four.store_is_down("functionality")
    four.sync()
    again = run(four, instance)
    assert not again.success
    assert "QDRANT_UNAVAILABLE" in failure_of(again)
    assert materialized(again) == []
    four.store.recover()
    four.world.update(1, code="FORBIDDEN")
    assert run(four, instance).success
    assert four.states()[1].collections["functionality"].error_code == "EMBEDDING_REJECTED"


def test_a_partition_that_is_being_synced_is_left_to_that_run(four: Four, instance: dg.DagsterInstance) -> None:
    """The retry takes the hold: where another run has it, it ends well, without having tried."""
    four.insert(1)
    four.store_refuses("tools")
    four.sync()
    four.store.recover()
    with four.world.workspace() as workspace, workspace.ledger.hold(ENTITY, "global"):
        assert run(four, instance).success
    state = four.states()[1].collections["tools"]
    assert (state.status, state.retry_count) == ("failed", 1)
    assert run(four, instance).success
    assert four.states()[1].overall == "synced"


def test_a_key_of_two_columns_is_retried(four: Four, instance: dg.DagsterInstance) -> None:
    """The sensor's run finds records again that are known by tenant and id."""
    entity = four.world.config.entities[ENTITY].model_copy(update={"id": ("tenant_id", "id")})
    four.world.config = four.world.config.model_copy(update={"entities": {ENTITY: entity}})
    four.insert(1)
    four.insert(2, tenant_id="a/b")
    four.store_refuses("functionality")
    assert sync(four, instance).success
    four.store.recover()
    assert isinstance(tick(four, instance), dg.RunRequest)
    assert run(four, instance).success
    assert tick(four, instance) == dg.SkipReason("no failed document is due")
    with four.world.workspace() as workspace:
        states = {one.db_id: one.overall for one in workspace.ledger.records(ENTITY, FOUR, limit=9)}
    assert states == {"~/1": "synced", "a~1b/2": "synced"}
