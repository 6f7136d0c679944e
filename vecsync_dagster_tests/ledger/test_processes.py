"""Several processes share one ledger, and some of them die."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from vecsync_dagster.errors import PartitionBusy
from vecsync_dagster.ledger import SqlLedger, version
from vecsync_dagster_tests.ledger.processes import hold, open_and_write, running, stop_in_a_transaction
from vecsync_dagster_tests.ledger.samples import ENTITY, A, confirm

PATIENCE_S = 60.0

pytestmark = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)


def test_two_processes_make_and_write_one_ledger(url: str) -> None:
    """Processes that open the same empty database at once both end with a migrated ledger, and lose no write."""
    with ExitStack() as stack:
        workers = [stack.enter_context(running(open_and_write, url, tenant)) for tenant in ("tenant-a", "tenant-b")]
        for step in ("ready", "done"):
            for _, pipe in workers:
                assert pipe.poll(PATIENCE_S)
                assert pipe.recv() == step
            if step == "ready":
                for _, pipe in workers:
                    pipe.send("go")
    ledger = SqlLedger.open(url, auto_migrate=False)
    assert [ledger.tally(ENTITY, "materials", tenant).held for tenant in ("tenant-a", "tenant-b")] == [400, 400]
    assert version.current(url) == version.HEAD
    ledger.close()


def test_a_process_killed_in_a_transaction_leaves_nothing_half_written(url: str) -> None:
    """Of a call that was cut off by a kill nothing is there, and the ledger can be written at once."""
    with running(stop_in_a_transaction, url) as (process, pipe):
        assert pipe.poll(PATIENCE_S)
        assert pipe.recv() == "in the transaction"
        process.kill()
        process.join()
    ledger = SqlLedger.open(url)
    assert ledger.tally(*A).rows == 1
    confirm(ledger, A, ["after"])
    assert ledger.tally(*A).rows == 2
    ledger.close()


def test_a_killed_process_holds_nothing(url: str) -> None:
    """A tenant held by another process is busy, and free again soon after that process was killed."""
    with running(hold, url) as (process, pipe):
        assert pipe.poll(PATIENCE_S)
        assert pipe.recv() == "held"
        ledger = SqlLedger.open(url)
        with pytest.raises(PartitionBusy):
            ledger.hold(ENTITY, "tenant-a").__enter__()
        process.kill()
        process.join()
    assert becomes_free(ledger)
    ledger.close()


def test_an_error_in_the_block_frees_the_tenant_for_others(url: str) -> None:
    """After a run that failed the tenant is free at once for everybody, not only for that ledger's connections."""
    ledger, other = SqlLedger.open(url), SqlLedger.open(url)
    with pytest.raises(KeyError), ledger.hold(ENTITY, "tenant-a"):
        raise KeyError
    with other.hold(ENTITY, "tenant-a"), pytest.raises(PartitionBusy):
        ledger.hold(ENTITY, "tenant-a").__enter__()
    ledger.close()
    other.close()


def becomes_free(ledger: SqlLedger) -> bool:
    """A server needs a moment to notice that a client is gone."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with ledger.hold(ENTITY, "tenant-a"):
                return True
        except PartitionBusy:
            time.sleep(0.02)
    return False
