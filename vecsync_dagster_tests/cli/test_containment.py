"""An exception that nobody foresaw is one part's failure on the command line too; the others go on, without values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster_tests.cli.program import Ran, vecsync

SECRET = "the text of a record"


def break_it(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, name: str) -> None:
    """The method raises where it is about this entity or collection."""
    real = getattr(owner, method)

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name in (getattr(self, "_entity_name", ""), *args[:1]):
            raise LookupError(SECRET)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, broken)


def assert_contained(ran: Ran) -> None:
    assert ran.code == 1
    assert "INTERNAL_ERROR" in ran.err + ran.out
    assert "Traceback" not in ran.err
    assert SECRET not in ran.err + ran.out


@pytest.mark.parametrize("method", ["read", "tenants", "unassigned"])
def test_sync(config: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The other entities are synced."""
    break_it(monkeypatch, SqlSource, method, "works")
    ran = vecsync("sync", "all", "--full", "--no-record", "--json", "--config", config)
    outcomes = {(p["collection"], p["outcome"]) for p in ran.json["partitions"]}
    assert ("materials", "success") in outcomes
    if method == "unassigned":  # a warning alone: every partition could be synced
        assert (ran.code, "INTERNAL_ERROR" in ran.err, SECRET in ran.err) == (0, True, False)
        return
    assert ("works", "success") not in outcomes
    assert_contained(ran)


def test_check(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other part is tried."""
    break_it(monkeypatch, SqlSource, "check", "works")
    ran = vecsync("check", "--json", "--config", config)
    states = {probe["part"]: probe["state"] for probe in ran.json["checks"]}
    assert (states["source of works"], states["source of materials"], states["store main"]) == ("FAIL", "OK", "OK")
    assert_contained(ran)


def test_reconcile(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other collection is compared."""
    break_it(monkeypatch, QdrantEmbeddedStore, "scan", "works")
    ran = vecsync("reconcile", "--json", "--config", config)
    assert [one["collection"] for one in ran.json["found"]] == ["materials"]
    assert ran.json["errors"]["works"]["code"] == "INTERNAL_ERROR"
    assert_contained(ran)


def test_any_command(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no others, it is the command's error, with its code and without a traceback's values."""
    break_it(monkeypatch, SqlSource, "read", "works")
    assert_contained(vecsync("export", "--entity", "works", "--config", config))
