"""What only grows is forgotten once a day, by full runs, whoever starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import yaml
from sqlalchemy import update

from vecsync_dagster.config.models import RetentionConfig
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.tables import sync_run
from vecsync_dagster_tests.assets.test_assets import run
from vecsync_dagster_tests.cli.program import vecsync
from vecsync_dagster_tests.world import ENTITY, World

Sync = Callable[[World, str], None]


def by_dagster(world: World, mode: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(world, instance, config={"mode": mode, "partitions": ["works|acme"]}).success


def by_command(world: World, mode: str) -> None:
    file = world.config.state_folder.parent / "vecsync.yaml"
    file.write_text(yaml.safe_dump(world.config.model_dump(mode="json", exclude_unset=True, by_alias=True)))
    ran = vecsync("sync", "tenant", "acme", *(["--full"] if mode == "full" else []), "--no-record", "--config", file)
    assert ran.code == 0, ran.err


def remember(world: World, run_id: str, age: timedelta) -> None:
    """A run of a tenant that has newer ones."""
    at = datetime.now(UTC) - age
    with world.workspace() as workspace:
        workspace.ledger.record_run(Run(run_id, ENTITY, ENTITY, "acme", "full", "success", at, at, {}, None))
        with workspace.ledger.database.write() as connection:  # the ledger lets no run begin before the last one
            connection.execute(update(sync_run).where(sync_run.c.run_id == run_id).values(started_at=at))


def remembered(world: World) -> set[str]:
    with world.workspace() as workspace:
        return {one.run_id for one in workspace.ledger.runs(limit=100) if one.run_id.startswith("old")}


@pytest.mark.parametrize("sync", [by_dagster, by_command])
def test_full_runs_forget_old_runs_once_a_day(world: World, sync: Sync) -> None:
    """An incremental run forgets nothing; a full one what is older than 90 days; another one the same day nothing more,
    and one on the next day does."""
    sync(world, "full")
    mark = world.config.state_folder / "last_pruned"
    assert mark.exists()
    os.utime(mark, (0, 0))
    remember(world, "old 1", timedelta(days=91))
    remember(world, "old 2", timedelta(days=89))
    sync(world, "incremental")
    assert remembered(world) == {"old 1", "old 2"}
    sync(world, "full")
    assert remembered(world) == {"old 2"}
    remember(world, "old 3", timedelta(days=91))
    sync(world, "full")
    assert remembered(world) == {"old 2", "old 3"}
    os.utime(mark, (0, 0))
    sync(world, "full")
    assert remembered(world) == {"old 2"}


def test_what_is_kept_by_default() -> None:
    limits = RetentionConfig()
    assert {limits.runs, limits.rejected, limits.unused_vectors} == {timedelta(days=90)}
