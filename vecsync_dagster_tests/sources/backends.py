"""Real databases that the tests of sources write to, and sources that read them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine

from vecsync_dagster.config.models import EntityConfig, PostgresSource, SqliteSource
from vecsync_dagster.identity import KEY_TEXT
from vecsync_dagster.sources import Page, Read, Source, SqlSource, build_source

__all__ = ["Backend", "SqlBackend", "entity_config", "id_of", "ids", "keys", "read", "time", "told", "values"]


def time(minute: int, *, day: int = 1) -> str:
    """A time in the past, as both databases understand it."""
    return f"2024-05-{day:02} {10 + minute // 60:02}:{minute % 60:02}:00+00:00"


def entity_config(**changes: Any) -> EntityConfig:
    """The entity that the contract is about: everything a source can have, and no overlap."""
    settings: dict[str, Any] = {
        "source": "db",
        "table": "materials",
        "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
        "updated_at": "updated_at",
        "deleted_at": "deleted_at",
        "overlap": 0,
        "collections": {"materials": {"text": "{name} {unit}", "payload": ["price"]}},
    }
    return EntityConfig.model_validate({**settings, **changes})


class Backend(Protocol):
    """What the contract needs of a database: a table `materials` with the columns id, name, unit, price,
    tenant_id, is_global, updated_at and deleted_at."""

    def create(self, *, id_type: str = "integer") -> None:
        """`id_type`: integer, text or uuid."""
        ...

    def put(self, *rows: Mapping[str, Any]) -> None:
        """Insert rows; missing fields are null, but the flag: false."""
        ...

    def change(self, document: Any, **fields: Any) -> None: ...

    def drop(self, document: Any) -> None: ...

    def source(self, **entity: Any) -> Source:
        """A source of the entity with these changes to `entity_config`; closed after the test."""
        ...


@dataclass
class SqlBackend:
    """`placeholder` is the driver's own: values go in as the driver sends them, without a type."""

    engine: Engine
    config: PostgresSource | SqliteSource
    folder: Path
    placeholder: str
    types: Mapping[str, str] = field(default_factory=dict)
    opened: list[SqlSource] = field(default_factory=list)

    def create(self, *, id_type: str = "integer", **types: str) -> None:
        columns = {
            "id": id_type,
            "name": "text",
            "unit": "text",
            "price": "numeric",
            "tenant_id": "text",
            "is_global": "boolean",
            "updated_at": self.types.get("time", "timestamptz"),
            "deleted_at": self.types.get("time", "timestamptz"),
            **types,
        }
        self.run(f"CREATE TABLE materials ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")

    def run(self, statement: str, *values: Any) -> None:
        with self.engine.begin() as connection:
            # Without values a percent sign is one, and not the beginning of a placeholder.
            connection.exec_driver_sql(statement, values, execution_options={"no_parameters": not values})

    def put(self, *rows: Mapping[str, Any]) -> None:
        with self.engine.begin() as connection:
            for row in rows:
                filled = {"is_global": False, **row}
                marks = ", ".join([self.placeholder] * len(filled))
                statement = f"INSERT INTO materials ({', '.join(filled)}) VALUES ({marks})"
                connection.exec_driver_sql(statement, tuple(filled.values()))

    def change(self, document: Any, **fields: Any) -> None:
        assignments = ", ".join(f"{name} = {self.placeholder}" for name in fields)
        self.run(f"UPDATE materials SET {assignments} WHERE id = {self.placeholder}", *fields.values(), document)

    def drop(self, document: Any) -> None:
        self.run(f"DELETE FROM materials WHERE id = {self.placeholder}", document)

    def source(self, **entity: Any) -> SqlSource:
        path_of: Callable[[str], Path] = self.folder.joinpath
        source = build_source(self.config, entity_config(**entity), name="db", entity_name="materials", path_of=path_of)
        self.opened.append(source)
        return source

    def close(self) -> None:
        for source in self.opened:
            source.close()
        self.engine.dispose()


def read(source: Source, tenant: str = "a", page: int = 500, **what: Any) -> list[Page]:
    return list(source.read(Read(tenant, **what), page))


def values(pages: list[Page], name: str) -> list[Any]:
    """The values of one column over all pages."""
    return [value for page in pages for value in page.records.column(name).to_pylist()]


def ids(pages: list[Page]) -> list[str]:
    """The ids, as the documents stage makes text of them."""
    return [str(value) for page in pages for value in values([page], id_of(page))]


def keys(pages: list[Page]) -> list[str]:
    """The texts of keys that are of several columns."""
    return [str(value) for value in values(pages, KEY_TEXT)]


def id_of(page: Page) -> str:
    """The column that is the id: MongoDB's own key, or `id`."""
    return "_id" if "_id" in page.records.schema.names else "id"


def told(error: BaseException) -> str:
    """All that a log shows of an error, its causes among them."""
    return "".join(traceback.format_exception(error))
