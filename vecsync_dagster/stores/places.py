"""Where the points of a store lie, so that a collection that goes to another place, or comes back, is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vecsync_dagster.http_url import DEFAULT_PORTS, split_http_url

if TYPE_CHECKING:
    from vecsync_dagster.config.models import StoreConfig

__all__ = ["place_of"]


def place_of(
    config: StoreConfig, *, key: str, path_of: Callable[[str], Path], ledger_folder: Path | None = None
) -> str:
    """A hash that is the same for every spelling of one place: the folder, or host, port and path of the server, with
    the prefix of the collections. The API key is not in it. `ledger_folder`: of a ledger that is a file; a folder is
    where it is seen from there, so that both can be moved, or copied, together.

    Raises ConfigError, as `build_store` does.
    """
    if config.path is None:
        where = _server(config, key)
    else:
        folder = path_of(config.path)
        near = folder if ledger_folder is None else os.path.relpath(folder, ledger_folder.resolve())
        where = b"folder " + os.fsencode(near)
    return hashlib.sha256(where + b"\n" + config.prefix.encode()).hexdigest()[:16]


def _server(config: StoreConfig, key: str) -> bytes:
    """The scheme is left out: a server that gets a certificate stays where it is."""
    from vecsync_dagster.config.models import resolve

    url = resolve(config.url or "", f"{key}.url")
    parts = split_http_url(url, key=f"{key}.url", example="http://localhost:6333", login=False)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return f"server {parts.hostname}:{port}/{parts.path.strip('/')}".encode()
