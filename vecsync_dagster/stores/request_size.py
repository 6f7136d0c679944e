"""How much goes into one request to a store, and comes back in one answer: bounded by bytes, not only by number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from vecsync_dagster.errors import StoreRejected

__all__ = [
    "DEFAULT_MAX_BYTES",
    "AnswerSize",
    "by_ids",
    "id_portions",
    "is_too_large",
    "payload_bytes",
    "point_bytes",
    "portions",
]

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_MAX_BYTES = 16 * 10**6
"""Half of what a Qdrant server takes by default (32 MiB): what is around the payloads has room too."""

_FLOAT_BYTES = 24  # a double as JSON at its longest, and its comma
_POINT_BYTES = 160  # id, braces and the operation's name
_ID_BYTES = 40
_FIRST_ANSWER = 64
_SAMPLE = 16

# `default`: what is no JSON is the engine's to refuse, not ours while measuring.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def payload_bytes(payload: Mapping[str, Any]) -> int:
    """Its size as JSON in UTF-8, as it goes over the wire; beyond all bounds where it cannot be written as JSON."""
    try:
        return len(_encode(payload).encode("utf-8", "surrogatepass"))
    except (RecursionError, ValueError):
        return sys.maxsize


def point_bytes(payload: Mapping[str, Any], dimensions: int = 0) -> int:
    """At most so many bytes of a request are one point."""
    return payload_bytes(payload) + dimensions * _FLOAT_BYTES + _POINT_BYTES


def portions(items: Sequence[T], sizes: Iterable[int], max_bytes: int) -> Iterator[Sequence[T]]:
    """`items` in order, in portions of at most `max_bytes`; one that is larger by itself is a portion of its own."""
    start = total = 0
    for position, size in enumerate(sizes):
        if position > start and total + size > max_bytes:
            yield items[start:position]
            start, total = position, 0
        total += size
    if start < len(items):
        yield items[start:]


def id_portions(ids: Sequence[T], max_bytes: int) -> Iterator[Sequence[T]]:
    """Point ids, as many as fit into one request."""
    most = max(1, max_bytes // _ID_BYTES)
    for start in range(0, len(ids), most):
        yield ids[start : start + most]


def is_too_large(error: StoreRejected) -> bool:
    """Whether a smaller request may be taken."""
    return bool(error.fields.get("too_large"))


def by_ids(ids: Sequence[T], max_bytes: int, ask: Callable[[Sequence[T]], R]) -> list[R]:
    """What `ask` answers of these points, as many at a time as fit into one request. After one that is too large for
    the server, or for a proxy before it, half as many. Raises what `ask` raises of a single point, or for another
    reason."""
    answers: list[R] = []
    start, most = 0, max(1, max_bytes // _ID_BYTES)
    while start < len(ids):
        some = ids[start : start + most]
        try:
            answers.append(ask(some))
            start += len(some)
        except StoreRejected as error:
            if not is_too_large(error) or len(some) < 2:
                raise
            most = len(some) // 2
    return answers


class AnswerSize:
    """How many points to ask for, `limit`, so that an answer has about `max_bytes`: as large as the last one's were."""

    def __init__(self, most: int, max_bytes: int) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self.limit = min(most, _FIRST_ANSWER)

    def refused(self, asked: int) -> None:
        """So many were too many to ask for: never again."""
        self._most = self.limit = max(1, asked // 2)

    def learn(self, payloads: Sequence[Mapping[str, Any] | None]) -> None:
        """From some of them: all would take as long as reading them does."""
        sample = payloads[:: max(1, len(payloads) // _SAMPLE)]
        if sample:
            each = sum(payload_bytes(payload or {}) for payload in sample) // len(sample) + _POINT_BYTES
            self.limit = max(1, min(self._most, self._max_bytes // each))
