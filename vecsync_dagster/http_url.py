"""A server's HTTP URL, checked before a client gets it, which might quote it where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from vecsync_dagster.errors import ConfigError

__all__ = ["DEFAULT_PORTS", "split_http_url"]

DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}


def split_http_url(url: str, *, key: str, example: str, login: bool = True) -> SplitResult:
    """Its parts. Raises ConfigError that repeats nothing of it: it may hold a password. `login`: whether the client
    sends a user and a password of the URL. A part that it would leave out is refused: whoever wrote a key there would
    look for the fault elsewhere.

    An @ behind the host means a /, ? or # in a password that nobody encoded: the "host" would be the user.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.path + parts.query + parts.fragment:
        raise ConfigError(
            f"{key}: not a server's URL; write one like {example}, with special characters of user and password "
            "percent-encoded",
            key=key,
        )
    unsent = {
        "a query (behind ?)": parts.query,
        "a fragment (behind #)": parts.fragment,
        "a user or password (before @)": not login and parts.netloc.rpartition("@")[0],
    }
    for part, there in unsent.items():
        if there:
            raise ConfigError(
                f"{key}: the URL has {part}, which is not sent to the server; remove it, a key belongs in api_key",
                key=key,
            )
    return parts
