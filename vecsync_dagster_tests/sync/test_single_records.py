"""Single records, synced now: all collections of just these ids, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import PartitionResult, SyncOptions
from vecsync_dagster.sync.locate import locate
from vecsync_dagster_tests.four import FOUR, MANY, Four
from vecsync_dagster_tests.world import ENTITY


def sync_ids(four: Four, *ids: int, tenant: str | None = None, **options: Any) -> list[PartitionResult]:
    """As `vecsync sync ENTITY --id` does it."""
    with four.world.workspace() as workspace:
        places = locate(workspace, ENTITY, [str(n) for n in ids], tenant)
        results: list[PartitionResult] = []
        for place, theirs in places.items():
            [selection] = workspace.select([ENTITY], [place])
            results += workspace.sync(selection, SyncOptions(ids=tuple(theirs), **options))
    return results


def stored(four: Four, collection: str) -> dict[str, Any]:
    """The price of each stored record."""
    return {point["dbId"]: point["price"] for point in four.world.stored(collection).values()}


def assert_exact(four: Four, collections: Sequence[str] = FOUR) -> None:
    for name in collections:
        four.world.assert_exact(name)


def test_one_record_is_synced_in_all_collections(four: Four) -> None:
    """The change of one record is written four times; the other changed record waits for its sync."""
    four.insert(1, 2, 3)
    four.sync()
    four.world.update(1, price="5")
    four.world.update(2, price="6")
    results = sync_ids(four, 1)
    assert [(r.collection, r.ok, r.mode, r.figures.payload_only, r.figures.fetched) for r in results] == [
        (name, True, "ids", 1, 1) for name in FOUR
    ]
    assert {name: stored(four, name) for name in FOUR} == {key: {"1": 5, "2": None, "3": None} for key in FOUR}
    four.sync()
    assert_exact(four)


def test_a_record_whose_point_is_not_right_is_written_again(four: Four) -> None:
    """A run by ids puts back the points of an unchanged record that are gone, or hold something else, at no cost."""
    four.insert(1, 2)
    four.sync()
    with four.world.workspace() as workspace:
        gone, bad = FOUR[:2]
        at = next(document.point_id for document in four.world.documents(bad) if document.db_id == "1")
        workspace.store_of(ENTITY, gone).delete_foreign(gone, [at])
        [point] = workspace.store_of(ENTITY, bad).retrieve(bad, [at])
        spoilt = Point(at, {**point.payload, "price": 77})
        workspace.store_of(ENTITY, bad).set_payload(bad, [spoilt])
    results = sync_ids(four, 1)
    assert [(r.ok, r.figures.changed, r.figures.payload_only, r.figures.cache_misses) for r in results] == [
        (True, int(name == gone), int(name == bad), 0) for name in FOUR
    ]
    assert_exact(four)


def test_a_new_record_is_found_under_its_tenant(four: Four) -> None:
    """A record that the ledger does not know is looked for in the source."""
    four.insert(1)
    four.insert(2, tenant_id="acme")
    four.insert(3, tenant_id="brick")
    results = sync_ids(four, 3, 1)
    assert {(r.tenant, r.figures.new) for r in results} == {("global", 1), ("brick", 1)}
    assert set(stored(four, "tools")) == {"1", "3"}


def test_a_record_that_is_gone_is_removed_and_nothing_else(four: Four) -> None:
    """Of the records asked for, those that the source has no more leave all four; others that are gone stay for the
    full run."""
    four.insert(1, 2, 3)
    four.sync()
    four.world.delete(1, 2)
    results = sync_ids(four, 1, 3)
    assert {(r.figures.removed, r.figures.unchanged) for r in results} == {(1, 1)}
    assert {name: set(stored(four, name)) for name in FOUR} == {key: {"2", "3"} for key in FOUR}
    four.sync(mode="full")
    assert_exact(four)


@pytest.mark.parametrize("depth", ["dry", "broken"])
def test_nothing_is_removed_without_proof(four: Four, depth: str) -> None:
    """Neither a dry run nor a store that fails removes anything from the ledger or the store."""
    four.insert(1, 2)
    four.sync()
    four.world.delete(1)
    if depth == "dry":
        results = sync_ids(four, 1, dry_run=True)
        assert {r.figures.removed for r in results} == {1}
    else:
        four.store.fail(status=503, times=MANY, path_contains="/points/delete")
        results = sync_ids(four, 1)
        assert {r.outcome for r in results} == {"failed"}
        four.store.recover()
    assert set(stored(four, "tools")) == {"1", "2"}
    assert set(four.states()) == {1, 2}
    sync_ids(four, 1)
    assert_exact(four)


def test_a_source_without_any_record_takes_none(four: Four) -> None:
    """A view that is broken for a while has no row: what is asked for stays, as there is more that it does not have,
    and the run says so. Full runs decide, the first of which may still come too soon."""
    four.insert(1, 2, 3)
    four.sync()
    four.world.delete(1, 2, 3)
    results = sync_ids(four, 1, 2)
    assert {(r.ok, r.figures.removed) for r in results} == {(True, 0)}
    assert all("no record here at all" in r.note for r in results)
    assert {name: len(stored(four, name)) for name in FOUR} == dict.fromkeys(FOUR, 3)
    for _ in range(2):
        four.sync(mode="full")
    assert_exact(four)


def test_the_last_record_goes(four: Four) -> None:
    """Where the one that is asked for is all that there was."""
    four.insert(1)
    four.sync()
    four.world.delete(1)
    assert {r.figures.removed for r in sync_ids(four, 1)} == {1}
    assert_exact(four)


def test_a_record_that_moved_is_taken_over(four: Four) -> None:
    """Between tenants and between a tenant and everybody: the record ends under the new one, once."""
    four.insert(1, 2, tenant_id="acme")
    four.insert(3, tenant_id="brick")
    four.world.sync()
    four.world.update(1, tenant_id="brick")
    four.world.update(2, is_global=True)
    sync_ids(four, 1, 2)
    assert_exact(four)
    with four.world.workspace() as workspace:
        tenants = {t: workspace.ledger.tally(ENTITY, "tools", t).rows for t in ("acme", "brick", "global")}
    assert tenants == {"acme": 0, "brick": 2, "global": 1}


def test_the_watermark_and_the_snapshot_stay(four: Four) -> None:
    """A few records are no sync of the partition: what else changed is still found, and the export is kept."""
    four.insert(1, 2)
    four.sync()
    with four.world.workspace() as workspace:
        before = workspace.ledger.watermark(
            ENTITY, "tools", "global", workspace.config.entities[ENTITY].fingerprint("tools")
        )
        snapshot = workspace.snapshots.path(ENTITY, "global").read_bytes()
    four.world.update(2, name="renamed")
    sync_ids(four, 1)
    with four.world.workspace() as workspace:
        fingerprint = workspace.config.entities[ENTITY].fingerprint("tools")
        assert workspace.ledger.watermark(ENTITY, "tools", "global", fingerprint) == before
        assert workspace.snapshots.path(ENTITY, "global").read_bytes() == snapshot
    four.sync()
    assert_exact(four)


def test_a_permanent_failure_is_tried_when_somebody_asks(four: Four) -> None:
    """Whoever names the record gets an attempt; if it works, the record is synced with no retries counted."""
    four.insert(1)
    four.store_refuses("tools")
    four.sync()
    with four.world.workspace() as workspace:
        while workspace.ledger.failed_rows(ENTITY, ["tools"])[0].next_attempt_at is not None:
            [selection] = workspace.select([ENTITY], ["global"])
            four.later(seconds=300)
            workspace.sync(selection, SyncOptions(ids=("1",), retry=True))
    four.store.recover()
    assert [r.ok for r in sync_ids(four, 1)] == [True] * 4
    assert four.states()[1].overall == "synced"
    assert_exact(four)


def test_a_record_that_is_not_valid_is_rejected_and_kept(four: Four) -> None:
    """A record that the source has, but not as a document, is not gone: its last good version stays."""
    four.insert(1)
    four.sync()
    four.world.update(1, name="")
    results = sync_ids(four, 1)
    assert {(r.figures.invalid, r.figures.removed) for r in results} == {(1, 0)}
    assert set(stored(four, "tools")) == {"1"}
    assert set(four.statuses(1)) == {"stale"}


def test_nobody_knows_the_record(four: Four) -> None:
    """An id that neither the source nor the ledger has is in no place; with a tenant only that one is looked at."""
    four.insert(1, tenant_id="acme")
    four.world.sync()
    with four.world.workspace() as workspace:
        assert locate(workspace, ENTITY, ["9"]) == {}
        assert locate(workspace, ENTITY, ["1", "9"]) == {"acme": ["1"]}
        assert locate(workspace, ENTITY, ["1"], "brick") == {}
        assert locate(workspace, ENTITY, ["1"], "acme") == {"acme": ["1"]}
