"""Errors of OpenAI's client as ours, and how long to wait before another attempt.

Decided by type, status and the answer's `code`, `type` and `param`; never by its message, which may also
repeat the text or the key and is therefore not part of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from openai import APIError, APIStatusError, APITimeoutError

from vecsync_dagster.errors import (
    EmbeddingMisconfigured,
    EmbeddingRateLimited,
    EmbeddingRejected,
    EmbeddingTimeout,
    EmbeddingUnavailable,
    Transient,
    VecsyncError,
)

__all__ = ["limit_wait", "mapped", "retry_after", "retry_wait"]

LONGEST_RETRY_AFTER_S = 60.0
"""A server that asks for more is not waited for here: the ledger's own retry comes back later."""

_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_ABOUT_TEXTS = frozenset({400, 413, 422})
_NO_MODEL = "model_not_found"
_FAILED = frozenset({409, 424})  # 424: Text Embeddings Inference, where its model failed
_SETTINGS = frozenset({"model", "dimensions", "encoding_format"})
_HINTS = {
    401: "check the key in the environment variable {key}",
    402: "the account has no credit",
    403: "the key in the environment variable {key} may not use it",
    404: "no such model, or no embeddings at this address: check `model` and `base_url`",
    405: "no embeddings at this address: check `base_url`",
    501: "this server makes no embeddings: check `base_url`, or how it was started",
}
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def mapped(error: APIError, model: str, key: str) -> VecsyncError:
    """The error of ours that says the same. `key` is the name of the variable that holds it."""
    if isinstance(error, APIStatusError):
        return _of_status(error, model, key)
    kind = type(error).__name__
    if isinstance(error, APITimeoutError):
        return EmbeddingTimeout(f"openai {model}: no answer in time", model=model)
    return EmbeddingUnavailable(f"openai {model}: {kind}", model=model)


def _of_status(error: APIStatusError, model: str, key: str) -> VecsyncError:
    status = error.status_code
    # Whatever a server puts there: of another type, it is none.
    code, kind, param = (_plain(value) for value in (error.code, error.type, error.param))
    named = code or kind
    message = f"openai {model}: status {status}" + (f" {named}" if named else "")
    fields: dict[str, object] = {"model": model, "status": status, "request_id": _plain(error.request_id)}
    wait = retry_after(error.response.headers)
    no_credit = {code, kind} & _NO_CREDIT
    if status == 429 and not no_credit:
        return EmbeddingRateLimited(message, retry_after_s=wait, **fields)
    if status == 408:
        return EmbeddingTimeout(message, retry_after_s=wait, **fields)
    if status in _FAILED or (status >= 500 and status != 501):
        return EmbeddingUnavailable(message, retry_after_s=wait, **fields)
    if code == _NO_MODEL:
        param = param or "model"
    if param is not None:
        fields["param"] = param
    if status in _ABOUT_TEXTS and param not in _SETTINGS:
        return EmbeddingRejected(message, **fields)
    hint = _HINTS[402] if no_credit else f"check `{param}`" if param in _SETTINGS else _HINTS.get(status, "")
    return EmbeddingMisconfigured(f"{message}: {hint.format(key=key)}" if hint else message, **fields)


def _plain(value: object) -> str | None:
    """A server's code or id, unless it is anything but one."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks us to wait: `retry-after-ms`, else `retry-after` (seconds or a date)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def limit_wait(error: Exception) -> bool | float:
    """As `retry_wait`, of a server that wants to be asked more slowly alone."""
    return retry_wait(error) if isinstance(error, EmbeddingRateLimited) else False


def retry_wait(error: Exception) -> bool | float:
    """For stamina: whether to try again, and after how many seconds where the server said so."""
    if not isinstance(error, Transient):
        return False
    if isinstance(error, EmbeddingUnavailable) and error.answered:
        return False  # the others are asked for once more, and these are paid for
    if error.retry_after_s is None:
        return True
    return error.retry_after_s if error.retry_after_s <= LONGEST_RETRY_AFTER_S else False
