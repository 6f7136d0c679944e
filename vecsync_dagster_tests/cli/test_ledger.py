"""`vecsync ledger rebuild`: a lost ledger comes back from the store."""

from __future__ import annotations

from pathlib import Path

from vecsync_dagster.stores import Point
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import HOUSES, config_of, vecsync


def lose(folder: Path) -> None:
    """Delete the ledger, whatever files it has."""
    for file in config_of(folder).state_folder.glob("ledger.sqlite*"):
        if file.is_file():
            file.unlink()


def test_a_lost_ledger_is_rebuilt(config: Path, synced: Path) -> None:
    """After the ledger's file was deleted a rebuild restores it, and the next full sync writes nothing."""
    lose(synced)
    ran = vecsync("ledger", "rebuild", "--config", config)
    assert ran.code == 0, ran.err
    assert "materials: 155 documents of 4 tenants taken into the ledger" in ran.out
    again = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config)
    assert again.code == 0, again.err
    totals = again.json["totals"]
    assert (totals["embedded"], totals["upserted"], totals["removed"], totals["payload_only"]) == (0, 0, 0, 0)


def test_what_was_left_is_counted_and_named(config: Path, synced: Path) -> None:
    """Points that the ledger could not take are counted by reason, the first of them named."""
    with Workspace(config_of(synced)) as workspace:
        store = workspace.store("main")
        [point, *_] = next(store.scan("materials", HOUSES))
        store.set_payload("materials", [Point(point.point_id, {**point.payload, "unit": "?"})])
    lose(synced)
    ran = vecsync("ledger", "rebuild", "--json", "--collection", "materials", "--config", config)
    assert ran.code == 0, ran.err
    [one] = ran.json["collections"]
    assert (one["left"], sum(one["taken"].values())) == ({"altered": 1}, 154)
    assert one["examples"] == [{"reason": "altered", "point_id": point.point_id, "tenant": HOUSES}]
    lose(synced)
    assert f"altered {point.point_id} of {HOUSES}" in vecsync("ledger", "rebuild", "--config", config).out


def test_a_ledger_that_is_there_is_not_overwritten(config: Path) -> None:
    """A ledger with rows is refused, with what to do about it; --force takes what the store holds."""
    ran = vecsync("ledger", "rebuild", "--config", config)
    assert ran.code == 1
    assert "LEDGER_ERROR" in ran.err
    assert "--force" in ran.err
    assert vecsync("ledger", "rebuild", "--force", "--config", config).code == 0
    assert vecsync("reconcile", "--config", config).code == 0


def test_a_store_without_the_collection(fresh: Path) -> None:
    """Before the first sync there is nothing to take, and nothing is made up."""
    ran = vecsync("ledger", "rebuild", "--config", fresh)
    assert ran.code == 0, ran.err
    assert "materials: the store does not have it" in ran.out
