"""docs/deployment.md: what it tells people to type does what it says."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vecsync_dagster.config import ENVIRONMENT
from vecsync_dagster_tests.cli.program import vecsync, write_hash_demo

DOCS = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
RESTORED, STORE_RESTORED, LOST = (
    [line.split("#")[0].split()[1:] for line in block.splitlines()]
    for block in re.findall(r"^```sh\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A synced demo, which VECSYNC_CONFIG names."""
    for name in (*ENVIRONMENT, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    config = write_hash_demo(tmp_path)
    monkeypatch.setenv("VECSYNC_CONFIG", str(config))
    assert vecsync("sync", "all", "--no-record").code == 0
    return config


def quick(words: list[str]) -> list[str]:
    """The same without a record in Dagster's storage, which is not what is tested here."""
    return [*words, "--no-record"] if words[0] == "sync" else words


def test_an_older_ledger_is_restored_and_mended(config: Path, tmp_path: Path) -> None:
    """After a restore from a backup the three commands end with a ledger and a store that agree."""
    file = tmp_path / "state" / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(tmp_path / "backup")) as backup:
        live.backup(backup)
    with closing(sqlite3.connect(tmp_path / "estimating.sqlite")) as source, source:
        source.execute("UPDATE works SET name = 'Neu' WHERE id IN (SELECT id FROM works LIMIT 3)")
    assert vecsync("sync", "all", "--full", "--no-record").code == 0
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(tmp_path / "backup")) as backup:
        backup.backup(live)
    reconcile, repair, full = RESTORED
    assert vecsync(*reconcile).code == 1
    assert vecsync(*repair).code == 0
    assert vecsync(*quick(full)).code == 0


def test_an_older_store_is_restored_and_mended(config: Path, tmp_path: Path) -> None:
    """The address is the same and the points are not: the two commands make it equal to the ledger again."""
    store = tmp_path / "state" / "qdrant"
    shutil.copytree(store, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "estimating.sqlite")) as source, source:
        source.execute("UPDATE works SET name = 'Neu' WHERE id IN (SELECT id FROM works LIMIT 3)")
    assert vecsync("sync", "all", "--full", "--no-record").code == 0
    shutil.rmtree(store)
    shutil.move(tmp_path / "backup", store)
    assert vecsync("reconcile").code == 1
    repair, full = STORE_RESTORED
    assert vecsync(*repair).code == 0
    assert vecsync(*quick(full)).code == 0
    assert vecsync("reconcile").code == 0


def test_a_lost_ledger_is_rebuilt_and_nothing_is_embedded_again(config: Path, tmp_path: Path) -> None:
    """The two commands bring the ledger back from the store, and the full sync after it changes nothing."""
    for file in (tmp_path / "state").glob("ledger.sqlite*"):
        if file.is_file():
            file.unlink()
    rebuild, full = LOST
    assert vecsync(*rebuild).code == 0
    ran = vecsync(*quick(full), "--json")
    assert ran.code == 0, ran.err
    totals = ran.json["totals"]
    assert (totals["embedded"], totals["upserted"], totals["removed"]) == (0, 0, 0)
