"""Vector stores: `build_store` makes one from its configuration.

The engines are imported where they are built, so that the one that is not used costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vecsync_dagster.errors import ConfigError
from vecsync_dagster.http_url import DEFAULT_PORTS, split_http_url
from vecsync_dagster.stores.base import GLOBAL, RESERVED_KEYS, Hit, Point, StoredPoint, VectorStore

if TYPE_CHECKING:
    from vecsync_dagster.config.models import StoreConfig

__all__ = ["GLOBAL", "RESERVED_KEYS", "Hit", "Point", "StoredPoint", "VectorStore", "build_store"]


def build_store(config: StoreConfig, *, key: str, path_of: Callable[[str], Path]) -> VectorStore:
    """The store that `config` describes; nothing is opened or called before its first use.

    `key` is where it stands in the configuration (`stores.main`), `path_of` gives a relative path its folder.
    Raises ConfigError, naming the key, for a variable that is not set or a URL that is none.
    """
    if config.path is None:
        return _server(config, key)
    from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore

    return QdrantEmbeddedStore(
        path_of(config.path),
        config.prefix,
        config.lock_timeout_s,
        max_request_bytes=config.max_request_bytes,
    )


def _server(config: StoreConfig, key: str) -> VectorStore:
    from vecsync_dagster.config.models import resolve
    from vecsync_dagster.stores.qdrant_server import QdrantServerStore

    return QdrantServerStore(
        _address(resolve(config.url or "", f"{key}.url"), f"{key}.url"),
        api_key=None if config.api_key is None else _sendable(resolve(config.api_key, f"{key}.api_key"), config, key),
        prefix=config.prefix,
        timeout_s=config.timeout_s,
        attempts=config.attempts,
        max_request_bytes=config.max_request_bytes,
    )


def _sendable(secret: str, config: StoreConfig, key: str) -> str:
    """Raises ConfigError where no HTTP header could hold it: the client would name neither."""
    if config.api_key is None or secret.isascii():
        return secret
    variable = config.api_key.env
    key = f"{key}.api_key"
    raise ConfigError(f"{key}: the environment variable {variable} does not hold a key", key=key, env=variable)


def _address(url: str, key: str) -> str:
    """The URL with its port, that of http or https where it has none: the client would take 6333."""
    parts = split_http_url(url, key=key, example="http://localhost:6333", login=False)
    if parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{DEFAULT_PORTS[parts.scheme]}")
    return parts.geturl()
