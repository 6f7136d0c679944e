"""MongoDB on the command line: check, sync, and `vecsync writeback`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from vecsync_dagster_tests.cli.program import replace_in_config, vecsync
from vecsync_dagster_tests.tools import sample


@pytest.fixture
def documents(
    mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Collection[dict[str, Any]]]:
    monkeypatch.setenv("MONGO_URL", f"{mongo_url.rstrip('/')}/{mongo_database}")
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client[mongo_database].tools.insert_many(sample())
        yield client[mongo_database].tools


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """demo/tools.yaml as users copy it, with hash vectors."""
    file = tmp_path / "tools.yaml"
    file.write_bytes(files("vecsync_dagster.demo").joinpath("tools.yaml").read_bytes())
    with file.open("a", encoding="utf-8") as more:
        more.write("\nembedding: {chain: [{provider: hash, dimensions: 32}]}\n")
    return file


def test_the_sample_configuration_syncs(documents: Collection[dict[str, Any]], tools: Path) -> None:
    """What users copy works as it stands; `check` names the server, and fields that no document has."""
    ran = vecsync("check", "--json", "--config", tools)
    [source] = [check for check in ran.json["checks"] if check["part"] == "source of tools"]
    assert source["state"] == "OK"
    expected = "24 documents, 22 of them live, change stream; none of 24 looked at has: logoUrl, documentation"
    assert expected in source["message"]
    ran = vecsync("sync", "all", "--no-record", "--json", "--config", tools)
    assert (ran.code, ran.json["totals"]["upserted"]) == (0, 4 * 22)
    ran = vecsync("writeback", "--config", tools)
    assert (ran.code, ran.out) == (0, "no entity has `writeback: true`; nothing to do\n")
    ran = vecsync("writeback", "--entity", "tools", "--config", tools)
    assert (ran.code, ran.err) == (2, "error: WRONG_USAGE: tools has no `writeback: true`\n")


def test_a_filter_that_lets_nothing_through_is_a_warning(documents: Collection[dict[str, Any]], tools: Path) -> None:
    """A mistyped value of a filter is no error to anybody else, and would empty four collections."""
    replace_in_config(tools, "approvalStatus: approved", "approvalStatus: aproved")
    ran = vecsync("check", "--json", "--config", tools)
    [warning] = [check for check in ran.json["checks"] if check["part"] == "tenants of tools"]
    assert (warning["state"], "no live record at all" in warning["message"]) == ("WARN", True)


def test_writeback(documents: Collection[dict[str, Any]], tools: Path) -> None:
    """The command writes what is missing, once, and says how much that was."""
    replace_in_config(tools, "    updated_at:", "    writeback: true\n    updated_at:")
    assert vecsync("sync", "all", "--no-record", "--config", tools).code == 0
    documents.update_many({"id": {"$in": ["krita", "vlc"]}}, {"$unset": {"syncMetadata": 1}})
    assert vecsync("writeback", "--backfill", "--json", "--config", tools).json == {
        "command": "writeback",
        "backfill": True,
        "written": {"tools": 2},
    }
    ran = vecsync("writeback", "--config", tools)
    assert (ran.code, ran.out) == (0, "tools: syncMetadata of 0 documents written\n")
    assert documents.count_documents({"syncMetadata.overallStatus": "synced"}) == 22
