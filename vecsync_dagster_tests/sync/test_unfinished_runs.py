"""A run ends between the store's answer and the ledger's entry, and then the source changes back: nobody would look.

The ledger says what it said before, and so does the source; only the store is different. The next full run must see
that the one before it never finished; and until then no run may hide what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import SyncOptions, reconcile
from vecsync_dagster_tests.sync.failing_services import befall
from vecsync_dagster_tests.sync.test_drift import KNOWN, write_as_stranger
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World


class Killed(BaseException):
    """The process ends here."""


def sync_until(world: World, tenant: str, method: str) -> None:
    """A full run of a tenant that dies where it calls this method of the ledger."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with world.workspace() as workspace:
        setattr(workspace.ledger, method, die)
        [selection] = workspace.select([ENTITY], [tenant])
        with pytest.raises(Killed):
            workspace.sync(selection, SyncOptions(mode="full"))
        delattr(workspace.ledger, method)


def undelete(world: World) -> None:
    world.insert([{"id": 2, "tenant_id": "acme"}])


class Case(NamedTuple):
    """`change`, then a run of `tenant` that dies at `method`, then `back`."""

    name: str
    change: Callable[[World], None]
    tenant: str
    method: str
    back: Callable[[World], None]


CASES = [
    Case(
        "a new row goes again",
        lambda w: w.insert([{"id": 50, "tenant_id": "acme"}]),
        "acme",
        "confirm",
        lambda w: w.delete(50),
    ),
    Case("a text changes back", lambda w: w.update(2, name="B"), "acme", "confirm", lambda w: w.update(2, name="A")),
    Case("a payload changes back", lambda w: w.update(2, code="B"), "acme", "confirm", lambda w: w.update(2, code="A")),
    Case("a deleted row comes back", lambda w: w.delete(2), "acme", "forget", undelete),
    Case(
        "a row that everybody may see is a tenant's again",
        lambda w: w.update(2, tenant_id=None, is_global=True),
        GLOBAL,
        "confirm",
        lambda w: w.update(2, tenant_id="acme", is_global=False),
    ),
    Case(
        "a global document was removed and is global again",
        lambda w: w.update(1001, tenant_id="acme", is_global=False),
        "acme",
        "forget",
        lambda w: w.update(1001, tenant_id=None, is_global=True),
    ),
    Case(
        "a row goes back to its first tenant",
        lambda w: w.update(2, tenant_id="brick"),
        "brick",
        "confirm",
        lambda w: w.update(2, tenant_id="acme"),
    ),
    Case(
        "a row goes while it moves",
        lambda w: w.update(2, tenant_id="brick"),
        "brick",
        "confirm",
        lambda w: w.delete(2),
    ),
]


@pytest.mark.in_turn
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_full_run_mends_what_was_left_half_done(world: World, case: Case) -> None:
    """After one full run of all tenants store == source == ledger, and nothing known is embedded."""
    seed(world, {"acme": 4, GLOBAL: 3, "brick": 3})
    world.update(2, name="A", code="A")
    if case.name == "a deleted row comes back":
        undelete_first(world)
    with world.kept_open():
        world.sync()
        case.change(world)
        sync_until(world, case.tenant, case.method)
        case.back(world)
        results = world.sync_one_by_one()
        assert sum(result.figures.embedded for result in results) == 0
        world.assert_exact()
        world.assert_vectors()
        again = world.sync(mode="full")
        assert all(result.ok and not result.figures.touched for result in again)


@pytest.mark.parametrize("modes", [["full"], ["incremental", "full"]], ids="-".join)
def test_a_new_payload_does_not_hide_that_the_vector_is_another_texts(world: World, modes: list[str]) -> None:
    """A text is written, unconfirmed, and changed back together with a payload: the old text's vector comes back."""
    seed(world, {"acme": 4})
    world.update(2, name="Копать")
    world.sync()
    world.update(2, name="Красить")
    sync_until(world, "acme", "confirm")
    world.update(2, name="Копать", code="W-2")
    for mode in modes:
        world.sync(mode=mode)
    world.assert_exact()
    world.assert_vectors()


def test_more_than_is_kept_in_memory_is_put_right_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run told the store of new rows, and died; some of them are gone again, and others have another text."""
    monkeypatch.setattr(reconcile, "NAMED", 2)
    world.only_report()  # or the comparison at the end would repair what was left
    seed(world, {"acme": 20})
    world.sync()
    world.insert({"id": n, "tenant_id": "acme"} for n in range(50, 53))
    world.update(2, name="Красить")
    sync_until(world, "acme", "confirm")
    world.delete(50, 51, 52)
    world.update(2, name="A")
    assert all(result.ok for result in world.sync(mode="full"))
    world.assert_exact()
    world.assert_vectors()


@pytest.mark.parametrize("report", [False, True])
def test_what_was_left_is_repaired_and_named(embedded_world: World, report: bool) -> None:
    """By kind, and counted. It is no alarm; where runs only report, it is repaired all the same, and warns once."""
    world = embedded_world
    seed(world, {"acme": 4})
    world.sync()
    world.insert([{"id": 50, "tenant_id": "acme"}])
    sync_until(world, "acme", "confirm")
    world.delete(50)
    if report:
        world.only_report()
    result = one(world.sync(mode="full"), "acme")
    [identity] = [check for check in result.checks if check.name == "identity"]
    assert identity.message == "repaired: 1 orphan; a run had not finished, or the store had moved"
    assert (identity.passed, identity.warning) == (not report, report)
    assert (result.ok, result.figures.repaired, result.figures.removed) == (True, 1, 0)
    world.assert_exact()
    again = one(world.sync(mode="full"), "acme")
    assert all(check.passed for check in again.checks)
    assert not again.figures.touched


def test_a_tenant_of_which_only_the_store_learned_is_emptied(world: World) -> None:
    """A new tenant's first run is killed after its first write; then the tenant is gone: so are its points."""
    seed(world, {"acme": 4})
    world.sync()
    world.insert({"id": n, "tenant_id": "cement"} for n in (3001, 3002))
    sync_until(world, "cement", "confirm")
    world.delete(3001, 3002)
    assert len(world.stored()) == 6
    results = world.sync(mode="full")
    assert one(results, "cement").figures.repaired == 2
    world.assert_exact()
    assert "cement" not in {result.tenant for result in world.sync(mode="full")}


def test_what_was_written_under_another_type_is_no_second_document(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first run with another `type` is killed before the ledger hears of it, and the type is set back."""
    world = embedded_world
    now, entity = world.config, world.config.entities[ENTITY]
    other = entity.model_copy(update={"type": "job"})
    world.insert([{"id": number, "tenant_id": "acme", "name": f"Text {number}"} for number in range(1, 6)])
    world.config = now.model_copy(update={"entities": {ENTITY: other}})
    with monkeypatch.context() as killed:
        killed.setattr(SqlLedger, "confirm", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.sync("acme", mode="full")
    assert len(world.stored()) == 5
    world.config = now
    world.sync("acme", mode="full")
    world.assert_exact()


def test_a_rebuilt_ledger_still_knows_what_did_not_finish(world: World) -> None:
    """Marks outlive a rebuild and refuse none: the next full run compares, and then they are gone."""
    seed(world, {"acme": 4})
    world.sync()
    world.insert([{"id": 50, "tenant_id": "acme"}])
    sync_until(world, "acme", "confirm")
    world.delete(50)
    with world.workspace() as workspace:
        assert workspace.rebuild(ENTITY, ENTITY, force=True).taken.total() == 5
        assert len(workspace.ledger.unfinished(ENTITY, ENTITY, "acme")) == 1
    assert one(world.sync(mode="full"), "acme").figures.removed == 1
    world.assert_exact()
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(ENTITY, ENTITY, "acme") == []


def test_a_rebuild_that_is_cut_short_is_not_forgotten(world: World) -> None:
    """Rows were forgotten and not yet made anew, and then a record goes: the next full run still finds its point."""
    seed(world, {"acme": 4})
    world.sync()

    with world.workspace() as workspace:
        store: Any = workspace.store("main")
        store.scan = _die
        with pytest.raises(Killed):
            workspace.rebuild(ENTITY, ENTITY, force=True)
        del store.scan
    world.delete(3)
    world.sync(mode="full")
    world.assert_exact()


def test_a_rebuild_that_is_cut_short_forgets_nothing_past_the_guard(world: World) -> None:
    """Then the ledger knows nothing, and the source lists a tenth: what would go is too much, as it is at any time,
    and is looked at again."""
    seed(world, {"acme": 80})
    world.sync()
    with world.workspace() as workspace:
        store: Any = workspace.store("main")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "scan", _die)
            with pytest.raises(Killed):
                workspace.rebuild(ENTITY, ENTITY, force=True)
    world.delete(*range(9, 81))
    for _ in range(2):
        assert not one(world.sync(mode="full"), "acme").ok
        assert len(world.stored()) == 80
    world.sync(mode="full", allow_removals=True)
    world.assert_exact()


def _die(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_suspicious_export_mends_nothing(world: World) -> None:
    """Where the removal guard stops a removal, the export is not believed: what is left half done waits."""
    seed(world, {"acme": 100})
    world.sync()
    world.insert([{"id": 500, "tenant_id": "acme"}])
    sync_until(world, "acme", "confirm")
    world.delete(500, *range(1, 61))
    assert one(world.sync(mode="full"), "acme").figures.removals_blocked == 60
    assert len(world.stored()) == 101
    figures = one(world.sync(mode="full", allow_removals=True), "acme").figures
    assert (figures.removed, figures.repaired) == (60, 1)
    world.assert_exact()


def undelete_first(world: World) -> None:
    """The row as `undelete` makes it."""
    world.delete(2)
    undelete(world)


def test_foreign_points_are_named_and_not_removed_by_a_run_that_mends(world: World) -> None:
    """What an unfinished run left is told from what strangers wrote: that is only named, where runs only report."""
    world.only_report()
    seed(world, {"acme": 4})
    world.sync()
    write_as_stranger(world, KNOWN)
    world.insert([{"id": 50, "tenant_id": "acme"}])
    sync_until(world, "acme", "confirm")
    world.delete(50)
    result = one(world.sync(mode="full"), "acme")
    [identity] = [check for check in result.checks if check.name == "identity"]
    assert set(identity.facts) == {"orphan"}
    assert len(world.stored()) == 4 + len(KNOWN)


def test_a_run_that_finished_leaves_no_trace(world: World) -> None:
    """Success and interruption leave nothing to repair; a failed run does, until a full one has succeeded."""
    seed(world, {"acme": 4})
    partition = (ENTITY, ENTITY, "acme")
    world.sync()
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(*partition) == []
    world.update(1, code="neu")
    sync_until(world, "acme", "confirm")
    with world.workspace() as workspace:
        assert len(workspace.ledger.unfinished(*partition)) == 1
    world.sync(mode="incremental")  # does not read everything: whoever looks must look at it all
    with world.workspace() as workspace:
        assert len(workspace.ledger.unfinished(*partition)) == 1
    world.sync(mode="full")
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(*partition) == []
    world.assert_exact()


def test_what_an_interrupted_run_did_not_begin_does_not_count(world: World) -> None:
    """Its figures are of what it did: as many new documents as the store has now."""
    world.config = world.config.model_copy(
        update={"sync": world.config.sync.model_copy(update={"page": 10, "batch": 10, "parallel": 1})}
    )
    seed(world, {"acme": 60})
    asked = threading.Event()
    with world.workspace() as workspace:
        store = workspace.store_of(ENTITY, ENTITY)
        befall(store, "upsert", asked.set, after=True)
        [selection] = workspace.select([ENTITY], ["acme"])
        [result] = workspace.sync(selection, SyncOptions(mode="full"), stop=asked.is_set)
        assert result.outcome == "interrupted"
        stored = store.count(ENTITY, "acme")
    assert 0 < stored < 60
    assert (result.figures.new, result.figures.upserted, result.figures.fetched) == (stored, stored, stored)
