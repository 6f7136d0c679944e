"""A server's HTTP URL, checked before a client gets it, which might quote it where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from vecsync_dagster.errors import ConfigError

__all__ = ["DEFAULT_PORTS", "split_http_url"]

DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}


def split_http_url(url: str, *, key: str, example: str) -> SplitResult:
    """Its parts. Raises ConfigError that repeats nothing of it: it may hold a password.

    An @ behind the host means a / or # in a password that nobody encoded: the "host" would be the user.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.path + parts.fragment:
        raise ConfigError(
            f"{key}: not a server's URL; write one like {example}, with special characters of user and password "
            "percent-encoded",
            key=key,
        )
    return parts
