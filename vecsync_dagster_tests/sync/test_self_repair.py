"""What differs between ledger and store is repaired by the run that finds it, and nothing is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from vecsync_dagster.embedding import Embedded
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable, LedgerUnavailable, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.tables import embedding_cache
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.stores.base import ENTITY as ENTITY_KEY
from vecsync_dagster.sync import PartitionResult, SyncOptions, compare
from vecsync_dagster.sync.standing import check_again, check_everything
from vecsync_dagster.sync.verify import CheckOutcome
from vecsync_dagster_tests.four import FOUR, Four
from vecsync_dagster_tests.sync.failing_services import befall
from vecsync_dagster_tests.sync.test_drift import write_as_stranger
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World

LOST = "1 point missing whose records are rejected: their last good version is lost"


def checks(result: PartitionResult) -> dict[str, CheckOutcome]:
    return {check.name: check for check in result.checks}


def stored_ids(world: World, tenant: str = "acme") -> list[str]:
    with world.workspace() as workspace:
        return [p.point_id for page in workspace.store("main").scan(ENTITY, tenant) for p in page]


def lose(world: World, count: int, tenant: str = "acme") -> None:
    ids = stored_ids(world, tenant)[:count]
    with world.workspace() as workspace:
        workspace.store("main").delete(ENTITY, tenant, ids)


def change(world: World, point_id: str, **values: Any) -> None:
    with world.workspace() as workspace:
        store = workspace.store("main")
        [point] = store.retrieve(ENTITY, [point_id])
        store.set_payload(ENTITY, [Point(point_id, {**point.payload, **values})])


def forget_vectors(world: World) -> None:
    with world.workspace() as workspace:
        assert isinstance(workspace.ledger, SqlLedger)
        with workspace.ledger.database.engine.begin() as connection:
            connection.execute(sa.delete(embedding_cache))


@pytest.fixture
def unpaid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """After this call the provider refuses every text."""

    def refuse(*_: object) -> None:
        raise EmbeddingUnavailable("nothing is to be embedded")

    return lambda: monkeypatch.setattr(HashProvider, "embed_documents", refuse)


def test_a_repair_ends_what_the_comparison_of_everything_found(embedded_world: World) -> None:
    """One run of the tenant is enough for `reconciliation`; its own check warns until the run after it."""
    world = embedded_world
    seed(world, {"acme": 5, "brick": 5})
    world.sync()
    lose(world, 2)
    with world.workspace() as workspace:
        assert [check.passed for check in check_everything(workspace, ENTITY)] == [False, True]
    results = world.sync("acme", mode="full")
    with world.workspace() as workspace:
        check_again(workspace, results)
        kept = {(r.check, r.tenant): (r.passed, r.message) for r in workspace.ledger.check_results(ENTITY)}
    assert kept["reconciliation", ""] == (True, "no point is missing, stale or unknown to the ledger")
    assert kept["identity", "acme"] == (False, "repaired: 2 missing")
    assert kept["counts", "acme"] == (False, "repaired: the store had 3 points, the ledger said 5")


def test_a_full_run_repairs_every_kind_of_difference(world: World, unpaid: Any) -> None:
    """Lost, altered, misplaced and foreign points are put right unpaid, the checks warn, and the next run is clean."""
    seed(world, {"acme": 20, "brick": 5})
    world.sync()
    unpaid()
    lose(world, 2)
    altered, moved = stored_ids(world)[:2]
    change(world, altered, unit="other")
    change(world, moved, tenantId="brick")
    write_as_stranger(world, {"1": {"tenantId": "acme", "scope": "tenant"}})
    result = one(world.sync("acme", mode="full"), "acme")
    found = checks(result)
    assert (result.outcome, result.ok, result.figures.repaired, result.figures.embedded) == ("success", True, 5, 0)
    assert found["identity"].message == "repaired: 2 missing, 1 orphan, 1 stale hash"
    assert found["isolation"].message == "repaired: 1 wrong tenant"
    assert found["counts"].message.startswith("repaired: the store had ")
    for name in ("identity", "isolation", "counts"):
        assert (found[name].passed, found[name].warning) == (False, True)
    f = result.figures
    assert f.fetched == f.new + f.changed + f.payload_only + f.unchanged + f.retry + f.invalid == 20
    world.assert_exact()
    with world.workspace() as workspace:
        kept = {one.check: one for one in workspace.ledger.check_results(ENTITY, "acme")}
    assert (kept["identity"].passed, kept["identity"].warning) == (False, True)
    again = one(world.sync("acme", mode="full"), "acme")
    assert all(check.passed for check in again.checks)
    assert not again.figures.touched


def test_a_store_that_lost_every_point_is_filled_from_the_cache(world: World, unpaid: Any) -> None:
    """A full run writes the whole partition again, and embeds nothing."""
    seed(world, {"acme": 120})
    world.sync()
    unpaid()
    lose(world, 120)
    result = one(world.sync(mode="full"), "acme")
    assert (result.ok, result.figures.repaired) == (True, 120)
    world.assert_exact()


def test_what_the_cache_does_not_have_stays_an_error(world: World, unpaid: Any) -> None:
    """A lost point without a cached vector is left, and named with the command that pays for it."""
    seed(world, {"acme": 5})
    world.sync()
    forget_vectors(world)
    unpaid()
    lose(world, 1)
    result = one(world.sync(mode="full"), "acme")
    identity = checks(result)["identity"]
    assert (result.ok, result.figures.repaired, result.figures.failed) == (False, 0, 0)
    assert (identity.passed, identity.warning, identity.facts) == (False, False, {"missing": 1})
    assert "the cache does not have: 1" in identity.message
    assert "vecsync reconcile --repair" in identity.message
    assert not checks(result)["counts"].passed


@pytest.mark.parametrize("verify", ["auto", "counts"])
def test_the_mark_of_a_move_hides_no_drift(embedded_world: World, verify: str) -> None:
    """Where a record came from another tenant, the next full run compares, and says what it finds as anywhere else.
    Where runs only report, it repairs nothing, and the mark stays until nothing differs."""
    world = embedded_world
    world.config = world.config.model_copy(update={"sync": world.config.sync.model_copy(update={"verify": verify})})
    seed(world, {"acme": 5, "brick": 5})
    world.sync()
    world.update(1, tenant_id="brick")
    world.sync(mode="incremental")
    lose(world, 3, "brick")
    writes = world.config
    world.only_report()
    for _ in range(2):
        result = one(world.sync("brick", mode="full"), "brick")
        assert (result.ok, result.figures.writes, checks(result)["identity"].facts) == (False, 0, {"missing": 3})
        assert len(world.stored()) == 7
    world.config = writes
    result = one(world.sync("brick", mode="full"), "brick")
    assert (result.ok, result.figures.repaired, result.figures.upserted) == (True, 3, 0)
    assert (checks(result)["identity"].message, checks(result)["identity"].warning) == ("repaired: 3 missing", True)
    world.assert_exact()
    with world.workspace() as workspace:
        assert workspace.ledger.unfinished(ENTITY, ENTITY, "brick") == []


def test_the_lost_last_version_of_a_rejected_record_is_forgotten(embedded_world: World) -> None:
    """Nobody has it any more: said once, not at every full run until the record is valid."""
    world = embedded_world
    seed(world, {"acme": 5})
    world.sync(mode="full")
    world.update(3, name=None)
    world.sync()
    with world.workspace() as workspace:
        store = workspace.store("main")
        lost = [p.point_id for page in store.scan(ENTITY, "acme") for p in page if p.payload["dbId"] == "3"]
        store.delete(ENTITY, "acme", lost)
    [result] = world.sync("acme", mode="full")
    assert checks(result)["identity"].message == LOST
    assert (
        checks(result)["counts"].message == "the store had 4 points, the ledger said 5; identity or isolation says why"
    )
    assert (result.figures.lost, result.figures.repaired) == (1, 0)
    with world.workspace() as workspace:
        tally = workspace.ledger.tally(ENTITY, ENTITY, "acme")
    assert (tally.rows, tally.held, tally.failures.rejected, tally.stale) == (5, 4, 1, 0)
    [again] = world.sync("acme", mode="full")
    assert all(check.passed for name, check in checks(again).items() if name != "validation")
    world.update(3, name="valid again")
    world.sync()
    world.assert_exact()


def test_the_last_version_of_a_rejected_record_is_the_one_that_the_store_has(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store took a version of which the ledger never heard, and the record is rejected since."""
    world = embedded_world
    seed(world, {"acme": 5})
    world.sync(mode="full")
    world.update(3, name="a version that the ledger will not hear of")
    away = LedgerUnavailable("away for a moment")
    with monkeypatch.context() as patched:
        patched.setattr(SqlLedger, "confirm", Mock(side_effect=away))
        assert isinstance(one(world.sync(), "acme").error, LedgerUnavailable)
    world.update(3, name=None)
    [result] = world.sync("acme", mode="full")
    assert checks(result)["identity"].message.startswith("repaired: 1 stale hash")
    [again] = world.sync("acme", mode="full")
    assert all(check.passed for name, check in checks(again).items() if name != "validation")
    with world.workspace() as workspace:
        assert workspace.ledger.tally(ENTITY, ENTITY, "acme").stale == 1
    world.update(3, name="valid again")
    world.sync()
    world.assert_exact()


@pytest.mark.parametrize("how", ["a run that was cut short", "a former id"])
def test_what_is_lost_is_said_whoever_finds_it(embedded_world: World, how: str) -> None:
    world = embedded_world
    seed(world, {"acme": 5})
    world.sync(mode="full")
    world.update(3, name=None)
    if how == "a former id":
        entity = world.config.entities[ENTITY].model_copy(update={"type": "job"})
        world.config = world.config.model_copy(update={"entities": {ENTITY: entity}})
    world.sync("acme", mode="full")
    with world.workspace() as workspace:
        store = workspace.store("main")
        lost = [p.point_id for page in store.scan(ENTITY, "acme") for p in page if p.payload["dbId"] == "3"]
        store.delete(ENTITY, "acme", lost)
        if how == "a run that was cut short":
            workspace.ledger.begin_writing(ENTITY, ENTITY, "acme", "dead", "incremental")
    [result] = world.sync("acme", mode="full")
    identity = checks(result)["identity"]
    assert (identity.passed, identity.warning, identity.message.partition(";")[0]) == (False, True, LOST)
    assert (result.figures.lost, result.figures.repaired) == (1, 0)


@pytest.mark.parametrize("refused", ["any text", "one text"])
def test_what_cannot_be_written_returns_first(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Another tenant does not read it until the provider is back, or takes the text."""
    world = embedded_world
    seed(world, {"acme": 6, "brick": 6})
    world.sync(mode="full")
    [lying, *_] = stored_ids(world)
    with world.workspace() as workspace:
        [point] = workspace.store("main").retrieve(ENTITY, [lying])
    real = HashProvider.embed_documents

    def embed(provider: HashProvider, texts: Sequence[str]) -> Embedded:
        if refused == "any text":
            raise EmbeddingUnavailable("away")
        if any("poison" in text for text in texts):
            raise EmbeddingRejected("refused")
        return real(provider, texts)

    monkeypatch.setattr(HashProvider, "embed_documents", embed)
    world.update(int(point.payload["dbId"]), name="poison")
    change(world, lying, tenantId="brick")
    with world.workspace() as workspace:
        failed: dict[str, VecsyncError] = {}
        workspace.repair(ENTITY, ENTITY, workspace.differences(ENTITY, ENTITY), failed.__setitem__)
    assert lying in stored_ids(world)


@pytest.mark.parametrize("payload", [{"tenantId": "brick"}, {"tenantId": None, "scope": "global", "isGlobal": True}])
def test_a_rejected_record_is_not_left_to_another_tenant(embedded_world: World, payload: dict[str, Any]) -> None:
    world = embedded_world
    seed(world, {"acme": 5, "brick": 5})
    world.sync(mode="full")
    with world.workspace() as workspace:
        pages = workspace.store("main").scan(ENTITY, "acme")
        [lying] = [p.point_id for page in pages for p in page if p.payload["dbId"] == "3"]
    world.update(3, name=None)
    world.sync()
    change(world, lying, **payload)
    world.sync(mode="full")
    assert lying in stored_ids(world, "acme")
    result = one(world.sync(mode="full"), "acme")
    assert all(check.passed for name, check in checks(result).items() if name != "validation")
    world.update(3, name="valid again")
    world.sync()
    world.assert_exact()


@pytest.mark.parametrize("record", ["same", "changed", "gone"])
def test_what_lies_under_another_tenant_returns_unpaid(world: World, unpaid: Any, record: str) -> None:
    """Also where there is no vector for what should be written, and where the guard keeps what the source lost."""
    seed(world, {"acme": 60, "brick": 6})
    world.sync(mode="full")
    lying = stored_ids(world)
    forget_vectors(world)
    unpaid()
    if record == "changed":
        world.update(*range(1, 61), name="never embedded")
    elif record == "gone":
        world.delete(*range(1, 56))
    for point_id in lying:
        change(world, point_id, tenantId="brick")
    world.sync(mode="full")
    assert set(stored_ids(world)) == set(lying)
    if record == "same":
        world.assert_exact()


def test_an_altered_version_of_a_rejected_record_waits_for_it(embedded_world: World) -> None:
    """Nothing can be put in its place, and the check says so."""
    world = embedded_world
    seed(world, {"acme": 5})
    world.sync(mode="full")
    world.update(3, name=None)
    world.sync("acme", mode="full")
    with world.workspace() as workspace:
        points = [p for page in workspace.store("main").scan(ENTITY, "acme") for p in page]
    [rejected] = [p for p in points if p.payload["dbId"] == "3"]
    change(world, rejected.point_id, unit="other")
    identity = checks(one(world.sync("acme", mode="full"), "acme"))["identity"]
    assert (identity.passed, identity.facts) == (False, {"stale_hash": 1})
    assert "1 of them of rejected records, altered in the store: until these are valid" in identity.message
    world.update(3, name="valid again")
    world.sync("acme", mode="full")
    world.assert_exact()


def test_another_tenants_version_is_nobodys_last_good_one(embedded_world: World) -> None:
    """The store comes back from a backup in which the record was another tenant's, and it is rejected by now."""
    world = embedded_world
    world.insert([{"id": 1, "tenant_id": "brick", "name": "secret"}, {"id": 2, "tenant_id": "acme"}])
    world.insert([{"id": 3, "tenant_id": "brick"}])
    world.sync(mode="full")
    with world.workspace() as workspace:
        [theirs] = [
            p for page in workspace.store("main").scan(ENTITY, "brick") for p in page if p.payload["dbId"] == "1"
        ]
    world.update(1, tenant_id="acme", name="own")
    world.sync(mode="full")
    world.update(1, name=None)
    world.sync()
    change(world, theirs.point_id, **theirs.payload)
    result = one(world.sync("acme", mode="full"), "acme")
    assert LOST in checks(result)["isolation"].message
    assert "secret" not in {point["name"] for point in world.stored().values()}
    assert all(check.passed for check in one(world.sync("brick", mode="full"), "brick").checks)
    world.update(1, name="valid again")
    world.sync()
    world.assert_exact()


@pytest.mark.parametrize(
    "given",
    [
        {"tenantId": "brick"},
        {"tenantId": "brick", "unit": "altered too"},
        {"tenantId": None, "scope": "global", "isGlobal": True},
    ],
)
@pytest.mark.parametrize("how", ["deleted", "of another tenant", "rejected there"])
def test_what_is_removed_is_removed_wherever_it_lies(embedded_world: World, given: dict[str, Any], how: str) -> None:
    """A record leaves while its point is under a wrong tenant, before anybody has compared."""
    world = embedded_world
    seed(world, {"acme": 3, "brick": 3})
    world.sync(mode="full")
    with world.workspace() as workspace:
        [lying] = [p for page in workspace.store("main").scan(ENTITY, "acme") for p in page if p.payload["dbId"] == "1"]
    change(world, lying.point_id, **given)
    if how == "deleted":
        world.delete(1)
    else:
        world.update(1, tenant_id="brick", name="theirs" if how == "of another tenant" else None)
    world.sync("acme", mode="full")
    with world.workspace() as workspace:
        assert workspace.store("main").retrieve(ENTITY, [lying.point_id]) == []
    world.sync(mode="full")
    if how == "rejected there":
        assert lying.payload["name"] not in {p["name"] for p in world.stored().values() if p["dbId"] == "1"}
        world.update(1, name="valid again")
        world.sync()
    world.assert_exact()


def test_orphans_above_the_removal_guard_stay(world: World) -> None:
    """As many foreign points as the guard stops stay, and the check says so; with removals allowed they go."""
    seed(world, {"acme": 60})
    world.sync()
    write_as_stranger(world, {str(n): {"tenantId": "acme", "scope": "tenant"} for n in range(1, 61)})
    result = one(world.sync(mode="full"), "acme")
    identity = checks(result)["identity"]
    assert (result.ok, result.figures.repaired, identity.warning, identity.facts) == (False, 0, False, {"orphan": 60})
    assert "more than 30% of the partition: none was removed" in identity.message
    assert one(world.sync(mode="full", allow_removals=True), "acme").figures.repaired == 60
    world.assert_exact()


def test_runs_that_only_report_or_see_a_part_repair_nothing(world: World) -> None:
    """`report`, a dry run, a limited one and one of the later stages alone leave the store as it is."""
    seed(world, {"acme": 6})
    world.sync()
    lose(world, 1)
    for options in ({"dry_run": True}, {"limit": 3}):
        world.sync(mode="full", **options)
    world.sync(mode="full", stages=("export",))
    world.sync(mode="full", stages=("documents", "embeddings", "vectors"))
    world.only_report()
    result = one(world.sync(mode="full"), "acme")
    assert (result.ok, result.figures.repaired, checks(result)["identity"].facts) == (False, 0, {"missing": 1})
    assert len(world.stored()) == 5


def test_an_incremental_run_that_compares_repairs_but_removes_nothing(world: World) -> None:
    """With `verify: identity` it writes what is missing; orphans wait for a full run."""
    world.config = world.config.model_copy(update={"sync": world.config.sync.model_copy(update={"verify": "identity"})})
    seed(world, {"acme": 6})
    world.sync()
    world.sync()
    lose(world, 1)
    write_as_stranger(world, {"1": {"tenantId": "acme", "scope": "tenant"}})
    result = one(world.sync(mode="incremental"), "acme")
    assert (result.mode, result.figures.repaired, len(world.stored())) == ("incremental", 1, 7)
    assert checks(result)["identity"].facts == {"orphan": 1}
    assert "removed by a full run" in checks(result)["identity"].message
    assert one(world.sync(mode="full"), "acme").ok
    world.assert_exact()


def test_an_incremental_run_that_counts_other_points_compares_them(world: World) -> None:
    """The checks that compare say what `counts` says, at once: what is missing is repaired, and what is too much makes
    them fail, without a comparison by each run from then on."""
    seed(world, {"acme": 6, "brick": 6})
    world.sync(mode="full")
    with world.workspace() as workspace:
        assert all(outcome.passed for outcome in check_everything(workspace, ENTITY))
    lose(world, 2)
    result = one(world.sync(mode="incremental"), "acme")
    assert (result.figures.repaired, checks(result)["identity"].message) == (2, "repaired: 2 missing")
    world.assert_exact()
    assert all(check.passed for check in one(world.sync(mode="incremental"), "acme").checks)
    write_as_stranger(world, {"1": {"tenantId": "acme", "scope": "tenant"}})
    result = one(world.sync(mode="incremental"), "acme")
    assert {name for name, check in checks(result).items() if not check.passed} == {"counts", "identity"}
    with world.workspace() as workspace:
        check_again(workspace, [result])
        whole = {one.check: one.passed for one in workspace.ledger.check_results(ENTITY, "")}
    assert not whole["reconciliation"]
    assert "identity" not in checks(one(world.sync(mode="incremental"), "acme"))
    with world.workspace() as workspace:
        workspace.store("main").delete(ENTITY, "acme", [i for i in stored_ids(world) if not i.isdigit()][:2])
    result = one(world.sync(mode="incremental"), "acme")
    assert checks(result)["identity"].message.startswith("1 orphan left of 2 missing, 1 orphan")
    world.sync(mode="full")
    world.assert_exact()
    assert all(check.passed for check in one(world.sync(mode="incremental"), "acme").checks)


def test_a_document_that_the_source_lost_is_not_removed_past_the_guard(world: World) -> None:
    """Where the guard stops the removals of a run, its repair removes none of these documents either."""
    seed(world, {"acme": 100})
    world.sync()
    gone = stored_ids(world)
    world.delete(*range(1, 61))
    for point_id in gone:
        change(world, point_id, unit="other")
    result = one(world.sync(mode="full"), "acme")
    assert (result.figures.removed, result.figures.removals_blocked, result.figures.repaired) == (0, 60, 40)
    assert len(world.stored()) == 100
    assert checks(result)["identity"].facts == {"stale_hash": 60}


def test_each_collection_of_an_entity_is_repaired_by_itself(four: Four) -> None:
    """Points lost in two of four collections come back there, from the cache; the others have nothing to tell."""
    four.insert(1, 2, 3)
    four.sync(mode="full")
    with four.world.workspace() as workspace:
        for name, count in (("tools", 1), ("usecases", 3)):
            store = workspace.store_of(ENTITY, name)
            ids = [point.point_id for page in store.scan(name) for point in page]
            store.delete(name, GLOBAL, ids[:count])
    paid = len(four.provider.asked)
    results = four.sync(mode="full")
    repaired = {name: result.figures.repaired for name, result in results.items()}
    assert repaired == {"tools": 1, "functionality": 0, "usecases": 3, "interface": 0}
    assert len(four.provider.asked) == paid
    told = {name: checks(result)["identity"].message for name, result in results.items()}
    assert (told["tools"], told["usecases"]) == ("repaired: 1 missing", "repaired: 3 missing")
    assert all(check.passed for name in ("functionality", "interface") for check in results[name].checks)
    assert all(check.passed for result in four.sync(mode="full").values() for check in result.checks)
    for name in FOUR:
        four.world.assert_exact(name)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_next_run_ends_a_repair_that_was_cut_short(
    embedded_world: World, unpaid: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A run that is stopped or killed in the middle of its repair leaves the rest to the next one, which embeds nothing
    either."""
    world = embedded_world
    monkeypatch.setattr(compare, "_CHUNK", 2)
    seed(world, {"acme": 6})
    world.sync()
    unpaid()
    lose(world, 6)
    stopped = False

    def come() -> None:
        nonlocal stopped
        stopped = True
        if end == "killed":
            raise KeyboardInterrupt

    with world.workspace() as workspace:
        befall(workspace.store("main"), "upsert", come, after=True)
        [selection] = workspace.select([ENTITY], ["acme"])
        with nullcontext() if end == "stopped" else pytest.raises(KeyboardInterrupt):
            [result] = workspace.sync(selection, SyncOptions(mode="full"), stop=lambda: stopped)
            assert (result.outcome, result.figures.repaired) == ("interrupted", 2)
            assert checks(result)["identity"].message.startswith("4 missing left of 6 missing")
    assert len(world.stored()) == 2
    result = one(world.sync(mode="full"), "acme")
    assert (result.ok, result.figures.embedded) == (True, 0)
    world.assert_exact()
    assert not one(world.sync(mode="full"), "acme").figures.touched


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_what_was_repaired_is_reported_once(embedded_world: World, mode: str) -> None:
    """The next run ends the warning, whether it compares or not; a run of another tenant does not."""
    world = embedded_world
    seed(world, {"acme": 5, "brick": 5})
    world.sync()
    lose(world, 2)
    world.sync("acme", mode="full")
    world.sync("brick", mode=mode)
    assert warned(world) == {"identity", "counts"}
    world.sync("acme", mode=mode)
    assert warned(world) == set()
    lose(world, 1)
    with world.workspace() as workspace:
        assert not all(check.passed for check in check_everything(workspace, ENTITY))
    world.sync("acme", mode="incremental")  # nothing has repaired this
    assert "identity" in warned(world)


def warned(world: World) -> set[str]:
    with world.workspace() as workspace:
        return {one.check for one in workspace.ledger.check_results(ENTITY, "acme", failed=True)}


def test_a_point_that_calls_itself_another_entitys_is_written_again(embedded_world: World) -> None:
    """It stood in for one that was lost: there were as many points as there should be."""
    world = embedded_world
    seed(world, {"acme": 5})
    world.sync()
    change(world, stored_ids(world)[0], **{ENTITY_KEY: "materials"})
    counts = checks(one(world.sync("acme", mode="full"), "acme"))["counts"]
    assert counts.message == "repaired: another entity's points stood in for lost ones"
