"""Exceptions that nobody foresaw, as an error of ours: they end what raised them, and nothing else.

An exception's own text, and that of its causes, may quote a value of a record: the error names its type and place, and
the log has the frames of its traceback, without that text.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecsync_dagster.errors import InternalError, VecsyncError

__all__ = ["contained", "place_of", "unforeseen"]

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parent
_SHOWN_FRAMES = 15  # of either end: an endless recursion has a thousand


@contextmanager
def contained(where: str, *passed: type[Exception]) -> Iterator[None]:
    """An exception that is neither ours nor one of `passed` leaves as InternalError, whose message begins with `where`.

    KeyboardInterrupt, SystemExit and MemoryError stay what they are: they end the process.
    """
    let_through: tuple[type[Exception], ...] = (VecsyncError, MemoryError, *passed)
    try:
        yield
    except let_through:
        raise
    except Exception as error:  # noqa: BLE001 (the one place that is for it)
        raise unforeseen(error, where) from None


def unforeseen(error: Exception, where: str) -> InternalError:
    """The error for an exception that was caught; its traceback goes to the log."""
    name, place = type(error).__name__, place_of(error)
    frames = traceback.StackSummary.from_list(traceback.extract_tb(error.__traceback__))
    if len(frames) > 2 * _SHOWN_FRAMES:
        frames = traceback.StackSummary.from_list([*frames[:_SHOWN_FRAMES], *frames[-_SHOWN_FRAMES:]])
    _log.error("%s: unexpected %s\n%s", where, name, "".join(frames.format()))
    return InternalError(f"{where}: unexpected {name} in {place}; its traceback is in the log", type=name, place=place)


def place_of(error: Exception) -> str:
    """File, line and function of the innermost frame of this package, of any file where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in Path(frame.filename).parents]
    if not frames:
        return "an unknown place"
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno} ({last.name})"
