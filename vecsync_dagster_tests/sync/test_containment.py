"""Whatever a partition raises, also what nobody foresaw, is that partition's failure; all others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from vecsync_dagster.containment import contained
from vecsync_dagster.errors import InternalError, StoreTimeout
from vecsync_dagster.sync import PartitionResult, Selection, Workspace
from vecsync_dagster_tests.world import ENTITY, World

SECRET = "the text of a record"


class Bug(Exception):
    """No error of ours, nor of a driver that we know."""


def break_for(tenant: str, workspace: Workspace, owner: Any, method: str) -> None:
    """From now on the method raises what nobody foresaw while this tenant is synced."""
    real, sync = getattr(owner, method), workspace.sync
    under_way: list[str] = [""]

    def synced(selection: Selection, *args: Any, **kwargs: Any) -> list[PartitionResult]:
        under_way[0] = selection.tenant
        return sync(selection, *args, **kwargs)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if under_way[0] == tenant:
            raise Bug(SECRET)
        return real(*args, **kwargs)

    setattr(workspace, "sync", synced)  # noqa: B010 (mypy lets no method be replaced)
    setattr(owner, method, broken)


PLACES: dict[str, Callable[[Workspace], tuple[Any, str]]] = {
    "the source's read": lambda w: (w.source(ENTITY), "read"),
    "the source's look": lambda w: (w.source(ENTITY), "fingerprints"),
    "the store's write": lambda w: (w.store_of(ENTITY, ENTITY), "upsert"),
    "the store's count": lambda w: (w.store_of(ENTITY, ENTITY), "count"),
    "the provider": lambda w: (w.embedders.of(ENTITY, ENTITY, pin=False).provider, "prepare"),
    "the lock": lambda w: (w.ledger, "hold"),
    "the ledger's rows": lambda w: (w.ledger, "rows"),
    "the ledger's thread": lambda w: (w.ledger, "recognise"),
    "the ledger's marks": lambda w: (w.ledger, "mark_all_seen"),
    "the ledger's write": lambda w: (w.ledger, "confirm"),
    "the watermark": lambda w: (w.ledger, "set_watermark"),
    "the look kept": lambda w: (w.ledger, "set_seen"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_foresaw_is_one_partitions_failure(
    embedded_world: World, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails with its own code and a failed run in the ledger; the log has the traceback, no value; the other
    tenants are synced, and a clean run makes it right."""
    world = embedded_world
    world.insert({"id": n, "tenant_id": "bad", "name": f"bad {n}"} for n in range(1, 4))
    world.insert({"id": n, "tenant_id": "good"} for n in range(11, 14))
    world.sync()
    world.update(1, name="bad and changed")
    world.update(11, name="другое")
    with world.kept_open() as workspace:
        owner, method = PLACES[place](workspace)
        break_for("bad", workspace, owner, method)
        with caplog.at_level(logging.ERROR):
            results = {r.tenant: r for r in world.sync(mode="full")}
        last = workspace.ledger.runs(ENTITY, "bad", limit=1)[0]
    assert_internal(results["bad"])
    assert results["good"].ok
    assert last.outcome == "failed"
    assert str(last.error).startswith("INTERNAL_ERROR")
    assert SECRET not in caplog.text
    assert method in caplog.text or "broken" in caplog.text
    assert all(r.ok for r in world.sync(mode="full"))
    world.assert_exact()


def assert_internal(result: PartitionResult) -> None:
    assert result.outcome == "failed"
    assert isinstance(result.error, InternalError)
    assert "Bug" in str(result.error)
    assert SECRET not in str(result.error)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_the_process_stays_what_it_is(kind: type[BaseException]) -> None:
    """An interrupt, an exit and a lack of memory are no failure of one partition."""
    with pytest.raises(kind), contained("here"):
        raise kind


def test_errors_of_ours_pass() -> None:
    """An error that has a code keeps it."""
    with pytest.raises(StoreTimeout), contained("here"):
        raise StoreTimeout("late", service="QDRANT")


def test_the_message_names_type_and_place() -> None:
    """Where, which exception, in which function; never its text."""
    with pytest.raises(InternalError, match=r"^here: unexpected Bug in .*\(.*\)") as caught, contained("here"):
        raise Bug(SECRET)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
