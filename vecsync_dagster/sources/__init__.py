"""Where records come from: the protocol (`base.py`), its implementations, and which one a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

from vecsync_dagster.config.models import EntityConfig, MongoSource, PostgresSource, SourceConfig, SqliteSource
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.sources.base import Cursor, Filtered, Fingerprint, Fingerprinting, Page, Read, Source
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster.sources.sql_sqlite import Sqlite
from vecsync_dagster.sources.waking import Waker

__all__ = [
    "Cursor",
    "Filtered",
    "Fingerprint",
    "Fingerprinting",
    "Page",
    "Read",
    "Source",
    "SqlSource",
    "build_source",
    "stream_waker",
]


@overload
def build_source(
    config: PostgresSource | SqliteSource,
    entity: EntityConfig,
    *,
    name: str,
    entity_name: str,
    path_of: Callable[[str], Path],
) -> SqlSource: ...
@overload
def build_source(
    config: SourceConfig, entity: EntityConfig, *, name: str, entity_name: str, path_of: Callable[[str], Path]
) -> Source: ...
def build_source(
    config: SourceConfig, entity: EntityConfig, *, name: str, entity_name: str, path_of: Callable[[str], Path]
) -> Source:
    """The source of one entity. `path_of` makes a configured path absolute (`Config.path`).

    Opens nothing: errors of URL, environment, file, table and columns come with the first use. Raises ConfigError
    where the package that the source needs is not installed.
    """
    if isinstance(config, MongoSource):
        return _mongo(config, entity, name=name, entity_name=entity_name)
    dialect = (
        Postgres(config, name=name) if isinstance(config, PostgresSource) else Sqlite(path_of(config.path), name=name)
    )
    return SqlSource(dialect, entity, name=name, entity_name=entity_name)


def stream_waker(config: MongoSource, entity: EntityConfig, *, name: str, entity_name: str) -> Waker:
    """What listens to the change stream of one entity. Raises ConfigError where pymongo is not installed."""
    with _needs_pymongo(name):
        from vecsync_dagster.sources.mongo_waking import StreamWaker
    return StreamWaker(config, entity, name=name, entity_name=entity_name)


def _mongo(config: MongoSource, entity: EntityConfig, *, name: str, entity_name: str) -> Source:
    with _needs_pymongo(name):
        from vecsync_dagster.sources.mongo import MongoDbSource
    return MongoDbSource(config, entity, name=name, entity_name=entity_name)


@contextmanager
def _needs_pymongo(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pymongo", "bson"):
            raise
        raise ConfigError(
            f"sources.{name}: MongoDB needs the package pymongo; install vecsync-dagster[mongo]", source=name
        ) from None
