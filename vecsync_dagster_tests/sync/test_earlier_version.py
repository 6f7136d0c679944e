"""A ledger that an earlier version left: today's code opens it, and has nothing to do."""

from __future__ import annotations

from pathlib import Path

from vecsync_dagster.ledger import ledger_url, migrate
from vecsync_dagster.ledger.database import Database
from vecsync_dagster_tests.world import ENTITY, World

ROWS = Path(__file__).with_name("ledger_0007.sql")


def insert_rows_of_then(world: World) -> None:
    world.insert(
        [
            {"id": 1, "tenant_id": "acme", "code": "A-1", "price": "1 234,50"},
            {"id": 2, "tenant_id": "acme", "price": "7.00"},
            {"id": 3, "tenant_id": "acme", "name": " "},
            {"id": 4, "tenant_id": "brick", "code": "0x1F"},
            {"id": 5, "is_global": True, "price": "9007199254740991"},
        ]
    )


def leave_ledger_of_then(world: World) -> str:
    """Its URL; the store stays."""
    url = ledger_url(world.config.ledger, state_folder=world.config.state_folder)
    migrate.downgrade(url, "base")
    migrate.upgrade(url, "0007")
    database = Database(url)
    with database.write() as connection:
        for statement in ROWS.read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    database.close()
    return url


def test_the_first_runs_find_nothing_to_do(world: World) -> None:
    """Rows, spaces, watermarks and failures of version 0007 are taken as they are: nothing is embedded, not even from
    the cache, nothing is written, and what failed has failed still."""
    insert_rows_of_then(world)
    world.sync(mode="full")
    there = world.stored()
    url = leave_ledger_of_then(world)
    migrate.upgrade(url)
    for mode in ("incremental", "full"):
        results = world.sync(mode=mode)
        assert sum(result.figures.fetched for result in results) == 5
        assert sum(result.figures.unchanged for result in results) == 4
        for result in results:
            figures = result.figures
            assert result.ok, result.checks
            assert (figures.writes, figures.embedded, figures.cache_hits) == (0, 0, 0)
    assert world.stored() == there
    world.assert_exact()
    with world.workspace() as workspace:
        [failed] = workspace.ledger.records(ENTITY, [ENTITY], status="failed", limit=9)
    assert (failed.db_id, failed.collections[ENTITY].last_error) == ("3", "name is required and is empty")
