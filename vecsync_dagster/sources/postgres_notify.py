"""PostgreSQL tells by itself: triggers that NOTIFY which tenants a statement has touched, and who listens to them.

A trigger is of the statement, after it, and looks only at the tenant's column and the global flag of the rows that
were touched. Its message holds the entity's name and keys of tenants, nothing else; it is delivered on commit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import sql

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.postgres_session import LOOKS, assignments
from vecsync_dagster.sources.sql_postgres import postgres_error, take_any_bytes
from vecsync_dagster.sources.sql_queries import GLOBAL
from vecsync_dagster.sources.waking import Stop, Wake

__all__ = ["CHANNEL", "NotifyWaker", "connected", "execute", "install_statements", "remove_statements", "with_triggers"]

_log = logging.getLogger(__name__)
CHANNEL = "vecsync_changes"
_EVENTS = {
    "insert": sql.SQL("REFERENCING NEW TABLE AS vecsync_new"),
    "update": sql.SQL("REFERENCING OLD TABLE AS vecsync_old NEW TABLE AS vecsync_new"),
    "delete": sql.SQL("REFERENCING OLD TABLE AS vecsync_old"),
    "truncate": sql.SQL(""),
}
_LISTEN_S = 0.5
_LOOK_S = 60.0
# On the entity's own table alone, which is found as its records are: a name with a dot as it stands first.
_ON_TABLES = """
SELECT wanted.entity, count(*) FILTER (WHERE t.tgenabled IN ('O', 'A'))
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS wanted (entity, function, plain, within)
JOIN pg_trigger t ON t.tgrelid = coalesce(to_regclass(wanted.plain), to_regclass(wanted.within))
JOIN pg_proc p ON p.oid = t.tgfoid AND p.proname = wanted.function
GROUP BY wanted.entity"""
# A message has at most 8000 bytes: an error in it would be one of the statement that was only to be told of.
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql {looks} AS $vecsync$
DECLARE
  touched text[];
  message text;
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(DISTINCT {owner}) INTO touched FROM vecsync_new;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT array_agg(DISTINCT {owner}) INTO touched FROM vecsync_old;
  ELSIF TG_OP = 'UPDATE' THEN
    SELECT array_agg(DISTINCT owner) INTO touched FROM (
      SELECT {owner} AS owner FROM vecsync_new UNION SELECT {owner} FROM vecsync_old
    ) AS both_sides;
  END IF;
  IF touched IS NULL AND TG_OP <> 'TRUNCATE' THEN
    RETURN NULL;
  END IF;
  message := json_build_object('entity', {entity}, 'tenants', touched)::text;
  IF octet_length(message) > 7000 THEN
    message := json_build_object('entity', {entity}, 'tenants', NULL)::text;
  END IF;
  PERFORM pg_notify({channel}, message);
  RETURN NULL;
END
$vecsync$"""
_TRIGGER = "CREATE TRIGGER {trigger} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"


# A tenant's key is the text that the source's own queries see, whatever the settings of who changed the row are.
_LOOKS = sql.SQL(" ").join(assignments(LOOKS))


def install_statements(name: str, entity: EntityConfig, schema: str | None, table: str) -> list[sql.Composed]:
    """Function and triggers of one entity; what an earlier installation left is replaced."""
    function = _identifier(schema, _own_name(name))
    made = sql.SQL(_FUNCTION).format(
        function=function,
        looks=_LOOKS,
        owner=_owner(entity),
        entity=sql.Literal(name),
        channel=sql.Literal(CHANNEL),
    )
    triggers = [
        sql.SQL(_TRIGGER).format(
            trigger=sql.Identifier(_own_name(name, event)),
            event=sql.SQL(event.upper()),
            table=_identifier(schema, table),
            rows=rows,
            function=function,
        )
        for event, rows in _EVENTS.items()
    ]
    return [*remove_statements(name, schema, table), made, *triggers]


def remove_statements(name: str, schema: str | None, table: str) -> list[sql.Composed]:
    drop = sql.SQL("DROP TRIGGER IF EXISTS {trigger} ON {table}")
    triggers = [
        drop.format(trigger=sql.Identifier(_own_name(name, event)), table=_identifier(schema, table))
        for event in _EVENTS
    ]
    # With its triggers on a table that was the entity's before.
    function = sql.SQL("DROP FUNCTION IF EXISTS {}() CASCADE").format(_identifier(schema, _own_name(name)))
    return [*triggers, function]


def execute(url: str, statements: Sequence[sql.Composed], place: str) -> None:
    """All of them in one transaction, or none. Raises Source* errors that name `place`."""
    with connected(url, place) as connection, connection.transaction():
        connection.execute("SET LOCAL client_min_messages = warning")  # that there was nothing to drop is no news
        for statement in statements:
            connection.execute(statement)


class NotifyWaker:
    """Listens to one database for some of the entities it feeds. `tables`: theirs, as the configuration names them."""

    def __init__(self, url: str, name: str, tables: Mapping[str, str]) -> None:
        self.name = name
        self.hears: Collection[str] = ()
        self._url = url
        self._tables = tables
        self._entities = tuple(tables)
        self._silent: list[str] = []

    def run(self, wake: Wake, stop: Stop) -> None:
        with connected(self._url, f"source {self.name}") as connection:
            take_any_bytes(connection)
            self._silent = []
            self._look()
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            for entity in self._entities:
                wake(entity, None)  # what was told before somebody listened
            looked = time.monotonic()
            while not stop():
                if time.monotonic() > looked + _LOOK_S:
                    self._look()
                    looked = time.monotonic()
                for notice in connection.notifies(timeout=_LISTEN_S):
                    self._tell(_as_written(connection, notice.payload), wake)
                    if stop():
                        return

    def _look(self) -> None:
        """Whose triggers are there: a table may lose them at any time. Nobody would see otherwise that an entity is
        synced minutes later than others. Over a connection of its own, which loses no message."""
        told = with_triggers(self._url, self._tables, f"source {self.name}")
        self.hears = {entity for entity, whole in told.items() if whole}
        before, self._silent = self._silent, [entity for entity in self._entities if entity not in self.hears]
        if self._silent and self._silent != before:
            _log.warning(
                "source %s: no triggers for %s: looked at every automation.watch.poll; `vecsync install-triggers` adds "
                "them to tables, views cannot have them",
                self.name,
                ", ".join(self._silent),
            )

    def _tell(self, payload: str, wake: Wake) -> None:
        """Anybody may write to a channel: what is not one of our messages wakes everybody, and does no more."""
        try:
            message = json.loads(payload)
            entity, tenants = str(message["entity"]), message["tenants"]
        except (ValueError, TypeError, KeyError):
            for name in self._entities:
                wake(name, None)
            return
        if entity not in self._entities:
            return
        if not isinstance(tenants, list):
            wake(entity, None)
            return
        for tenant in tenants:
            if isinstance(tenant, str):
                wake(entity, tenant)


def with_triggers(url: str, tables: Mapping[str, str], place: str) -> dict[str, bool]:
    """Those of the entities with triggers of ours on their own tables (`tables`, as the configuration names them), and
    whether the database tells of every change: all of the triggers are there and enabled. Raises Source* errors."""
    functions = [_own_name(entity) for entity in tables]
    plain = [sql.Identifier(table).as_string() for table in tables.values()]
    within = [sql.Identifier(*table.split(".", 1)).as_string() for table in tables.values()]
    with connected(url, place) as connection:
        found = connection.execute(_ON_TABLES, [list(tables), functions, plain, within])
        return {entity: enabled >= len(_EVENTS) for entity, enabled in found}


def _as_written(connection: psycopg.Connection, payload: str) -> str:
    """Where any bytes are let through (`take_any_bytes`), the text that they are."""
    if connection.info.encoding != "iso8859-1":
        return payload
    return payload.encode("latin-1").decode("utf-8", "replace")


@contextmanager
def connected(url: str, place: str) -> Iterator[psycopg.Connection]:
    """Autocommitting. The driver's text may quote a row or a password: it is not repeated."""
    try:
        with psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=10,
            application_name="vecsync",
            client_encoding="utf8",
            # A peer that vanished is noticed after a minute, not after hours.
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise postgres_error(error, place) from None


def _owner(entity: EntityConfig) -> sql.Composed:
    """Whose a row is, as the source's own queries see it; null: nobody's."""
    if entity.tenancy is None:
        return sql.SQL("{}::text").format(sql.Literal(GLOBAL))
    # By its bytes, whatever the column's collation takes for equal.
    key = sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(entity.tenancy.column))
    if entity.tenancy.global_flag is None:
        return key
    return sql.SQL("CASE WHEN lower(trim({flag}::text)) IN ('1', 't', 'true') THEN {shared} ELSE {key} END").format(
        flag=sql.Identifier(entity.tenancy.global_flag), shared=sql.Literal(GLOBAL), key=key
    )


def _identifier(schema: str | None, name: str) -> sql.Identifier:
    return sql.Identifier(name) if schema is None else sql.Identifier(schema, name)


def _own_name(entity: str, event: str = "notify") -> str:
    """At most 63 bytes, which is where PostgreSQL cuts names off."""
    short = entity if len(entity) <= 40 else f"{entity[:30]}_{hashlib.sha256(entity.encode()).hexdigest()[:8]}"
    return f"vecsync_{short}_{event}"
