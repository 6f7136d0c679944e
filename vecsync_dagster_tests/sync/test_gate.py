"""Too many invalid records: nothing of that partition is written, and what was wrong is kept for people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from vecsync_dagster.config import Config
from vecsync_dagster.errors import ValidationFailed
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.world import ENTITY, World


def use(world: World, **checks: Any) -> None:
    data = {**world.config.model_dump(mode="json", exclude_unset=True), "checks": checks}
    world.config = Config.model_validate(data).with_folder(world.config.folder)


def filled(world: World) -> World:
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 21))
    world.insert({"id": n, "tenant_id": "brick"} for n in range(31, 36))
    world.sync(mode="full")
    use(world, max_invalid_share=0.2, min_invalid=3)
    return world


def of(results: list[PartitionResult], tenant: str) -> PartitionResult:
    [result] = [result for result in results if result.tenant == tenant]
    return result


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_too_many_invalid_records_write_nothing(world: World, mode: str) -> None:
    """Neither the good ones are written nor anything removed; the error names the limit; other tenants go on."""
    filled(world)
    before = world.stored()
    world.update(1, name="changed")
    world.update(*range(2, 8), name=None)
    world.delete(20)
    world.update(31, name="changed too")
    results = world.sync(mode=mode)
    stopped = of(results, "acme")
    assert isinstance(stopped.error, ValidationFailed)
    assert (
        f"6 of {stopped.figures.fetched} records are invalid, more than checks.max_invalid_share allows (20%)"
        in str(stopped.error)
    )
    assert "id 2: " in str(stopped.error)
    [check] = stopped.checks
    assert (check.name, check.passed, check.warning) == ("validation", False, False)
    after = world.stored()
    mine = [point for point, payload in before.items() if payload["tenantId"] == "acme"]
    assert {point: after[point] for point in mine} == {point: before[point] for point in mine}
    assert of(results, "brick").ok
    with world.workspace() as workspace:
        assert {row["db_id"] for row in workspace.ledger.rejected(ENTITY, "acme")} == {str(n) for n in range(2, 8)}
        assert workspace.ledger.runs(ENTITY, "acme", limit=1)[0].outcome == "failed"


def test_when_it_is_mended_all_is_synced(world: World) -> None:
    """What was stopped is not taken for done: the next run finds all that changed."""
    filled(world)
    world.update(*range(2, 12), name=None)
    assert of(world.sync(), "acme").outcome == "failed"
    world.update(*range(2, 12), name="right again")
    assert of(world.sync(), "acme").ok
    world.assert_exact()


def test_a_stopped_run_is_not_made_good_by_less(world: World) -> None:
    """Neither checks made on demand nor a record synced by its id say less than the run that read them all."""
    filled(world)
    world.update(*range(2, 12), name=None)
    [stopped] = of(world.sync(), "acme").checks
    assert of(world.sync("acme", ids=("1",)), "acme").ok
    with world.workspace() as workspace:
        [selection] = workspace.select([ENTITY], ["acme"])
        [(_, checks)] = workspace.verify(selection)
        left = {one.check: one for one in workspace.ledger.check_results(ENTITY, "acme")}["validation"]
    made = {one.name: one for one in checks}["validation"]
    assert (made.warning, made.message) == (left.warning, left.message) == (False, stopped.message)
    world.update(*range(2, 12), name="right again")
    assert of(world.sync(), "acme").ok
    with world.workspace() as workspace:
        assert all(one.passed for one in workspace.ledger.check_results(ENTITY, "acme"))


def test_an_incremental_run_makes_no_stopped_full_one_good(embedded_world: World) -> None:
    """It did not read the records that stopped the full run; a full one that reads them does."""
    world = embedded_world
    works = world.config.entities[ENTITY].model_copy(update={"overlap": timedelta(0)})
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})
    filled(world)
    spoil = "UPDATE works SET name = {} WHERE id BETWEEN 2 AND 12"
    with world.engine.begin() as connection:
        connection.exec_driver_sql(spoil.format("NULL"))
    stopped = of(world.sync(mode="full"), "acme")
    assert stopped.outcome == "failed"
    world.update(1, name="changed")
    assert of(world.sync(), "acme").figures.invalid == 0

    def validation() -> tuple[bool, str]:
        with world.workspace() as workspace:
            results = workspace.ledger.check_results(ENTITY, "acme")
            return next((one.passed, one.message) for one in results if one.check == "validation")

    assert validation() == (False, stopped.checks[0].message)
    with world.engine.begin() as connection:
        connection.exec_driver_sql(spoil.format("'right again'"))
    assert of(world.sync(mode="full"), "acme").ok
    assert validation()[0]


def test_a_few_invalid_records_stop_nothing(world: World) -> None:
    """Below the share, and below the number that counts at all, records are skipped as ever."""
    filled(world)
    world.update(1, name="changed")
    world.update(2, 3, name=None)
    result = of(world.sync(), "acme")
    assert (result.outcome, result.figures.invalid, result.figures.upserted) == ("success", 2, 1)
    use(world, max_invalid_share=0.5, min_invalid=1)
    world.update(4, 5, 6, name=None)
    assert of(world.sync(mode="full"), "acme").outcome == "success"


def test_a_gated_sync_does_what_any_sync_does(embedded_world: World) -> None:
    """Records checked ahead and then read from the snapshot: the same points, removals and watermark."""
    world = filled(embedded_world)
    world.update(1, name="changed")
    world.delete(20)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE works SET deleted_at = updated_at WHERE id = 19")
    assert all(result.ok for result in world.sync(mode="full"))
    world.assert_exact()
    world.update(5, name="later")
    again = of(world.sync(), "acme")
    assert (again.mode, again.figures.upserted) == ("incremental", 1)
    world.assert_exact()
