"""`vecsync demo`, as somebody new runs it: the real model, the real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecsync_dagster.demo import CONFIG, SEARCHES
from vecsync_dagster_tests.cli.program import HOUSES, MORAVA, Ran, vecsync

pytestmark = pytest.mark.xdist_group("demo")  # made once, not by each worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "example"


@pytest.fixture(scope="module")
def first(folder: Path) -> Ran:
    return vecsync("demo", "--folder", folder)


def test_the_first_demo_syncs_and_searches(first: Ran, folder: Path) -> None:
    """The first demo shows what was synced, what was rejected and where, and each example's answer."""
    assert first.code == 0, first.err
    assert "total" in first.out
    assert "Rejected: 4 records" in first.out
    assert "invalid_records.jsonl" in first.out
    for search in SEARCHES:
        assert search.text in first.out
        assert search.why in first.out
    assert (folder / "state" / "invalid_records.jsonl").read_text().count("\n") == 4


def test_the_demo_says_what_to_do_next(first: Ran, folder: Path) -> None:
    """Its last lines can be typed as they are: the UI, a search, the status."""
    lines = [line.strip() for line in first.out.splitlines()]
    for command in ("ui", "search", "status"):
        assert any(f" {command} " in line and line.endswith(f"--config {folder / CONFIG}") for line in lines), command


def test_the_table_has_every_figure(first: Ran, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for it, a figure is shown even if it is zero everywhere; no column is shown twice."""
    assert first.code == 0
    monkeypatch.setenv("COLUMNS", "200")
    ran = vecsync("demo", "--folder", folder, "--no-record")
    header = next(line for line in ran.out.splitlines() if line.startswith("tenant"))
    assert header.split() == [
        "tenant", "collection", "fetched", "new", "changed", "payload", "unchanged", "removed", "rejected", "embedded",
        "cached", "seconds",
    ]  # fmt: skip


def test_tables_are_readable_at_100_columns(first: Ran, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a table is wider than the terminal; columns of zeros give way first."""
    assert first.code == 0
    monkeypatch.setenv("COLUMNS", "100")
    ran = vecsync("demo", "--folder", folder, "--no-record")
    tables = [line for line in ran.out.split("Next:")[0].splitlines() if "   " in line or "───" in line]
    assert len(tables) > 20
    assert max(map(len, tables)) <= 100


def test_a_tenant_never_finds_anothers(first: Ran, folder: Path) -> None:
    """The same question finds each firm's own paint first, and never the other firm's."""
    assert first.code == 0
    question = SEARCHES[-1].text
    for tenant in (HOUSES, MORAVA):
        ran = vecsync(
            "search", question, "--tenant", tenant, "--collection", "materials", "--limit", "200", "--json",
            "--config", folder / CONFIG,
        )  # fmt: skip
        hits = ran.json["hits"]
        assert hits[0]["tenant"] == tenant
        assert {hit["tenant"] for hit in hits} == {tenant, None}
        assert all(hit["scope"] == "global" for hit in hits if hit["tenant"] is None)


def test_a_second_demo_says_that_nothing_changed(first: Ran, folder: Path) -> None:
    """Run again, the demo embeds nothing and says so."""
    assert first.code == 0
    again = vecsync("demo", "--folder", folder, "--no-record")
    assert again.code == 0, again.err
    assert "Nothing changed: 8 partitions checked in " in again.out
    ran = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", folder / CONFIG)
    totals = ran.json["totals"]
    assert (totals["fetched"], totals["unchanged"], totals["invalid"]) == (276, 272, 4)
    assert totals["embedded"] == totals["upserted"] == totals["removed"] == 0
