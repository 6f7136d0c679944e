"""Which sources of a configuration can tell of changes by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from vecsync_dagster.config.models import Config, PostgresSource
from vecsync_dagster.sources.postgres_notify import NotifyWaker
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster.sources.waking import Waker

__all__ = ["wakers_of"]


def wakers_of(config: Config, entities: Sequence[str]) -> list[Waker]:
    """One for each source that feeds some of `entities` and can. Raises ConfigError where its URL is not set."""
    found: list[Waker] = []
    for name, source in config.sources.items():
        fed = [entity for entity in entities if config.entities[entity].source == name]
        if fed and isinstance(source, PostgresSource):
            found.append(NotifyWaker(Postgres(source, name=name).conninfo(), name, fed))
    return found
