"""Bad input ends in a clear error or a counted rejection; the valid records around it go through."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.config import Config
from vecsync_dagster.errors import OutputUnwritable, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace
from vecsync_dagster.sync.standing import check_freshness
from vecsync_dagster_tests.world import ENTITY, World, file_of

NASTY = {
    "emoji": "Насос 🔧👨‍👩‍👧",
    "right_to_left": "مضخة المياه שלום",
    "control": "Na\x01sos\x7f \x85konec",
    "sql": "'); DROP TABLE works; --",
    "template": "{name} {{unit}} %s $1",
    "megabyte": "насос " * 170_000,
    "null_character": "a\x00b",
    "combining": "Cafe\u0301",
}


def only(results: list[PartitionResult]) -> PartitionResult:
    [result] = results
    return result


def rejected(world: World) -> list[dict[str, Any]]:
    path = world.config.state_folder / "invalid_records.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_nasty_texts_go_through(embedded_world: World) -> None:
    """Emoji, right-to-left, SQL, braces, control characters and a megabyte of text are documents like others."""
    embedded_world.insert({"id": n, "tenant_id": "acme", "name": name} for n, name in enumerate(NASTY.values(), 1))
    result = only(embedded_world.sync("acme"))
    assert (result.figures.new, result.figures.upserted, result.figures.invalid) == (len(NASTY), len(NASTY), 0)
    embedded_world.assert_exact()
    names = {payload["name"] for payload in embedded_world.stored().values()}
    assert {NASTY["emoji"], NASTY["sql"], NASTY["template"], "Na sos   konec", "Café"} <= names
    again = only(embedded_world.sync("acme", mode="full"))
    assert again.figures.unchanged == len(NASTY)


def test_a_text_over_the_models_limit_is_cut_and_counted(tmp_path: Path, embedded_world: World) -> None:
    """A text longer than the model reads is cut the same way each time, and counted; it is paid for once."""
    embedded_world.insert([{"id": 1, "tenant_id": "acme", "name": "слово " * 200_000}])
    embedded_world.insert([{"id": 2, "tenant_id": "acme", "name": "короткое"}])
    result = only(embedded_world.sync("acme"))
    assert (result.figures.truncated, result.figures.upserted) == (1, 2)
    embedded_world.update(1, name="слово " * 200_001)  # cut to the same text
    assert only(embedded_world.sync("acme")).figures.embedded == 0


def test_wrong_values_are_rejected_and_counted(embedded_world: World) -> None:
    """Empty required fields and words for numbers are rejected with their field; people's numbers are numbers."""
    embedded_world.insert(
        [
            {"id": 1, "tenant_id": "acme", "price": "1 234,50"},
            {"id": 2, "tenant_id": "acme", "price": "по запросу"},
            {"id": 3, "tenant_id": "acme", "name": "  "},
            {"id": 4, "tenant_id": "acme", "unit": None},
        ]
    )
    result = only(embedded_world.sync("acme"))
    assert (result.figures.fetched, result.figures.invalid, result.figures.upserted) == (4, 3, 1)
    assert result.ok
    assert [payload["price"] for payload in embedded_world.stored().values()] == [1234.5]
    assert {(line["field"], line["record"]["id"]) for line in rejected(embedded_world)} == {
        ("price", 2),
        ("name", 3),
        ("unit", 4),
    }
    with embedded_world.workspace() as workspace:
        told = workspace.ledger.rejected(ENTITY, "acme")
        assert len(told) == 3
        assert "по запросу" not in str(told)


def test_a_record_that_turns_bad_keeps_its_last_good_version(embedded_world: World) -> None:
    """It is stale, not lost; once repaired it is synced again."""
    embedded_world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 4))
    embedded_world.sync("acme")
    embedded_world.update(2, price="на складе")
    result = only(embedded_world.sync("acme", mode="full"))
    assert (result.figures.invalid, result.figures.removed, len(embedded_world.stored())) == (1, 0, 3)
    embedded_world.update(2, price="5")
    embedded_world.sync("acme")
    embedded_world.assert_exact()
    with embedded_world.workspace() as workspace:
        [totals] = workspace.ledger.totals(embedded_world.now)
        assert (totals.by_status["synced"], totals.by_status["stale"]) == (3, 0)


def test_records_that_become_invalid_are_marked_together(
    embedded_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of a page do, the ledger is told once for each reason."""
    embedded_world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 31))
    embedded_world.sync("acme")
    embedded_world.update(*range(1, 21), price="many")
    embedded_world.update(*range(21, 26), name="")
    told: list[tuple[str, int]] = []
    real = SqlLedger.mark_stale

    def mark_stale(self: SqlLedger, entity: str, collection: str, tenant: str, ids: Any, code: str, *rest: Any) -> int:
        told.append((code, len(ids)))
        return real(self, entity, collection, tenant, ids, code, *rest)

    monkeypatch.setattr(SqlLedger, "mark_stale", mark_stale)
    assert only(embedded_world.sync("acme", mode="full")).figures.invalid == 25
    assert sorted(told) == [("VALIDATION_ERROR", 5), ("VALIDATION_ERROR", 20)]


def test_skip_invalid_false_fails_the_partition(embedded_world: World) -> None:
    """One bad record fails the partition, names it and removes nothing."""
    embedded_world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 4))
    embedded_world.sync("acme")
    embedded_world.delete(1)
    embedded_world.update(2, price="x")
    strict = embedded_world.config.model_copy(
        update={"sync": embedded_world.config.sync.model_copy(update={"skip_invalid": False})}
    )
    with Workspace(strict.with_folder(embedded_world.config.folder)) as workspace:
        [selection] = list(workspace.select([ENTITY], ["acme"]))
        result = only(workspace.sync(selection, SyncOptions(mode="full")))
    assert result.outcome == "failed"
    assert result.error is not None
    assert (result.error.code, "id 2" in str(result.error)) == ("VALIDATION_ERROR", True)
    assert len(embedded_world.stored()) == 3


def plain_table(folder: Path, rows: list[tuple[Any, ...]]) -> Config:
    """A table without a primary key, as a view would be: ids may be missing or stand twice."""
    with sqlite3.connect(folder / "plain.db") as connection:
        connection.execute("CREATE TABLE notes (id TEXT, title TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", rows)
    connection.close()
    return Config.model_validate(
        {
            "sources": {"db": {"type": "sqlite", "path": "plain.db"}},
            "entities": {"notes": {"source": "db", "table": "notes", "collections": {"notes": {"text": "{title}"}}}},
            "embedding": {"chain": [{"provider": "hash", "dimensions": 16}]},
            "stores": {"main": {"type": "qdrant", "path": "qdrant"}},
            "state": "state",
        }
    ).with_folder(folder)


def sync_notes(config: Config) -> PartitionResult:
    with Workspace(config) as workspace:
        return only([r for selection in workspace.select(["notes"]) for r in workspace.sync(selection)])


def test_missing_and_double_ids_are_rejected(tmp_path: Path) -> None:
    """NULL and empty ids and the second of two equal ids are rejected; the figures and the checks still add up."""
    config = plain_table(tmp_path, [("1", "a"), (None, "b"), ("", "c"), ("2", "d"), ("2", "e"), ("3", "f")])
    for _ in range(2):
        result = sync_notes(config)
        figures = result.figures
        assert (figures.fetched, figures.invalid) == (6, 3)
        assert figures.fetched == figures.invalid + figures.new + figures.unchanged
        assert result.ok


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"table": "nots"}, ["nots", "entities.notes.table"]),
        ({"id": "idd"}, ["idd", "entities.notes.id", "id"]),
        ({"collections": {"notes": {"text": "{titel}"}}}, ["titel", "title"]),
    ],
)
def test_a_wrong_table_or_column_is_named(tmp_path: Path, change: dict[str, Any], names: list[str]) -> None:
    """The error names what does not exist, the key that asks for it, and what there is."""
    config = plain_table(tmp_path, [("1", "a")])
    data = config.model_dump(mode="json", exclude_unset=True)
    data["entities"]["notes"].update(change)
    wrong = Config.model_validate(data).with_folder(tmp_path)
    try:
        result = sync_notes(wrong)
        message = str(result.error)
    except VecsyncError as error:
        message = str(error)
    assert all(name in message for name in names), message


def test_a_tenant_that_cannot_be_a_partition_fails_alone(embedded_world: World) -> None:
    """`a|b` fails with INVALID_TENANT; every other tenant is synced."""
    embedded_world.insert([{"id": 1, "tenant_id": "a|b"}, {"id": 2, "tenant_id": "acme"}])
    results = {result.tenant: result for result in embedded_world.sync()}
    error = results["a|b"].error
    assert error is not None
    assert error.code == "INVALID_TENANT"
    assert results["acme"].ok
    assert {payload["dbId"] for payload in embedded_world.stored().values()} == {"2"}


@pytest.mark.parametrize("key", ["", " ", "a|b"])
def test_a_key_that_can_be_no_partition_leaves_nothing_behind(embedded_world: World, key: str) -> None:
    """Its failure says how many records have it; where the source has none of them any more, nothing is left of it, and
    no check over all partitions misses it."""
    embedded_world.insert([{"id": 1, "tenant_id": key}, {"id": 2, "tenant_id": "acme"}])
    failed = next(result for result in embedded_world.sync() if result.tenant == key)
    assert f"the tenant key {key!r}, that of 1 record, cannot be a partition" in str(failed.error)
    with embedded_world.workspace() as workspace:
        assert check_freshness(workspace, ENTITY).passed
    embedded_world.delete(1)
    embedded_world.sync()
    with embedded_world.workspace() as workspace:
        assert {place.tenant for place in workspace.ledger.last_runs()} == {"global", "acme"}
        assert key not in workspace.tenants(ENTITY)


def test_an_unwritable_state_folder_is_named(tmp_path: Path, embedded_world: World) -> None:
    """A file where the state folder should be gives OUTPUT_UNWRITABLE with its path."""
    (tmp_path / "state").write_text("in the way", encoding="utf-8")
    embedded_world.insert([{"id": 1, "tenant_id": "acme"}])
    with pytest.raises(OutputUnwritable, match="state"):
        embedded_world.sync()


# A limit on the size of files is what a full disk looks like to a program: writes fail in the middle.
_FULL_DISK = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.argv = ["vecsync", *sys.argv[1:]]
runpy.run_module("vecsync_dagster.cli", run_name="__main__")
"""


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path, embedded_world: World) -> None:
    """The sync fails with one line and exit code 1; with room again the next run makes everything right."""
    embedded_world.insert({"id": n, "tenant_id": "acme", "name": f"имя {n} " * 40} for n in range(1, 401))
    config = file_of(embedded_world.config, tmp_path)
    command = [sys.executable, "-c", _FULL_DISK, "16384", "sync", "all", "--config", str(config), "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr + done.stdout or "UNWRITABLE" in done.stderr + done.stdout
    embedded_world.sync()
    embedded_world.assert_exact()
