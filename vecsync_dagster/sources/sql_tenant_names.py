"""The statement for the names of tenants: of a column of the entity's own table, or of a table of names."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Inspector, Select, column, func, inspect, select, table
from sqlalchemy.exc import SAWarning

from vecsync_dagster.config.entities import NameTable, Tenancy
from vecsync_dagster.sources.sql_queries import Queries
from vecsync_dagster.sources.sql_reflection import locate, require_columns
from vecsync_dagster.sources.tenant_names import FEW, READ

__all__ = ["names_statement"]


def names_statement(
    connection: Connection,
    queries: Queries,
    tenancy: Tenancy,
    name: str | NameTable,
    tenants: Collection[str],
    key: str,
) -> Select[Any]:
    """Rows of a tenant's key and a name, of these tenants among others. `key`: of the setting, for messages. Raises
    SourceRejected where the table or a column is missing: SQLite would take its name for a text."""
    inspector = inspect(connection)
    if isinstance(name, str):
        own = queries.reflected.table
        _require(inspector, own.name, own.schema, queries.entity.table, {key: name})
        return _own(queries, tenancy, name, tenants)
    place, schema = locate(inspector, name.table, f"{key}.table")
    _require(inspector, place, schema, name.table, {f"{key}.id": name.id, f"{key}.column": name.column})
    found = select(queries.dialect.text(column(name.id)), _start(queries, name.column))
    both = (column(name.id).is_not(None), column(name.column).is_not(None))
    return found.select_from(table(place, schema=schema)).where(*both)


def _require(inspector: Inspector, name: str, schema: str | None, shown: str, columns: Mapping[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # "did not recognize type": nobody asks for the type
        require_columns(shown, [one["name"] for one in inspector.get_columns(name, schema)], columns)


def _own(queries: Queries, tenancy: Tenancy, name: str, tenants: Collection[str]) -> Select[Any]:
    """One row a tenant: the column may say something else in each of its rows. A few tenants' rows are looked up; for
    more, the whole table is read."""
    tenant = queries.dialect.text(queries.reflected[tenancy.column]).label("vecsync_owner")
    found = select(tenant, func.max(_start(queries, name))).select_from(queries.reflected.table)
    if len(tenants) <= FEW:
        found = found.where(queries.among_tenants(tenancy, sorted(tenants)))
    # By the label, as PostgreSQL takes no two equal expressions with parameters for the same.
    return found.where(*queries.of_tenants(tenancy), column(name).is_not(None)).group_by(tenant.name)


def _start(queries: Queries, name: str) -> Any:
    return func.substr(queries.dialect.text(column(name)), 1, READ)
