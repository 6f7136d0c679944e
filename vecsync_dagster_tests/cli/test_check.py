"""`vecsync check` and `vecsync migrate`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from qdrant_client import QdrantClient, models

from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync import Workspace
from vecsync_dagster_tests.cli.program import HARBOUR, change_rows, config_of, replace_in_config, tree, vecsync
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest


def states(config: Path, code: int) -> dict[str, tuple[str, str]]:
    ran = vecsync("check", "--json", "--config", config)
    assert ran.code == code, (ran.out, ran.err)
    return {probe["part"]: (probe["state"], probe["message"]) for probe in ran.json["checks"]}


def test_everything_is_tried(asked: Path) -> None:
    """Sources, providers, stores, ledger and state folder are tried for real; hash vectors are a warning."""
    found = states(asked, 0)
    assert {part: state for part, (state, _) in found.items()} == {
        "configuration": "OK",
        "state folder": "OK",
        "ledger": "OK",
        "source of materials": "OK",
        "names of materials": "OK",
        "source of works": "OK",
        "names of works": "OK",
        "embedding 1: hash": "WARN",
        "store main": "OK",
        "collection materials": "OK",
        "collection works": "OK",
        "checks of materials": "WARN",  # the demo has records that are rejected
        "checks of works": "WARN",
    }
    assert "OK" in vecsync("check", "--config", asked).out


def test_a_name_that_somebody_else_has_in_the_store_fails(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is synced: a collection that vecsync did not make, by the name of one that it would make."""
    with QdrantRest() as server:
        client = QdrantClient(url=server.url, check_compatibility=False)
        client.create_collection("works", models.VectorParams(size=4, distance=models.Distance.COSINE))
        client.close()
        monkeypatch.setenv("QDRANT_URL", server.url)
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
        data["stores"] = {"main": {"type": "qdrant", "url": {"env": "QDRANT_URL"}}}
        config.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        found = states(config, 1)
    assert found["store main"][0] == "OK"
    assert found["works in store main"][0] == "FAIL"
    assert "which vecsync did not make" in found["works in store main"][1]
    assert "materials in store main" not in found


@pytest.mark.parametrize(
    ("statement", "part", "state", "message"),
    [
        ("DROP TABLE works", "source of works", "FAIL", "works"),
        ("ALTER TABLE works RENAME COLUMN phase TO stage", "source of works", "FAIL", "phase"),
        ("UPDATE works SET tenant_id = NULL, is_global = 0 WHERE id < 3003", "tenants of works", "WARN", ": 2"),
        (
            "UPDATE works SET tenant_id = 'global', is_global = 0 WHERE id = 3001",
            "tenants of works",
            "WARN",
            "`global`",
        ),
        ("UPDATE works SET tenant_id = 'a|b', is_global = 0 WHERE id = 3001", "tenants of works", "WARN", "a|b"),
    ],
)
def test_what_is_wrong_with_a_source(
    config: Path, synced: Path, statement: str, part: str, state: str, message: str
) -> None:
    """Tables and fields that are not there fail; rows that nobody could find are warned of."""
    change_rows(synced, statement)
    found = states(config, 1 if state == "FAIL" else 0)
    assert found[part][0] == state
    assert message in found[part][1]


def test_a_provider_without_a_key_fails_only_if_it_is_the_last_hope(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that cannot be used is a warning while the chain has another one."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    hashes = "- {provider: hash, dimensions: 64}"
    openai = "- {provider: openai, api_key: {env: NO_SUCH_KEY}}"
    replace_in_config(fresh, hashes, f"{openai}\n    {hashes}")
    first = states(fresh, 0)["embedding 1: openai"]
    assert first[0] == "WARN"
    assert "NO_SUCH_KEY" in first[1]
    replace_in_config(fresh, f"\n    {hashes}", "")
    assert states(fresh, 1)["embedding"][0] == "FAIL"


def test_another_model_than_the_collections_is_found(config: Path) -> None:
    """A collection whose model is not in the chain any more could not be synced: that fails."""
    replace_in_config(config, "- {provider: hash, dimensions: 64}", "- {provider: hash, dimensions: 32}")
    state, message = states(config, 1)["collection materials"]
    assert state == "FAIL"
    assert "SPACE_MISMATCH" in message


def test_a_store_in_use_is_no_failure(config: Path, synced: Path) -> None:
    """A store that another process has open works: that is said, and is no failure."""
    with Workspace(config_of(synced)) as workspace:
        workspace.store("main").count("works")
        assert states(config, 0)["store main"][0] == "WARN"


def test_failed_checks_are_counted(config: Path, synced: Path) -> None:
    """All that `vecsync status` shows, whichever check it was."""
    lines = vecsync("status", "--failed-checks", "--entity", "works", "--config", config).out.splitlines()
    warnings = sum(line.startswith("check ") for line in lines)
    with Workspace(config_of(synced)) as workspace:
        there = CheckResult("works", "identity", False, "6 missing", datetime.now(UTC), "works", HARBOUR)
        overall = CheckResult("works", "reconciliation", False, "6 missing", datetime.now(UTC))
        workspace.ledger.record_checks([there, overall])
        count = len(workspace.ledger.check_results("works"))
    state, message = states(config, 1)["checks of works"]
    assert state == "FAIL"
    warned = f"{warnings} warning{'s' * (warnings != 1)}"
    assert message == f"{count} last results: 2 failed and {warned}; see `vecsync status --failed-checks`"


def test_a_wrong_key_is_named_with_its_line(fresh: Path) -> None:
    """A configuration that is wrong is named with file, line and key."""
    replace_in_config(
        fresh, "required: [name, unit]\n    types: {price: number}", "requires: [name]\n    types: {price: number}"
    )
    ran = vecsync("check", "--config", fresh)
    assert ran.code == 1
    assert "did you mean required?" in ran.err
    assert "Traceback" not in ran.err


def test_migrations_go_up_and_down(config: Path) -> None:
    """migrate says from where to where; down to nothing and up again."""
    assert "nothing to do" in vecsync("migrate", "--config", config).out
    down = vecsync("migrate", "--down", "base", "--json", "--config", config).json
    up = vecsync("migrate", "--json", "--config", config).json
    assert down["to"] is None
    assert up == {"command": "migrate", "from": None, "to": down["from"]}


def test_a_version_that_does_not_exist(config: Path) -> None:
    """Going down to a version nobody knows changes nothing and is an error."""
    before = tree(config.parent / "state" / "qdrant")
    ran = vecsync("migrate", "--down", "nonsense", "--config", config)
    assert ran.code == 2
    assert ran.err.startswith("error: NOT_FOUND: ")
    assert tree(config.parent / "state" / "qdrant") == before
