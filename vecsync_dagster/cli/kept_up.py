"""`dagster dev`, started again where a part of it dies."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from os import killpg
from pathlib import Path
from types import FrameType
from typing import IO, Final

import psutil

from vecsync_dagster.cli import output
from vecsync_dagster.cli.beside import Beside
from vecsync_dagster.cli.signals import INTERRUPTED, handled

__all__ = ["GRACE_S", "STARTS", "WITHIN_S", "KeptUp"]

GRACE_S: Final = 1.0
"""For Dagster's processes to end by themselves. Nothing is lost with those that do not: a sync that is killed goes on
with the next run."""
STARTS: Final = 5
WITHIN_S: Final = 600.0
"""So often within so long is Dagster started when it ends by itself."""
_LOOK_S: Final = 3.0
_GONE_S: Final = 10.0
_COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*m")


class KeptUp:
    """`dagster dev` ends where its daemon or webserver dies. Where its code server does, it goes on without: no sensor
    looks and no run begins, and nothing says so but the page. So that is watched here.

    `lock`: a file descriptor that it has, too: should we be killed, it goes on. `before_again` is called when all of
    it has ended, before it is started again.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        lock: int,
        listener: Beside | None,
        before_again: Callable[[], None],
    ) -> None:
        self._command = command
        self._environment = environment
        self._lock = lock
        self._listener = listener
        self._before_again = before_again
        self._asked_at: float | None = None

    def run(self) -> int:
        """Until it was asked to end, or Dagster ends again and again. Returns the exit code."""
        starts: deque[float] = deque(maxlen=STARTS)
        while True:
            starts.append(time.monotonic())
            what = self._once()
            if self._asked_at is not None:
                return INTERRUPTED
            if len(starts) == STARTS and time.monotonic() < starts[0] + WITHIN_S:
                output.warn(f"{what} ended by itself, {STARTS} times within {WITHIN_S / 60:g} minutes: it stays down")
                return 1
            output.warn(f"{what} ended by itself: it is started again")
            self._before_again()

    def _once(self) -> str:
        """Returns what ended. It has a session of its own, so that a signal reaches it once: through us; and so that
        all of it can be ended if it does not end by itself."""
        pipe = None if sys.stderr.isatty() else subprocess.PIPE
        with subprocess.Popen(  # noqa: S603 (our own words)
            self._command,
            env=self._environment,
            cwd=Path(self._environment["VECSYNC_CONFIG"]).parent,  # Dagster warns of a dagster.yaml where it is started
            start_new_session=True,
            stdout=pipe,
            stderr=subprocess.STDOUT if pipe else None,
            pass_fds=(self._lock,),
        ) as process:
            if process.stdout is not None:
                threading.Thread(target=_copy_plain, args=(process.stdout,), daemon=True).start()

            def pass_on(number: int, _frame: FrameType | None) -> None:
                self._asked_at = self._asked_at or time.monotonic()
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)
                if self._listener is not None:
                    self._listener.ask()

            closed = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # `nohup` ignores it
            with handled(pass_on, signal.SIGINT, signal.SIGTERM, *closed):
                what = self._wait(process)
            _end_all(process.pid)  # code servers stay up to a minute longer than who started them
        return what

    def _wait(self, process: subprocess.Popen[bytes]) -> str:
        server = _CodeServer(process.pid)
        while not _ended(process):
            if self._listener is not None:
                self._listener.tend()
            if self._asked_at is not None:
                if time.monotonic() > self._asked_at + GRACE_S:
                    _end_all(process.pid)
            elif server.is_gone():
                _end_all(process.pid)
                process.wait()
                return "Dagster's code server"
        return "Dagster"


class _CodeServer:
    """What loads the definitions: one below `dagster`; after "Reload definitions" another one."""

    def __init__(self, dagster: int) -> None:
        self._dagster = dagster
        self._looked_at = time.monotonic()
        self._there_at: float | None = None

    def is_gone(self) -> bool:
        """Whether it was there, and has not been for a while."""
        now = time.monotonic()
        if now >= self._looked_at + _LOOK_S:
            self._looked_at = now
            if self._is_there():
                self._there_at = now
        return self._there_at is not None and now > self._there_at + _GONE_S

    def _is_there(self) -> bool:
        with suppress(psutil.NoSuchProcess):  # Dagster has just ended
            for process in psutil.Process(self._dagster).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "grpc" in process.cmdline():
                        return True
        return False


def _end_all(group: int) -> None:
    with suppress(ProcessLookupError):
        killpg(group, signal.SIGKILL)


def _copy_plain(lines: IO[bytes]) -> None:
    """Dagster colours its log wherever it goes; in a file or a pipe the codes are noise. Read until it ends, also when
    nobody takes it any more: Dagster would wait for ever to print its next line."""
    with suppress(ValueError):  # closed by whoever started Dagster, once it has ended
        for line in lines:
            with suppress(OSError, ValueError):  # the pipe is closed
                sys.stderr.buffer.write(_COLOURS.sub(b"", line))
                sys.stderr.buffer.flush()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return False
    return True
