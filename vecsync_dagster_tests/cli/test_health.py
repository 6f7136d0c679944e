"""What monitoring reads: sync_metrics.json and `vecsync status` after runs that failed."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update

from vecsync_dagster.demo import CONFIG, DATABASE
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.tables import sync_run
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.health import LISTED, health
from vecsync_dagster_tests.cli.program import (
    HARBOUR,
    HOUSES,
    MORAVA,
    change_rows,
    config_of,
    replace_in_config,
    vecsync,
)

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"


def alarm_of_file(folder: Path) -> bool:
    """Whether the line that docs/deployment.md recommends finds anything wrong."""
    [line] = re.findall(r"^ *jq -e '(.*)' state/sync_metrics.json$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    file = folder / "state" / "sync_metrics.json"
    return subprocess.run(["jq", "-e", line, file], capture_output=True, check=False).returncode != 0


def alarm(folder: Path) -> bool:
    """The same, where the file is as the last run left it; `vecsync health` finds the same."""
    wrong = alarm_of_file(folder)
    asked = vecsync("health", "--json", "--config", folder / CONFIG)
    assert (asked.code, asked.json["healthy"], bool(asked.json["wrong"])) == (int(wrong), not wrong, wrong)
    return wrong


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "state" / "sync_metrics.json").read_text())
    return found


def sync(config: Path, *arguments: str) -> int:
    return vecsync("sync", *arguments, "--no-record", "--config", config).code


def test_a_failed_partition_is_reported_until_it_is_synced(config: Path, synced: Path) -> None:
    """A run of another partition hides no failure: the alarm is on until the failed partition is synced in full."""
    change_rows(synced, "ALTER TABLE works RENAME TO elsewhere")
    assert sync(config, "all", "--full") == 1
    change_rows(synced, "ALTER TABLE elsewhere RENAME TO works")
    assert sync(config, "tenant", MORAVA, "--entity", "materials") == 0
    written = metrics(synced)
    assert (written["outcome"], len(written["partitions"])) == ("success", 1)
    failing = [one for one in written["health"]["last_runs"] if one["failing"]]
    assert {one["entity"] for one in failing} == {"works"}
    assert written["health"]["partitions"] == 8
    assert alarm(synced)
    assert sync(config, "all", "--entity", "works") == 0
    assert {one["last_full"]["outcome"] for one in metrics(synced)["health"]["last_runs"]} == {"success", "failed"}
    assert alarm(synced), "no full run of the works succeeded since"
    assert sync(config, "all", "--entity", "works", "--full") == 0
    assert not alarm(synced)


@pytest.mark.parametrize("look", ["status", "health"])
def test_a_killed_run_is_in_the_file_once_somebody_looked(config: Path, synced: Path, look: str) -> None:
    """Not only in the answer: who looks next finds nothing that is new."""
    assert sync(config, "all", "--full") == 0
    ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
    ledger.begin_writing("materials", "materials", MORAVA, "killed", "incremental")
    ledger.close()
    assert metrics(synced)["health"]["failing"] == 0
    vecsync(look, "--config", config)
    assert metrics(synced)["health"]["failing"] == 1
    assert alarm(synced)


def test_a_source_that_is_gone_leaves_failed_runs(config: Path, synced: Path) -> None:
    """Where not even the tenants can be asked for, every known partition and the entity have a failed run."""
    (synced / DATABASE).rename(synced / "away.db")
    assert sync(config, "all") == 1
    status = vecsync("status", "--json", "--config", config).json
    assert {one["outcome"] for one in status["partitions"]} == {"failed"}
    assert status["unreachable"].keys() == {"materials", "works"}
    assert metrics(synced)["health"]["failing"] == 8 + 2
    assert alarm(synced)
    assert "source of works failed: SOURCE_ERROR" in vecsync("status", "--config", config).err
    (synced / "away.db").rename(synced / DATABASE)
    assert sync(config, "all", "--full") == 0
    assert vecsync("status", "--json", "--config", config).json["unreachable"] == {}
    assert not alarm(synced)


def test_a_first_sync_that_finds_no_source_is_known(fresh: Path) -> None:
    """An entity of which nothing was ever synced fails visibly as well, also where only one record was asked for."""
    (fresh.parent / DATABASE).rename(fresh.parent / "away.db")
    assert sync(fresh, "materials", "--id", "1001") == 1
    assert vecsync("status", "--json", "--config", fresh).json["unreachable"].keys() == {"materials"}
    assert alarm(fresh.parent)


def test_a_check_that_fails_is_a_failing_partition(config: Path, synced: Path) -> None:
    """A run that ended well with a check that found an error raises the alarm."""
    replace_in_config(config, "# sync: {mode: incremental, batch: 200, parallel: 3, skip_invalid: true}",
                      "sync: {removal_guard: {share: 0.3, min_documents: 5}}")  # fmt: skip
    change_rows(synced, "DELETE FROM works WHERE is_global")
    assert sync(config, "global", "--entity", "works", "--full") == 1
    assert sync(config, "all", "--entity", "materials") == 0
    [failing] = [one for one in metrics(synced)["health"]["last_runs"] if one["failing"]]
    assert failing["outcome"] == "success"
    assert "removal_guard" in failing["failed_checks"]
    assert alarm(synced)


@pytest.mark.parametrize(("days", "wrong"), [(1, False), (3, True)])
def test_what_was_not_synced_for_too_long_raises_the_alarm(config: Path, synced: Path, days: int, wrong: bool) -> None:
    """A partition without a sync for `checks.freshness.max_age` raises it, also where nothing runs any more."""
    ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
    earlier = {"started_at": datetime.now(UTC) - timedelta(days=days), "ended_at": datetime.now(UTC)}
    with ledger.database.write() as connection:
        connection.execute(update(sync_run).where(sync_run.c.tenant_id == MORAVA).values(earlier))
    ledger.close()
    assert sync(config, "global") == 0
    assert alarm(synced) is wrong
    stopped = metrics(synced)
    stopped["health"] |= {"overdue": 0, "overdue_at": "2026-01-01T00:00:00Z"}
    (synced / "state" / "sync_metrics.json").write_text(json.dumps(stopped))
    assert alarm_of_file(synced)


def test_what_a_killed_process_left_of_the_file_goes(config: Path, synced: Path) -> None:
    """The next one writes over it, and nobody else can read either."""
    state = synced / "state"
    draft = state / ".sync_metrics.json-new"
    draft.write_text("half of")
    draft.chmod(0o644)
    assert sync(config, "global") == 0
    assert sorted(file.name for file in state.glob("*sync_metrics*")) == ["sync_metrics.json", "sync_metrics.json.lock"]
    assert not draft.exists()
    assert (state / "sync_metrics.json").stat().st_mode & 0o077 == 0
    assert metrics(synced)["outcome"] == "success"


def test_a_tenant_that_is_gone_is_not_overdue(config: Path, synced: Path) -> None:
    """What was removed in full is nobody's to sync; what only failed, and is gone since, is over with the next run."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    change_rows(synced, "DELETE FROM materials WHERE tenant_id = ?", MORAVA)
    assert sync(config, "all", "--full", "--allow-removals") == 0
    ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
    now = datetime.now(UTC)
    ledger.record_run(Run("r", "works", "works", "new", "full", "failed", now, now, {}, "X: y"))
    ledger.close()
    assert metrics(synced)["health"]["partitions"] == 6
    assert sync(config, "all", "--full") == 0
    assert metrics(synced)["health"]["partitions"] == 6
    assert not alarm(synced)


def test_a_limited_run_is_no_sync_of_its_partition(config: Path, synced: Path) -> None:
    """A few records that went through hide no failed run; nor does an export alone."""
    change_rows(synced, "ALTER TABLE works RENAME TO elsewhere")
    assert sync(config, "all", "--full") == 1
    change_rows(synced, "ALTER TABLE elsewhere RENAME TO works")
    assert sync(config, "all", "--entity", "works", "--full", "--limit", "3") == 0
    assert alarm(synced)


def test_the_file_stays_small_with_many_partitions(config: Path, synced: Path) -> None:
    """Of thousands of partitions the failing ones are named, then those synced longest ago; the counts are of all."""
    ledger = SqlLedger.open("sqlite://")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    runs = [
        Run(
            f"r{n}",
            "works",
            "works",
            f"t{n}",
            "full",
            "failed" if n % 100 == 0 else "success",
            start,
            start,
            {"fetched": 1},
        )
        for n in range(4000)
    ]
    ledger.record_runs(runs)
    found = health(config_of(synced), ledger.last_runs(), start)
    ledger.close()
    assert (found["partitions"], found["failing"], len(found["last_runs"])) == (4000, 40, LISTED)
    assert [one["failing"] for one in found["last_runs"][:41]] == [True] * 40 + [False]
    assert len(json.dumps(found)) < 500_000


def test_a_source_that_lists_few_tenants_is_not_believed(config: Path, synced: Path) -> None:
    """A full run over all tenants leaves out those that a broken source lacks, however often it runs, and says so."""
    replace_in_config(config, "\nstate: state", "\nautomation: {tenants: {missing_for: PT0S}}\nstate: state")

    def rows() -> list[int]:
        ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
        found = [ledger.tally("works", "works", tenant).rows for tenant in (HOUSES, MORAVA, HARBOUR)]
        ledger.close()
        return found

    before = rows()
    change_rows(synced, "DELETE FROM works WHERE tenant_id IN (?, ?)", MORAVA, HARBOUR)
    for _ in range(3):
        ran = vecsync("sync", "all", "--full", "--entity", "works", "--no-record", "--config", config)
        assert (ran.code, "max_lost_share" in ran.out + ran.err) == (1, True)
    assert rows() == before
    assert sync(config, "tenants", "--full", "--entity", "works", "--allow-removals") == 0
    assert rows() == [before[0], 0, 0]


def test_nothing_says_that_lost_tenants_will_be_removed(config: Path, synced: Path) -> None:
    """One that was missing before, and would have been removed, waits with the others."""
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", MORAVA)
    assert sync(config, "tenants", "--full", "--entity", "works") == 0
    assert "removed after" in vecsync("status", "--config", config).err
    change_rows(synced, "DELETE FROM works WHERE tenant_id = ?", HARBOUR)
    assert sync(config, "tenants", "--full", "--entity", "works") == 1
    [line] = [line for line in vecsync("status", "--config", config).err.splitlines() if "missing since" in line]
    assert line.endswith("and not removed while so many tenants are")


def test_a_repair_by_hand_ends_the_alarm(config: Path, synced: Path) -> None:
    """The file says what `status --strict` says: after the run that found it, and after what put it right."""
    replace_in_config(config, "\nstate: state", "\nsync: {repair: report}\nstate: state")
    with Workspace(config_of(synced)) as workspace:
        store = workspace.store_of("works", "works")
        [point, *_] = next(iter(store.scan("works", MORAVA)))
        store.delete("works", MORAVA, [point.point_id])
    assert sync(config, "all", "--full") == 1
    assert (metrics(synced)["health"]["failing"], vecsync("status", "--strict", "--config", config).code) == (1, 1)
    assert vecsync("reconcile", "--repair", "--config", config).code == 0
    assert (metrics(synced)["health"]["failing"], vecsync("status", "--strict", "--config", config).code) == (0, 0)
    assert not alarm(synced)


def test_a_point_that_lies_in_no_partition_raises_the_alarm(config: Path, synced: Path) -> None:
    """What only a check over all partitions finds is no partition's failure, and is counted all the same."""
    with Workspace(config_of(synced)) as workspace:
        store = workspace.store_of("works", "works")
        [found, *_] = next(iter(store.scan("works", MORAVA)))
        vector = np.ones(workspace.target("works", "works", MORAVA).space.dimensions, np.float32)
        store.upsert("works", [Point(str(uuid.uuid4()), {**found.payload, "tenantId": "nobody"}, vector)])
    assert vecsync("reconcile", "--entity", "works", "--config", config).code == 1
    written = metrics(synced)["health"]
    assert {"entity": "works", "check": "reconciliation"} in written["failed_checks"]
    assert (written["failing"], alarm(synced)) == (len(written["failed_checks"]), True)
    assert vecsync("status", "--strict", "--config", config).code == 1
    assert vecsync("reconcile", "--repair", "--entity", "works", "--config", config).code == 0
    assert (metrics(synced)["health"]["failed_checks"], alarm(synced)) == ([], False)


def test_health_in_words(config: Path, synced: Path, fresh: Path) -> None:
    """One line where all is well; else what is wrong in short lines, and once where to read on."""
    assert vecsync("health", "--config", fresh).out == "nothing was synced yet\n"
    well = vecsync("health", "--config", config)
    assert (well.code, well.out.startswith("8 partitions, none failing; 4 warnings: `vecsync status")) == (0, True)
    with Workspace(config_of(synced)) as workspace:
        workspace.ledger.listens({"works": "SOURCE_UNAVAILABLE: away"}, workspace.ledger.now())
    change_rows(synced, "ALTER TABLE works RENAME TO away")
    assert sync(config, "tenant", MORAVA, "--entity", "works") == 1
    told = vecsync("health", "--config", config)
    assert told.code == 1
    first, listing, partition, deaf, details = told.out.splitlines()
    assert first == "1 source failing, 1 partition failing, 1 entity whose changes nobody hears"
    assert listing == "works: the source failed: SOURCE_ERROR"
    assert partition == f"works of Morava Fasády ({MORAVA}): last run failed: SOURCE_ERROR"
    assert deaf == "works: its changes are not heard now: SOURCE_UNAVAILABLE"
    assert details == f"details: `vecsync status --config {config}`"
    in_full = vecsync("health", "--json", "--config", config).json["wrong"]
    assert (in_full[0], in_full[3]) == (first, f"{deaf}: away")
    assert all(whole.startswith(f"{short}: ") for whole, short in zip(in_full[1:3], (listing, partition), strict=True))


def test_health_names_what_is_wrong_in_a_line_each(config: Path, synced: Path) -> None:
    """Checks, also those over all partitions, and what is overdue; no more lines than people read."""
    at, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(days=3)
    ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
    found = [("counts", "works", MORAVA), ("identity", "works", MORAVA), ("reconciliation", "", "")]
    differs = CheckResult("works", "", False, "it\ndiffers", at)
    ledger.record_checks([replace(differs, check=check, collection=c, tenant=t) for check, c, t in found])
    late = Run("r", "materials", "materials", HOUSES, "full", "success", long_ago, long_ago, {"fetched": 1})
    with ledger.database.write() as connection:
        connection.execute(delete(sync_run).where(sync_run.c.tenant_id == HOUSES, sync_run.c.entity == "materials"))
    ledger.record_run(late)
    lines = vecsync("health", "--config", config).out.splitlines()
    assert lines[0] == "1 check over all partitions failing, 1 partition failing, 1 partition overdue"
    assert lines[1] == "works: check reconciliation failed"
    assert lines[2] == f"works of Morava Fasády ({MORAVA}): check counts failed; check identity failed"
    assert lines[3].startswith("materials of ")
    assert lines[3].endswith(f"({HOUSES}): overdue: not synced since {long_ago:%Y-%m-%dT%H:%M:%SZ}")
    assert lines[4:] == [f"details: `vecsync status --failed-checks --config {config}`"]
    in_full = vecsync("health", "--json", "--config", config).json["wrong"]
    assert in_full[1] == "works: check reconciliation failed: it differs"
    assert in_full[2].endswith(": check counts failed: it differs; check identity failed: it differs")
    failed = [replace(late, run_id=f"r{n}", tenant=f"t{n:02}", outcome="failed", ended_at=at) for n in range(30)]
    ledger.record_runs(failed)
    ledger.close()
    lines = vecsync("health", "--config", config).out.splitlines()
    assert len(lines) == 1 + 20 + 2
    assert lines[-2] == "and 13 more"


def test_failed_checks_are_ordered(config: Path, synced: Path) -> None:
    """Errors before warnings, and in both the entity before its partitions. The configuration is named once."""
    at, ended = datetime.now(UTC), datetime.now(UTC)
    ledger = SqlLedger.open(f"sqlite:///{synced}/state/ledger.sqlite")
    one = CheckResult("works", "works", False, "differs: `vecsync reconcile` and `vecsync invalid`", at)
    there = replace(one, collection="works", tenant=MORAVA)
    found = [
        replace(there, check="validation", warning=True),
        replace(one, check="freshness", warning=True),
        replace(there, check="counts"),
        replace(one, check="reconciliation"),
    ]
    ledger.record_checks(found)
    ledger.record_run(Run("r", "materials", "materials", HOUSES, "full", "failed", ended, ended, {}, "X_Y: z"))
    ledger.close()
    *lines, last = vecsync("status", "--failed-checks", "--config", config).out.splitlines()
    words = ["check reconciliation failed", "last run failed", "check counts failed", "check freshness warns",
             "check validation warns"]  # fmt: skip
    assert list(dict.fromkeys(line.split(" (")[0].split(":")[0] for line in lines)) == words
    assert not any("--config" in line for line in lines)
    assert last == f"add to these commands: --config {config}"


def test_a_removed_tenant_is_left_out_everywhere(config: Path, synced: Path) -> None:
    """`status` has no rows and no count for what is neither at the source nor here, as `health` has none."""
    for table in ("works", "materials"):
        change_rows(synced, f"DELETE FROM {table} WHERE tenant_id = ?", MORAVA)
    assert sync(config, "tenant", MORAVA, "--full", "--allow-removals") == 0
    status = vecsync("status", "--json", "--config", config).json
    assert MORAVA not in {one["tenant"] for one in status["partitions"]}
    assert {one["tenants"] for one in status["scopes"] if one["scope"] == "tenant"} == {2}
    assert vecsync("health", "--json", "--config", config).json["partitions"] == len(status["partitions"]) == 6
    assert vecsync("status", "--tenant", MORAVA, "--config", config).code == 2


def test_what_was_never_synced_is_not_well(fresh: Path) -> None:
    """One tenant that was synced says nothing of the shared records, of other entities and of tenants that are known
    by name."""
    assert sync(fresh, "tenant", MORAVA, "--entity", "works") == 0
    asked = vecsync("health", "--config", fresh)
    listed = json.loads(vecsync("health", "--json", "--config", fresh).out)
    assert asked.code == 1
    first, *lines = asked.out.splitlines()
    assert first == "4 partitions never synced"
    assert lines[0] == "materials of global: never synced"
    assert lines[2:] == [f"works of Harbour Fit-Out ({HARBOUR}): never synced", "works of global: never synced"]
    assert (listed["never_synced"], listed["overdue"], listed["partitions"]) == (4, 4, 1)
    assert [one["tenant"] for one in listed["last_runs"]] == ["global", HOUSES, HARBOUR, "global", MORAVA]
    assert alarm(fresh.parent)
    status = vecsync("status", "--config", fresh)
    assert "never synced: materials of global, works of global, " in status.err
    assert sync(fresh, "global") == 0
    assert vecsync("health", "--config", fresh).out.splitlines()[0] == "5 partitions never synced"
    assert sync(fresh, "all") == 0
    assert not alarm(fresh.parent)
    assert "never synced" not in vecsync("status", "--config", fresh).err


def test_a_new_collection_is_never_synced_until_it_is(config: Path, synced: Path) -> None:
    """Each tenant of the entity's other collection is known to have none of it; one that is gone is not waited for."""
    for table in ("works", "materials"):
        change_rows(synced, f"DELETE FROM {table} WHERE tenant_id = ?", MORAVA)
    assert sync(config, "tenant", MORAVA, "--full", "--allow-removals") == 0
    assert not alarm(synced)
    replace_in_config(config, "      works:\n", '      again: {text: "{name}"}\n      works:\n')
    told = vecsync("health", "--config", config).out.splitlines()
    assert told[0] == "3 partitions never synced"
    assert "works, again of global: never synced" in told
    assert not any(MORAVA in line for line in told)
    assert sync(config, "all") == 0
    assert not alarm(synced)


def test_a_source_without_a_tenant_is_well_once_it_was_asked(fresh: Path) -> None:
    """Also where no entity has any: nothing is to be synced."""
    fresh.write_text(f"""
sources: {{estimating: {{type: sqlite, path: {DATABASE}}}}}
entities:
  tools:
    {{source: estimating, table: tools, tenancy: {{column: tenant_id}}, collections: {{tools: {{text: "{{name}}"}}}}}}
embedding: {{chain: [{{provider: hash, dimensions: 64}}]}}
stores: {{main: {{type: qdrant, path: state/qdrant}}}}
state: state
""")
    change_rows(fresh.parent, "CREATE TABLE tools (id TEXT PRIMARY KEY, tenant_id TEXT, name TEXT)")
    assert vecsync("health", "--config", fresh).out == "nothing was synced yet\n"
    assert sync(fresh, "all") == 0
    well = vecsync("health", "--config", fresh)
    assert (well.code, well.out) == (0, "0 partitions, all well\n")


def test_an_entity_without_a_tenant_is_well_once_it_was_asked(config: Path, synced: Path) -> None:
    """Where nothing is everybody's and the table is empty, no partition can say that all was done."""
    tools = "source: estimating, table: tools, tenancy: {column: tenant_id}, collections: {tools: {text: '{name}'}}"
    replace_in_config(config, "\nentities:\n", f"\nentities:\n  tools: {{{tools}}}\n")
    change_rows(synced, "CREATE TABLE tools (id TEXT PRIMARY KEY, tenant_id TEXT, name TEXT)")
    assert vecsync("health", "--config", config).out == "1 partition never synced\ntools: never synced\n"
    assert vecsync("sync", "all", "--no-record", "--config", config).code == 0
    assert not alarm(synced)
    change_rows(synced, "INSERT INTO tools VALUES ('1', ?, 'saw')", MORAVA)
    assert sync(config, "all") == 0
    assert vecsync("health", "--config", config).out.startswith("9 partitions, none failing; 4 warnings: ")
