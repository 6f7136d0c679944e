"""`vecsync reconcile`: what somebody did to the store behind our back is found, and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from qdrant_client import QdrantClient, models

from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.automation.partitions import COMMAND_TAG
from vecsync_dagster.sources import Page, Read
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.space import Space
from vecsync_dagster.stores import Point
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import HOUSES, MORAVA, config_of, vecsync
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest


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
    assert "--repair" not in ran.err


def test_differences_are_counted_and_named(config: Path, synced: Path) -> None:
    """Differences are counted by tenant and kind and named, the first 20 on a screen, and the exit code is 1."""
    taken = damage(synced)
    ran = vecsync("reconcile", "--json", "--config", config)
    assert ran.code == 1
    found = {one["collection"]: one for one in ran.json["found"]}
    counts = {(d["tenant"], d["kind"]): d["points"] for d in found["materials"]["differences"]}
    assert counts == {(HOUSES, "missing"): 25, (HOUSES, "orphan"): 1}
    assert {d["point_id"] for d in found["materials"]["named"]} == {*taken, "00000000-0000-5000-8000-000000000000"}
    assert found["works"]["total"] == 0
    ran = vecsync("reconcile", "--config", config)
    assert "repair with `vecsync reconcile --repair" in ran.err
    shown = ran.out
    assert shown.count("  missing tenant-material-") + shown.count("  orphan tenant-material-") == 20
    assert "  and 6 more; --json names up to 2,000" in shown


def test_what_it_finds_are_the_checks_last_results(config: Path, synced: Path) -> None:
    """`status` is not well after it, with or without a run in between, until a comparison finds nothing."""
    taken = damage(synced)
    assert vecsync("reconcile", "--collection", "works", "--config", config).code == 0
    assert vecsync("status", "--strict", "--config", config).code == 0
    assert vecsync("reconcile", "--config", config).code == 1
    ran = vecsync("status", "--json", "--strict", "--config", config)
    assert ran.code == 1
    failed = {one["check"]: one["message"] for one in ran.json["failed_checks"]}
    assert failed.keys() == {"reconciliation"}
    assert f"25 missing of materials|{HOUSES}" in failed["reconciliation"]
    [part] = [p for p in ran.json["partitions"] if (p["collection"], p["tenant"]) == ("materials", HOUSES)]
    assert [one["check"] for one in part["failed_checks"] if not one["warning"]] == ["counts", "identity"]
    with Workspace(config_of(synced)) as workspace:
        workspace.repair("materials", "materials", workspace.differences("materials", "materials"))
        assert len(workspace.store("main").retrieve("materials", taken)) == len(taken)
    assert vecsync("reconcile", "--config", config).code == 0
    assert vecsync("status", "--strict", "--config", config).code == 0


def test_its_run_in_dagster_fails_as_the_command_does(config: Path, synced: Path) -> None:
    """With the reason; also the second time, when Dagster has nothing new to show, and not once all is repaired."""
    assert vecsync("sync", "all", "--config", config).code == 0
    damage(synced)
    codes = [vecsync("reconcile", *words, "--config", config).code for words in ((), (), ("--repair",))]
    assert codes == [1, 1, 0]
    with open_instance(config_of(synced)) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={COMMAND_TAG: "reconcile"}))
        assert [run.is_success for run in runs] == [True, False, False]
        [entry] = instance.all_logs(runs[1].run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        told = entry.get_dagster_event().step_failure_data.user_failure_data
        assert told is not None
        assert told.description == "materials: 26 differences"


def test_a_full_sync_names_what_differs(config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where runs only report, the next full sync ends with exit code 1, counts what differs and names
    the first 20; --json names all."""
    monkeypatch.setenv("SYNC_REPAIR", "report")
    taken = damage(synced)
    ran = vecsync("sync", "all", "--full", "--no-record", "--config", config)
    assert ran.code == 1
    assert f"materials of Северный дом ({HOUSES}): check identity: 25 missing, 1 orphan" in ran.err
    assert ran.err.count("  missing tenant-material-") + ran.err.count("  orphan tenant-material-") == 20
    assert "  and 6 more; --json names up to 2,000" in ran.err
    again = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config)
    differences = [one for part in again.json["partitions"] for check in part["checks"] for one in check["differences"]]
    named = {(one["kind"], one["point_id"]) for one in differences}
    assert named == {("orphan", "00000000-0000-5000-8000-000000000000"), *(("missing", point) for point in taken)}


def test_a_full_sync_repairs_what_it_finds(config: Path, synced: Path) -> None:
    """The next full sync says on stderr what it repaired, exits with 0, and the one after it finds nothing."""
    damage(synced)
    ran = vecsync("sync", "all", "--full", "--no-record", "--config", config)
    assert ran.code == 0, ran.err
    assert f"materials of Северный дом ({HOUSES}): repaired: 25 missing, 1 orphan" in ran.err
    again = vecsync("sync", "all", "--full", "--no-record", "--config", config)
    assert (again.code, "repaired" in again.err) == (0, False)
    assert vecsync("reconcile", "--config", config).code == 0


def test_differences_are_mended(config: Path, synced: Path) -> None:
    """--repair writes again what is missing, removes what is foreign, compares once more, and exits with 0."""
    damage(synced)
    ran = vecsync("reconcile", "--repair", "--config", config)
    assert ran.code == 0, ran.err
    assert "materials: repaired: 25 written again, 1 removed" in ran.out
    assert f"Северный дом ({HOUSES})" in ran.out
    assert vecsync("reconcile", "--config", config).code == 0
    again = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config)
    assert again.code == 0, again.err
    assert again.json["totals"]["upserted"] == 0


def test_one_tenant_that_cannot_be_mended(config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, the other tenants are repaired; it is named at the end, and the exit code is 1."""
    with Workspace(config_of(synced)) as workspace:
        store = workspace.store("main")
        for tenant in (HOUSES, MORAVA):
            store.delete(
                "materials", tenant, [p.point_id for some in store.scan("materials", tenant) for p in some][:5]
            )
    real = SqlSource.read

    def read(source: SqlSource, what: Read, page: int = 500) -> Iterator[Page]:
        if what.tenant == HOUSES:
            raise RuntimeError("a bug")
        return real(source, what, page)

    monkeypatch.setattr(SqlSource, "read", read)
    ran = vecsync("reconcile", "--repair", "--config", config)
    assert ran.code == 1
    assert f"materials of Северный дом ({HOUSES}): repairing tenant {HOUSES}: unexpected RuntimeError" in ran.err
    assert "materials: repaired: 5 written again" in ran.out
    monkeypatch.undo()
    assert "materials: repaired: 5 written again" in vecsync("reconcile", "--repair", "--config", config).out


def test_another_models_collection_is_left_alone(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the alias leads to vectors of another space, with as many dimensions, nothing is written beside them."""
    with QdrantRest() as server:
        monkeypatch.setenv("QDRANT_URL", server.url)
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
        data["stores"] = {"main": {"type": "qdrant", "url": {"env": "QDRANT_URL"}}}
        config.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        assert vecsync("sync", "all", "--entity", "works", "--full", "--no-record", "--config", config).code == 0
        client = QdrantClient(url=server.url, check_compatibility=False)
        other = Space("hash", "words-2", 64).physical_name("works")
        client.create_collection(other, models.VectorParams(size=64, distance=models.Distance.COSINE))
        switched: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="works")),
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=other, alias_name="works")),
        ]
        client.update_collection_aliases(switched)
        for command in (["reconcile"], ["reconcile", "--repair", "--allow-removals"], ["check"]):
            ran = vecsync(*command, "--config", config)
            assert (ran.code, "SPACE_MISMATCH" in ran.out + ran.err) == (1, True), command
        assert client.count(other).count == 0
        client.close()


def test_one_collection_alone(config: Path, synced: Path) -> None:
    """--collection leaves the others alone, and an unknown one is an error."""
    damage(synced)
    assert vecsync("reconcile", "--collection", "works", "--config", config).code == 0
    assert vecsync("reconcile", "--collection", "tools", "--config", config).code == 2


def test_a_collection_never_synced(fresh: Path) -> None:
    """Before the first sync there is nothing to differ."""
    ran = vecsync("reconcile", "--config", fresh)
    assert ran.code == 0, ran.err
    assert "materials: never synced" in ran.out


def test_status_knows_of_failed_checks_until_they_are_repaired(
    config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant that lost points is named by `status`, which fails under --strict, and is healthy after the repair."""
    monkeypatch.setenv("SYNC_REPAIR", "report")
    assert vecsync("status", "--strict", "--config", config).code == 0
    damage(synced)
    assert vecsync("sync", "all", "--full", "--no-record", "--config", config).code == 1
    ran = vecsync("status", "--strict", "--config", config)
    assert ran.code == 1
    assert f"materials of Северный дом ({HOUSES}): 25 missing, 1 orphan" in " ".join(ran.err.split())
    only = vecsync("status", "--failed-checks", "--config", config)
    assert only.code == 0
    lost = [line.split(" (")[0] for line in only.out.splitlines() if f"materials of Северный дом ({HOUSES})" in line]
    assert [line for line in lost if line.endswith("failed")] == ["check counts failed", "check identity failed"]
    partitions = vecsync("status", "--json", "--config", config).json["partitions"]
    [found] = [one for one in partitions if (one["collection"], one["tenant"]) == ("materials", HOUSES)]
    assert [one["check"] for one in found["failed_checks"] if not one["warning"]] == ["counts", "identity"]
    assert vecsync("reconcile", "--repair", "--config", config).code == 0
    assert vecsync("status", "--strict", "--config", config).code == 0
