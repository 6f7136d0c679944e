"""`vecsync invalid`, and what is left of the rejected records of a tenant that is gone."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from vecsync_dagster_tests.cli.program import HARBOUR, MORAVA, change_rows, vecsync


def listed(config: Path, *arguments: str) -> list[dict[str, Any]]:
    ran = vecsync("invalid", *arguments, "--json", "--config", config)
    assert ran.code == 0, ran.err
    records: list[dict[str, Any]] = ran.json["records"]
    return records


def sync(config: Path, *arguments: str) -> None:
    vecsync("sync", *arguments, "--no-record", "--config", config)


def test_what_is_rejected_now_is_listed(config: Path, synced: Path) -> None:
    """Records that became invalid, with id, field and reason, also in CSV; those that are valid again are not."""
    before = {(one["collection"], one["tenant"], one["id"]) for one in listed(config)}
    assert before, "the demo has records that are rejected"
    change_rows(
        synced, "UPDATE materials SET price = 'secret words', updated_at = '2026-12-01T00:00:00+00:00' WHERE id = 1124"
    )
    sync(config, "all")
    [fresh] = [one for one in listed(config) if (one["collection"], one["tenant"], one["id"]) not in before]
    assert (fresh["id"], fresh["tenant"], fresh["field"], fresh["state"]) == ("1124", MORAVA, "price", "stale")
    assert listed(config, "--tenant", MORAVA, "--entity", "materials", "--collection", "materials") == [
        one for one in listed(config) if (one["tenant"], one["entity"]) == (MORAVA, "materials")
    ]
    text = vecsync("invalid", "--format", "csv", "--config", config).out
    assert "1124" in {row["id"] for row in csv.DictReader(io.StringIO(text))}
    assert "secret words" not in text
    change_rows(synced, "UPDATE materials SET price = '5', updated_at = '2026-12-02T00:00:00+00:00' WHERE id = 1124")
    sync(config, "all")
    assert {(one["collection"], one["tenant"], one["id"]) for one in listed(config)} == before


def test_the_list_can_be_cut_short(config: Path, synced: Path) -> None:
    """So many, and that there are more."""
    change_rows(synced, "UPDATE works SET name = NULL, updated_at = '2026-12-01T00:00:00+00:00'")
    sync(config, "all")
    ran = vecsync("invalid", "--limit", "3", "--json", "--config", config)
    assert (len(ran.json["records"]), ran.json["more"]) == (3, True)
    assert "only the first 3; --limit shows more" in vecsync("invalid", "--limit", "3", "--config", config).out


def test_records_without_an_id_of_their_own_are_listed(config: Path, synced: Path) -> None:
    """A second record of one id is rejected until a full run finds it gone."""
    count = len(listed(config))
    change_rows(synced, "CREATE TABLE copy AS SELECT * FROM works")
    change_rows(synced, "INSERT INTO copy SELECT * FROM copy WHERE is_global LIMIT 1")
    change_rows(synced, "ALTER TABLE works RENAME TO before")
    change_rows(synced, "ALTER TABLE copy RENAME TO works")
    sync(config, "all", "--entity", "works", "--full")
    assert [one["state"] for one in listed(config)].count("unidentified") == 1
    change_rows(synced, "ALTER TABLE works RENAME TO copy")
    change_rows(synced, "ALTER TABLE before RENAME TO works")
    sync(config, "all", "--entity", "works", "--full")
    assert len(listed(config)) == count


def test_a_tenant_that_is_gone_leaves_no_record(config: Path, synced: Path) -> None:
    """No value of it is in the state folder: neither in snapshots nor among the rejected records, rotated or not."""
    for tenant, id_ in ((MORAVA, 1124), (HARBOUR, 1151)):
        change_rows(
            synced,
            "UPDATE materials SET name = 'Zmizelý', price = 'x', tenant_id = ?, "
            "updated_at = '2026-12-01T00:00:00+00:00' WHERE id = ?",
            tenant,
            id_,
        )
    sync(config, "all")
    state = synced / "state"
    log = state / "invalid_records.jsonl"
    (state / "invalid_records.jsonl.2").write_bytes(log.read_bytes())
    for suffix in (".part", ".old", "+0f3b.part", "+0f3b.old"):
        (state / "snapshots" / "materials" / f"{MORAVA}{suffix}").write_text("half")
    for table in ("materials", "works"):
        change_rows(synced, f"DELETE FROM {table} WHERE tenant_id = ?", MORAVA)
    sync(config, "all", "--full", "--allow-removals")
    for file in (log, state / "invalid_records.jsonl.2"):
        text = file.read_text(encoding="utf-8")
        assert MORAVA not in text
        assert HARBOUR in text
    assert not list((state / "snapshots").rglob(f"{MORAVA}*"))
    assert listed(config, "--tenant", MORAVA) == []
