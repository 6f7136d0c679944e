"""HTTP clients log each request with its URL, and any part of ours may be a secret: a token in the path of a webhook,
a user and password before a host."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["urls_unlogged"]

_ours: ContextVar[bool] = ContextVar("ours", default=False)


@contextmanager
def urls_unlogged() -> Iterator[None]:
    """The clients log no request of this block: of this thread or task, whatever others do meanwhile."""
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)


def _not_ours(_: logging.LogRecord) -> bool:
    return not _ours.get()


# For good: one that is taken away at the end of a request is missing for another that is still under way.
for _client in ("httpx", "httpx2"):
    logging.getLogger(_client).addFilter(_not_ours)
