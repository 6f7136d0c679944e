"""PostgreSQL as a source, over psycopg 3: one read-only snapshot for each read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Engine,
    FromClause,
    Numeric,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    create_engine,
    event,
    extract,
    false,
    func,
    literal,
    literal_column,
    make_url,
    null,
    or_,
    select,
    text,
    true,
    types,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.types import TypeEngine, UserDefinedType

from vecsync_dagster.compiled import CompiledStatements
from vecsync_dagster.config.models import PostgresSource, resolve
from vecsync_dagster.errors import ConfigError, SourceRejected, SourceUnavailable, VecsyncError
from vecsync_dagster.identity import storable
from vecsync_dagster.postgres_login import REASONS, refusal_of, unreachable_of
from vecsync_dagster.postgres_session import LOOKS
from vecsync_dagster.postgres_url import check_postgres_url, postgres_settings
from vecsync_dagster.sources.filter_values import number_of, whole_of
from vecsync_dagster.sources.sql_dialect import AnyColumn
from vecsync_dagster.sources.sql_types import BEYOND, Clock, Kind, earlier, integers, uuids
from vecsync_dagster.unreadable import Unreadable

__all__ = ["Postgres", "postgres_error", "take_any_bytes"]

_COMPILED = CompiledStatements()
_RAW = (Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.TEXT, Kind.FOLDED, Kind.INTEGERS, Kind.FLOATS, Kind.TEXTS)
_LISTS = {Kind.INTEGER: Kind.INTEGERS, Kind.FLOAT: Kind.FLOATS, Kind.NUMERIC: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}
_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    (types.Integer, Kind.INTEGER),
    (types.Float, Kind.FLOAT),
    (types.Numeric, Kind.NUMERIC),
    (types.Boolean, Kind.BOOLEAN),
    (types.Date, Kind.DATE),
    (types.Uuid, Kind.UUID),
    (types.JSON, Kind.JSON),
    (types.String, Kind.TEXT),
)
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision", "money", "oid")
_ZONE = "vecsync.timezone"
"""The time zone of the session before; columns without one are written by it."""
_OBJECTS = {
    "regclass": "pg_class",
    "regcollation": "pg_collation",
    "regconfig": "pg_ts_config",
    "regdictionary": "pg_ts_dict",
    "regnamespace": "pg_namespace",
    "regoper": "pg_operator",
    "regoperator": "pg_operator",
    "regproc": "pg_proc",
    "regprocedure": "pg_proc",
    "regrole": "pg_authid",
    "regtype": "pg_type",
}
"""Types whose values are names of the database's own objects, and the catalogue that has these (PostgreSQL's manual,
"Object Identifier Types"). As text they have a schema or none, as the session's search_path is."""
_NO_OBJECT = ("42P01", "42883", "42704", "3F000", "42725", "42601", "42602", "0A000")
"""What the server says of a text that is the name of no object, of several ones, or no name."""
_NO_OPERATOR = ("42883", "42804")
_ANYTHING = (Kind.OTHER, Kind.ARRAY, Kind.JSON)
"""Kinds of columns whose type may lack an operator that all the others have."""
# Text to SQLAlchemy, but not compared like text.
_NOT_PLAIN_TEXT = (types.Enum, types.CHAR, postgresql.CITEXT)
# Connection, resources, operator's intervention (a statement's time limit too), serialization, locks.
_TRANSIENT = ("08", "53", "57", "58", "40", "55", "25P03", "25P04")


# Enumerations and other types that the driver does not know come with 0.
_TEXT_TYPES: tuple[str | int, ...] = ("text", "varchar", "bpchar", "name", 0)


class _TextOrUnreadable(Loader):
    """Text as the bytes that were stored: what is no UTF-8 is its record's fault alone."""

    def load(self, data: Buffer) -> str | Unreadable:
        stored = bytes(data)
        try:
            return stored.decode()
        except UnicodeDecodeError:
            return Unreadable("is not valid UTF-8", stored.decode("utf-8", "replace"))


def take_any_bytes(driver: psycopg.Connection[Any], _: object = None) -> None:
    """A database in SQL_ASCII holds any bytes; to a client that asks for UTF-8 its server refuses the whole read for
    one that is none. It checks nothing for one that asks for LATIN1, and converts nothing either."""
    if driver.info.parameter_status("server_encoding") == "SQL_ASCII":
        driver.execute("SET client_encoding TO 'LATIN1'")
        driver.commit()
        for kind in _TEXT_TYPES:
            driver.adapters.register_loader(kind, _TextOrUnreadable)


def _send_as_stored(
    _: Connection, cursor: Any, statement: str, parameters: Any, context: object, many: bool
) -> tuple[str, Any]:
    """The driver makes LATIN1 of what it sends there: of this text that is UTF-8, as it is stored."""
    if cursor.connection.info.encoding != "iso8859-1":
        return statement, parameters
    return _as_stored(statement), _as_stored(parameters)


def _as_stored(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode().decode("latin-1")
    if isinstance(value, Mapping):
        return {_as_stored(name): _as_stored(one) for name, one in value.items()}
    return [_as_stored(one) for one in value] if isinstance(value, list | tuple) else value


class Postgres:
    product = "PostgreSQL"

    def __init__(self, config: PostgresSource, *, name: str) -> None:
        self._config = config
        self._key = f"sources.{name}.url"

    @property
    def place(self) -> str:
        told = self._settings()
        return f"PostgreSQL at {told.get('host', 'localhost')}:{told.get('port', 5432)}/{told.get('dbname', '')}"

    def _url(self) -> URL:
        wrong = ConfigError(
            f"{self._key}: not a URL of PostgreSQL; write postgresql://user:password@host:port/database", key=self._key
        )
        written = resolve(self._config.url, self._key)
        try:
            url = make_url(written)
        except (ArgumentError, ValueError):
            raise wrong from None  # the cause may quote a part of the password
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise wrong
        check_postgres_url(written, url, key=self._key)
        return url.set(drivername="postgresql+psycopg")

    def conninfo(self) -> str:
        """The URL as the driver has it, the password in it. Raises ConfigError."""
        # Not as a URL: SQLAlchemy writes a blank in an option as +, which libpq does not read.
        return psycopg.conninfo.make_conninfo(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return postgres_settings(self._url())

    def engine(self) -> Engine:
        url = self._url()
        defaults = {
            "connect_timeout": math.ceil(self._config.connect_timeout_s),
            "client_encoding": "utf8",
            "application_name": "vecsync",
            # A peer that vanished is noticed after a minute, not after hours.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "prepare_threshold": None,  # connection poolers lose prepared statements
        }
        engine = create_engine(
            url,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True, "compiled_cache": _COMPILED},
            connect_args={option: value for option, value in defaults.items() if option not in url.query},
            pool_size=1,
            max_overflow=-1,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        event.listen(engine, "connect", take_any_bytes)
        event.listen(engine, "before_cursor_execute", _send_as_stored, retval=True)
        return engine

    def begin(self, connection: Connection) -> Clock:
        """The time limit holds for every single fetch: a slow consumer is not a stuck statement."""
        clocks: tuple[ColumnElement[Any], ...] = (literal_column("CURRENT_TIMESTAMP"), literal_column("LOCALTIMESTAMP"))
        settings = {
            **LOOKS,
            "statement_timeout": str(math.ceil(self._config.statement_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": "0",
            "cursor_tuple_fraction": "1",  # plan for all rows: the default plans for a tenth of them
        }
        row = connection.execute(
            select(
                *(_micros(clock) for clock in clocks),
                func.set_config(_ZONE, func.current_setting("timezone"), true()),
                *(func.set_config(name, value, true()) for name, value in settings.items()),
            )
        ).one()
        return Clock(absolute=row[0], local=row[1])

    def bulk(self, connection: Connection) -> None:
        pass

    def version(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SHOW server_version").scalar_one()).split()[0]

    def kind(self, reflected: TypeEngine[Any], declared: str) -> Kind:
        """The driver makes lists of arrays of the plainest types alone."""
        if _item(declared) in _OBJECTS:
            return Kind.OBJECTS if declared.endswith("[]") else Kind.OBJECT
        if declared.endswith("[]"):
            item = reflected.item_type if isinstance(reflected, types.ARRAY) else None
            plain = None if item is None or isinstance(item, postgresql.DOMAIN) else self._plain(item)
            return _LISTS.get(plain, Kind.ARRAY) if plain is not None else Kind.ARRAY
        return self._plain(reflected)

    def _plain(self, reflected: TypeEngine[Any]) -> Kind:
        if isinstance(reflected, postgresql.DOMAIN):
            return self._plain(reflected.data_type)
        if isinstance(reflected, types.DateTime):
            return Kind.TIMESTAMPTZ if reflected.timezone else Kind.TIMESTAMP
        if isinstance(reflected, _NOT_PLAIN_TEXT):
            return Kind.OTHER
        return next((kind for known, kind in _KINDS if isinstance(reflected, known)), Kind.OTHER)

    def selected(self, column: AnyColumn, kind: Kind, declared: str = "", *, identity: bool) -> ColumnElement[Any]:
        if kind in ((Kind.INTEGER, Kind.TEXT, Kind.FOLDED) if identity else _RAW):
            return column
        if kind in (Kind.ARRAY, Kind.NUMBERS) and not identity:
            return cast(func.to_json(column), Text)
        if kind is Kind.TIMESTAMPTZ and not identity:
            return cast(func.timezone("UTC", column), Text)
        if kind is Kind.OBJECT and not identity:
            return _qualified(column, declared)
        if kind is Kind.OBJECTS and not identity:
            return _all_qualified(column, _item(declared))
        return cast(column, Text)

    def text(self, column: AnyColumn) -> ColumnElement[str]:
        return cast(column, Text).collate("C")

    def sortable(self, column: AnyColumn) -> ColumnElement[Any]:
        return self.text(column)  # not every type has an order of its own

    def among(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        """The keys become values of the column's type: a cast of the column would leave its index unused."""
        held: Sequence[object] = [key for key in keys if storable(key)]
        left: ColumnElement[Any] = column
        declared: TypeEngine[Any] = Text()
        if kind is Kind.INTEGER:
            held, declared = integers(keys), BigInteger()
        elif kind is Kind.UUID:
            held, declared = uuids(keys), types.Uuid(as_uuid=False)
        elif kind not in (Kind.TEXT, Kind.FOLDED):
            left = self.text(column)
        found = _one_of(left, held, declared)
        # The column itself so that its index serves, its text because 'Acme' may equal 'acme'.
        return and_(found, _one_of(self.text(column), held, declared)) if kind is Kind.FOLDED and held else found

    def identified(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        if kind is Kind.NUMERIC:
            return _one_of(column, _numbers(keys), Numeric())
        if kind is Kind.DATE:
            return _one_of(column, _parsed(keys, date.fromisoformat), Date())
        if kind is Kind.TIMESTAMP:
            return _one_of(column, _parsed(keys, datetime.fromisoformat), DateTime())
        if kind is Kind.TIMESTAMPTZ:
            return _one_of(column, _parsed(keys, datetime.fromisoformat), DateTime(timezone=True))
        return self.among(column, kind, keys)

    def askable(self, column: AnyColumn) -> ColumnElement[bool]:
        return true()

    def flagged(self, column: AnyColumn, kind: Kind) -> ColumnElement[bool]:
        if kind is Kind.BOOLEAN:
            return column.is_(true())
        return func.coalesce(func.lower(func.trim(cast(column, Text))), "").in_(("1", "t", "true"))

    def declared(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in connection.execute(_DECLARED, {"table": table, "schema": schema}):
            if row.depth == 0:
                found[row.attname] = row.declared
            elif row.depth == 1 and row.declared in _OBJECTS:
                found[row.attname] = f"{row.declared}[]"
        return found

    def folding(self, connection: Connection, table: str, schema: str | None) -> frozenset[str]:
        return frozenset(connection.execute(_FOLDING, {"table": table, "schema": schema}).scalars())

    def constrained(self, connection: Connection, table: str, schema: str | None) -> bool:
        """Not where other tables inherit from it: their rows are read with its own, and may have the same keys."""
        return not connection.execute(_HAS_HEIRS, {"table": table, "schema": schema}).scalar()

    def limited(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        rows = connection.execute(_DECLARED, {"table": table, "schema": schema})
        # A filter names an item of an array, which a domain of arrays is not.
        full = ((row, row.limited if row.declared.endswith("[]") else row.named) for row in rows if row.depth == 0)
        return {row.attname: name for row, name in full if name != row.declared}

    def readable(self, connection: Connection, declared: str, limited: str, kind: Kind, text: str) -> bool:
        """A cast to the type with its length cuts, fills or rounds what no column of it holds; a domain's fails."""
        if not storable(text):
            return False
        value = _read_as(text, declared, kind)
        held = _item(limited) if limited.endswith("[]") and not _is_array(text) else limited
        whole = value if limited == declared else cast(value, _Named(held))
        wrong = ("22", "23", *(_NO_OBJECT if _item(declared) in _OBJECTS else ()))
        # Only whether it is one: the driver may not know what the value is.
        if _tried(connection, select(cast(whole, Text).is_not(None)), wrong) != [True]:
            return False
        return whole is value or _tried(connection, select(whole == value), _NO_OPERATOR) in ([True], None)

    def comparable(self, connection: Connection, declared: str, kind: Kind, texts: Sequence[str]) -> bool:
        if kind not in _ANYTHING or not declared or not texts:
            return True
        asked = select(self.allowed(_NOTHING, declared, kind, texts)).select_from(_nothing(declared))
        return _tried(connection, asked, _NO_OPERATOR) is not None

    def orderable(self, connection: Connection, declared: str, kind: Kind) -> bool:
        if kind not in _ANYTHING or not declared:
            return True
        asked = select(_NOTHING).select_from(_nothing(declared)).order_by(_NOTHING)
        return _tried(connection, asked, _NO_OPERATOR) is not None

    def steady(self, connection: Connection, declared: str, kind: Kind) -> bool:
        if kind not in (Kind.OTHER, Kind.ARRAY) or not declared:
            return kind not in (Kind.OBJECT, Kind.OBJECTS)
        return not connection.execute(_WITHIN, {"declared": declared, "objects": list(_OBJECTS)}).scalar_one()

    def allowed(self, column: AnyColumn, declared: str, kind: Kind, texts: Sequence[str]) -> ColumnElement[bool]:
        """Values of the column's type, so that its index serves. Of an array one of its items, unless the text is a
        whole one: {a,b}; of JSON the value as text, or one that equals it."""
        read = {text: _read_as(text, declared, kind) for text in texts}
        if declared in ("json", "jsonb"):
            shown = column.op("#>>")(literal_column("'{}'")).in_(list(texts))
            equal = [column == read[text] for text in texts if declared == "jsonb" and _is_json(text)]
            return or_(shown, *equal)
        if not declared.endswith("[]"):
            return column.in_(list(read.values()))
        # Of a domain's array no other one is an equal.
        whole = cast(column, _Named(declared)) if kind is Kind.OBJECTS else column
        parts = [value == whole if _is_array(text) else value.op("=")(func.any(column)) for text, value in read.items()]
        return func.coalesce(or_(*parts), false())

    def can_date(self, kind: Kind) -> bool:
        return kind.temporal

    def undeleted(self, column: AnyColumn) -> ColumnElement[bool]:
        return column.is_(None)

    def moment(self, column: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """What lies before the year 1 has none."""
        last: ColumnElement[Any] = literal_column("'9999-12-31'")
        sane = and_(column >= literal_column("'0001-01-02'"), column < last)
        return case((sane, _micros(column)), (column >= last, literal_column(str(BEYOND))))

    def worked_out(self, rows: Select[Any]) -> FromClause:
        return rows.subquery()

    def newest(self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """The times themselves are compared, here and below: to work out a moment of each row takes longer."""
        return self.moment(func.max(column), kind)

    def between(
        self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind, first: int, last: int
    ) -> ColumnElement[bool]:
        def bound(moment: int) -> ColumnElement[Any]:
            time, zone = earlier(moment, timedelta(0)), kind is Kind.TIMESTAMPTZ
            return literal(time if zone else time.replace(tzinfo=None), DateTime(timezone=zone))

        return column.between(bound(first), bound(last))

    def order(self, column: AnyColumn) -> ColumnElement[Any]:
        return column

    def since(
        self, column: AnyColumn, kind: Kind, moment: int, overlap: timedelta, cursor: Kind
    ) -> ColumnElement[bool]:
        zone = cursor is Kind.TIMESTAMPTZ
        start = earlier(moment, overlap)
        bound: ColumnElement[Any] = literal(start if zone else start.replace(tzinfo=None), DateTime(timezone=zone))
        if zone != (kind is Kind.TIMESTAMPTZ):
            bound = func.timezone(func.current_setting(_ZONE), bound)
        if kind is Kind.DATE:
            bound = cast(bound, Date)  # a date is as good as any time of that day
        return or_(column >= bound, column.is_(None), column == literal_column("'-infinity'"))

    def checksum(self, columns: Sequence[ColumnElement[Any]], live: ColumnElement[bool]) -> ColumnElement[Any]:
        """The sum of the rows' hashes: a row of which there are two does not cancel itself out."""
        row = cast(func.row(*columns), Text)
        return cast(func.sum(cast(func.hashtextextended(row, 0), Numeric)).filter(live), Text)

    def translated(self, error: DBAPIError, doing: str) -> VecsyncError:
        return postgres_error(error.orig, f"{self.place}: {doing}")


def postgres_error(cause: BaseException | None, where: str) -> VecsyncError:
    """Ours for the driver's: its SQLSTATE decides, or that of the login; without one the connection was lost."""
    state: str | None = getattr(cause, "sqlstate", None) or refusal_of(cause)
    try:
        name = psycopg.errors.lookup(state or "").__name__
    except KeyError:
        name = type(cause).__name__
    reason, code = REASONS.get(state or ""), ", ".join([name, *([state] if state else [])])
    message = f"{where}: {reason} ({code})" if reason else f"{where}: {code}"
    if state is not None:
        return (SourceUnavailable if state.startswith(_TRANSIENT) else SourceRejected)(message, sqlstate=state)
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return SourceRejected(message)
    if cause.pgconn is None:
        return SourceUnavailable(message)  # it was lost
    why = unreachable_of(cause) or "is the server up, the login right?"
    return SourceUnavailable(f"{message}, no connection; {why}")


def _one_of(column: ColumnElement[Any], held: Sequence[object], declared: TypeEngine[Any]) -> ColumnElement[bool]:
    return column.in_(bindparam(None, held, declared, expanding=True)) if held else false()


def _parsed(keys: Sequence[str], parse: Callable[[str], date]) -> list[date]:
    """What these texts mean; those that the type has no text like are left out."""
    held = []
    for key in keys:
        with suppress(ValueError):
            held.append(parse(key))
    return held


def _numbers(keys: Sequence[str]) -> list[Decimal]:
    held = []
    for key in keys:
        with suppress(InvalidOperation):
            held.append(Decimal(key))
    return [number for number in held if number.is_finite()]


# The names that a cast understands: without lengths, at which a cast would cut the text; of domains those below them.
# Of arrays also what their items are: `depth` is 1 then. `limited`: with the lengths; `named`: as the column has it.
_DECLARED = text(
    """
    WITH RECURSIVE held AS (
        SELECT a.attname, a.atttypid AS oid, a.atttypmod AS typmod, 0 AS depth,
               format_type(a.atttypid, a.atttypmod) AS named FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = :table AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
        UNION ALL
        SELECT held.attname, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END,
               CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE held.typmod END,
               depth + CASE t.typtype WHEN 'd' THEN 0 ELSE 1 END, named
        FROM held JOIN pg_type t ON t.oid = held.oid WHERE t.typtype = 'd' OR t.typcategory = 'A'
    )
    SELECT held.attname, format_type(held.oid, -1) AS declared, format_type(held.oid, held.typmod) AS limited, depth,
           named
    FROM held JOIN pg_type t ON t.oid = held.oid WHERE t.typtype <> 'd' ORDER BY depth
    """
)


# Whether a type is made of names of objects, however deep inside of composites, arrays and domains.
_WITHIN = text(
    """
    WITH RECURSIVE held AS (
        SELECT CAST(CAST(:declared AS regtype) AS oid) AS oid
        UNION
        SELECT part.oid FROM held JOIN pg_type t ON t.oid = held.oid CROSS JOIN LATERAL (
            SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
            UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
            UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ) part
    )
    SELECT EXISTS (SELECT 1 FROM held WHERE format_type(held.oid, -1) = ANY(:objects))
    """
)


# As JSON, because servers before PostgreSQL 12 have no such collations, nor the column.
_FOLDING = text(
    """
    SELECT a.attname FROM pg_attribute a
    JOIN pg_collation l ON l.oid = a.attcollation
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :table AND a.attnum > 0 AND NOT a.attisdropped
      AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
      AND to_jsonb(l) ->> 'collisdeterministic' = 'false'
    """
)


_HAS_HEIRS = text(
    """
    SELECT EXISTS (
        SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class heir ON heir.oid = i.inhrelid JOIN pg_namespace theirs ON theirs.oid = heir.relnamespace
        -- TimescaleDB's chunks inherit from their table, whose keys hold for all of them.
        WHERE c.relname = :table AND c.relkind = 'r' AND theirs.nspname <> '_timescaledb_internal'
          AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
    )
    """
)


class _Named(UserDefinedType[Any]):
    """A type by the name that the database gave it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


_NOTHING: AnyColumn = column("v")


def _nothing(declared: str) -> Subquery:
    """One row whose column is a null of this type."""
    return select(cast(null(), _Named(declared)).label(_NOTHING.name)).subquery()


def _tried(connection: Connection, statement: Select[Any], wrong: tuple[str, ...]) -> list[Any] | None:
    """The rows' first values; None where the statement fails with one of these SQLSTATEs."""
    try:
        with connection.begin_nested():
            return list(connection.execute(statement).scalars())
    except DBAPIError as error:
        if str(getattr(error.orig, "sqlstate", "")).startswith(wrong):
            return None
        raise


def _read_as(written: str, declared: str, kind: Kind) -> ColumnElement[Any]:
    """What the text of a filter means in a column of this type. Numbers are YAML's: 0x1F, 1e3, 02142."""
    if declared.endswith("[]") and not _is_array(written):
        declared = declared.removesuffix("[]")
    if declared == "jsonb" and not _is_json(written):
        return func.to_jsonb(cast(literal(written, Text()), Text))
    if declared == "json":
        declared = "text"
    if declared in _OBJECTS and (written == "-" or (written.isascii() and written.isdigit())):
        # A cast of text would look for an object of this name.
        oid = cast(literal(written.replace("-", "0"), Text()), postgresql.OID)
        return cast(oid, _Named(declared))
    number = number_of(written) if declared in _NUMBERS else None
    if number is not None:
        whole = whole_of(number)
        written = str(number) if whole is None else str(whole)
    return cast(literal(written, Text()), _Named(declared))


def _is_array(written: str) -> bool:
    return written.startswith("{") and written.endswith("}")


def _is_json(written: str) -> bool:
    try:
        orjson.loads(written)
    except orjson.JSONDecodeError:
        return False
    return True


def _micros(time: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(extract("epoch", time) * 1_000_000, BigInteger)


def _item(declared: str) -> str:
    return declared.removesuffix("[]")


def _qualified(value: ColumnElement[Any], declared: str) -> ColumnElement[str]:
    """The name of an object with its schema, whatever the search_path is; `declared` is one of `_OBJECTS`. Of none
    ("-"), and of what is gone (its number), the text is the same in every session; servers before 14 refuse to look for
    these."""
    shown = cast(cast(value, _Named(declared)), Text)
    catalogue = cast(literal(f"pg_catalog.{_OBJECTS[declared]}", Text()), postgresql.REGCLASS)
    found = func.pg_identify_object(cast(catalogue, postgresql.OID), cast(value, postgresql.OID), 0)
    return case((shown.op("~")("^(-|[0-9]+)$"), shown), else_=func.to_jsonb(found).op("->>")("identity"))


def _all_qualified(array: AnyColumn, declared: str) -> ColumnElement[Any]:
    """Such names as JSON, at any depth: that of their numbers, with each number replaced by the name."""
    numbers = cast(cast(array, postgresql.ARRAY(postgresql.OID)), postgresql.ARRAY(BigInteger))
    parts = func.regexp_matches(cast(func.to_json(numbers), Text), "[0-9]+|[^0-9]+", "g").table_valued(
        column("found", postgresql.ARRAY(Text)), with_ordinality="place"
    )
    parts = parts.render_derived(name="parts")
    part: ColumnElement[Any] = parts.c.found[1]
    name = cast(func.to_json(_qualified(cast(part, postgresql.OID), declared)), Text)
    written = case((part.op("~")("^[0-9]"), name), else_=part)
    joined = func.string_agg(written, postgresql.aggregate_order_by(literal_column("''"), parts.c.place))
    return select(joined).scalar_subquery()
