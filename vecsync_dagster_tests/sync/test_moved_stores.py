"""A collection goes to another store, and comes back: what the ledger says of its points holds for one place alone.

Whatever changed meanwhile is wrong at the place that was left; and a place that is new has no point at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vecsync_dagster.config import Config
from vecsync_dagster.ledger import ledger_url
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster.sync.due import due_partitions
from vecsync_dagster.sync.standing import check_again, check_everything
from vecsync_dagster_tests.four import Four
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World, config_of

Move = Callable[[World], None]


def change(world: World, **parts: Any) -> None:
    """Another configuration of the same project."""
    config = world.config
    data = config.model_dump(mode="json", exclude_unset=True) | parts
    world.config = Config.model_validate(data).with_folder(config.folder)


def change_store(world: World, **settings: Any) -> None:
    main = world.config.stores["main"].model_dump(mode="json", exclude_unset=True)
    change(world, stores={"main": main | settings})


def compare_counts_only(world: World) -> None:
    change(world, sync={"verify": "counts"})


def rename(world: World) -> None:
    """Another store of the configuration."""
    main = world.config.stores["main"].model_dump(mode="json", exclude_unset=True)
    entity = world.config.entities[ENTITY].model_dump(mode="json", exclude_unset=True)
    entity["collections"][ENTITY]["store"] = "other"
    change(world, entities={ENTITY: entity}, stores={"main": main, "other": main | {"prefix": "other_"}})


MOVES: dict[str, Move] = {
    "another prefix": lambda world: change_store(world, prefix="other_"),
    "another store": rename,
}


def change_rows(world: World) -> None:
    """Records change places, others change, go or become everybody's."""
    world.update(1, tenant_id="brick")
    world.update(1001, tenant_id="acme")
    world.update(2, name="Иное")
    world.update(3, code="X-1")
    world.update(1002, tenant_id=None, is_global=True)
    world.delete(4)


def embedded(results: list[PartitionResult]) -> int:
    return sum(result.figures.embedded for result in results)


def modes(results: list[PartitionResult]) -> set[str]:
    return {result.mode for result in results}


@pytest.mark.parametrize(
    ("move", "verify", "mode"),
    [
        ("another prefix", "auto", None),
        ("another prefix", "counts", "full"),
        ("another store", "auto", "full"),
        ("another store", "counts", None),
    ],
)
def test_a_store_that_comes_back_is_compared(world: World, move: str, verify: str, mode: Any) -> None:
    """One run of all tenants makes each place exact, whatever changed while it was left, and embeds nothing that is
    known. The next one has nothing to do, and is what it was asked to be."""
    seed(world, {"acme": 4, "brick": 4, GLOBAL: 1})
    if verify == "counts":
        compare_counts_only(world)
    world.sync()
    home = world.config
    MOVES[move](world)
    assert embedded(world.sync(mode=mode)) == 0
    world.assert_exact()
    change_rows(world)
    world.sync(mode="full")
    world.config = home
    results = world.sync(mode=mode)
    assert embedded(results) == 0
    assert modes(results) == {"full"}
    world.assert_exact()
    world.assert_vectors()
    again = world.sync()
    assert modes(again) == {"incremental"}
    assert all(result.ok and not result.figures.touched for result in again)


def test_another_folder_is_another_place(embedded_world: World) -> None:
    world = embedded_world
    seed(world, {"acme": 4, "brick": 4})
    world.sync()
    change_store(world, path="elsewhere")
    world.sync()
    change_rows(world)
    world.sync(mode="full")
    change_store(world, path="qdrant")
    world.sync()
    world.assert_exact()


def test_a_run_says_why_it_reads_everything(world: World) -> None:
    seed(world, {"acme": 2, "brick": 2, GLOBAL: 1})
    world.sync()
    MOVES["another prefix"](world)
    for result in world.sync():
        assert "the store lies elsewhere than before" in result.note


def test_a_comparison_that_repairs_is_a_stay_there(world: World) -> None:
    """`reconcile --repair` alone made the other place exact, and left the first one behind."""
    seed(world, {"acme": 4, "brick": 4})
    compare_counts_only(world)
    world.sync()
    home = world.config
    rename(world)
    world.update(2, name="Иное")
    with world.workspace() as workspace:
        space = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider.space
        workspace.store_of(ENTITY, ENTITY).ensure_collection(ENTITY, space)
        workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
    world.assert_exact()
    world.config = home
    world.sync()
    world.assert_exact()


def test_each_tenant_is_compared_by_a_run_of_its_own(world: World) -> None:
    """Runs of others, by ids, with a limit, dry ones and retries leave it to the first that reads all of it."""
    seed(world, {"acme": 4, "brick": 4})
    world.sync()
    home = world.config
    MOVES["another prefix"](world)
    world.sync()
    world.update(2, name="Иное")
    world.update(1001, code="X-1")
    world.sync()
    world.config = home
    planned = world.sync(dry_run=True)
    assert modes(planned) == {"full"}
    assert one(world.sync("brick"), "brick").mode == "full"
    assert one(world.sync("acme", ids=["1"]), "acme").ok
    assert one(world.sync("acme", ids=["3"], retry=True), "acme").ok
    assert one(world.sync("acme", limit=1), "acme").ok
    assert modes(world.sync("acme", dry_run=True)) == {"full"}
    assert one(world.sync("brick"), "brick").mode == "incremental"
    assert one(world.sync("acme"), "acme").mode == "full"
    world.assert_exact()
    assert one(world.sync("acme"), "acme").mode == "incremental"


def test_a_record_that_is_asked_for_is_written_at_the_new_place(world: World) -> None:
    seed(world, {"acme": 4})
    world.sync()
    MOVES["another prefix"](world)
    world.sync("acme", ids=["2"])
    assert {payload["dbId"] for payload in world.stored().values()} == {"2"}


def test_no_record_goes_by_its_id_where_nothing_is_known(world: World) -> None:
    """The run that reads all of it decides."""
    seed(world, {"acme": 4})
    world.sync()
    MOVES["another prefix"](world)
    world.delete(2)
    [result] = world.sync("acme", ids=["2"])
    assert result.figures.removed == 0
    world.sync()
    world.assert_exact()


def test_a_ledger_that_knows_no_place_takes_todays(world: World) -> None:
    """As after an update from a version that noted none: nothing is read again or compared."""
    seed(world, {"acme": 2, "brick": 2, GLOBAL: 1})
    world.sync()
    engine = sa.create_engine(ledger_url(world.config.ledger, state_folder=world.config.state_folder))
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM collection_place"))
    engine.dispose()
    results = world.sync()
    assert modes(results) == {"incremental"}
    MOVES["another prefix"](world)
    assert modes(world.sync()) == {"full"}


def test_one_place_has_many_spellings(embedded_world: World, tmp_path: Path) -> None:
    world = embedded_world
    seed(world, {"acme": 2, GLOBAL: 1})
    world.sync()
    (tmp_path / "link").symlink_to(tmp_path / "qdrant")
    for path in (str(tmp_path / "qdrant"), "./qdrant", "state/../qdrant", "link"):
        change_store(world, path=path)
        assert modes(world.sync()) == {"incremental"}


def test_a_project_that_moved_is_where_it_was(tmp_path: Path) -> None:
    """Folder of state, source and store: the same data, at other paths; the ledger among them."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    store = {"type": "qdrant", "path": "qdrant"}
    config = config_of(first, source={"type": "sqlite", "path": "source.db"}, store=store)
    seed(World(f"sqlite:///{first / 'source.db'}", config), {"acme": 3, "brick": 2, GLOBAL: 1})
    World(f"sqlite:///{first / 'source.db'}", config).sync()
    shutil.move(first, second)
    world = World(f"sqlite:///{second / 'source.db'}", config.with_folder(second))
    results = world.sync()
    assert modes(results) == {"incremental"}
    assert sum(r.figures.embedded + r.figures.cache_hits + r.figures.touched for r in results) == 0
    world.assert_exact()


def test_only_the_collection_that_moved_is_read(four: Four) -> None:
    """The others of its entity go on from where they were."""
    four.insert(1, 2)
    four.sync()
    main = four.world.config.stores["main"].model_dump(mode="json", exclude_unset=True)
    entity = four.world.config.entities[ENTITY].model_dump(mode="json", exclude_unset=True)
    entity["collections"]["tools"]["store"] = "other"
    change(four.world, entities={ENTITY: entity}, stores={"main": main, "other": main | {"prefix": "other_"}})
    results = four.sync()
    assert {name: result.mode for name, result in results.items()} == {
        "tools": "full",
        "functionality": "incremental",
        "usecases": "incremental",
        "interface": "incremental",
    }
    assert all(result.ok for result in results.values())
    assert len(four.world.stored("tools")) == 2


def test_a_backup_of_the_store_is_repaired_by_a_comparison(embedded_world: World, tmp_path: Path) -> None:
    """The place is the same, so that no run notices it: docs/deployment.md says what to do."""
    world = embedded_world
    seed(world, {"acme": 5, "brick": 4, GLOBAL: 1})
    world.sync()
    shutil.copytree(tmp_path / "qdrant", tmp_path / "backup")
    change_rows(world)
    world.sync(mode="full")
    shutil.rmtree(tmp_path / "qdrant")
    (tmp_path / "backup").rename(tmp_path / "qdrant")
    with world.workspace() as workspace:
        figures = workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY))
    assert figures.embedded == 0
    world.assert_exact()
    world.assert_vectors()


def test_partitions_of_a_store_that_moved_are_due(world: World) -> None:
    """For who asks which are: before a run noted it, and until the partition was synced there."""
    seed(world, {"acme": 2, "brick": 2, GLOBAL: 1})
    world.sync()

    def due() -> set[str]:
        with world.workspace() as workspace:
            looks = workspace.source(ENTITY).fingerprints()  # type: ignore[attr-defined]
            entity, seen = workspace.entity(ENTITY), workspace.seen(ENTITY)
            now = datetime.now(UTC)
            return {d.tenant for d in due_partitions(entity, ["acme", "brick"], looks, seen, now, timedelta(1))}

    assert due() == set()
    MOVES["another prefix"](world)
    assert due() == {"acme", "brick"}
    world.sync("brick")
    assert due() == {"acme"}
    world.sync("acme")
    assert due() == set()


def test_what_tenants_that_are_gone_have_there_is_reported(world: World) -> None:
    """They left while the collection was elsewhere: no run visits what they left behind."""
    seed(world, {"acme": 2, "brick": 2, "cement": 2, "dolomite": 2})
    world.sync()
    home = world.config
    MOVES["another prefix"](world)
    world.sync()
    world.delete(1, 2)
    for _ in range(2):
        world.sync(mode="full", tenant_gone=True)
        world.wait()
    world.assert_exact()
    with world.workspace() as workspace:
        assert all(check.passed for check in check_everything(workspace, ENTITY))
    world.config = home
    results = world.sync()
    with world.workspace() as workspace:
        check_again(workspace, results)
        failed = {check.check for check in workspace.ledger.check_results(ENTITY, "") if not check.passed}
    assert "reconciliation" in failed
