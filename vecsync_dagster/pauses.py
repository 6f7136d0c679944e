"""What is said of a pause before another attempt, by the command line and by the code server of `vecsync ui`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vecsync_dagster.errors import AlertUnsent, VecsyncError

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

__all__ = ["log_pause", "pause_told"]

_log = logging.getLogger(__name__)


def pause_told(details: RetryDetails) -> str | None:
    """Errors that are not ours are told by their type: a client's text may hold anything. None of an alert that could
    not be sent: it is told once, when all attempts were made."""
    cause = details.caused_by
    if isinstance(cause, AlertUnsent):
        return None
    reason = f"{cause.code}: {cause}" if isinstance(cause, VecsyncError) else type(cause).__name__
    return f"{reason}; trying again in {details.wait_for:.0f} s"


def log_pause(details: RetryDetails) -> None:
    """A hook for stamina, whose own one prints a dictionary where structlog is installed."""
    told = pause_told(details)
    if told is not None:
        _log.warning(told)
