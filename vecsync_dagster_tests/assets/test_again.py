"""A Dagster run tries again what failed for a moment, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from vecsync_dagster.assets import factory
from vecsync_dagster.errors import (
    LedgerUnavailable,
    SourceRejected,
    SourceUnavailable,
    StoreRejected,
    StoreUnavailable,
    VecsyncError,
)
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import Selection, Workspace
from vecsync_dagster_tests.assets.test_assets import ALL, failure_of, key, materialized, run
from vecsync_dagster_tests.world import ENTITY, World

JOBS = ["works_job", "sync_all_job"]
UNAVAILABLE = StoreUnavailable("no connection", service="QDRANT")


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "RETRY_SECONDS", 0.0)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each tenant is synced."""
    counted: Counter[str] = Counter()
    real = Workspace.sync

    def sync(workspace: Workspace, selection: Selection, *args: Any, **kwargs: Any) -> Any:
        counted[selection.tenant] += 1
        return real(workspace, selection, *args, **kwargs)

    monkeypatch.setattr(Workspace, "sync", sync)
    return counted


def failing(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, error: VecsyncError, when: Callable[..., bool]
) -> None:
    real = getattr(owner, method)

    def fails(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, method, fails)


def times(number: int) -> Callable[..., bool]:
    """The first calls that write to acme."""
    left = [number]

    def now(_: object, __: str, points: Any) -> bool:
        if not any(point.payload["tenantId"] == "acme" for point in points) or not left[0]:
            return False
        left[0] -= 1
        return True

    return now


def metrics(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.config.state_folder / "sync_metrics.json").read_text())
    return found


def materializations(result: dg.ExecuteInProcessResult) -> Counter[str]:
    events = result.get_asset_materialization_events()
    return Counter(e.partition or "" for e in events if e.asset_key == key("vectors"))


@pytest.mark.parametrize("job", JOBS)
def test_only_what_failed_is_tried_again(
    world: World, instance: dg.DagsterInstance, synced: Counter[str], monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """The others are synced and materialized once; the run, its metrics and its tags are those of all attempts."""
    failing(monkeypatch, QdrantEmbeddedStore, "upsert", UNAVAILABLE, times(2))
    result = run(world, instance, job=job)
    assert result.success
    assert synced == {"global": 1, "acme": 3, "brick": 1}
    assert materializations(result) == dict.fromkeys(ALL, 1)
    told = metrics(world)
    assert (told["outcome"], len(told["partitions"]), told["totals"]["upserted"]) == ("success", 3, 12)
    assert told["totals"]["embedded"] == 12  # each text once, also those of the failed attempts
    with world.workspace() as workspace:
        outcomes = {tenant: [one.outcome for one in workspace.ledger.runs(ENTITY, tenant, 9)] for tenant in synced}
    assert outcomes == {"global": ["success"], "acme": ["success", "failed", "failed"], "brick": ["success"]}
    world.assert_exact()


def test_what_fails_three_times_fails_the_run(
    world: World, instance: dg.DagsterInstance, synced: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named with its code; Dagster does not run the op again, and the others stay materialized."""
    failing(monkeypatch, QdrantEmbeddedStore, "upsert", UNAVAILABLE, times(99))
    result = run(world, instance)
    assert not result.success
    assert "1 of 3 partitions failed: works|acme (QDRANT_UNAVAILABLE" in failure_of(result)
    assert synced == {"global": 1, "acme": 3, "brick": 1}
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert materialized(instance) == ALL - {"works|acme"}
    assert metrics(world)["outcome"] == "failed"


@pytest.mark.parametrize("error", [StoreRejected("no", service="QDRANT", every_document=True), SourceRejected("no")])
def test_what_would_fail_again_is_not_tried_again(
    world: World,
    instance: dg.DagsterInstance,
    synced: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    error: VecsyncError,
) -> None:
    """A terminal failure is one attempt, also beside one that may pass."""
    failing(monkeypatch, QdrantEmbeddedStore, "upsert", UNAVAILABLE, times(1))
    failing(monkeypatch, SqlSource, "read", error, lambda _, what, *__: what.tenant == "brick")
    result = run(world, instance)
    assert not result.success
    assert synced == {"global": 1, "acme": 2, "brick": 1}
    assert materialized(instance) == ALL - {"works|brick"}


@pytest.mark.parametrize("job", JOBS)
def test_a_source_that_could_not_be_asked_is_asked_again(
    world: World, instance: dg.DagsterInstance, synced: Counter[str], monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """An entity whose tenants could not be listed is tried again as a whole."""
    left = [1]

    def once(*_: object) -> bool:
        left[0] -= 1
        return left[0] >= 0

    failing(monkeypatch, SqlSource, "tenants", SourceUnavailable("no connection"), once)
    assert run(world, instance, job=job).success
    assert synced == {"global": 1, "acme": 1, "brick": 1}
    assert materialized(instance) == ALL


def test_what_nobody_foresaw_is_one_partitions_failure(
    world: World, instance: dg.DagsterInstance, synced: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that is no error of ours fails its partition; the others are materialized."""

    class Bug(Exception):
        pass

    failing(monkeypatch, QdrantEmbeddedStore, "upsert", Bug("the text of a record"), times(99))  # type: ignore[arg-type]
    result = run(world, instance)
    assert "works|acme (INTERNAL_ERROR" in failure_of(result)
    assert "the text of a record" not in failure_of(result)
    assert synced == {"global": 1, "acme": 1, "brick": 1}
    assert materialized(instance) == ALL - {"works|acme"}


def test_a_ledger_that_is_away_at_the_end_is_told(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What monitoring reads is of this run, and says that nothing is known of the others."""
    assert run(world, instance).success
    before = metrics(world)

    def away(*_: object, **__: object) -> None:
        raise LedgerUnavailable("away")

    finish = factory._Run._finish

    def finished(self: factory._Run) -> None:
        monkeypatch.setattr(SqlLedger, "tenant_names", away)
        monkeypatch.setattr(SqlLedger, "last_runs", away)
        finish(self)

    monkeypatch.setattr(factory._Run, "_finish", finished)
    run(world, instance)
    after = metrics(world)
    assert after["started_at"] > before["started_at"]
    assert (after["health"]["failing"], after["health"]["error"]["code"]) == (None, "LEDGER_UNAVAILABLE")


@pytest.mark.parametrize("method", ["check_results", "runs", "hold"])
def test_a_ledger_that_goes_away_earlier_leaves_figures_as_well(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Between two partitions, or before the checks are shown: the run and its figures say that it failed."""
    assert run(world, instance).success
    before = metrics(world)
    world.update(1, name="иначе")

    def away(*_: object, **__: object) -> None:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(SqlLedger, method, away)
    assert not run(world, instance).success
    after = metrics(world)
    assert after["started_at"] > before["started_at"]
    assert after["outcome"] == "failed"
    assert "LEDGER_UNAVAILABLE" in {error["code"] for error in after["errors"]}
