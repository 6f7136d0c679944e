"""Driving sensors as the daemon does: a tick with the last tick's cursor, its partitions, then its runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from vecsync_dagster.automation.partitions import tenants_name
from vecsync_dagster.config import Config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster_tests.world import ENTITY, World

__all__ = ["Automated", "keys_of"]

VECTORS = dg.AssetKey([ENTITY, "vectors"])


def keys_of(request: dg.RunRequest) -> list[str]:
    """The partition keys that a run is asked for."""
    if request.partition_key is not None:
        return [str(request.partition_key)]
    return list(config_of_op(request)["partitions"])


def config_of_op(request: dg.RunRequest) -> dict[str, Any]:
    config: dict[str, Any] = request.run_config["ops"][f"{ENTITY}_sync"]["config"]
    return config


@dataclass
class Automated:
    """`config` may be replaced between ticks, as a deployment does."""

    world: World
    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict)
    run_keys: set[str] = field(default_factory=set)

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.world.config)

    def use(self, **changes: Any) -> None:
        """Replace top-level keys of the configuration."""
        config = self.world.config
        data = {**config.model_dump(mode="json", exclude_unset=True), **changes}
        self.world.config = Config.model_validate(data).with_folder(config.folder)

    def tick(self, sensor: str) -> dg.SensorResult:
        """One tick of `works_<sensor>`; its partitions come and go, its runs are not run."""
        name = f"{ENTITY}_{sensor}"
        context = dg.build_sensor_context(self.instance, cursor=self.cursors.get(name))
        result = self.definitions.resolve_sensor_def(name)(context)
        assert isinstance(result, dg.SensorResult)
        self.cursors[name] = result.cursor
        for change in result.dynamic_partitions_requests or []:
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(change.partitions_def_name, list(change.partition_keys))
            else:
                for key in change.partition_keys:
                    self.instance.delete_dynamic_partition(change.partitions_def_name, key)
        return result

    def asked(self, sensor: str) -> list[dg.RunRequest]:
        """The runs of one tick that Dagster would start: it drops those whose run key it has had before."""
        fresh = []
        for request in self.tick(sensor).run_requests or []:
            assert request.run_key is not None
            if request.run_key not in self.run_keys:
                self.run_keys.add(request.run_key)
                fresh.append(request)
        return fresh

    def run(self, requests: Iterable[dg.RunRequest]) -> list[dg.ExecuteInProcessResult]:
        job = self.definitions.resolve_job_def(f"{ENTITY}_job")
        return [
            job.execute_in_process(
                instance=self.instance,
                run_config=dict(request.run_config),
                partition_key=request.partition_key,
                tags=dict(request.tags),
                raise_on_error=False,
            )
            for request in requests
        ]

    def settle(self) -> None:
        """Tick and run until both sensors have nothing to ask for."""
        for _ in range(6):
            requests = self.asked("tenants") + self.asked("changes")
            if not requests:
                return
            assert all(result.success for result in self.run(requests))
        raise AssertionError("the sensors do not come to rest")

    def partitions(self) -> set[str]:
        return set(self.instance.get_dynamic_partitions(tenants_name(ENTITY)))

    def last_materialization(self, key: str) -> dg.AssetMaterialization:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=VECTORS, asset_partitions=[key]), limit=1
        ).records
        found = records[0].asset_materialization
        assert found is not None
        return found

    def queue(self, keys: list[str] | None, *, single: bool = False) -> str:
        """A run that has not begun yet, over these partitions (None: all). Returns its id."""
        config: dict[str, Any] = {} if single or keys is None else {"partitions": keys}
        run = dg.DagsterRun(
            job_name=f"{ENTITY}_job",
            run_config={"ops": {f"{ENTITY}_sync": {"config": config}}},
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={"dagster/partition": keys[0]} if single and keys else {},
        )
        return self.instance.add_run(run).run_id
