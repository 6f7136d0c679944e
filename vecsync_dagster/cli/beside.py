"""A process of ours that runs beside another, and is started again where it ends by itself."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["Beside"]

_log = logging.getLogger(__name__)
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 60.0


class Beside:
    """Its standard input is a pipe that is closed as soon as we are gone, however we ended. It has a session of its
    own: the terminal's signals reach it through us."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[Any] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._pause_s = _FIRST_S
        self._asked = False

    def tend(self) -> None:
        """To be called again and again: starts it, and starts it again; later and later where it ends soon."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            _close(self._process)
            self._process = None
            self._pause_s = _FIRST_S if now > self._started_at + _LONGEST_S else min(self._pause_s * 2, _LONGEST_S)
            self._start_at = now + self._pause_s
        if self._process is None and not self._asked and now >= self._start_at:
            self._started_at = now
            try:
                self._process = subprocess.Popen(  # noqa: S603 (our own words)
                    self._command, env=dict(self._environment), stdin=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:  # no process or memory is left: later there may be
                _log.warning("%s could not be started: %s", self._command[0], error.strerror)
                self._start_at = now + _LONGEST_S

    def ask(self) -> None:
        """To end, after what is in flight. Once: a second signal would end it at once."""
        if self._process is not None and not self._asked:
            self._process.send_signal(signal.SIGTERM)
        self._asked = True

    def end(self, patience_s: float) -> None:
        """Wait so long for it, and then no longer."""
        self.ask()
        if self._process is None:
            return
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _close(self._process)


def _close(process: subprocess.Popen[Any]) -> None:
    if process.stdin is not None:
        process.stdin.close()
