"""The connection to a Qdrant server: opened at first use, and the one owner of retries."""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import stamina
from qdrant_client import QdrantClient, models

from vecsync_dagster.errors import StoreTimeout
from vecsync_dagster.request_logs import urls_unlogged
from vecsync_dagster.stores.qdrant_common import SERVICE
from vecsync_dagster.stores.qdrant_errors import LONGEST_WAIT_S, backoff, translated

__all__ = ["Connection"]

T = TypeVar("T")


@cache
def _trusted() -> ssl.SSLContext:
    """Reading all certificates takes 50 ms: once in a process."""
    return httpx.create_ssl_context()


class Connection:
    """A client for `url`, or the ready one it was given, which stays its owner's and is never closed here."""

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float, attempts: int, client: QdrantClient | None
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._given = client
        self._own: QdrantClient | None = None
        self._opening = threading.Lock()
        self._retrying = stamina.RetryingCaller(
            attempts=attempts, timeout=None, wait_initial=1.0, wait_max=LONGEST_WAIT_S, wait_jitter=1.0
        ).on(backoff)

    @property
    def address(self) -> str:
        """Scheme, host and port; any other part of the URL may hold a secret. Empty for a given client."""
        parts = urlsplit(self._url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port}" if host else ""

    def call(self, action: str, use: Callable[[QdrantClient], T]) -> T:
        """What `use` answers; transient errors are tried again. `action` begins the message of an error."""

        # Without arguments: stamina's log lines repeat those, and they hold documents.
        def attempt() -> T:
            return self.once(action, use)

        return self._retrying(attempt)

    def write(self, action: str, use: Callable[[QdrantClient], Sequence[models.UpdateResult]]) -> None:
        """A write counts when the server says that it is applied, not when it is only queued."""

        def attempt() -> None:
            for result in self.once(action, use):
                if result.status != models.UpdateStatus.COMPLETED:
                    raise StoreTimeout(f"{action}: only queued by the server ({result.status})", service=SERVICE)

        self._retrying(attempt)

    def once(self, action: str, use: Callable[[QdrantClient], T]) -> T:
        """A single attempt."""
        with translated(action), urls_unlogged():
            return use(self._client())

    def _client(self) -> QdrantClient:
        if self._given is not None:
            return self._given
        with self._opening:
            if self._own is None:
                self._own = QdrantClient(
                    url=self._url,
                    api_key=self._api_key,
                    timeout=math.ceil(self._timeout_s),
                    check_compatibility=False,  # a thread of its own that only warns; `check` tells the version
                    verify=_trusted(),
                )
            return self._own

    def close(self) -> None:
        with self._opening:
            client, self._own = self._own, None
        if client is not None:
            client.close()
