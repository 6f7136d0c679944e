"""Where records come from: the protocol (`base.py`), its implementations, and which one a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vecsync_dagster.config.models import EntityConfig, PostgresSource, SourceConfig
from vecsync_dagster.sources.base import Cursor, Fingerprint, Fingerprinting, Page, Read, Source
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster.sources.sql_sqlite import Sqlite

__all__ = [
    "Cursor",
    "Fingerprint",
    "Fingerprinting",
    "Page",
    "Read",
    "Source",
    "SqlSource",
    "build_source",
]


def build_source(
    config: SourceConfig, entity: EntityConfig, *, name: str, entity_name: str, path_of: Callable[[str], Path]
) -> SqlSource:
    """The source of one entity. `path_of` makes a configured path absolute (`Config.path`).

    Opens nothing: errors of URL, environment, file, table and columns come with the first use.
    """
    dialect = (
        Postgres(config, name=name) if isinstance(config, PostgresSource) else Sqlite(path_of(config.path), name=name)
    )
    return SqlSource(dialect, entity, name=name, entity_name=entity_name)
