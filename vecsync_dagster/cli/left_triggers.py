"""Which of vecsync's triggers are of no use: left without an entity on their table, or on its table and disabled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vecsync_dagster.config.models import PostgresSource
from vecsync_dagster.errors import VecsyncError

if TYPE_CHECKING:
    from psycopg import sql

    from vecsync_dagster.sources.postgres_left import LeftTriggers
    from vecsync_dagster.sync import Workspace

__all__ = ["find_left", "find_triggers"]


def find_left(workspace: Workspace, only: str | None = None) -> Iterator[tuple[str, PostgresSource, LeftTriggers]]:
    """With the source in whose database they are; `only`: those of this entity. Raises Source* errors."""
    from vecsync_dagster.sources.postgres_left import left_triggers
    from vecsync_dagster.sources.sql_postgres import Postgres

    config = workspace.config
    databases: dict[str, tuple[str, PostgresSource]] = {}
    entities: dict[str, dict[str, sql.Identifier | None]] = {}
    for name, source in config.sources.items():
        fed = [entity for entity in config.entities if config.entities[entity].source == name]
        # Of a source that nothing is read from, the URL need not be set.
        if not isinstance(source, PostgresSource) or (not fed and source.url.get() is None):
            continue
        database = Postgres(source, name=name).place
        databases.setdefault(database, (name, source))
        wanted = entities.setdefault(database, {})
        wanted |= {entity: _table(workspace, entity) for entity in fed if only in (None, entity)}
    for database, (name, source) in databases.items():
        url = Postgres(source, name=name).conninfo()
        for left in left_triggers(url, entities[database], f"source {name}: its triggers"):
            if only in (None, left.entity):
                yield name, source, left


def find_triggers(workspace: Workspace) -> dict[str, bool]:
    """Entities with triggers on their own tables, and whether these tell of every change. Raises Source* errors."""
    from vecsync_dagster.sources.postgres_notify import with_triggers
    from vecsync_dagster.sources.sql_postgres import Postgres

    found: dict[str, bool] = {}
    for name, source in workspace.config.sources.items():
        tables = {one: entity.table for one, entity in workspace.config.entities.items() if entity.source == name}
        if tables and isinstance(source, PostgresSource):
            url = Postgres(source, name=name).conninfo()
            found |= with_triggers(url, tables, f"source {name}: its triggers")
    return found


def _table(workspace: Workspace, entity: str) -> sql.Identifier | None:
    from psycopg import sql

    from vecsync_dagster.sources import SqlSource

    try:
        source = workspace.source(entity)
        assert isinstance(source, SqlSource)  # noqa: S101 (a PostgreSQL source is one)
        schema, table = source.place
    except VecsyncError:
        return None
    return sql.Identifier(table) if schema is None else sql.Identifier(schema, table)
