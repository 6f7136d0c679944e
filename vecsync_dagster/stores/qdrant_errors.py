"""The Qdrant client's errors as ours, and which of them are worth another attempt.

    answer or failure                         becomes
    429, with or without Retry-After          StoreRateLimited
    408, a time limit of the client           StoreTimeout
    5xx, no connection, a broken answer       StoreUnavailable
    400, 413, 422, an unusable argument       StoreRejected for what the request holds
    any other status, an unusable address     StoreRejected of every document

Messages are made of the action, the collection and the status. What the server answered is left out, and
with it the client's own exception where its text would repeat that: an answer may hold document text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import responses

import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vecsync_dagster.errors import (
    StoreRateLimited,
    StoreRejected,
    StoreTimeout,
    StoreUnavailable,
    Transient,
    VecsyncError,
)
from vecsync_dagster.stores.qdrant_common import SERVICE

__all__ = ["LONGEST_WAIT_S", "backoff", "too_large_alone", "translated"]

# With the length in the request's head, without it, and in strict mode.
_TOO_LARGE = (b"larger than allowed", b"has exceeded limit", b"Condition size limit reached")
_ABOUT_CONTENT = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
LONGEST_WAIT_S = 60.0
"""A Retry-After beyond this is not waited for inside a call: the error carries it to whoever plans the next try."""


def backoff(error: Exception) -> bool | float:
    """For stamina: whether to try again, or the seconds to wait first where the server said so."""
    if not isinstance(error, Transient):
        return False
    if error.retry_after_s is None:
        return True
    return error.retry_after_s if error.retry_after_s <= LONGEST_WAIT_S else False


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise the client's errors as Store* errors whose message starts with `action`."""
    try:
        yield
    except UnexpectedResponse as error:
        raise _of_status(action, error.status_code or 0, error.headers, error.content) from None
    except ResourceExhaustedResponse as error:
        raise _rate_limited(action, float(error.retry_after_s)) from None
    except QdrantException as error:  # raised where a 429 names a date instead of seconds
        raise _rate_limited(action, None) from error
    except ResponseHandlingException as error:
        raise _of_failure(action, error.source) from _harmless(error.source)
    except (ValueError, TypeError, httpx.InvalidURL) as error:
        raise StoreRejected(
            f"{action}: the client refused the request ({type(error).__name__})",
            service=SERVICE,
            every_document=isinstance(error, httpx.InvalidURL),
        ) from None


def _of_status(action: str, status: int, headers: Mapping[str, str], answer: bytes) -> VecsyncError:
    wait = _retry_after(headers.get("retry-after"))
    message = f"{action}: Qdrant answered {status} {responses.get(status, '')}".rstrip()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _rate_limited(action, wait)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return StoreTimeout(message, service=SERVICE, status=status, retry_after_s=wait)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StoreUnavailable(message, service=SERVICE, status=status, retry_after_s=wait)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        message += "; check the store's api_key"
    # A proxy says 413, the server itself 400, and only its text says why.
    too_large = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (
        status == HTTPStatus.BAD_REQUEST and any(text in answer for text in _TOO_LARGE)
    )
    if too_large:
        message += "; lower the store's max_request_mb, or raise the limit of the server or the proxy before it"
    every_document = status not in _ABOUT_CONTENT
    return StoreRejected(message, service=SERVICE, status=status, every_document=every_document, too_large=too_large)


def too_large_alone(action: str, error: StoreRejected, size: int) -> StoreRejected:
    """The refusal of a request that has one document, of `size` bytes: there is no smaller one to send."""
    return StoreRejected(
        f"{action}: this document alone takes {size / 1e6:,.2f} MB, more than the server or the proxy before it takes "
        f"({error.fields['status']}): raise that limit (Qdrant's service.max_request_size_mb), or name fewer fields in "
        "the payload; max_request_mb only divides requests of several documents",
        service=SERVICE,
        status=error.fields["status"],
        every_document=False,
        too_large=True,
    )


def _rate_limited(action: str, wait: float | None) -> StoreRateLimited:
    return StoreRateLimited(
        f"{action}: Qdrant answered 429 Too Many Requests", service=SERVICE, status=429, retry_after_s=wait
    )


def _of_failure(action: str, source: Exception) -> VecsyncError:
    name = type(source).__name__
    if isinstance(source, httpx.TimeoutException):
        return StoreTimeout(f"{action}: Qdrant did not answer in time ({name})", service=SERVICE)
    if isinstance(source, httpx.TransportError):
        return StoreUnavailable(f"{action}: no connection to Qdrant ({name})", service=SERVICE)
    return StoreUnavailable(f"{action}: Qdrant's answer cannot be understood ({name})", service=SERVICE)


def _harmless(source: Exception) -> Exception | None:
    """The cause to show: transport errors speak of hosts and sockets, all others may quote the answer."""
    return source if isinstance(source, httpx.TransportError) else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None where it holds neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
