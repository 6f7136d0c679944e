"""Which sources of a configuration can tell of changes by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vecsync_dagster.config.models import Config, MongoSource, PostgresSource
from vecsync_dagster.errors import SourceUnavailable
from vecsync_dagster.sources import stream_waker
from vecsync_dagster.sources.postgres_notify import NotifyWaker, with_triggers
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster.sources.waking import Waker

__all__ = ["told_by", "wakers_of"]


def wakers_of(config: Config, entities: Sequence[str]) -> list[Waker]:
    """One for each PostgreSQL source, and one for each entity of a MongoDB source. Raises ConfigError where a URL is
    not set."""
    found: list[Waker] = []
    for name, source in config.sources.items():
        fed = [entity for entity in entities if config.entities[entity].source == name]
        if fed and isinstance(source, PostgresSource):
            tables = {entity: config.entities[entity].table for entity in fed}
            found.append(NotifyWaker(Postgres(source, name=name).conninfo(), name, tables))
        elif isinstance(source, MongoSource) and source.change_stream != "never":
            found += [stream_waker(source, config.entities[entity], name=name, entity_name=entity) for entity in fed]
    return found


def told_by(config: Config) -> Iterator[str]:
    """Entities of whose changes somebody tells: by triggers that are installed, or by change streams. One whose source
    is not there yet may be among them. Raises ConfigError and SourceRejected."""
    for name, source in config.sources.items():
        fed = [entity for entity in config.entities if config.entities[entity].source == name]
        if fed and isinstance(source, PostgresSource):
            try:
                tables = {entity: config.entities[entity].table for entity in fed}
                told = with_triggers(Postgres(source, name=name).conninfo(), tables, f"source {name}")
                yield from (entity for entity in fed if told.get(entity))
            except SourceUnavailable:
                yield from fed
        elif isinstance(source, MongoSource) and source.change_stream != "never":
            yield from fed
