"""The table of an entity as the database has it, and what to say where the configuration does not fit it."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnClause, Connection, Inspector, TableClause, column, inspect, table
from sqlalchemy.exc import SAWarning
from sqlalchemy.types import INTEGER, NullType, TypeEngine

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources.sql_dialect import Dialect
from vecsync_dagster.sources.sql_keys import has_own_text
from vecsync_dagster.sources.sql_types import Column, Kind

__all__ = ["Reflected", "locate", "reflect", "require_columns"]

_LISTED = 25


@dataclass(frozen=True, slots=True)
class Reflected:
    """A table or view. `columns` are those of a record, the id first; `kinds` has every column the entity uses,
    `declared` their types, as `Dialect.declared` has them. `key`: the columns that tell the rows apart.
    `primary`: those of the table's own primary key, if it has one that holds for all rows; `enforced`: the table itself
    sees to it that no two rows have the same key."""

    table: TableClause
    columns: tuple[Column, ...]
    kinds: dict[str, Kind]
    declared: dict[str, str]
    declared_id: str
    width: int
    key: tuple[str, ...]
    primary: tuple[str, ...]
    enforced: bool

    def __getitem__(self, name: str) -> ColumnClause[Any]:
        return self.table.c[name]

    @property
    def plain_key(self) -> bool:
        """Whether the key's text is that of the record's first column."""
        return len(self.key) == 1 and not has_own_text(self.kinds[self.key[0]])

    @property
    def key_columns(self) -> list[tuple[ColumnClause[Any], Kind]]:
        return [(self[name], self.kinds[name]) for name in self.key]


def reflect(connection: Connection, dialect: Dialect, entity: EntityConfig, entity_name: str) -> Reflected:
    """Look the entity's table up. Raises SourceRejected where the table or a column of it is missing."""
    inspector = inspect(connection)
    name, schema = locate(inspector, entity.table, f"entities.{entity_name}.table")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # "did not recognize type": such a column is read as text
        types: dict[str, TypeEngine[Any]] = {c["name"]: c["type"] for c in inspector.get_columns(name, schema)}
    used = _used(entity)
    for key, wanted in used:
        require_columns(entity.table, list(types), {f"entities.{entity_name}.{key}": wanted})
    names = tuple(dict.fromkeys(wanted for _, wanted in used))
    declared = dialect.declared(connection, name, schema)
    kinds = {wanted: dialect.kind(types[wanted], declared.get(wanted, "")) for wanted in names}
    folding = dialect.folding(connection, name, schema)
    kinds |= {wanted: Kind.FOLDED for wanted, kind in kinds.items() if kind is Kind.TEXT and wanted in folding}
    for key in ("updated_at", "deleted_at"):
        dated: str | None = getattr(entity, key)
        if dated is not None and not dialect.can_date(kinds[dated]):
            raise SourceRejected(
                f"entities.{entity_name}.{key}: column {dated!r} of table {entity.table} is {types[dated]!r}; "
                "it must be a timestamp or a date",
                entity=entity_name,
                column=dated,
            )
    for one in (*entity.key, *(() if entity.tenancy is None else (entity.tenancy.column,))):
        if not dialect.steady(connection, declared.get(one, ""), kinds[one]):
            raise SourceRejected(
                f"entities.{entity_name}: column {one!r} of table {entity.table} is {declared.get(one)}, whose text "
                "depends on the session: it can be no key",
                entity=entity_name,
                column=one,
            )
    for one in entity.key:
        if not dialect.orderable(connection, declared.get(one, ""), kinds[one]):
            raise SourceRejected(
                f"entities.{entity_name}.id: column {one!r} of table {entity.table} is {declared.get(one)}, whose "
                "values have no order: it can be no key",
                entity=entity_name,
                column=one,
                key=f"entities.{entity_name}.id",
            )
    if entity.tenancy is not None and kinds[entity.tenancy.column].array:
        raise SourceRejected(
            f"entities.{entity_name}.tenancy.column: column {entity.tenancy.column!r} of table {entity.table} is "
            f"{declared.get(entity.tenancy.column)}; a record belongs to one tenant",
            entity=entity_name,
            column=entity.tenancy.column,
        )
    if entity.filter:
        limited = dialect.limited(connection, name, schema)
        _check_filter(connection, dialect, entity, entity_name, kinds, declared, limited)
    constrained = dialect.constrained(connection, name, schema)
    primary = tuple(inspector.get_pk_constraint(name, schema)["constrained_columns"]) if constrained else ()
    return Reflected(
        table=table(name, *(column(wanted) for wanted in names), schema=schema),
        columns=tuple(
            Column(wanted, kinds[wanted], identity=entity.key == (wanted,) and not has_own_text(kinds[wanted]))
            for wanted in names
        ),
        kinds=kinds,
        declared=declared,
        declared_id=", ".join(f"{one} {_declared(types[one])}" for one in entity.key),
        width=len(types),
        key=entity.key,
        primary=primary,
        enforced=constrained and _is_unique(inspector, name, schema, entity.key, primary),
    )


def _declared(kind: TypeEngine[Any]) -> str:
    return "without a type" if isinstance(kind, NullType) else repr(kind).partition("(")[0].lower()


def _is_within(columns: Sequence[str | None], key: Sequence[str]) -> bool:
    return bool(columns) and set(columns) <= set(key)


def _unique(
    inspector: Inspector, name: str, schema: str | None, primary: Sequence[str]
) -> Iterator[Sequence[str | None]]:
    """Columns that no two rows have in common, unless one is null; the database is asked only if the first will not
    do."""
    yield primary
    for one in inspector.get_unique_constraints(name, schema):
        yield one["column_names"]
    for index in inspector.get_indexes(name, schema):
        if index["unique"] and not any(option.endswith("_where") for option in index.get("dialect_options", {})):
            yield index["column_names"]


def _is_unique(inspector: Inspector, name: str, schema: str | None, key: Sequence[str], primary: Sequence[str]) -> bool:
    """Whether no two rows have the same in some columns of the key, none of which is ever null: by a constraint, or by
    an index over all rows. Alone a null is no usable key; beside other columns it is a part of one."""
    found = (columns for columns in _unique(inspector, name, schema, primary) if _is_within(columns, key))
    if len(key) == 1:
        return any(True for _ in found)
    # SQLite lets even a primary key be null, unless it is the row's number.
    number = primary[0] if len(primary) == 1 else None
    nullable = {
        one["name"]
        for one in inspector.get_columns(name, schema)
        if one["nullable"] and not (one["name"] == number and isinstance(one["type"], INTEGER))
    }
    return any(nullable.isdisjoint(columns) for columns in found)


def _check_filter(
    connection: Connection,
    dialect: Dialect,
    entity: EntityConfig,
    entity_name: str,
    kinds: Mapping[str, Kind],
    declared: Mapping[str, str],
    limited: Mapping[str, str],
) -> None:
    """Raises SourceRejected for a value that a column of its type never has, and a type whose values nothing equals."""
    for name, values in entity.filter.items():
        kind, written, key = kinds[name], declared.get(name, ""), f"entities.{entity_name}.filter.{name}"
        texts = [text for text in values if text is not None]
        full = limited.get(name, written)
        for text in texts:
            if not dialect.readable(connection, written, full, kind, text):
                raise SourceRejected(
                    f"{key}: {text!r} is not a value of a column of type {full}", entity=entity_name, key=key
                )
        if not dialect.comparable(connection, written, kind, texts):
            raise SourceRejected(
                f"{key}: column {name!r} of table {entity.table} is {written}, whose values cannot be compared: it can "
                "be no filter",
                entity=entity_name,
                key=key,
            )


def _used(entity: EntityConfig) -> list[tuple[str, str]]:
    """The columns the configuration speaks of, each with its key; the id first."""
    used = [("id", name) for name in entity.key]
    if entity.tenancy is not None:
        used.append(("tenancy.column", entity.tenancy.column))
        if entity.tenancy.global_flag is not None:
            used.append(("tenancy.global_flag", entity.tenancy.global_flag))
    used += [(key, name) for key in ("updated_at", "deleted_at") if (name := getattr(entity, key)) is not None]
    used += [(f"filter.{name}", name) for name in entity.filter]
    keys = len(entity.key)
    return used[:keys] + list(_fields(entity)) + used[keys:]


def _fields(entity: EntityConfig) -> Iterator[tuple[str, str]]:
    yield from (("required", name) for name in entity.required)
    yield from ((f"types.{name}", name) for name in entity.types)
    for collection, config in entity.collections.items():
        yield from ((f"collections.{collection}.text", name) for name in config.text_fields)
        yield from ((f"collections.{collection}.payload", name) for name in config.payload)


def locate(inspector: Inspector, wanted: str, key: str) -> tuple[str, str | None]:
    """Name and schema of a table; a name with a dot is tried as it stands first. Raises SourceRejected that names the
    setting, `key`."""
    schema, _, name = wanted.partition(".")
    candidates: list[tuple[str, str | None]] = [(wanted, None), *([(name, schema)] if name else [])]
    for one, place in candidates:
        if (place is None or place in inspector.get_schema_names()) and inspector.has_table(one, place):
            return one, place
    within = schema if name and schema in inspector.get_schema_names() else None
    there = _relations(inspector, within)
    if not there and within is None:
        # All of them may be in schemas that are not searched.
        there = [f"{place}.{one}" for place in _own_schemas(inspector) for one in _relations(inspector, place)]
    raise SourceRejected(
        f"{key}: there is no table or view {wanted!r}"
        f"{_instead(candidates[-1][0], there)}; there are{f' in schema {within}' if within else ''}: {_listed(there)}",
        key=key,
        table=wanted,
    )


def _relations(inspector: Inspector, schema: str | None) -> list[str]:
    return sorted([*inspector.get_table_names(schema), *inspector.get_view_names(schema)])


def _own_schemas(inspector: Inspector) -> list[str]:
    return sorted(name for name in inspector.get_schema_names() if not name.startswith(("pg_", "information_schema")))


def require_columns(table: str, there: Sequence[str], wanted: Mapping[str, str]) -> None:
    """`wanted`: setting -> column. Raises SourceRejected that names the first setting whose column is not there."""
    for key, name in wanted.items():
        if name not in there:
            raise SourceRejected(
                f"{key}: table {table} has no column {name!r}{_instead(name, there)}; it has: {_listed(there)}",
                table=table,
                column=name,
                key=key,
            )


def _instead(wanted: str, there: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in there}
    close = [by_lower[name] for name in difflib.get_close_matches(wanted.lower(), by_lower, n=3)]
    return f", did you mean {' or '.join(close)}?" if close else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more
