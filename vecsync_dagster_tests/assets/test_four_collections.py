"""One MongoDB document in four collections, synced by Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vecsync_dagster.definitions import build_definitions
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.tools import ENTITY, FOUR, Tools, sample, tools_config

PARTITIONS = {f"{collection}|global" for collection in FOUR}


@pytest.fixture
def tools(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    monkeypatch.setenv("MONGO_URL", mongo_url)
    world = Tools(mongo_url, mongo_database, tools_config(tmp_path, mongo_database))
    world.insert(sample())
    yield world
    world.close()


def run(tools: Tools, instance: dg.DagsterInstance) -> dict[str, dict[str, Any]]:
    """One run over all partitions; the figures of each collection that has something to show."""
    tools.leave()
    job = build_definitions(tools.config).resolve_job_def(f"{ENTITY}_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    found = [event.event_specific_data for event in result.all_events]
    assert all(one.passed for one in found if isinstance(one, dg.AssetCheckEvaluation))
    told = [event.materialization for event in result.all_events if event.is_step_materialization]
    return {
        str(one.partition).partition("|")[0]: {name: value.value for name, value in one.metadata.items()}
        for one in told
        if one.asset_key.path[-1] == "vectors"
    }


def written(told: dict[str, dict[str, Any]], figure: str) -> dict[str, int]:
    return {collection: metadata[figure] for collection, metadata in told.items() if figure in metadata}


def test_the_life_of_a_tool(tools: Tools) -> None:
    """Created, renamed, given a new feature and a new price, rejected, deleted: each run does just that. Where the
    stream was lost, the materialization says that a full run was made, and why."""
    with dg.DagsterInstance.ephemeral() as instance:
        first = run(tools, instance)
        assert written(first, "new") == dict.fromkeys(FOUR, 22)
        assert instance.get_materialized_partitions(dg.AssetKey([ENTITY, "vectors"])) == PARTITIONS

        tools.change("krita", name="Krita Studio")
        told = run(tools, instance)
        assert (written(told, "upserted"), written(told, "embedded")) == ({"tools": 1}, {"tools": 1})
        assert tools.versions("krita") == {"tools": 2, "functionality": 1, "usecases": 1, "interface": 1}

        tools.change("krita", functionality=["Painting", "Comics"])
        assert written(run(tools, instance), "upserted") == {"functionality": 1}

        tools.change("krita", pricing=[{"tier": "pro", "billingPeriod": "year", "price": 10}])
        told = run(tools, instance)
        assert (written(told, "payload_only"), written(told, "upserted")) == (dict.fromkeys(FOUR, 1), {})

        tools.change("krita", approvalStatus="rejected")
        assert written(run(tools, instance), "removed") == dict.fromkeys(FOUR, 1)

        tools.delete("vlc")
        assert written(run(tools, instance), "removed") == dict.fromkeys(FOUR, 1)
        tools.assert_exact()
        assert run(tools, instance) == {}

        tools.change("krita", approvalStatus="approved")
        with failing(tools.url, "aggregate", mode={"times": 1}, errorCode=286):
            told = run(tools, instance)
        assert written(told, "upserted") == dict.fromkeys(FOUR, 1)
        assert told["tools"]["mode"] == "full"
        assert "ChangeStreamHistoryLost" in told["tools"]["note"]


def test_the_change_sensor_says_that_it_goes_by_time(tools: Tools) -> None:
    """A source that cannot be asked what changed is not called unchanged: the tick names the setting that counts."""
    with dg.DagsterInstance.ephemeral() as instance:
        run(tools, instance)
        tools.change("krita", name="Krita Studio")
        sensor = build_definitions(tools.config).resolve_sensor_def(f"{ENTITY}_changes")
        result = sensor(dg.build_sensor_context(instance))
        assert isinstance(result, dg.SensorResult)
        assert result.skip_reason is not None
        assert "due 15 minutes after its last sync (automation.changes.due_after)" in str(
            result.skip_reason.skip_message
        )
