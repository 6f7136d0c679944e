"""Who listens to the changes of an entity: said to the ledger as long as somebody does, read by those who show it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.ledger.base import Listener
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["said", "saying"]

_log = logging.getLogger("vecsync.watch")
_EVERY_S = 15.0
_DEAD_AFTER = timedelta(seconds=45)

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
    since = datetime.now(UTC)
    while not ended.wait(_EVERY_S if _tell(config, heard(), since) else _EVERY_S / 5):
        pass
    try:
        with contained("ending"), Workspace(config, read_only=True) as workspace:
            workspace.ledger.listens_no_more(heard())
    except VecsyncError as error:
        _log.info("the ledger was not told that nobody listens now: %s: %s", error.code, error)


def _tell(config: Config, heard: Heard, since: datetime) -> bool:
    """Whether all is well: what is not may be over soon."""
    try:
        with contained("telling who listens"), Workspace(config, read_only=True) as workspace:
            workspace.ledger.listens(heard, since)
    except VecsyncError as error:
        _log.info("the ledger was not told who listens: %s: %s", error.code, error)
        return False
    return not any(heard.values())


def said(listener: Listener, now: datetime) -> tuple[str, bool]:
    """In words, and whether changes are heard."""
    if now - listener.at > _DEAD_AFTER:
        return f"nobody listens to its changes since {listener.at:%Y-%m-%d %H:%M}Z: who did ended without a word", False
    if listener.problem is not None:
        return f"its changes are not heard now: {listener.problem}", False
    return f"listening to its changes since {listener.since:%Y-%m-%d %H:%M}Z", True
