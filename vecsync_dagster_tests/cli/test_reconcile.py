"""`vecsync reconcile`: what somebody did to the store behind our back is found, and mended."""

from __future__ import annotations

from pathlib import Path

from vecsync_dagster.stores import Point
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import HOUSES, config_of, vecsync


def damage(folder: Path) -> list[str]:
    """Take 25 points of one tenant away, and put a foreign one in; returns the ids that were taken."""
    with Workspace(config_of(folder)) as workspace:
        store = workspace.store("main")
        points = [point for page in store.scan("materials", HOUSES) for point in page][:25]
        ids = [point.point_id for point in points]
        store.delete("materials", HOUSES, ids)
        vector = workspace.embedders.of("materials", "materials", pin=False).provider.embed_query("paint")
        payload = {"id": "tenant-material-x", "tenantId": HOUSES, "scope": "tenant"}
        store.upsert("materials", [Point("00000000-0000-5000-8000-000000000000", payload, vector)])
    return ids


def test_nothing_to_find(asked: Path) -> None:
    """After a sync ledger and store agree: exit code 0."""
    ran = vecsync("reconcile", "--config", asked)
    assert ran.code == 0, ran.err
    assert "materials: 155 points, no difference" in ran.out


def test_differences_are_counted_and_the_first_named(config: Path, synced: Path) -> None:
    """Differences are counted by tenant and kind, at most 20 are named, and the exit code is 1."""
    taken = damage(synced)
    ran = vecsync("reconcile", "--json", "--config", config)
    assert ran.code == 1
    found = {one["collection"]: one for one in ran.json["found"]}
    counts = {(d["tenant"], d["kind"]): d["points"] for d in found["materials"]["differences"]}
    assert counts == {(HOUSES, "missing"): 25, (HOUSES, "orphan"): 1}
    assert len(found["materials"]["examples"]) == 20
    assert {e["point_id"] for e in found["materials"]["examples"]} <= {*taken, "00000000-0000-5000-8000-000000000000"}
    assert found["works"]["total"] == 0


def test_differences_are_mended(config: Path, synced: Path) -> None:
    """--repair writes again what is missing, removes what is foreign, compares once more, and exits with 0."""
    damage(synced)
    ran = vecsync("reconcile", "--repair", "--config", config)
    assert ran.code == 0, ran.err
    assert "materials: mended: 25 written again, 1 removed" in ran.out
    assert vecsync("reconcile", "--config", config).code == 0
    again = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config)
    assert again.code == 0, again.err
    assert again.json["totals"]["upserted"] == 0


def test_one_collection_alone(config: Path, synced: Path) -> None:
    """--collection leaves the others alone, and an unknown one is an error."""
    damage(synced)
    assert vecsync("reconcile", "--collection", "works", "--config", config).code == 0
    assert vecsync("reconcile", "--collection", "tools", "--config", config).code == 1


def test_a_collection_never_synced(fresh: Path) -> None:
    """Before the first sync there is nothing to differ."""
    ran = vecsync("reconcile", "--config", fresh)
    assert ran.code == 0, ran.err
    assert "materials: never synced" in ran.out
