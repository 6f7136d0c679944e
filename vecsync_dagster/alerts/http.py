"""One POST of a message; what can go wrong with it as our errors, without the URL, which may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx

from vecsync_dagster.errors import AlertRefused, AlertUnsent
from vecsync_dagster.request_logs import urls_unlogged

__all__ = ["post"]

_LATER: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def post(channel: str, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    """Send `body`. Raises AlertUnsent where another attempt may help, else AlertRefused."""
    if "#" in url:
        raise AlertRefused(f"alerts.{channel}: the URL has a part behind #, which is never sent", channel=channel)
    try:
        with urls_unlogged(), httpx.Client(timeout=timeout_s) as client:
            status, wait = _status(client, url, body, headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise AlertRefused(f"alerts.{channel}: invalid URL", channel=channel) from None
    except httpx.HTTPError as error:
        raise AlertUnsent(f"alerts.{channel}: no answer ({type(error).__name__})", channel=channel) from None
    if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise AlertUnsent(f"alerts.{channel}: the server answered {status}", channel=channel, retry_after_s=wait)
    if not HTTPStatus(200) <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise AlertRefused(f"alerts.{channel}: the server answered {status}", channel=channel, status=status)


def _status(client: httpx.Client, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, float | None]:
    # The answer's body is not read: nothing in it matters, and it may be of any size.
    with client.stream("POST", url, content=body, headers={"Content-Type": "application/json", **headers}) as answer:
        wait = answer.headers.get("Retry-After", "")
        return answer.status_code, float(wait) if wait.isdecimal() else None
