"""When a document was last seen in its source: kept for a partition as a whole, and for single documents where a run
did not see them all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster_tests.sync.test_exactness import one, seed
from vecsync_dagster_tests.world import ENTITY, World

ROWS = 60


def unseen(world: World, since: datetime) -> int:
    """How many of acme's documents were not seen since then."""
    with world.workspace() as workspace:
        [totals] = [one for one in workspace.ledger.totals(since) if one.tenant == "acme"]
    return totals.unseen_since


def rows(world: World) -> dict[str, dict[str, Any]]:
    """All that the ledger's table has of each document."""
    with world.workspace() as workspace:
        ledger = workspace.ledger
        assert isinstance(ledger, SqlLedger)
        with ledger.database.read() as connection:
            found = connection.execute(select(index_state).where(index_state.c.entity == ENTITY)).mappings()
            return {row["db_id"]: dict(row) for row in found}


def test_an_unchanged_run_writes_no_document_and_has_seen_them_all(world: World) -> None:
    """What is as it was costs no write; that it was there is known all the same."""
    seed(world, {"acme": ROWS})
    world.sync()
    before, began = rows(world), datetime.now(UTC)
    assert unseen(world, began) == ROWS
    assert one(world.sync(mode="full"), "acme").figures.unchanged == ROWS
    assert rows(world) == before
    assert unseen(world, began) == 0


def test_a_run_that_may_not_remove_marks_what_it_saw(world: World) -> None:
    """Where the guard keeps documents that the source did not have, those alone were not seen."""
    seed(world, {"acme": ROWS})
    sync = world.config.sync
    guard = sync.removal_guard.model_copy(update={"min_documents": 5, "share": 0.1})
    settings = sync.model_copy(update={"page": 10, "removal_guard": guard})
    world.config = world.config.model_copy(update={"sync": settings})
    world.sync()
    world.delete(*range(1, 21))
    world.update(30, name="anders")
    began = datetime.now(UTC)
    assert one(world.sync(mode="full"), "acme").figures.removals_blocked == 20
    assert unseen(world, began) == 20
    assert {int(n) for n, row in rows(world).items() if row["last_seen_at"] < began} == set(range(1, 21))


def test_a_part_of_an_export_has_seen_that_part(world: World) -> None:
    """A run with a limit marks the documents it read, and no others."""
    seed(world, {"acme": ROWS})
    world.sync()
    began = datetime.now(UTC)
    world.sync("acme", mode="full", limit=25)
    assert unseen(world, began) == ROWS - 25
