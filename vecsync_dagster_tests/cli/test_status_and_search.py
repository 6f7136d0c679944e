"""`vecsync status` and `vecsync search`, also while another process holds the store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import HARBOUR, HOUSES, MORAVA, change_rows, config_of, held, tree, vecsync
from vecsync_dagster_tests.fakes.alert_servers import Inbox


def test_status_counts_documents_by_scope_tenant_and_status(asked: Path) -> None:
    """Documents by scope, tenant and collection, their statuses, the last sync and the pinned space."""
    state = vecsync("status", "--json", "--config", asked).json
    assert state["spaces"].keys() == {"materials", "works"}
    assert all(space.startswith("hash/") for space in state["spaces"].values())
    scopes = {(s["collection"], s["scope"]): s for s in state["scopes"]}
    assert scopes["materials", "global"]["counts"]["synced"] == 88
    assert scopes["materials", "tenant"]["counts"]["synced"] == 67
    assert scopes["materials", "tenant"]["tenants"] == 3
    partitions = {(p["collection"], p["tenant"]): p for p in state["partitions"]}
    assert len(partitions) == 8
    harbour = partitions["works", HARBOUR]
    assert (harbour["rejected"], harbour["counts"]["failed"]) == (1, 0), "one that never was valid is no failure"
    assert harbour["counts"]["documents"] == harbour["counts"]["synced"] + 1
    assert partitions["works", HARBOUR]["outcome"] == "success"
    assert all(p["last_sync"] is not None for p in partitions.values())


def test_status_counts_what_no_run_has_seen(asked: Path) -> None:
    """With --days 0 everything is older than now; with the default nothing is."""
    now = vecsync("status", "--days", "0", "--json", "--config", asked).json
    week = vecsync("status", "--json", "--config", asked).json
    assert sum(s["counts"]["unseen"] for s in now["scopes"]) == sum(s["counts"]["documents"] for s in now["scopes"])
    assert sum(s["counts"]["unseen"] for s in week["scopes"]) == 0


def test_status_says_since_when_a_tenant_is_missing(config: Path, synced: Path) -> None:
    """A sync that found no row of a tenant removes nothing and is no failure; it and status say what will happen."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    ran = vecsync("sync", "tenant", MORAVA, "--entity", "works", "--full", "--no-record", "--config", config)
    assert ran.code == 0
    status = vecsync("status", "--config", config).err
    assert f"works of Morava Fasády ({MORAVA}): " in ran.err
    assert "removals wait for a second look: missing since" in ran.err
    assert f"works: tenant Morava Fasády ({MORAVA}): missing since" in status
    for err in (ran.err, status):
        [line] = [line for line in err.splitlines() if "missing since" in line]
        assert (line.count(MORAVA), line.count("Morava Fasády"), "removed after" in line) == (1, 1, True)
    [missing] = vecsync("status", "--json", "--config", config).json["missing"]
    assert (missing["entity"], missing["tenant"], missing["looks"]) == ("works", MORAVA, 1)
    assert missing["since"] < missing["removed_after"]
    assert vecsync("sync", "works", "--full", "--allow-removals", "--no-record", "--config", config).code == 0
    assert vecsync("status", "--json", "--config", config).json["missing"] == []


def test_strict_says_why_it_ends_with_one(config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the records of one entity are shown, which may all be well."""
    with Workspace(config_of(synced)) as workspace:
        [page, *_] = workspace.store("main").scan("works", MORAVA)
        workspace.store("main").delete("works", MORAVA, [page[0].point_id])
    assert vecsync("reconcile", "--entity", "works", "--config", config).code == 1
    shown = vecsync("status", "--entity", "works", "--strict", "--config", config)
    assert (shown.code, "check identity failed" in shown.err, "1 missing" in shown.err) == (1, True, True)


def test_status_counts_each_document_of_a_tenant_that_is_gone(config: Path, synced: Path) -> None:
    """While its documents stay, each is in one column: the rejected one, too, though no record of it was read."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", HARBOUR)
    assert vecsync("sync", "works", "--full", "--no-record", "--config", config).code == 0
    state = vecsync("status", "--entity", "works", "--tenant", HARBOUR, "--json", "--config", config).json
    [harbour] = state["partitions"]
    counts = harbour["counts"]
    assert harbour["rejected"] == 1
    assert counts["documents"] == counts["synced"] + harbour["rejected"] > 1


def test_status_of_one_entity_and_tenant(asked: Path) -> None:
    """--entity and --tenant leave out all others."""
    state = vecsync("status", "--entity", "works", "--tenant", MORAVA, "--json", "--config", asked).json
    assert [(p["entity"], p["tenant"]) for p in state["partitions"]] == [("works", MORAVA)]


def test_status_names_the_last_failure(config: Path, synced: Path) -> None:
    """A partition whose last run failed says so, with the code."""
    with held(synced):
        assert vecsync("sync", "tenant", MORAVA, "--entity", "works", "--no-record", "--config", config).code == 1
    ran = vecsync("status", "--config", config)
    assert ran.code == 0
    assert f"last run failed: works of Morava Fasády ({MORAVA}): QDRANT_LOCKED" in ran.err
    assert "failed" in ran.out


def test_status_before_the_first_sync_makes_nothing(fresh: Path) -> None:
    """Asking before anything was synced gets an answer and leaves no folder behind."""
    before = tree(fresh.parent)
    ran = vecsync("status", "--config", fresh)
    assert (ran.code, ran.err) == (0, "")
    assert "nothing was synced yet" in ran.out
    assert tree(fresh.parent) == before


def test_status_works_while_the_store_is_held(config: Path, synced: Path) -> None:
    """Status never needs the store, so a running sync does not keep anybody from asking."""
    with held(synced):
        assert vecsync("status", "--config", config).code == 0


def test_a_second_process_waits_and_then_names_the_holder(config: Path, synced: Path) -> None:
    """Search and sync wait for the embedded store, then say which process has it; never a stack trace."""
    with held(synced):
        search = vecsync("search", "paint", "--tenant", HOUSES, "--collection", "materials", "--config", config)
        sync = vecsync("sync", "global", "--entity", "works", "--no-record", "--config", config)
    for ran in (search, sync):
        assert ran.code == 1
        assert "QDRANT_LOCKED" in ran.err
        assert f"process {os.getpid()} " in ran.err
        assert "Traceback" not in ran.err
    assert search.err.splitlines()[-1].startswith("error: QDRANT_LOCKED: ")


@pytest.mark.parametrize("tenant", [HOUSES, MORAVA, HARBOUR, "global"])
def test_a_search_shows_own_and_global_documents_only(asked: Path, tenant: str) -> None:
    """Whoever asks, and however much, never gets another tenant's document."""
    ran = vecsync(
        "search", "краска barva paint", "--tenant", tenant, "--collection", "materials", "--limit", "1000", "--json",
        "--config", asked,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    whose = {hit["payload"]["tenantId"] for hit in ran.json["hits"]}
    assert whose == ({None} if tenant == "global" else {None, tenant})


def test_a_tenant_without_documents_finds_shared_ones(config: Path, synced: Path) -> None:
    """If the ledger knows it. Nobody else may search: it is a mistyped id."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    sync = ("sync", "tenant", MORAVA, "--entity", "works", "--full", "--allow-removals", "--no-record")
    assert vecsync(*sync, "--config", config).code == 0
    search = ("search", "paint", "--collection", "works", "--json", "--config", config)
    ran = vecsync(*search, "--tenant", MORAVA)
    assert (ran.code, {hit["scope"] for hit in ran.json["hits"]}) == (0, {"global"})
    assert "only global ones can be found" in ran.err
    assert vecsync(*search, "--tenant", "nobody").code == 2


def test_a_search_without_a_tenant_is_wrong_usage(asked: Path) -> None:
    """There is no search over all tenants."""
    ran = vecsync("search", "paint", "--collection", "materials", "--config", asked)
    assert ran.code == 2
    assert "--tenant" in ran.err


def test_a_search_in_a_collection_never_synced_says_so(fresh: Path) -> None:
    """Before the first sync a search says what to run, and makes nothing."""
    before = tree(fresh.parent)
    ran = vecsync("search", "paint", "--tenant", HOUSES, "--collection", "works", "--config", fresh)
    assert ran.code == 1
    assert "was never synced" in ran.err
    assert tree(fresh.parent) == before


def test_a_search_without_a_collection_lists_them(asked: Path) -> None:
    """Where there are several collections one has to be named."""
    ran = vecsync("search", "paint", "--tenant", HOUSES, "--config", asked)
    assert ran.code == 2
    assert "there are: materials, works" in ran.err
    assert vecsync("search", "paint", "--tenant", "", "--collection", "works", "--config", asked).code == 2
    assert vecsync("retry", "--id", "nope", "--config", asked).code == 2


def test_a_deleted_row_is_not_found_any_more(config: Path, synced: Path) -> None:
    """A row deleted in the database disappears from the answers with the next full sync."""
    arguments = ("search", "Эковата", "--tenant", HOUSES, "--collection", "materials", "--limit", "1000", "--json")
    before = [hit["document_id"] for hit in vecsync(*arguments, "--config", config).json["hits"]]
    change_rows(synced, "DELETE FROM materials WHERE id = 1091")
    assert vecsync("sync", "tenants", "--full", "--no-record", "--config", config).code == 0
    after = [hit["document_id"] for hit in vecsync(*arguments, "--config", config).json["hits"]]
    assert set(before) - set(after) == {"tenant-material-1091"}


def test_json_goes_to_stdout_alone(asked: Path) -> None:
    """With --json stdout is one JSON document, warnings are on stderr."""
    ran = vecsync("search", "paint", "--tenant", HOUSES, "--collection", "materials", "--json", "--config", asked)
    assert json.loads(ran.out)["semantic"] is False
    assert "NOT semantic" in ran.err


def test_a_run_that_was_killed_is_known_until_it_is_made_up_for(
    config: Path, synced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was left to record it: whoever looks does. The next sync of the tenant is its end, for alerts too."""
    with Inbox() as inbox:
        monkeypatch.setenv("SLACK_URL", inbox.url)
        text = config.read_text(encoding="utf-8")
        config.write_text(f"{text}\nalerts: {{slack: {{url: {{env: SLACK_URL}}}}}}\n", encoding="utf-8")
        change_rows(synced, "UPDATE works SET name = name || ' neu' WHERE tenant_id = ?", MORAVA)
        program = [sys.executable, "-m", "vecsync_dagster_tests.sync.killed_process", str(config)]
        killed = subprocess.run([*program, "store", "upsert", "after", "1"], timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL
        for _ in range(2):
            seen = vecsync("status", "--strict", "--config", config)
            assert seen.code == 1
            assert f"last run failed: works of Morava Fasády ({MORAVA}): RUN_DIED" in seen.err
        assert vecsync("sync", "materials", "--no-record", "--config", config).code == 0
        [post] = inbox.posts
        assert "RUN_DIED" in post.json["text"]
        assert vecsync("sync", "works", "--full", "--no-record", "--config", config).code == 0
        assert vecsync("status", "--strict", "--config", config).code == 0
        assert len(inbox.posts) == 2
        assert vecsync("alerts", "list", "--json", "--config", config).json["alerts"] == []
