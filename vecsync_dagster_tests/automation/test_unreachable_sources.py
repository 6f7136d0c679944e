"""A source that cannot be asked leaves a trace in the ledger and in sync_metrics.json, whoever asked it."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from vecsync_dagster.alerts import book_of, problems, sync_failed
from vecsync_dagster.errors import LedgerUnavailable, SourceRejected
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.record_states import FailedRow
from vecsync_dagster.sync import Selection, retry_rows
from vecsync_dagster.sync.listing import asking
from vecsync_dagster_tests.automation.ticks import Automated
from vecsync_dagster_tests.world import ENTITY, START

CHANNEL = {"slack": {"url": {"env": "SLACK_URL"}}}


def rename(automated: Automated, old: str, new: str) -> None:
    with automated.world.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


def health(automated: Automated) -> dict[str, Any]:
    file = automated.world.config.state_folder / "sync_metrics.json"
    found: dict[str, Any] = json.loads(file.read_text())["health"]
    return found


def runs(automated: Automated) -> int:
    with automated.world.workspace() as workspace:
        return len(workspace.ledger.runs(limit=1000))


@pytest.mark.parametrize("sensor", ["changes", "tenants"])
def test_a_sensor_records_an_outage_once(settled: Automated, sensor: str) -> None:
    """One failed run of the entity, however often the sensor asks, and one that says that it is over."""
    before = runs(settled)
    rename(settled, ENTITY, "away")
    for _ in range(3):
        with pytest.raises(SourceRejected):
            settled.tick(sensor)
    assert runs(settled) == before + 1
    assert health(settled)["failing"] == 1
    assert health(settled)["last_runs"][0]["collection"] is None
    rename(settled, "away", ENTITY)
    settled.tick(sensor)
    assert health(settled)["failing"] == 0
    assert (runs(settled), health(settled)["partitions"]) == (before + 2, 4)


def shown(automated: Automated) -> tuple[bool, str] | None:
    """The check `runs` as Dagster has it."""
    key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "runs")
    record = automated.instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    if record is None:
        return None
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation.passed, record.evaluation.description or ""


def told(automated: Automated) -> int:
    """How often Dagster was told of that check."""
    key = dg.AssetCheckKey(dg.AssetKey([ENTITY, "health"]), "runs")
    return len(automated.instance.event_log_storage.get_asset_check_execution_history(key, limit=100))


def alerts(automated: Automated) -> list[str]:
    with automated.world.workspace() as workspace:
        return [known.alert.message for known in workspace.ledger.alerts()]


@pytest.mark.parametrize("sensor", ["changes", "tenants"])
def test_a_sensor_shows_an_outage(settled: Automated, sensor: str) -> None:
    """While no run can start, `runs` is red and an alert is open, both once; both are over with the next good tick."""
    settled.use(alerts=CHANNEL)
    settled.tick(sensor)
    before, times = shown(settled), told(settled)
    assert (before is None or before[0], alerts(settled)) == (True, [])
    rename(settled, ENTITY, "away")
    for _ in range(3):
        with pytest.raises(SourceRejected):
            settled.tick(sensor)
    [alert] = alerts(settled)
    assert alert.startswith("SOURCE_ERROR: ")
    assert shown(settled) == (False, f"the source failed: {alert}")
    assert told(settled) == times + 1
    rename(settled, "away", ENTITY)
    for _ in range(2):
        settled.tick(sensor)
    assert alerts(settled) == []
    assert shown(settled) == (True, "4 partitions, all ended well")
    assert told(settled) == times + 2


def test_a_tick_ends_no_other_alert(settled: Automated) -> None:
    """Of a run that died the sensor knows nothing: only what kept it from looking is over with its next look, also
    where somebody else was the first to find that the source is there again."""
    settled.use(alerts=CHANNEL)
    with settled.world.workspace() as workspace:
        died = sync_failed(ENTITY, None, "the process ended")
        book_of(workspace.config, workspace.ledger).observe([died], lambda _: False)
    rename(settled, ENTITY, "away")
    with pytest.raises(SourceRejected):
        settled.tick("changes")
    assert len(alerts(settled)) == 2
    rename(settled, "away", ENTITY)
    with settled.world.workspace() as workspace, asking(workspace, ENTITY):
        pass
    settled.tick("changes")
    assert alerts(settled) == ["the process ended"]


def test_alerts_that_are_off_stay_off(settled: Automated) -> None:
    settled.use(alerts={**CHANNEL, "enabled": False})
    rename(settled, ENTITY, "away")
    with pytest.raises(SourceRejected):
        settled.tick("changes")
    assert alerts(settled) == []


def test_a_ledger_that_is_away_is_shown(settled: Automated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be synced or kept then; what else Dagster shows is from before."""
    monkeypatch.setenv("LEDGER_URL", "postgresql://vecsync@127.0.0.1:1/vecsync")
    here = settled.world.config
    settled.use(ledger={"url": {"env": "LEDGER_URL"}})
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            settled.tick("changes")
    found = shown(settled)
    assert found is not None
    assert not found[0]
    assert found[1].startswith("no run can start: LEDGER_UNAVAILABLE: ")
    assert told(settled) == 1
    settled.world.config = here
    settled.tick("changes")
    assert shown(settled) == (True, "4 partitions, all ended well")


@pytest.mark.parametrize("sensor", ["changes", "tenants"])
def test_a_ledger_that_is_busy_after_the_look_costs_no_request(
    settled: Automated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sensor: str
) -> None:
    """What the sensor found is asked for; alerts and checks follow with the next tick."""
    settled.use(alerts=CHANNEL)
    settled.world.insert([{"id": 99, "tenant_id": "acme" if sensor == "changes" else "new"}])

    def busy(self: SqlLedger, *args: object, **more: object) -> list[CheckResult]:
        raise LedgerUnavailable("ledger: another process is writing it", ledger="ledger")

    with monkeypatch.context() as patched:
        patched.setattr(SqlLedger, "check_results", busy)
        assert len(settled.asked(sensor)) == 1
    assert "LEDGER_UNAVAILABLE" in caplog.text
    assert shown(settled) in (None, (True, "4 partitions, all ended well"))
    assert settled.asked(sensor) == []


def test_an_outage_before_any_run_has_no_outcome(automated: Automated) -> None:
    """sync_metrics.json says of a run only what was: there was none, so it did not succeed."""
    rename(automated, ENTITY, "away")
    with pytest.raises(SourceRejected):
        automated.tick("tenants")
    written = json.loads((automated.world.config.state_folder / "sync_metrics.json").read_text())
    assert (written["outcome"], written["started_at"], written["health"]["failing"]) == (None, None, 1)


@pytest.mark.parametrize("everything", [True, False])
def test_a_run_records_the_partitions_it_was_for(settled: Automated, everything: bool) -> None:
    """A nightly run that cannot even ask for the tenants fails every known partition, one of a few just those."""
    settled.use(alerts=CHANNEL)
    rename(settled, ENTITY, "away")
    settings = {"mode": "full", **({} if everything else {"partitions": ["works|acme", "works|brick"]})}
    config = {"ops": {f"{ENTITY}_sync": {"config": settings}}}
    job = settled.definitions.resolve_job_def(f"{ENTITY}_job")
    ran = job.execute_in_process(instance=settled.instance, run_config=config, raise_on_error=False)
    assert not ran.success
    failing = {one["tenant"] for one in health(settled)["last_runs"] if one["failing"]}
    assert failing == ({None, "acme", "brick", "cord", "global"} if everything else {None, "acme", "brick"})
    with settled.world.workspace() as workspace:
        kinds = [one.kind for one in problems(workspace.config, workspace.ledger)]
        assert kinds == ["source_failure"]  # one problem is one alert, however many partitions have it
    rename(settled, "away", ENTITY)
    settled.tick("changes")
    [waiting] = alerts(settled)
    assert f"still to be synced in full since it was unavailable: {len(failing) - 1} partitions" in waiting
    assert settled.world.sync(mode="full")
    settled.tick("changes")
    assert alerts(settled) == []


def test_a_retry_without_its_source_is_a_failed_run(settled: Automated) -> None:
    """What the retry worker could not read is in the ledger as a run that failed."""
    rename(settled, ENTITY, "away")
    row = FailedRow(ENTITY, "acme", "acme-work-10", Key("10"), "QDRANT_UNAVAILABLE", 1, None)
    with settled.world.workspace() as workspace:
        [result] = retry_rows(workspace, ENTITY, [row])
        [run] = workspace.ledger.runs(ENTITY, "acme", 1, mode="retry")
    assert (result.run_id, run.outcome, run.started_at > START) == (run.run_id, "failed", True)


def test_no_collection_is_none(settled: Automated) -> None:
    """A selection without collections syncs nothing; it does not mean all of them, and forgets nothing."""
    settled.world.update(11, name="иначе")
    with settled.world.workspace() as workspace:
        before = workspace.ledger.seen(ENTITY)
        assert workspace.sync(Selection(ENTITY, "acme", ())) == []
        assert workspace.ledger.seen(ENTITY) == before
        assert workspace.snapshots.path(ENTITY, "acme").exists()
