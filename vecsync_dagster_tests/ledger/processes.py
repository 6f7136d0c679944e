"""What other processes do to a ledger in the tests. Each function runs in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy import event

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.ledger.samples import ENTITY, PLACE, A, confirm, names

CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def running(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """`work(pipe, *arguments)` in a process of its own; it is killed if it still runs at the end."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, mine
    finally:
        process.kill()
        process.join()
        mine.close()


def open_and_write(pipe: Connection, url: str, tenant: str) -> None:
    """Open the ledger as soon as the test says so, then confirm 400 documents in 20 calls."""
    pipe.send("ready")
    pipe.recv()
    ledger = SqlLedger.open(url)
    ids = names(400, prefix=tenant)
    for start in range(0, 400, 20):
        confirm(ledger, (*PLACE, tenant), ids[start : start + 20])
    ledger.close()
    pipe.send("done")


def stop_in_a_transaction(pipe: Connection, url: str) -> None:
    """Confirm 2,000 documents in one call, and stop for good after the first chunk of it is written."""
    ledger = SqlLedger.open(url)

    def stop(*_: object) -> None:
        pipe.send("in the transaction")
        time.sleep(600)

    confirm(ledger, A, ["before"])
    event.listen(ledger.database.engine, "after_cursor_execute", stop_after_insert(stop))
    confirm(ledger, A, names(2000))


def stop_after_insert(stop: Callable[[], None]) -> Callable[..., None]:
    def after(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO index_state"):
            stop()

    return after


def hold(pipe: Connection, url: str) -> None:
    """Hold a tenant until the process is killed."""
    with SqlLedger.open(url).hold(ENTITY, "tenant-a"):
        pipe.send("held")
        time.sleep(600)
