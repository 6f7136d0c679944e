"""The write that is known to be good: what one leaves that was interrupted is nobody's, and the next run clears it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from vecsync_dagster.errors import StoreRejected, StoreTimeout, StoreUnavailable, VecsyncError
from vecsync_dagster.stores import GLOBAL, Point
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import Selection, SyncOptions, Workspace
from vecsync_dagster_tests.small import NAME, Small, sqlite_source

TENANTS = ("acme", "brick", GLOBAL)


@pytest.fixture
def world(tmp_path: Path) -> Small:
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute(f"CREATE TABLE {NAME} (id INTEGER PRIMARY KEY, name TEXT, firm TEXT, shared INTEGER)")
        rows = [(n, f"name {n}", ("acme", "brick", None)[n % 3], n % 3 == 2) for n in range(1, 10)]
        db.executemany(f"INSERT INTO {NAME} VALUES (?, ?, ?, ?)", rows)
    db.close()
    tenancy = {"column": "firm", "global_flag": "shared"}
    return Small(tmp_path, sqlite_source(tmp_path / "source.db"), tenancy=tenancy)


def run(world: Small, tenant: str) -> str:
    with Workspace(world.config) as workspace:
        [result] = workspace.sync(Selection(NAME, tenant, (NAME,)), SyncOptions(mode="full"))
        return result.outcome


def change(world: Small, statement: str) -> None:
    with sqlite3.connect(world.folder / "source.db") as db:
        db.execute(statement.format(NAME))
    db.close()


def ids(world: Small, tenant: str | None = None) -> set[str]:
    """Of all points in the store, or of those that a search of the tenant finds."""
    with Workspace(world.config) as workspace:
        store = workspace.store_of(NAME, NAME)
        if tenant is None:
            return {point.payload["id"] for page in store.scan(NAME) for point in page}
        vector = workspace.embedders.of(NAME, NAME, pin=False).provider.embed_query("name 1")
        return {hit.payload["id"] for hit in store.search(NAME, vector, tenant, limit=100)}


@pytest.mark.parametrize("error", [StoreTimeout, StoreUnavailable])
def test_a_probe_that_got_no_answer_goes_at_once(
    world: Small, monkeypatch: pytest.MonkeyPatch, error: type[VecsyncError]
) -> None:
    """The store takes its write, and the answer is lost: the run fails, and leaves no point of it."""
    assert run(world, "acme") == "success"
    before = ids(world)
    change(world, "UPDATE {} SET name = 'bad ' || id WHERE firm = 'acme'")
    real = QdrantEmbeddedStore.upsert
    probes = 0

    def upsert(store: QdrantEmbeddedStore, collection: str, points: Sequence[Point]) -> None:
        nonlocal probes
        if not any(point.payload["id"].startswith("vecsync:probe") for point in points):
            raise StoreRejected("no", service="QDRANT")
        real(store, collection, points)
        probes += 1
        raise error("no answer", service="QDRANT")

    with monkeypatch.context() as silent:
        silent.setattr(QdrantEmbeddedStore, "upsert", upsert)
        assert run(world, "acme") == "failed"
    assert (probes, ids(world)) == (1, before)


def test_a_probe_that_is_left_is_nobodys_and_goes(world: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends between the probe's write and its removal, with two documents refused: no search finds it, no
    partition counts it, and the next run of the partition that made it clears it."""
    for tenant in TENANTS:
        assert run(world, tenant) == "success"
    well = {tenant: ids(world, tenant) for tenant in TENANTS}
    change(world, "UPDATE {} SET name = 'bad ' || id WHERE firm = 'acme'")
    real = QdrantEmbeddedStore.upsert

    def upsert(store: QdrantEmbeddedStore, collection: str, points: Sequence[Point]) -> None:
        if any(point.payload["id"].startswith("vecsync:probe") for point in points):
            real(store, collection, points)
            raise KeyboardInterrupt
        if any(str(point.payload["name"]).startswith("bad") for point in points):
            raise StoreRejected("no", service="QDRANT")
        real(store, collection, points)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(QdrantEmbeddedStore, "upsert", upsert)
        stopped.setattr(QdrantEmbeddedStore, "delete_foreign", die)
        with pytest.raises(KeyboardInterrupt):
            run(world, "acme")
    [probe] = ids(world).difference(*well.values())
    assert {tenant: ids(world, tenant) for tenant in TENANTS} == well
    assert [run(world, tenant) for tenant in ("brick", GLOBAL)] == ["success", "success"]
    assert probe in ids(world)  # which is acme's to clear
    assert run(world, "acme") == "success"
    assert probe not in ids(world)
    assert {tenant: ids(world, tenant) for tenant in TENANTS} == well
