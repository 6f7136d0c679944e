"""`vecsync sync`: which partitions, what it says, and its exit codes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from vecsync_dagster.assets.recording import open_instance
from vecsync_dagster.demo import DATABASE
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import (
    HARBOUR,
    HOUSES,
    MORAVA,
    change_rows,
    config_of,
    held,
    replace_in_config,
    tree,
    vecsync,
)

TENANTS = {HOUSES, MORAVA, HARBOUR}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["all"], {"global", *TENANTS}),
        (["global"], {"global"}),
        (["tenants"], TENANTS),
        (["tenant", MORAVA], {MORAVA}),
    ],
)
def test_the_scope_says_which_tenants(config: Path, arguments: list[str], expected: set[str]) -> None:
    """all, global, tenants and tenant ID visit just the tenants they name, in every entity."""
    ran = vecsync("sync", *arguments, "--no-record", "--json", "--config", config)
    assert ran.code == 0, ran.err
    visited = {(p["entity"], p["tenant"]) for p in ran.json["partitions"]}
    assert visited == {(entity, tenant) for entity in ("materials", "works") for tenant in expected}


def test_a_change_is_synced_alone(config: Path, synced: Path) -> None:
    """One changed row of one tenant is one changed document, and nothing else."""
    change_rows(
        synced, "UPDATE materials SET name = 'Omítka', updated_at = '2026-12-01T00:00:00+00:00' WHERE id = 1124"
    )
    ran = vecsync("sync", "all", "--entity", "materials", "--no-record", "--json", "--config", config)
    assert ran.code == 0, ran.err
    changed = {p["tenant"]: p["figures"]["changed"] for p in ran.json["partitions"]}
    assert changed == {"global": 0, HOUSES: 0, MORAVA: 1, HARBOUR: 0}
    assert ran.json["totals"]["upserted"] == 1


def test_an_error_of_many_partitions_is_printed_once(config: Path, synced: Path) -> None:
    """With the partitions that have it: what is wrong can be read at a glance."""
    with held(synced):
        ran = vecsync("sync", "all", "--full", "--entity", "materials", "--no-record", "--config", config)
    assert ran.code == 1
    [line] = [one for one in ran.err.splitlines() if "QDRANT_LOCKED" in one]
    assert (line.startswith("failed: materials of "), line.count("materials of ")) == (True, 4)
    assert all(tenant in line for tenant in TENANTS)


def test_a_tenant_that_left_after_its_documents_is_forgotten(config: Path, synced: Path) -> None:
    """Its documents were marked as deleted, and the rows went later: the next run forgets it, its name as well."""
    deleted = "deleted_at = '2026-12-01T00:00:00+00:00', updated_at = '2026-12-01T00:00:00+00:00'"
    change_rows(synced, f"UPDATE works SET {deleted} WHERE tenant_id = ?", MORAVA)
    sync = ("sync", "all", "--entity", "works", "--no-record", "--config", config)
    assert vecsync(*sync).code == 0
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    with Workspace(config_of(synced)) as workspace:
        assert MORAVA in workspace.traces("works")
    assert vecsync(*sync).code == 0
    with Workspace(config_of(synced)) as workspace:
        assert MORAVA not in workspace.traces("works")
        assert not workspace.snapshots.path("works", MORAVA).exists()
        assert MORAVA in workspace.traces("materials")


def test_a_record_is_named_by_its_whole_key(fresh: Path) -> None:
    """With an id of two columns `--id` takes both: what is changed, or gone, is one tenant's record, whoever else has
    one of that number."""
    folder = fresh.parent
    replace_in_config(fresh, "    table: works\n    id: id\n", "    table: works\n    id: [tenant_id, id]\n")
    change_rows(folder, "CREATE TABLE copy AS SELECT * FROM works")
    change_rows(folder, "DROP TABLE works")
    change_rows(folder, "ALTER TABLE copy RENAME TO works")
    for tenant in (MORAVA, HARBOUR):
        change_rows(
            folder, "UPDATE works SET id = 1 WHERE id = (SELECT min(id) FROM works WHERE tenant_id = ?)", tenant
        )

    def sync(*arguments: str) -> dict[str, int]:
        ran = vecsync("sync", *arguments, "--no-record", "--json", "--config", fresh)
        assert ran.code == 0, ran.err
        totals: dict[str, int] = ran.json["totals"]
        return totals

    def named() -> set[str]:
        with Workspace(config_of(folder)) as workspace:
            points = [point for page in workspace.store_of("works", "works").scan("works") for point in page]
        return {str(point.payload["dbId"]) for point in points if str(point.payload["dbId"]).endswith("/1")}

    sync("all", "--entity", "works", "--full")
    assert named() == {f"{MORAVA}/1", f"{HARBOUR}/1"}
    change_rows(folder, "UPDATE works SET name = 'Omítka' WHERE id = 1 AND tenant_id = ?", MORAVA)
    assert sync("works", "--id", f"{MORAVA}/1")["upserted"] == 1
    change_rows(folder, "DELETE FROM works WHERE id = 1 AND tenant_id = ?", MORAVA)
    assert sync("works", "--id", f"{MORAVA}/1")["removed"] == 1
    assert named() == {f"{HARBOUR}/1"}


def test_the_table_adds_up(fresh: Path) -> None:
    """The table has a row for each partition, the totals, and leaves out what rarely happens and did not."""
    ran = vecsync("sync", "all", "--no-record", "--config", fresh)
    assert ran.code == 0, ran.err
    total = next(line for line in ran.out.splitlines() if line.startswith("total"))
    assert total.split()[:6] == ["total", "8", "partitions", "276", "272", "0"]
    header = ran.out.splitlines()[0].split()
    assert "rejected" in header
    assert not {"retry", "repaired", "failed"}.intersection(header)


def test_the_table_counts_what_was_repaired(config: Path, synced: Path) -> None:
    """A full run that puts points right says how many, in a column of their own."""
    with Workspace(config_of(synced)) as workspace:
        [point, *_] = next(workspace.store("main").scan("works", "global"))
        workspace.store("main").delete("works", "global", [point.point_id])
    ran = vecsync("sync", "global", "--full", "--no-record", "--config", config)
    assert ran.code == 0, ran.err
    header = ran.out.splitlines()[0].split()
    total = next(line.split() for line in ran.out.splitlines() if line.strip().startswith("total"))
    assert total[header.index("repaired") - len(header)] == "1"


def test_hash_vectors_are_warned_of_loudly(config: Path) -> None:
    """Whoever syncs with hash vectors is told that they are not semantic."""
    assert "WARNING: materials, works: the vectors are hashes of words and NOT semantic" in (
        vecsync("sync", "all", "--no-record", "--config", config).err
    )


def test_the_metrics_file_holds_the_figures(config: Path, synced: Path) -> None:
    """sync_metrics.json is what --json prints: start, end, totals and each partition's figures."""
    ran = vecsync("sync", "global", "--full", "--no-record", "--json", "--config", config)
    written = json.loads((synced / "state" / "sync_metrics.json").read_text())
    assert written == {key: value for key, value in ran.json.items() if key not in ("command", "dry_run")}
    assert written["outcome"] == "success"
    assert written["started_at"] < written["ended_at"]
    totals = written["totals"]
    wanted = {
        "fetched",
        "upserted",
        "failed",
        "api_calls",
        "cache_hits",
        "cache_misses",
        "tokens",
        "price_usd",
        "seconds",
    }
    assert wanted | {"records_per_second"} <= totals.keys()
    assert totals["fetched"] == sum(p["figures"]["fetched"] for p in written["partitions"]) == 158


def test_a_metrics_file_that_cannot_be_written_fails_the_run(config: Path, synced: Path) -> None:
    """What was synced is shown all the same, the file is named, and the exit code is 1."""
    file = synced / "state" / "sync_metrics.json"
    file.unlink()
    file.mkdir()
    ran = vecsync("sync", "global", "--entity", "works", "--no-record", "--config", config)
    assert ran.code == 1
    assert "works" in ran.out
    assert f"failed: after the sync: OUTPUT_UNWRITABLE: {file}" in ran.err
    assert not list(file.parent.glob(".sync_metrics*"))


def test_what_nobody_s_partition_has_fails_a_full_sync(config: Path, synced: Path) -> None:
    """A point under a tenant that nobody knows is found by the count over all; it is said each time, until it is
    gone."""
    point = str(uuid.uuid4())
    with Workspace(config_of(config.parent)) as workspace:
        store, space = workspace.store("main"), workspace.ledger.space_of("works")
        assert space is not None
        store.upsert("works", [Point(point, {"tenantId": "nobody"}, np.ones(space.dimensions, np.float32))])
    arguments = ("sync", "all", "--entity", "works", "--full", "--no-record", "--config", config)
    told = "works: check reconciliation: 1 difference: 1 orphan of works|nobody"
    assert vecsync("sync", "all", "--entity", "works", "--full", "--config", config).code == 1
    assert told in str(last_failure(synced))
    for _ in range(2):
        ran = vecsync(*arguments)
        assert (ran.code, f"CHECKS_FAILED: {told}" in ran.err) == (1, True)
    tenant = vecsync("sync", "tenant", MORAVA, "--entity", "works", "--full", "--no-record", "--config", config)
    assert (tenant.code, "CHECKS_FAILED" in tenant.err) == (0, False), "it is no tenant's that was synced"
    ran = vecsync(*arguments, "--json")
    [error] = ran.json["errors"]
    assert (ran.code, ran.json["outcome"], error["code"]) == (1, "failed", "CHECKS_FAILED")
    assert told in error["message"]
    with Workspace(config_of(config.parent)) as workspace:
        workspace.store("main").delete_foreign("works", [point])
    ran = vecsync(*arguments)
    assert (ran.code, "CHECKS_FAILED" in ran.err) == (0, False)


def test_limit_and_offset_bound_the_read_and_remove_nothing(config: Path, synced: Path) -> None:
    """A limited run looks at so many records, and what it did not look at stays."""
    change_rows(synced, "DELETE FROM materials WHERE id = 1001")
    ran = vecsync(
        "sync", "global", "--full", "--limit", "5", "--offset", "2", "--no-record", "--json", "--config", config
    )
    assert ran.code == 0, ran.err
    assert [p["figures"]["fetched"] for p in ran.json["partitions"]] == [5, 5]
    assert ran.json["totals"]["removed"] == 0


def test_the_removal_guard_names_its_way_out(config: Path, synced: Path) -> None:
    """A run that would remove suspiciously much fails, says how to allow it, and then obeys."""
    replace_in_config(config, "# sync: {mode: incremental, batch: 200, parallel: 3, skip_invalid: true}",
                      "sync: {removal_guard: {share: 0.3, min_documents: 5}}")  # fmt: skip
    change_rows(synced, "DELETE FROM works WHERE is_global")
    guarded = vecsync("sync", "global", "--entity", "works", "--full", "--no-record", "--config", config)
    assert guarded.code == 1
    assert "--allow-removals" in guarded.err
    allowed = vecsync(
        "sync", "global", "--entity", "works", "--full", "--allow-removals", "--no-record", "--json", "--config", config
    )
    assert allowed.code == 0, allowed.err
    assert allowed.json["totals"]["removed"] == 69


def test_one_failing_tenant_does_not_stop_the_others(config: Path, synced: Path) -> None:
    """A tenant whose key cannot be a partition fails and is named; the others are synced; the exit code is 1."""
    change_rows(synced, "UPDATE materials SET tenant_id = 'a|b' WHERE tenant_id = ?", MORAVA)
    ran = vecsync("sync", "tenants", "--entity", "materials", "--no-record", "--json", "--config", config)
    assert ran.code == 1
    assert {p["tenant"]: p["outcome"] for p in ran.json["partitions"]} == {
        HOUSES: "success",
        MORAVA: "success",
        HARBOUR: "success",
        "a|b": "failed",
    }
    table = vecsync("sync", "tenants", "--entity", "materials", "--no-record", "--config", config)
    assert "failed: materials of a|b: INVALID_TENANT: " in table.err


def test_a_tenant_that_is_called_global_fails(config: Path, synced: Path) -> None:
    """It is not synced, and no partition could say so. A run that did not mean it only warns."""
    change_rows(synced, "UPDATE materials SET tenant_id = 'global' WHERE tenant_id = ?", MORAVA)
    ran = vecsync("sync", "tenants", "--entity", "materials", "--no-record", "--json", "--config", config)
    assert (ran.code, [(e["entity"], e["code"]) for e in ran.json["errors"]]) == (1, [("materials", "INVALID_TENANT")])
    assert all(p["ok"] for p in ran.json["partitions"])
    ran = vecsync("sync", "tenant", HOUSES, "--entity", "materials", "--no-record", "--config", config)
    assert ran.code == 0, ran.err
    assert "warning: materials: a tenant is called 'global'" in ran.err


def test_the_only_tenant_is_called_global(config: Path) -> None:
    """Nothing is there to be synced, and that is no success."""
    change_rows(config.parent, "UPDATE works SET tenant_id = 'global' WHERE tenant_id IS NOT NULL")
    ran = vecsync("sync", "tenants", "--entity", "works", "--no-record", "--config", config)
    assert ran.code == 1
    assert "failed: works: INVALID_TENANT: " in ran.err


def test_one_source_that_is_down_does_not_stop_the_others(config: Path, synced: Path) -> None:
    """An entity whose table is gone is an error of its own; the other entity is synced."""
    change_rows(synced, "DROP TABLE materials")
    ran = vecsync("sync", "all", "--no-record", "--json", "--config", config)
    assert ran.code == 1
    assert [(e["entity"], e["code"]) for e in ran.json["errors"]] == [("materials", "SOURCE_ERROR")]
    assert {p["entity"] for p in ran.json["partitions"]} == {"works"}
    assert all(p["ok"] for p in ran.json["partitions"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--entity", "tools"], "no entity 'tools'; there are: materials, works"),
        (["all", "--collection", "tools"], "no collection 'tools'; there are: materials, works"),
        (["all", "--entity", "works", "--collection", "materials"], "there are: works"),
        (["tenant", "nobody"], "no tenant nobody in materials, works"),
    ],
)
def test_a_name_that_does_not_exist_lists_those_that_do(asked: Path, arguments: list[str], message: str) -> None:
    """Unknown entities, collections and tenants are wrong usage: the message says what there is and in which file."""
    ran = vecsync("sync", *arguments, "--no-record", "--config", asked)
    assert ran.code == 2
    assert ran.err.startswith("error: NOT_FOUND: ")
    assert ran.err.endswith(f" ({asked})\n")
    assert message in ran.err


@pytest.mark.parametrize("arguments", [["tenant"], ["all", MORAVA], ["some"], ["all", "--limit", "0"]])
def test_wrong_usage(asked: Path, arguments: list[str]) -> None:
    """Scopes and bounds that make no sense are wrong usage, exit code 2."""
    assert vecsync("sync", *arguments, "--config", asked).code == 2


def test_a_dry_run_touches_nothing(config: Path, synced: Path) -> None:
    """A dry run says what would change, and leaves every file as it is."""
    change_rows(synced, "UPDATE works SET name = 'Nový', updated_at = '2026-12-01T00:00:00+00:00' WHERE id = 3001")
    change_rows(synced, "DELETE FROM works WHERE id = 3002")
    before = tree(synced)
    ran = vecsync("sync", "all", "--full", "--dry-run", "--json", "--config", config)
    assert ran.code == 0, ran.err
    assert tree(synced) == before
    totals = ran.json["totals"]
    assert (totals["changed"], totals["removed"], totals["embedded"]) == (1, 1, 1)


def test_a_dry_run_makes_no_folder(fresh: Path) -> None:
    """A dry run before the first sync makes neither a state folder nor a file."""
    before = tree(fresh.parent)
    ran = vecsync("sync", "all", "--dry-run", "--config", fresh)
    assert ran.code == 0, ran.err
    assert "Dry run: nothing was written, embedded or removed." in ran.out
    assert tree(fresh.parent) == before
    assert not config_of(fresh.parent).state_folder.exists()


def test_a_dry_run_explains_itself(asked: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the tenants also before the first sync, in the same columns as later, and says why it reads records that
    did not change."""
    monkeypatch.setenv("COLUMNS", "200")
    first, later = (vecsync("sync", "all", "--dry-run", "--config", file).out for file in (fresh, asked))
    for shown in (first, later):
        assert shown.split()[:2] == ["tenant", "collection"]
        assert f"Harbour Fit-Out ({HARBOUR})" in shown
    assert ("Unchanged: " in first, "Unchanged: " in later) == (False, True)


def test_a_dry_run_says_what_embedding_would_cost(fresh: Path) -> None:
    """A paid provider's dry run counts texts, tokens and dollars without asking it anything."""
    replace_in_config(
        fresh,
        "- {provider: hash, dimensions: 64}",
        "- {provider: openai, base_url: 'http://127.0.0.1:9', api_key: {env: TEST_KEY}, "
        "price_per_million_tokens: 1000}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", "not-a-key")
        ran = vecsync("sync", "all", "--dry-run", "--json", "--config", fresh)
    assert ran.code == 0, ran.err
    totals = ran.json["totals"]
    assert totals["embedded"] == 272
    assert totals["tokens"] > 2720
    assert totals["price_usd"] == pytest.approx(totals["tokens"] / 1000)


def test_a_missing_variable_is_named(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is not set fails the entity with the key and the variable's name."""
    monkeypatch.delenv("NOT_SET_URL", raising=False)
    replace_in_config(
        fresh,
        "estimating: {type: sqlite, path: estimating.sqlite}",
        "estimating: {type: postgres, url: {env: NOT_SET_URL}}",
    )
    ran = vecsync("sync", "all", "--no-record", "--config", fresh)
    assert ran.code == 1
    assert "the environment variable NOT_SET_URL is not set" in ran.err
    assert "Traceback" not in ran.err


def test_a_source_that_is_gone_is_a_failed_run_in_the_ui(config: Path, synced: Path) -> None:
    """Whoever looks at the runs sees it, with the reason."""
    (synced / DATABASE).rename(synced / "away")
    assert vecsync("sync", "works", "--config", config).code == 1
    assert "works: SOURCE_" in str(last_failure(synced))


def last_failure(folder: Path) -> str | None:
    """What the last run in Dagster, which failed, says."""
    with open_instance(config_of(folder)) as instance:
        [run] = instance.get_runs(limit=1)
        assert run.status is dg.DagsterRunStatus.FAILURE
        logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        [failure] = [entry.get_dagster_event().step_failure_data.user_failure_data for entry in logged]
        assert failure is not None
        return failure.description


def test_results_are_recorded_for_the_ui(fresh: Path) -> None:
    """Without --no-record a sync appears in Dagster's own storage, below the state folder."""
    ran = vecsync("sync", "global", "--entity", "works", "--config", fresh)
    assert ran.code == 0, ran.err
    from vecsync_dagster.assets.events import asset_key

    with open_instance(config_of(fresh.parent)) as instance:
        assert instance.get_materialized_partitions(asset_key("works", "vectors"))
