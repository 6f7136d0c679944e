"""The store fails in every way it can, in the middle of a run with all kinds of work.

After each: an error with its code, nothing removed or reported that is not so, and one clean run makes everything right
without paying for a text twice.
"""

from __future__ import annotations

import shutil

import pytest

from vecsync_dagster.errors import StoreRejected
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.sync.failing_services import MANY, Services, befall, codes
from vecsync_dagster_tests.world import ENTITY

pytestmark = pytest.mark.usefixtures("no_waiting")

# -- over HTTP -----------------------------------------------------------------------------------------
# What method and path of a request hold.
WRITES = {"upsert": "PUT /collections/works/points", "payload": "/points/batch", "delete": "/points/delete"}
READS = {"aliases": "/aliases", "retrieve": "POST /collections/works/points", "scan": "/scroll", "count": "/count"}
PLACES = {**WRITES, **READS}
STATUSES = {429: "QDRANT_RATE_LIMIT", 500: "QDRANT_UNAVAILABLE", 503: "QDRANT_UNAVAILABLE"}


@pytest.mark.in_turn
@pytest.mark.parametrize(("place", "status"), [*((place, 500) for place in PLACES), ("upsert", 429), ("delete", 503)])
def test_the_store_answers_with_an_error(remote: Services, http_store: QdrantRest, place: str, status: int) -> None:
    """The run fails with the store's code, wherever the answer came; nothing was lost."""
    remote.work()
    http_store.fail(status=status, times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == STATUSES[status]
    remote.assert_right_after_one_clean_run()


@pytest.mark.in_turn
@pytest.mark.parametrize("place", [*WRITES, "scan"])
def test_fault_08_a_store_that_hangs_is_the_stores_time_out(
    remote: Services, http_store: QdrantRest, place: str
) -> None:
    """A time-out of the store is QDRANT_TIMEOUT, in the result, the run's record and the rows: never the provider's."""
    remote.work()
    http_store.hang(1.3, times=MANY, path_contains=PLACES[place])
    with remote.world.impatient("store"):
        result = remote.sync()
    http_store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    with remote.world.workspace() as workspace:
        [run, *_] = workspace.ledger.runs(ENTITY, "acme")
        assert (run.error or "").startswith("QDRANT_TIMEOUT: ")
        assert codes(remote) <= {"QDRANT_TIMEOUT"}
    remote.assert_right_after_one_clean_run()


@pytest.mark.in_turn
@pytest.mark.parametrize("place", WRITES)
@pytest.mark.parametrize("times", [1, MANY])
def test_the_store_cuts_the_connection_after_it_wrote(
    remote: Services, http_store: QdrantRest, place: str, times: int
) -> None:
    """Once is made good by the second attempt; for good is a failed run, whose writes are made again without harm."""
    remote.work()
    http_store.cut_after_write(times=times, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    if times == 1:
        assert result.ok
    else:
        assert result.error is not None
        assert result.error.code == "QDRANT_UNAVAILABLE"
    remote.assert_right_after_one_clean_run()


@pytest.mark.parametrize("place", WRITES)
def test_the_store_only_queues_a_write(remote: Services, http_store: QdrantRest, place: str) -> None:
    """What the server has not applied yet is not confirmed, and may be applied later without harm."""
    remote.work()
    http_store.stall(times=MANY, path_contains=PLACES[place])
    result = remote.sync()
    http_store.recover()
    assert result.error is not None
    assert result.error.code == "QDRANT_TIMEOUT"
    http_store.settle()
    remote.assert_right_after_one_clean_run()


# -- the embedded store --------------------------------------------------------------------------------
@pytest.mark.parametrize("write", ["upsert", "set_payload", "delete"])
def test_the_disk_of_the_embedded_store_fills_up(local: Services, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    """The run fails and says how much is free, whatever it was about to write; nothing was lost."""
    local.work()
    full = shutil.disk_usage(local.world.config.folder)._replace(free=0)
    with local.world.workspace() as workspace, monkeypatch.context() as patched:
        [selection] = workspace.select([ENTITY], ["acme"])
        befall(workspace.store("main"), write, lambda: patched.setattr(shutil, "disk_usage", lambda _: full))
        [result] = workspace.sync(selection, SyncOptions(mode="full"))
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "OUTPUT_UNWRITABLE"
    assert "0 MiB of disk are free" in str(result.error)
    local.assert_right_after_one_clean_run()


def test_another_process_has_the_embedded_store(local: Services) -> None:
    """Only one can write: the run fails with the store's code, no document does, and nothing is paid for."""
    local.work()
    paid = len(local.provider.answered)
    with local.world.workspace() as other:
        other.store("main").check()
        result = local.sync()
    assert result.error is not None
    assert result.error.code == "QDRANT_LOCKED"
    assert codes(local) == set()
    assert len(local.provider.answered) == paid
    local.assert_right_after_one_clean_run()


@pytest.mark.parametrize("call", ["upsert", "set_payload", "delete", "scan"])
def test_the_embedded_engine_breaks_down(local: Services, call: str) -> None:
    """From some moment on it refuses everything: the run fails with the store's code; a new process goes on."""
    local.work()
    workspace = Workspace(local.world.config)
    [selection] = workspace.select([ENTITY], ["acme"])
    store = workspace.store("main")
    assert isinstance(store, QdrantEmbeddedStore)
    store.count(ENTITY)
    befall(store, call, lambda: store._open[ENTITY].shard.close())
    [result] = workspace.sync(selection, SyncOptions(mode="full"))
    with pytest.raises(StoreRejected, match="close"):
        workspace.close()
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.code == "QDRANT_REJECTED"
    local.assert_right_after_one_clean_run()
