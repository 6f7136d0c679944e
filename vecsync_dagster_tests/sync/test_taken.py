"""An entity that was renamed and kept its `type`: its documents have the ids of those that the former one left."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster.cli.probing import probe_all
from vecsync_dagster.config import Config
from vecsync_dagster.sync.dropping import drop, leaving, leftovers
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.world import ENTITY, World

HEIR = "jobs"
WAY = "`vecsync drop works --entity works --force`"


def rename(world: World, **more: Any) -> None:
    config = world.config
    data = config.model_dump(mode="json", exclude_unset=True)
    data["entities"] = {HEIR: data["entities"][ENTITY] | more}
    world.config = Config.model_validate(data).with_folder(config.folder)


@pytest.mark.parametrize("options", [{}, {"mode": "full"}, {"dry_run": True}, {"ids": ["1"]}], ids=str)
def test_it_is_known_before_anything_is_written(world: World, options: dict[str, Any]) -> None:
    """Every run says it, a dry one too, and no document has failed."""
    seed(world, {"acme": 3, "brick": 2})
    world.sync()
    before = world.stored()
    rename(world)
    results = world.sync("acme", "brick", entity=HEIR, **options)
    assert len(results) == 2
    for result in results:
        assert result.outcome == "failed"
        assert WAY in str(result.error)
        assert (result.figures.fetched, result.figures.failed, result.figures.new) == (0, 0, 0)
    with world.workspace() as workspace:
        assert not workspace.ledger.with_rows_or_marks(HEIR)
        store = workspace.store("main")
        assert {p.point_id: dict(p.payload) for page in store.scan(ENTITY) for p in page} == before


def test_a_check_fails_and_names_the_way_that_works(world: World) -> None:
    seed(world, {"acme": 3, "brick": 2})
    world.sync()
    rename(world)
    with world.workspace() as workspace:
        failed = [probe for probe in probe_all(workspace) if probe.state == "FAIL"]
        assert [probe.part for probe in failed] == ["collection works"]
        assert WAY in failed[0].message
        [leftover] = leftovers(workspace)
        assert WAY in str(leftover)
        drop(workspace, leaving(workspace, "works", ENTITY, replaced=False))
    assert all(result.ok for result in world.sync(entity=HEIR))
    with world.workspace() as workspace:
        assert not [probe for probe in probe_all(workspace) if probe.state == "FAIL"]


def test_another_type_needs_no_force(world: World) -> None:
    """Nothing is missing from searches at any time."""
    seed(world, {"acme": 3, "brick": 2})
    world.sync()
    rename(world, type="job")
    world.sync(entity=HEIR, mode="full")
    with world.workspace() as workspace:
        [leftover] = leftovers(workspace)
        assert "--force" not in str(leftover)
        drop(workspace, leaving(workspace, "works", ENTITY))
    assert all(result.ok for result in world.sync(entity=HEIR, mode="full"))


def test_a_type_that_begins_as_the_former_one_does_is_another_type(world: World) -> None:
    """ "tenant-work-x-1" is no id of the type "work", though it begins so and the source has a record 1."""
    entity = world.config.entities[ENTITY].model_copy(update={"type": "work-x"})
    world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    seed(world, {"acme": 2})
    world.sync()
    rename(world, type="work")
    [acme] = [one for one in world.sync(entity=HEIR) if one.tenant == "acme"]
    assert (acme.outcome, acme.error, acme.figures.new) == ("success", None, 2)


def test_other_records_of_the_same_type_are_synced(world: World) -> None:
    """What the former entity left is gone from the source: no id is there twice."""
    seed(world, {"acme": 3})
    world.sync()
    rename(world)
    world.delete(1, 2, 3)
    world.insert([{"id": 10, "tenant_id": "acme"}])
    [result] = [one for one in world.sync(entity=HEIR) if one.tenant == "acme"]
    assert (result.outcome, result.figures.new) == ("success", 1)
