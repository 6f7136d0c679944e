"""The protocol of a channel, and the one owner of its retries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

import stamina

from vecsync_dagster.alerts.message import Message
from vecsync_dagster.errors import AlertUnsent

__all__ = ["Channel", "insistently"]

LONGEST_WAIT_S: Final = 5.0
"""Who asks to wait longer gets the message later: it stays untold until then."""


class Channel(Protocol):
    """Somewhere alerts are told. `name` is its key below `alerts` in vecsync.yaml."""

    @property
    def name(self) -> str: ...

    def send(self, message: Message) -> None:
        """Deliver, with retries. Raises AlertUnsent (try again later), AlertRefused, ConfigError; their texts
        hold neither a secret nor what the server said."""
        ...


def insistently(attempts: int, send: Callable[[], None]) -> None:
    """Call `send` until it succeeds, at most `attempts` times while it raises AlertUnsent."""
    stamina.RetryingCaller(attempts=attempts, timeout=None, wait_initial=0.5, wait_max=LONGEST_WAIT_S).on(_backoff)(
        send
    )


def _backoff(error: Exception) -> bool | timedelta:
    if not isinstance(error, AlertUnsent):
        return False
    wait = error.retry_after_s
    if wait is None:
        return True
    return wait <= LONGEST_WAIT_S and timedelta(seconds=wait)
