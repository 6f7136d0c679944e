"""Syncs that are killed with SIGKILL, each in a process of its own, started in a fraction of a second.

    python -m vecsync_dagster_tests.sync.dying_processes

imports everything once and then forks a process for each line of its input, "CONFIG STAGE WHEN NTH MODE". The process
syncs everything, and dies before or after (WHEN) its NTH call of that stage; at the stage `any` it dies at the NTH
call of any function of ours, in whatever thread, and at `store.METHOD` or `ledger.METHOD` at that method's. For each
line one is answered: the process's exit status, negative for a signal.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, get_args

from qdrant_client import QdrantClient
from sqlalchemy import event

import vecsync_dagster
from vecsync_dagster.config import load_config
from vecsync_dagster.embedding.tokens import TokenCounter
from vecsync_dagster.sync import SyncOptions, Workspace
from vecsync_dagster_tests.sync.killed_process import die_at

__all__ = ["STAGES", "Stage"]

Stage = Literal["export", "embed", "upsert", "payload", "delete", "commit", "any"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PATIENCE_S = 30.0
_NEEDED = (
    "anyio.from_thread",
    "anyio._backends._asyncio",
    "pandas",
    "vecsync_dagster.embedding.openai_remote",
    "vecsync_dagster.sources.sql_postgres",
    "vecsync_dagster.sources.sql_sqlite",
    "vecsync_dagster.stores.qdrant_embedded",
    "vecsync_dagster.stores.qdrant_server",
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(workspace: Workspace, stage: str, when: str, nth: int) -> None:
    """Set the moment of death."""
    [entity] = workspace.config.entities
    match stage:
        case "export":
            source = workspace.source(entity)
            source.read = dying(source.read, when, nth)  # type: ignore[method-assign]
        case "embed":
            provider: Any = workspace.embedders.of(entity, entity, pin=False).provider
            provider.embed_parts = dying(provider.embed_parts, when, nth)
        case "commit" if when == "before":
            event.listen(workspace.ledger.database.engine, "commit", Countdown(nth))
        case "commit":
            method = ("confirm", "recognise", "keep_vectors", "forget", "set_watermark", "record_run")[nth % 6]
            die_at(workspace.ledger, method, when, 1 + nth // 6)
        case "any":
            at_any_call(Countdown(nth))
        case _ if "." in stage:
            owner, _, method = stage.partition(".")
            die_at(workspace.store("main") if owner == "store" else workspace.ledger, method, when, nth)
        case _:
            method = {"payload": "set_payload"}.get(stage, stage)
            die_at(workspace.store("main"), method, when, nth)


class Countdown:
    """Dies at its nth call."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                die()


def at_any_call(countdown: Countdown) -> None:
    """Not after a time: a slow machine would always be caught at its beginning, a fast one never."""
    ours = str(Path(vecsync_dagster.__file__).parent) + os.sep

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ours):
            countdown()

    threading.setprofile(watch)
    sys.setprofile(watch)


def dying(real: Any, when: str, nth: int) -> Any:
    """A generator function whose process dies before or after the nth item of all its calls together."""
    countdown = Countdown(nth)

    def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        items = real(*args, **kwargs)
        while True:
            if when == "before":
                countdown()
            item = next(items, None)
            if item is None:
                return
            if when == "after":
                countdown()
            yield item

    return generate


def sync(config: str, stage: str, when: str, nth: int, mode: Literal["full", "incremental"]) -> None:
    with Workspace(load_config(Path(config))) as workspace:
        arm(workspace, stage, when, nth)
        for selection in workspace.select(workspace.config.entities):
            deadline = time.monotonic() + PATIENCE_S
            # A database server needs a moment to notice that the one before was killed.
            while busy(workspace.sync(selection, SyncOptions(mode=mode, allow_removals=True))):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{selection.tenant} stays busy")
                time.sleep(0.02)


def busy(results: list[Any]) -> bool:
    return any(result.error is not None and result.error.code == "PARTITION_BUSY" for result in results)


def warm_up() -> None:
    """Do what each sync would do again at its first use. No thread is begun: it would be missing in the forked ones."""
    for name in _NEEDED:
        importlib.import_module(name)
    TokenCounter("loopback").count("text")
    QdrantClient(url="http://127.0.0.1:1", check_compatibility=False).close()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all that it shares with this one


def run_and_exit(config: str, stage: str, when: str, nth: str, mode: Any) -> NoReturn:
    status = 1
    try:
        sync(config, stage, when, int(nth), mode)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def main() -> None:
    warm_up()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_and_exit(*line.split())
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
