"""Triggers of ours that nobody needs any more: of an entity that left vecsync.yaml, or is on another table now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from vecsync_dagster.sources.postgres_notify import connected

__all__ = ["LeftTriggers", "left_triggers"]

# Functions like ours by name and by what they do, with the entity that they speak of and the tables they are on.
_FUNCTIONS = r"""
SELECT n.nspname, p.proname, substring(p.prosrc FROM '''entity'', ''(\w+)'''),
  array_agg(DISTINCT t.tgrelid::bigint) FILTER (WHERE t.oid IS NOT NULL),
  array_agg(DISTINCT t.tgrelid::regclass::text) FILTER (WHERE t.oid IS NOT NULL)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
WHERE p.prorettype = 'trigger'::regtype AND p.proname LIKE 'vecsync\_%\_notify'
  AND p.prosrc LIKE '%pg_notify(''vecsync_changes''%'
GROUP BY p.oid, n.nspname, p.proname, p.prosrc ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True)
class LeftTriggers:
    """`tables`: those that they are on, as the database writes them."""

    entity: str
    tables: tuple[str, ...]
    function: sql.Identifier

    @property
    def drop(self) -> sql.Composed:
        return sql.SQL("DROP FUNCTION IF EXISTS {}() CASCADE").format(self.function)


def left_triggers(url: str, wanted: Mapping[str, sql.Identifier | None], place: str) -> list[LeftTriggers]:
    """Triggers in this database that are on no table where they are `wanted`, by entity; None: it is not known where
    that entity is, and nothing is said of it. Raises Source* errors."""
    with connected(url, place) as connection:
        tables = {
            entity: connection.execute("SELECT to_regclass(%s)::oid::bigint", [table.as_string()]).fetchone()
            for entity, table in wanted.items()
            if table is not None
        }
        found = connection.execute(_FUNCTIONS.encode()).fetchall()
    return [
        LeftTriggers(entity, tuple(names or ()), sql.Identifier(schema, function))
        for schema, function, entity, oids, names in found
        if entity is not None
        and not (entity in wanted and wanted[entity] is None)
        and (tables.get(entity) or (None,))[0] not in (oids or ())
    ]
