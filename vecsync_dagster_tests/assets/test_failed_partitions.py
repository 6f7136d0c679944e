"""The tab *Partitions* of a stage after runs over all partitions that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.tags import SENSOR_NAME_TAG

from vecsync_dagster.assets import factory
from vecsync_dagster.assets.recording import open_instance, record
from vecsync_dagster.automation.partitions import add_tenants, partitions_of
from vecsync_dagster.errors import SourceRejected, VecsyncError
from vecsync_dagster.sources import SqlSource
from vecsync_dagster.sources.base import Read
from vecsync_dagster.sync import STAGES, Selection, SyncOptions
from vecsync_dagster_tests.assets.test_assets import ALL, checked, run
from vecsync_dagster_tests.assets.test_purging import red
from vecsync_dagster_tests.world import ENTITY, World

JOBS = ["works_job", "sync_all_job"]


@pytest.fixture(autouse=True)
def _own_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(factory, "RETRY_SECONDS", 0.0)


def refuse(patch: pytest.MonkeyPatch, *tenants: str) -> None:
    real = SqlSource.read

    def read(source: SqlSource, what: Read, *page: int) -> Any:
        if what.tenant in tenants:
            raise SourceRejected("no")
        return real(source, what, *page)

    patch.setattr(SqlSource, "read", read)


def shown(world: World, instance: dg.DagsterInstance, stages: Sequence[str] = STAGES) -> set[str]:
    """The failed partitions, which are the same of all these stages."""
    [same] = {frozenset(red(world, instance, stage)) for stage in stages}
    return set(same)


def remembered(world: World, instance: dg.DagsterInstance, stage: str) -> set[str]:
    """As somebody sees who looks at the tab: Dagster remembers what it showed, and goes on from there."""
    partitions = partitions_of(ENTITY, world.config.entities[ENTITY])
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        status = get_and_update_asset_status_cache_value(instance, dg.AssetKey([ENTITY, stage]), partitions)
        assert status is not None
        return {str(key) for key in status.deserialize_failed_partition_subsets(partitions).get_partition_keys()}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_partition_is_red_until_it_is_synced(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, job: str, mode: str
) -> None:
    """Of all stages, and no other partition; also if nothing of it has changed when it is synced."""
    assert run(world, instance, job=job, config={"mode": "full"}).success
    assert shown(world, instance) == set()
    with monkeypatch.context() as patch:
        refuse(patch, "acme")
        for _ in range(2):
            failed = run(world, instance, job=job, config={"mode": "full"})
            assert not failed.success
            assert shown(world, instance) == {"works|acme"}
    planned = instance.all_logs(failed.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    assert not [one for one in planned if one.get_dagster_event().partition], "it is red already"
    assert run(world, instance, job=job, config={"mode": mode}).success
    assert shown(world, instance) == set()


def test_a_run_of_the_partition_alone_ends_what_was_looked_at(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sensor asks for it. Dagster plans its materializations before it begins, so that none is failed then."""
    assert run(world, instance, config={"mode": "full"}).success
    with monkeypatch.context() as patch:
        refuse(patch, "acme")
        assert not run(world, instance, config={"mode": "full"}).success
    assert [remembered(world, instance, stage) for stage in STAGES] == [{"works|acme"}] * len(STAGES)
    again = run(world, instance, partition_key="works|acme", tags={SENSOR_NAME_TAG: "works_changes"})
    assert again.success
    assert [remembered(world, instance, stage) for stage in STAGES] == [set()] * len(STAGES)


@pytest.mark.parametrize("job", JOBS)
def test_all_are_red_while_the_source_is_away(world: World, instance: dg.DagsterInstance, job: str) -> None:
    assert run(world, instance, job=job, config={"mode": "full"}).success
    with world.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE works RENAME TO elsewhere"))
    assert not run(world, instance, job=job, config={"mode": "full"}).success
    assert shown(world, instance) == ALL
    with world.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO works"))
    assert run(world, instance, job=job).success
    assert shown(world, instance) == set()


def test_only_the_stages_of_the_run_are_red(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(world, instance, config={"mode": "full"}).success
    with monkeypatch.context() as patch:
        refuse(patch, "acme")
        assert not run(world, instance, stages=["export"], config={"mode": "full"}).success
    assert shown(world, instance, ["export"]) == {"works|acme"}
    assert shown(world, instance, STAGES[1:]) == set()


def test_a_check_that_fails_leaves_its_partition_synced(world: World, instance: dg.DagsterInstance) -> None:
    world.only_report()
    assert run(world, instance, config={"mode": "full"}).success
    with world.workspace() as workspace:
        [points] = list(workspace.store("main").scan(ENTITY, "acme"))
        workspace.store("main").delete(ENTITY, "acme", [points[0].point_id])
    assert not run(world, instance, config={"mode": "full"}).success
    assert shown(world, instance) == set()


def test_a_sync_of_the_command_line_that_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded in the same way; a source that could not be asked has no result."""

    def sync(unsynced: dict[str, VecsyncError] | None = None) -> None:
        with world.workspace() as workspace:
            results = [one for chosen in workspace.select([ENTITY]) for one in workspace.sync(chosen, SyncOptions())]
            record(workspace, results, unsynced)

    sync()
    with monkeypatch.context() as patch:
        refuse(patch, "brick")
        sync()
    with open_instance(world.config) as instance:
        assert shown(world, instance) == {"works|brick"}
    sync()
    with open_instance(world.config) as instance:
        assert shown(world, instance) == set()


def test_single_records_that_failed_are_no_failed_partition(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `status` nor a sensor knows one then, so that no sync would end it."""
    with world.workspace() as workspace:
        record(workspace, [one for chosen in workspace.select([ENTITY]) for one in workspace.sync(chosen)])
        refuse(monkeypatch, "acme")
        [failed] = workspace.sync(Selection(ENTITY, "acme", (ENTITY,)), SyncOptions(ids=("11",)))
        assert failed.outcome == "failed"
        record(workspace, [failed])
    with open_instance(world.config) as instance:
        assert shown(world, instance) == set()


def test_of_very_many_partitions_the_next_run_shows_the_rest(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes an event for each stage, which is dear."""
    monkeypatch.setattr("vecsync_dagster.assets.events._PLANNED", 2)
    add_tenants(instance, ENTITY, ["acme", "brick"])
    refuse(monkeypatch, "global", "acme", "brick")
    assert not run(world, instance).success
    assert len(shown(world, instance)) == 2
    assert not run(world, instance).success
    assert shown(world, instance) == ALL


def test_a_partition_that_is_refused_fails_no_run_of_another_one(world: World, instance: dg.DagsterInstance) -> None:
    """Its check is told once more after what passes, as the last one is what Dagster shows."""
    assert run(world, instance, config={"mode": "full"}).success
    data = world.config.model_dump(mode="json", exclude_unset=True)
    data["checks"] = {"max_invalid_share": 0.2, "min_invalid": 1}
    world.config = type(world.config).model_validate(data).with_folder(world.config.folder)
    world.update(*(row["id"] for row in world.rows() if row["tenant_id"] == "acme"), name=None)
    assert not run(world, instance, config={"mode": "full"}).success
    world.update(*(row["id"] for row in world.rows() if row["tenant_id"] == "brick"), name="иначе")
    beside = run(world, instance, partition_key="works|brick", config={"mode": "full"})
    told = [(one.partition, one.passed) for one in checked(beside) if one.check_name == "validation"]
    assert told == [("works|brick", True), ("works|acme", False)]
    assert beside.success
