"""A source that suddenly has no row of a tenant, or of everybody: one look is not believed, two that agree are."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vecsync_dagster.sources import SqlSource
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, WORKS, World, config_of

BRICK = (1001, 1002, 1003)


def guard_of(result: PartitionResult) -> tuple[bool, bool]:
    """Whether the check passed, and whether it is a warning."""
    [guard] = [check for check in result.checks if check.name == "removal_guard"]
    return guard.passed, guard.warning


def test_an_import_in_two_transactions_costs_nothing(world: World) -> None:
    """A full run between DELETE and INSERT removes nothing, says that it waits, and the next one has nothing to do."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    before, rows = world.stored(), [row for row in world.rows() if row["tenant_id"] == "brick"]
    world.delete(*BRICK)
    result = one(world.sync(mode="full"), "brick")
    assert (result.figures.removed, result.figures.removals_waiting, result.ok) == (0, 3, True)
    assert (guard_of(result), result.emptied) == ((False, True), False)
    assert "3 removals wait for a second look: missing since" in result.note
    assert world.stored() == before
    world.insert(rows)
    again = one(world.sync(mode="full"), "brick")
    assert (again.figures.unchanged, again.figures.writes, again.note) == (3, 0, "")
    world.assert_exact()


def test_a_tenant_must_be_missing_for_a_while(world: World) -> None:
    """However many looks miss it within that time, each in a process of its own: only a later one removes."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    world.delete(*BRICK)
    for _ in range(3):
        world.wait(timedelta(minutes=4))
        assert one(world.sync("brick", mode="full"), "brick").figures.removals_waiting == 3
    world.wait(timedelta(minutes=8))
    assert one(world.sync("brick", mode="full"), "brick").figures.removed == 3
    world.assert_exact()
    assert missing(world) == {}


def test_what_waits_is_rejected_as_before(embedded_world: World) -> None:
    """While a tenant is missing its rejected records are what they were: for the check, and for who lists them."""
    world = embedded_world
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    world.update(BRICK[0], price="on request")
    assert one(world.sync("brick", mode="full"), "brick").figures.invalid == 1
    world.delete(*BRICK)
    for mode in ("full", "incremental"):
        result = one(world.sync("brick", mode=mode), "brick")
        [validation] = [check for check in result.checks if check.name == "validation"]
        assert (validation.passed, validation.facts["invalid"]) == (False, 1)
    with world.workspace() as workspace:
        assert len(workspace.ledger.invalid(workspace.ledger.last_runs(ENTITY))) == 1


def test_time_alone_removes_nothing(world: World) -> None:
    """A tenant that was back in between is missing anew, however long ago it was missed first."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    rows = [row for row in world.rows() if row["tenant_id"] == "brick"]
    for mode in ("full", "incremental"):
        world.delete(*BRICK)
        assert one(world.sync(mode="full"), "brick").figures.removals_waiting == 3
        world.insert(rows)
        world.sync(mode=mode)
        assert missing(world) == {}
        world.wait()
    world.delete(*BRICK)
    assert one(world.sync(mode="full"), "brick").figures.removals_waiting == 3


def test_the_records_of_everybody_need_a_second_look(world: World) -> None:
    """`global` is no tenant that could be missing: the next full read, which agrees, removes."""
    seed(world, {GLOBAL: 5, "acme": 4})
    world.sync()
    world.delete(*range(1, 6))
    first = one(world.sync(mode="full"), GLOBAL)
    assert (first.figures.removed, first.figures.removals_waiting) == (0, 5)
    assert one(world.sync(GLOBAL, mode="incremental"), GLOBAL).figures.removed == 0
    assert one(world.sync(mode="full"), GLOBAL).figures.removed == 5
    world.assert_exact()
    assert missing(world) == {}


def test_the_looks_of_two_collections_are_not_two_looks(embedded_world: World) -> None:
    """A run of one collection does not confirm what the run of another one has just seen."""
    world = embedded_world
    works = world.config.entities[ENTITY]
    both = works.model_copy(update={"collections": {ENTITY: works.collections[ENTITY], "b": works.collections[ENTITY]}})
    world.config = world.config.model_copy(update={"entities": {ENTITY: both}})
    seed(world, {GLOBAL: 5, "acme": 1})
    world.sync()
    world.delete(*range(1, 6))

    def removed(collection: str) -> int:
        return one(world.sync(GLOBAL, mode="full", collections=[collection]), GLOBAL).figures.removed

    assert [removed(ENTITY), removed("b"), removed(ENTITY)] == [0, 0, 5]
    assert removed("b") + removed("b") == 5


def test_a_tenant_of_a_source_that_lacks_most_is_not_removed_by_name(world: World) -> None:
    """However often it is named: each run fails, and counts no look; by hand it goes, and so do others once it did."""
    seed(world, {"acme": 2, "brick": 2, "cord": 2})
    world.sync()
    rows, before = [row for row in world.rows() if row["tenant_id"] != "acme"], world.stored()
    world.delete(*[row["id"] for row in rows])
    for _ in range(3):
        results = world.sync("acme", "brick", mode="full")
        assert {result.tenant: result.ok for result in results} == {"acme": True, "brick": False}
        assert "max_lost_share" in str(one(results, "brick").error)
        world.wait()
    assert (missing(world), world.stored()) == ({}, before)
    assert world.sync("brick", mode="full", allow_removals=True)[0].figures.removed == 2
    assert world.sync("cord", mode="full")[0].figures.removals_waiting == 2
    world.wait()
    assert world.sync("cord", mode="full")[0].figures.removed == 2
    world.assert_exact()


@pytest.mark.parametrize("tenants", [(), ("acme",)])
def test_the_only_tenant_ends_empty_too(embedded_world: World, tenants: tuple[str, ...]) -> None:
    """It says nothing of the source that all one of its tenants is gone."""
    world = embedded_world
    seed(world, {"acme": 3})
    world.sync()
    world.delete(1, 2, 3)
    world.sync(*tenants, mode="full")
    assert len(world.stored()) == 3
    world.wait()
    world.sync(*tenants, mode="full")
    world.assert_exact()


@pytest.mark.in_turn
@pytest.mark.parametrize("tenant", [GLOBAL, "acme"])
def test_above_the_guard_it_is_by_hand(world: World, tenant: str) -> None:
    """Where all of many documents is gone, no number of looks removes it; --allow-removals does, in one."""
    seed(world, {tenant: 60, "brick": 3})
    world.sync()
    world.delete(*range(1, 61))
    for _ in range(3):
        result = one(world.sync(mode="full"), tenant)
        assert (result.figures.removed, result.figures.removals_blocked, result.ok) == (0, 60, False)
        world.wait()
    assert one(world.sync(mode="full", allow_removals=True), tenant).figures.removed == 60
    world.assert_exact()
    assert missing(world) == {}


def test_allow_removals_does_not_wait(world: World) -> None:
    """Who says so by hand need not come again."""
    seed(world, {GLOBAL: 2, "acme": 4, "brick": 3})
    world.sync()
    world.delete(1, 2, *range(2001, 2004))
    results = world.sync(mode="full", allow_removals=True)
    assert (one(results, GLOBAL).figures.removed, one(results, "brick").figures.removed) == (2, 3)
    world.assert_exact()


@pytest.mark.parametrize(("before", "after"), [(GLOBAL, "acme"), ("acme", GLOBAL), ("acme", "zinc")])
def test_what_moved_is_not_embedded_again(world: World, before: str, after: str) -> None:
    """Where all records of a partition move, the new owner takes them over before the old one's vectors go."""
    seed(world, {before: 3, "brick": 1, "zinc": 1} if before == "acme" else {before: 3, "acme": 1, "brick": 1})
    world.sync()
    world.update(1, 2, 3, tenant_id=None if after == GLOBAL else after, is_global=after == GLOBAL)
    results = world.sync(mode="full", allow_removals=True)
    assert sum(result.figures.embedded for result in results) == 0
    world.assert_exact()
    world.delete(1, 2, 3)
    world.sync(after, mode="full", allow_removals=True)
    world.assert_exact()


def test_a_gone_tenant_that_has_rows_again_is_guarded(world: World) -> None:
    """A removal that was asked for while the tenant was missing, and runs in the midst of its import, is guarded."""
    seed(world, {"acme": 4, "brick": 60})
    world.sync()
    world.delete(*range(1002, 1061))
    result = one(world.sync("brick", mode="full", tenant_gone=True), "brick")
    assert (result.figures.removed, result.figures.removals_blocked) == (0, 59)
    world.delete(1001)
    world.sync("brick", mode="full", tenant_gone=True)
    world.wait()
    assert one(world.sync("brick", mode="full", tenant_gone=True), "brick").figures.removed == 60
    world.assert_exact()


def test_tombstones_are_the_source_s_own_word(world: World) -> None:
    """Rows that the source itself marks as deleted go at once, also where they are all that a tenant has."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync()
    with world.workspace() as workspace:
        workspace.ledger.miss(ENTITY, ["brick"])  # as a look at the source's list of tenants does
    world.update(*BRICK, deleted_at=deletion(world))
    assert one(world.sync(mode="incremental"), "brick").figures.removed == 3
    world.assert_exact()
    assert missing(world) == {}


@pytest.mark.parametrize("tenant", ["brick", GLOBAL])
def test_a_full_run_removes_at_once_what_is_marked_as_deleted(world: World, tenant: str) -> None:
    """Also all that a partition has: only what vanished without a trace waits for a second look."""
    seed(world, {"acme": 4, tenant: 3})
    world.sync()
    own = [row["id"] for row in world.rows() if row["tenant_id"] != "acme"]
    world.update(*own[:2], deleted_at=deletion(world))
    world.delete(own[2])
    assert removed_and_waiting(world, tenant, dry_run=True) == (2, 1)
    assert removed_and_waiting(world, tenant) == (2, 1)
    assert missing(world) == {tenant: 1}
    world.wait()
    assert removed_and_waiting(world, tenant) == (1, 0)
    world.assert_exact()
    world.update(own[0], deleted_at=None)
    world.sync()
    world.update(own[0], deleted_at=deletion(world))
    result = one(world.sync(mode="full"), tenant)
    assert (result.figures.removed, guard_of(result), result.note) == (1, (True, False), "")
    world.assert_exact()
    assert missing(world) == {}


def test_a_full_run_removes_at_once_what_left_the_filter(world: World) -> None:
    """What a filter keeps out that has just been changed waits, like what vanished: it may be mistaken."""
    use_filter(world, "шт", "т")
    seed(world, {"acme": 4, "brick": 3})
    world.update(1, unit="т")
    world.sync()
    use_filter(world, "т")
    assert removed_and_waiting(world, "brick") == (0, 3)
    use_filter(world, "шт", "т")
    world.update(*BRICK, unit="м")
    assert removed_and_waiting(world, "brick") == (3, 0)


def test_a_changed_filter_waits_where_rows_have_no_time(embedded_world: World) -> None:
    """Also in the run after the one that met no record: no read with this filter is known to be right."""
    world = embedded_world
    use_filter(world, "шт", "т", updated_at=None, deleted_at=None)
    seed(world, {"acme": 4, "brick": 3})
    world.update(1, unit="т")
    world.sync()
    use_filter(world, "т")
    assert [removed_and_waiting(world, "brick") for _ in range(2)] == [(0, 3), (0, 3)]


def test_a_dry_run_and_an_old_snapshot_are_no_looks(world: World) -> None:
    """Neither counts, and neither says that anything would go at once."""
    seed(world, {GLOBAL: 5, "acme": 4})
    world.sync()
    world.delete(*range(1, 6))
    for _ in range(2):
        dry = one(world.sync(mode="full", dry_run=True), GLOBAL)
        assert (dry.figures.removed, dry.figures.removals_waiting) == (0, 5)
        assert missing(world) == {}
    world.sync(mode="full")
    from_snapshot: Any = {"mode": "full", "stages": ("documents", "embeddings", "vectors")}
    assert one(world.sync(GLOBAL, **from_snapshot), GLOBAL).figures.removals_waiting == 5
    assert missing(world) == {GLOBAL: 1}


def test_an_old_snapshot_does_not_say_that_a_tenant_is_back(world: World) -> None:
    """Only a run that reads the source can: the records of one over an older snapshot are no second chance."""
    seed(world, {"acme": 4, "brick": 3})
    world.sync(mode="full")
    world.delete(*BRICK)
    with world.workspace() as workspace:
        workspace.ledger.miss(ENTITY, ["brick"])  # as a look at the source's list of tenants does
    stages: Any = ("documents", "embeddings", "vectors")
    assert one(world.sync("brick", mode="full", stages=stages), "brick").figures.fetched == 3
    assert missing(world) == {"brick": 1}
    world.wait()
    assert one(world.sync("brick", mode="full"), "brick").figures.removed == 3
    world.assert_exact()


def test_a_partition_that_waits_is_still_due(world: World) -> None:
    """Its look is not kept as seen: whoever asks for what changed asks for the second look."""
    seed(world, {GLOBAL: 5, "acme": 4})
    world.sync()
    seen = fingerprints(world)
    with world.engine.begin() as connection:
        connection.execute(sa.delete(WORKS).where(WORKS.c.is_global))
    world.sync(mode="full")
    assert fingerprints(world) == seen
    world.sync(mode="full")
    assert fingerprints(world)[GLOBAL] != seen[GLOBAL]


def test_a_tenant_that_left_no_document_is_not_missed_for_ever(world: World) -> None:
    """Of one that was emptied by tombstones only a trace is left: when that is forgotten, so is that it was missed."""
    seed(world, {"acme": 4, "brick": 1})
    world.sync()
    world.update(1001, deleted_at=deletion(world))
    assert one(world.sync(mode="incremental"), "brick").figures.removed == 1
    with world.workspace() as workspace:
        workspace.look_for_missing(ENTITY, workspace.call_the_roll(ENTITY, ["brick"]), ["brick"])
    assert missing(world) == {"brick": 1}
    world.sync("brick", mode="full")
    assert missing(world) == {}


def test_the_source_is_asked_for_its_tenants_once(embedded_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a run over all of them: what it syncs and what it believes is one answer."""
    seed(embedded_world, {"acme": 1, "brick": 1})
    asked: list[SqlSource] = []
    real = SqlSource.tenants

    def tenants(self: SqlSource) -> list[str]:
        asked.append(self)
        return real(self)

    monkeypatch.setattr(SqlSource, "tenants", tenants)
    with embedded_world.workspace() as workspace:
        assert workspace.believable_tenants(ENTITY) == ([GLOBAL, "acme", "brick"], None)
    assert len(asked) == 1


def deletion(world: World) -> Any:
    return world.now.isoformat() if world.engine.dialect.name == "sqlite" else world.now


def use_filter(world: World, *units: str, **more: Any) -> None:
    works = world.config.entities[ENTITY].model_copy(update={"filter": {"unit": units}, **more})
    world.config = world.config.model_copy(update={"entities": {ENTITY: works}})


def removed_and_waiting(world: World, tenant: str, **options: Any) -> tuple[int, int]:
    figures = one(world.sync(mode="full", **options), tenant).figures
    return figures.removed, figures.removals_waiting


def missing(world: World) -> dict[str, int]:
    with world.workspace() as workspace:
        return {tenant: one.looks for tenant, one in workspace.ledger.missing(ENTITY).items()}


def fingerprints(world: World) -> dict[str, str]:
    with world.workspace() as workspace:
        return {tenant: str(one.fingerprint) for (_, tenant), one in workspace.ledger.seen(ENTITY).items()}


def test_a_role_that_suddenly_sees_no_row_removes_nothing_at_once(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row-level security that is switched on hides a tenant's rows, and those of everybody, without any error: what was
    there stays until looks that are far enough apart agree, and until the policy is put right nothing is lost."""
    monkeypatch.setenv("SOURCE_URL", re.sub("//[^@]*@", "//reader:secret@", postgres_database))
    url = postgres_database.replace("postgresql://", "postgresql+psycopg://")
    config = config_of(
        tmp_path, source={"type": "postgres", "url": {"env": "SOURCE_URL"}}, store={"type": "qdrant", "path": "qdrant"}
    )
    world = World(url, config)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN PASSWORD 'secret'")
        connection.exec_driver_sql("GRANT SELECT ON works TO reader")
    try:
        seed(world, {GLOBAL: 3, "acme": 4, "brick": 2, "cedar": 2})
        world.sync(mode="full")
        before = world.stored()
        with world.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE works ENABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql("CREATE POLICY few ON works USING (tenant_id IN ('brick', 'cedar'))")
        hidden = world.sync(mode="full")
        assert sum(result.figures.removed for result in hidden) == 0
        assert world.stored() == before
        with world.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE works DISABLE ROW LEVEL SECURITY")
        world.sync(mode="full")
        assert world.stored() == before
        world.assert_exact()
    finally:
        with world.engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY reader")
            connection.exec_driver_sql("DROP ROLE reader")


def test_marks_alone_make_no_source_broken(world: World) -> None:
    """A tenant of which nothing is left but what runs did not finish has nothing to lose: it takes no part in how many
    are lost, and a run over all tenants finds that it is gone."""
    seed(world, {"acme": 1, "brick": 1, "cord": 1})
    world.sync(mode="full")
    with world.workspace() as workspace:
        for tenant in ("left", "merged", "moved"):
            workspace.ledger.begin_writing(ENTITY, ENTITY, tenant, "a run that was killed")
        world.delete(1001)
        found, lost = workspace.believable_tenants(ENTITY)
        assert (found, lost) == ([GLOBAL, "acme", "brick", "cord", "left", "merged", "moved"], None)
        roll = workspace.call_the_roll(ENTITY, workspace.traces(ENTITY))
        assert (roll.vanished, roll.lost) == (("brick", "left", "merged", "moved"), None)
    world.sync(mode="full")
    with world.workspace() as workspace:
        assert workspace.ledger.with_rows_or_marks(ENTITY) == ["acme", "brick", "cord"]
