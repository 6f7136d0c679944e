"""SIGINT and SIGTERM: the first asks a sync to end after the batches in flight, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "WRONG_USAGE", "Stop", "handled", "interruptible", "stop_on_signals"]

INTERRUPTED = 130
WRONG_USAGE = 2
_SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """Called: whether a signal asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            # Threads may hang in a network call, so nothing is waited for. Nothing is lost: what the store
            # confirmed is in the ledger, or is found by the next run.
            _tell("ended at once\n")
            os._exit(INTERRUPTED)
        self.asked = True
        _tell("stopping: the batches in flight are finished first; a second signal ends at once\n")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within it the first signal sets the flag of the `Stop`."""
    stop = Stop()
    with handled(stop.on_signal, signal.SIGINT, signal.SIGTERM):
        yield stop


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is, so that files half written are cleaned away."""
    with handled(_interrupt, signal.SIGTERM):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Signals go to `handler` inside the block (only possible in the main thread; elsewhere nothing happens)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(message: str) -> None:
    # Not through sys.stderr's buffer: the signal may have come in the middle of a write to it.
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    os.write(2, f"{cursor}{message}".encode())
