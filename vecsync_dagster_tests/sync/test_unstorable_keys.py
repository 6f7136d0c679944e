"""Keys that no text column could hold, met by ledgers of both kinds: a U+0000, which SQLite and MongoDB have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymongo import MongoClient

from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster_tests.sync.test_exactness import one
from vecsync_dagster_tests.world import ENTITY, World, config_of

BAD = "x\x00y"


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def ledger_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Of the ledger; None for the one in the state folder."""
    if request.param == "SQLite":
        return None
    url: str = request.getfixturevalue("postgres_ledger")
    monkeypatch.setenv("LEDGER_URL", url)
    return url


def ledger(url: str | None) -> dict[str, object]:
    return {} if url is None else {"ledger": {"url": {"env": "LEDGER_URL"}}}


@pytest.fixture
def texts(tmp_path: Path, ledger_url: str | None) -> World:
    """Works of an SQLite table whose ids are text."""
    source = {"type": "sqlite", "path": "source.db"}
    config = config_of(tmp_path, source=source, store={"type": "qdrant", "path": "qdrant"}, **ledger(ledger_url))
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE works")
        connection.exec_driver_sql(
            "CREATE TABLE works (id TEXT PRIMARY KEY, code, name, unit, price, tenant_id, is_global, updated_at, "
            "deleted_at)"
        )
    for number in ("1", "2"):
        put(world, number, f"2026-01-0{number}")
    return world


def put(world: World, row_id: str, dated: str, *, tenant: str = "acme", deleted: str | None = None) -> None:
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO works VALUES (?, 'c', 'a name', 'pc', '1', ?, 0, ?, ?)",
            (row_id, tenant, dated, deleted),
        )


def ids(world: World) -> list[str]:
    return sorted(payload["dbId"] for payload in world.stored().values())


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_an_id_with_a_nul_is_the_rejection_of_its_record(texts: World, mode: str) -> None:
    """Also where its row is the newest one, and the run's place in the source would be told by it."""
    world = texts
    world.sync(mode="full")
    put(world, BAD, "2026-01-09")
    put(world, "3", "2026-01-03")
    for _ in range(2):
        result = one(world.sync(mode=mode), "acme")
        assert (result.outcome, result.figures.invalid) == ("success", 1), result.error
    assert ids(world) == ["1", "2", "3"]


def test_a_deletion_of_such_an_id_hides_no_row_behind_it(texts: World) -> None:
    world = texts
    world.sync(mode="full")
    put(world, BAD, "2026-01-04", deleted="2026-01-04")
    put(world, "3", "2026-01-05")
    assert one(world.sync(mode="incremental"), "acme").outcome == "success"
    assert ids(world) == ["1", "2", "3"]


def test_a_tenant_with_a_nul_is_named(texts: World) -> None:
    """Its failure is in the ledger, under a key that a ledger can hold; other tenants go on."""
    world = texts
    put(world, "9", "2026-01-01", tenant="ac\x00me")
    outcomes = {result.tenant: (result.outcome, getattr(result.error, "code", "")) for result in world.sync()}
    assert outcomes["acme"] == ("success", "")
    assert outcomes["ac\ufffdme"] == ("failed", "INVALID_TENANT")
    with world.workspace() as workspace:
        workspace.tenants(ENTITY)  # what the source lists still has it
        assert any(key.tenant == "ac\ufffdme" for key in workspace.ledger.last_runs())


def test_a_document_of_mongodb_stops_no_other_tenant(
    tmp_path: Path, mongo_url: str, mongo_database: str, ledger_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change stream tells every tenant of it: it is one's rejection, and nothing to the others, also when it
    goes."""
    monkeypatch.setenv("MONGO_URL", f"{mongo_url.rstrip('/')}/{mongo_database}")
    config = config_of(
        tmp_path,
        source={"type": "mongo", "url": {"env": "MONGO_URL"}},
        store={"type": "qdrant", "path": "qdrant"},
        **ledger(ledger_url),
    )
    entity = config.entities[ENTITY].model_copy(update={"id": ("_id",), "updated_at": None, "deleted_at": None})
    config = config.model_copy(update={"entities": {ENTITY: entity}}).with_folder(tmp_path)

    def sync(tenant: str, mode: str = "incremental") -> PartitionResult:
        with Workspace(config) as workspace:
            [result] = workspace.sync(Selection(ENTITY, tenant, (ENTITY,)), SyncOptions(mode=mode))  # type: ignore[arg-type]
        return result

    with MongoClient[dict[str, object]](mongo_url) as client:
        works = client[mongo_database]["works"]
        row = {"name": "a", "unit": "pc", "is_global": False}
        works.insert_many([{"_id": tenant, "tenant_id": tenant, **row} for tenant in ("acme", "brick")])
        assert [sync(tenant, "full").outcome for tenant in ("acme", "brick")] == ["success"] * 2
        works.insert_one({"_id": BAD, "tenant_id": "acme", **row})
        results = [sync(tenant) for tenant in ("acme", "brick")]
        assert [(result.outcome, result.figures.invalid) for result in results] == [("success", 1), ("success", 0)]
        works.delete_one({"_id": BAD})
        works.update_one({"_id": "brick"}, {"$set": {"name": "b"}})
        results = [sync(tenant) for tenant in ("acme", "brick")]
        assert [(result.outcome, result.figures.upserted) for result in results] == [("success", 0), ("success", 1)]
