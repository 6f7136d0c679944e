"""An SQLite file as a source, opened read-only.

SQLite keeps any value in any column, so nothing is taken from the declared type but hints. Modification times may be
ISO text (date, or date and time, with or without a fraction and a zone `Z` or `+hh:mm`; UTC where there is none) or
seconds, milliseconds or microseconds since 1970, mixed as they come; they are compared to the millisecond.
"""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Engine,
    FromClause,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    create_engine,
    event,
    false,
    func,
    literal,
    null,
    or_,
    select,
    true,
    types,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType, TypeEngine

from vecsync_dagster.compiled import CompiledStatements
from vecsync_dagster.errors import SourceRejected, SourceUnavailable, VecsyncError
from vecsync_dagster.identity import storable
from vecsync_dagster.sources.filter_values import FLAG_WORDS, flag_of, number_of, whole_of
from vecsync_dagster.sources.sql_dialect import AnyColumn
from vecsync_dagster.sources.sql_records import id_text
from vecsync_dagster.sources.sql_types import EPOCH, Clock, Kind, earlier, integers

__all__ = ["Sqlite"]

BUSY_TIMEOUT_S = 10.0
_COMPILED = CompiledStatements()
_EPOCH_DAY = 2_440_587.5  # 1970-01-01 as a Julian day
_DAY_MS = 86_400_000
_FOREVER = 2**62
_HEX = re.compile("(?:[0-9a-f]{2})+")
_TRANSIENT = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_INTERRUPT,
)
_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    (types.Integer, Kind.INTEGER),
    (types.Float, Kind.FLOAT),
    (types.Numeric, Kind.FLOAT),
    (types.Boolean, Kind.BOOLEAN),
    (types.JSON, Kind.JSON),
    (types.String, Kind.TEXT),
)


class Sqlite:
    product = "SQLite"

    def __init__(self, path: Path, *, name: str) -> None:
        self._path = path
        self._key = f"sources.{name}.path"

    @property
    def place(self) -> str:
        return f"SQLite file {self._path}"

    def engine(self) -> Engine:
        engine = create_engine(
            "sqlite+pysqlite://",
            creator=self._connect,
            poolclass=NullPool,
            hide_parameters=True,
            execution_options={"compiled_cache": _COMPILED},
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")  # the driver begins no transaction for a SELECT

        return engine

    def _connect(self) -> sqlite3.Connection:
        if not self._path.is_file():
            raise SourceRejected(f"{self._key}: there is no file {self._path}", path=str(self._path))
        # isolation_level None: transactions are ours. The threads of one read take turns.
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        # Bytes that are no UTF-8 must not end the read, nor stand in an error's text.
        connection.text_factory = _decoded
        connection.create_function("vecsync_text", 2, _text, deterministic=True)
        connection.create_function("vecsync_is_text", 1, _is_text, deterministic=True)
        connection.create_aggregate("vecsync_checksum", -1, _Checksum)  # type: ignore[arg-type]
        return connection

    def begin(self, connection: Connection) -> Clock:
        now = int(connection.execute(select(_julian_ms(literal("now")))).scalar_one()) * 1000
        return Clock(absolute=now, local=now)

    def bulk(self, connection: Connection) -> None:
        # Told from a BLOB, which is bytes. Made to text by Arrow, a column at once.
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        driver.text_factory = bytearray

    def version(self, connection: Connection) -> str:
        return sqlite3.sqlite_version

    def kind(self, reflected: TypeEngine[Any], declared: str) -> Kind:
        if isinstance(reflected, NullType):
            return Kind.OTHER
        return next((kind for known, kind in _KINDS if isinstance(reflected, known)), Kind.TEXT)

    def selected(self, column: AnyColumn, kind: Kind, declared: str = "", *, identity: bool) -> ColumnElement[Any]:
        return self.text(column) if identity and kind is not Kind.INTEGER else column

    def text(self, column: AnyColumn) -> ColumnElement[str]:
        """Of a BLOB no byte is lost, and of a float no digit."""
        written = cast(column, Text)
        kinds = {"real": func.vecsync_text(column, written), "blob": func.vecsync_text(column, null())}
        return case(kinds, value=func.typeof(column), else_=written).collate("BINARY")

    def sortable(self, column: AnyColumn) -> ColumnElement[Any]:
        return column.collate("BINARY")

    def among(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        return self.identified(column, kind, keys)

    def identified(self, column: AnyColumn, kind: Kind, keys: Sequence[str]) -> ColumnElement[bool]:
        """Whatever a column is declared to hold, it may hold a BLOB or a number, which a text is not compared with. One
        list of all, so that an index on several columns serves; then the texts, because '07' may equal 7."""
        held = [key for key in keys if storable(key) or "\x00" in key]
        if not held:
            return false()
        values = [value for key in held for value in (key, *_blobs(key), *_numbers(key))]
        exact: list[ColumnElement[bool]] = [self.text(column).in_(bindparam(None, held, Text(), expanding=True))]
        if kind is Kind.INTEGER:  # an id's text is Python's there
            pythons = func.vecsync_text(column, null()).in_(bindparam(None, held, Text(), expanding=True))
            exact.append(and_(func.typeof(column) == "real", pythons))
        return and_(column.in_(bindparam(None, values, NullType(), expanding=True)), or_(*exact))

    def askable(self, column: AnyColumn) -> ColumnElement[bool]:
        """Text that is no UTF-8 comes with U+FFFD in its place. Looked at where it is not ASCII."""
        beyond = column.op("GLOB")(literal(f"*[^{chr(1)}-{chr(127)}]*"))
        is_text = func.vecsync_is_text(cast(column, LargeBinary))
        return case((and_(func.typeof(column) == "text", beyond), is_text), else_=true())

    def flagged(self, column: AnyColumn, kind: Kind) -> ColumnElement[bool]:
        return func.coalesce(func.lower(func.trim(cast(column, Text))), "").in_(("1", "t", "true"))

    def declared(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        return {}

    def folding(self, connection: Connection, table: str, schema: str | None) -> frozenset[str]:
        return frozenset()

    def constrained(self, connection: Connection, table: str, schema: str | None) -> bool:
        return True

    def limited(self, connection: Connection, table: str, schema: str | None) -> dict[str, str]:
        return {}

    def readable(self, connection: Connection, declared: str, limited: str, kind: Kind, text: str) -> bool:
        return True

    def comparable(self, connection: Connection, declared: str, kind: Kind, texts: Sequence[str]) -> bool:
        return True

    def orderable(self, connection: Connection, declared: str, kind: Kind) -> bool:
        return True

    def steady(self, connection: Connection, declared: str, kind: Kind) -> bool:
        return True

    def allowed(self, column: AnyColumn, declared: str, kind: Kind, texts: Sequence[str]) -> ColumnElement[bool]:
        """As whatever the value is: a text by its letters, a number as one; 1 is true, and so are the words for it in a
        column of flags."""
        is_number = func.typeof(column).in_(("integer", "real"))
        is_text = func.typeof(column) == "text"
        flags = {flag for text in texts if (flag := flag_of(text, words=kind is Kind.BOOLEAN)) is not None}
        read = (number for text in texts if (number := number_of(text)) is not None)
        numbers: list[Decimal | bool] = [*flags, *filter(_may_be_stored, read)]
        parts = [and_(is_text, self.text(column) == literal(text, Text())) for text in texts if storable(text)]
        parts += [and_(is_number, column == _number(number)) for number in numbers]
        if kind is Kind.BOOLEAN and flags:
            words = [word for word in FLAG_WORDS if flag_of(word, words=True) in flags]
            parts.append(and_(is_text, func.lower(func.trim(column)).in_(words)))
        return or_(*parts) if parts else false()

    def can_date(self, kind: Kind) -> bool:
        return True

    def undeleted(self, column: AnyColumn) -> ColumnElement[bool]:
        return or_(column.is_(None), cast(column, Text).in_(("", "0", "false")))

    def moment(self, column: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        return _milliseconds(column) * 1000

    def worked_out(self, rows: Select[Any]) -> FromClause:
        """SQLite would put the expressions in wherever their columns stand, but for the limit."""
        return rows.limit(-1).offset(0).subquery()

    def newest(self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        return func.max(moment)

    def between(
        self, column: ColumnElement[Any], moment: ColumnElement[Any], kind: Kind, first: int, last: int
    ) -> ColumnElement[bool]:
        return moment.between(literal(first, BigInteger), literal(last, BigInteger))

    def order(self, column: AnyColumn) -> ColumnElement[Any]:
        return _milliseconds(column)

    def since(
        self, column: AnyColumn, kind: Kind, moment: int, overlap: timedelta, cursor: Kind
    ) -> ColumnElement[bool]:
        start = earlier(moment, overlap)
        known = func.coalesce(_milliseconds(column, whole_days=True), literal(_FOREVER, BigInteger))
        return known >= literal((start - EPOCH) // timedelta(milliseconds=1), BigInteger)

    def checksum(self, columns: Sequence[ColumnElement[Any]], live: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.vecsync_checksum(*columns).filter(live)

    def translated(self, error: DBAPIError, doing: str) -> VecsyncError:
        code: int | None = getattr(error.orig, "sqlite_errorcode", None)
        name: str = getattr(error.orig, "sqlite_errorname", type(error.orig).__name__)
        hint = ""
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
            hint = "; the file must be readable, and the folder of a database in WAL mode writable"
        transient = code is not None and code & 0xFF in _TRANSIENT
        return (SourceUnavailable if transient else SourceRejected)(f"{self.place}: {doing}: {name}{hint}", error=name)


class _Checksum:
    """The sum of the rows' hashes. SQLite has no hash function of its own."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, *values: object) -> None:
        digest = hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._sum += int.from_bytes(digest)

    def finalize(self) -> str:
        return str(self._sum)


def _text(value: float | bytes, written: str | None) -> str:
    """What SQLite writes of a float has 15 digits: it is the float's text where it leads back to it."""
    return written if written is not None and float(written) == value else id_text(value)


def _is_text(stored: bytes) -> bool:
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_be_stored(number: Decimal) -> bool:
    """SQLite keeps NaN as null, and a comparison with that is neither true nor false; what is too large is not inf."""
    return not number.is_nan() and (number.is_infinite() or math.isfinite(float(number)))


def _number(number: Decimal | bool) -> ColumnElement[Any]:
    """A 64-bit integer where it is one, else a float."""
    whole = whole_of(Decimal(number))
    return literal(float(number), Double()) if whole is None else literal(whole, BigInteger())


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _blobs(key: str) -> list[bytes]:
    """What `id_text` makes this text of."""
    blobs = [key.encode()]
    if _HEX.fullmatch(key):
        blobs.append(bytes.fromhex(key))
    return blobs


def _numbers(key: str) -> list[int | float]:
    """The number of this text, if it is that of one: a whole one, or a float as SQLite or Python writes it."""
    try:
        return [*integers([key])] or [float(key)]
    except ValueError:
        return []


def _julian_ms(time: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.round((func.julianday(time) - _EPOCH_DAY) * _DAY_MS), BigInteger)


def _milliseconds(column: ColumnElement[Any], *, whole_days: bool = False) -> ColumnElement[Any]:
    """Milliseconds since 1970, null where the value is no time; `whole_days`: of a date, its last one."""
    size = func.abs(column)
    number = case((size < 10**11, column * 1000), (size < 10**14, column), (size < 10**17, column / 1000))
    # julianday() itself takes more: 'now', and a time without a date.
    is_text = and_(func.typeof(column) == "text", column.op("GLOB")("[0-9][0-9][0-9][0-9]-*"))
    is_date = and_(is_text, func.length(column) == 10)
    return case(
        *([(is_date, _julian_ms(column) + (_DAY_MS - 1))] if whole_days else []),
        (is_text, _julian_ms(column)),
        (func.typeof(column).in_(("integer", "real")), cast(number, BigInteger)),
    )
