"""Who listens to the changes of an entity: said to the ledger as long as somebody does, read by those who show it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.ledger.base import Listener
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["OLD_NEWS", "said", "saying"]

_log = logging.getLogger("vecsync.watch")
_LOOK_S, _EVERY_S = 1.0, 15.0
_DEAD_AFTER = timedelta(seconds=45)
OLD_NEWS: Final = timedelta(days=1)
"""A listener that ended without a word is told of for so long."""

Heard = Mapping[str, str | None]
"""Entities that are listened to, with what keeps their changes from being heard now."""


@contextmanager
def saying(config: Config, heard: Callable[[], Heard]) -> Iterator[None]:
    """Says to the ledger, until the block ends, what is heard. A ledger that is away hears of it later."""
    ended = threading.Event()
    thread = threading.Thread(target=_say, args=(config, heard, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _say(config: Config, heard: Callable[[], Heard], ended: threading.Event) -> None:
    since, told, at = datetime.now(UTC), dict[str, str | None](), -math.inf
    while not ended.wait(_LOOK_S):
        now = dict(heard())
        if (now == told and time.monotonic() < at + _EVERY_S) or not _tell(config, now, told.keys() - now, since):
            continue
        told, at = now, time.monotonic()
    _tell(config, {}, told, since)


def _tell(config: Config, heard: Heard, no_more: Iterable[str], since: datetime) -> bool:
    try:
        with contained("telling who listens"), Workspace(config, read_only=True) as workspace:
            workspace.ledger.listens(heard, since)
            workspace.ledger.listens_no_more(no_more, since)
    except VecsyncError as error:
        _log.info("the ledger was not told who listens: %s: %s", error.code, error)
        return False
    return True


def said(listener: Listener, now: datetime) -> tuple[str, bool] | None:
    """In words, and whether changes are heard. None: that somebody listened is long ago."""
    age = abs(now - listener.at)  # the clock may have been ahead when it last said so
    if age > OLD_NEWS:
        return None
    if age > _DEAD_AFTER:
        return f"nobody listens to its changes since {listener.at:%Y-%m-%d %H:%M}Z: who did ended without a word", False
    if listener.problem is not None:
        return f"its changes are not heard now: {listener.problem}", False
    return f"listening to its changes since {listener.since:%Y-%m-%d %H:%M}Z", True
