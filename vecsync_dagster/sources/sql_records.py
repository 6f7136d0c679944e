"""Rows of a query -> an Arrow batch.

The type of a column follows from its declared type. Where a batch holds a value that does not fit (SQLite keeps
whatever it is given), that column of that batch becomes text: plain if all values are text, else JSON, one value
each, so that no value depends on its neighbours in the batch.

Text may come as bytearray, as SQLite has it: a column at once becomes text far quicker than value by value.

A decimal number that no float holds makes its column JSON as well, and its digits stay what they are.

NaN and the infinities stay what they are, for validation to reject. A PostgreSQL date that Arrow cannot hold
(infinity, BC, past the year 9999) makes its column text: each other one as the documents stage would write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vecsync_dagster.arrays import arrow_array
from vecsync_dagster.numbers import fits_a_float
from vecsync_dagster.sources.sql_types import Column, Kind
from vecsync_dagster.unreadable import Unreadable, json_or_reason, text_in

__all__ = ["Values", "id_text", "record_batch"]

Values = Sequence[Any]
JSON_TEXT = {b"vecsync": b"json"}

_TYPES: dict[Kind, pa.DataType] = {
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.NUMERIC: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.DATE: pa.date32(),
    Kind.INTEGERS: pa.list_(pa.int64()),
    Kind.FLOATS: pa.list_(pa.float64()),
    Kind.TEXTS: pa.list_(pa.string()),
}
_WHOLE = 2**53  # below it a float has all whole numbers
_TEXTUAL = (Kind.TEXT, Kind.FOLDED, Kind.UUID, Kind.OBJECT, Kind.OTHER)
_DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d{1,6})?)?")
_CLOCK = re.compile(r"\d\d:\d\d:\d\d(\.\d+)?")
_MISFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)


def record_batch(columns: Sequence[Column], values: Sequence[Values]) -> pa.RecordBatch:
    """`values`: for each of `columns` one for each row."""
    arrays, fields = [], []
    for column, given in zip(columns, values, strict=True):
        array, is_json = _array(column, given)
        arrays.append(array)
        fields.append(pa.field(column.name, array.type, metadata=JSON_TEXT if is_json else None))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _array(column: Column, values: Values) -> tuple[pa.Array, bool]:
    """The values, and whether they are text that holds JSON."""
    try:
        return _whole(column, values)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (found again value by value: it is one record's)
        return json_or_reason(values, lambda value: text_in(*_whole(column, [value]), float)), True


def _whole(column: Column, values: Values) -> tuple[pa.Array, bool]:
    kind = column.kind
    if Unreadable in (found := set(map(type, values))):
        raise TypeError("a value that cannot be read")
    if bytearray in found:
        if kind in _TEXTUAL and found <= {bytearray, NoneType}:
            return _from_utf8(values), False
        values = [id_text(value) if isinstance(value, bytearray) else value for value in values]
    if kind.array and column.identity:
        return arrow_array(values).cast(pa.string()), False  # the database's own text of it
    if kind is Kind.JSON and not column.identity:
        return arrow_array([_checked_json(value) for value in values]).cast(pa.string()), True
    if kind in (Kind.ARRAY, Kind.NUMBERS, Kind.OBJECTS) or (kind is Kind.NUMERIC and not all(map(_fits, values))):
        # Quotes in an array of numbers are those of NaN and the infinities, which JSON does not have.
        texts = [value.replace('"', "") if value and kind is Kind.NUMBERS else value for value in values]
        return arrow_array(texts).cast(pa.string()), True
    try:
        return _EXACT.get(kind, _plain)(_TYPES.get(kind, pa.string()), values), False
    except _MISFIT:
        pass
    if column.identity:
        return pa.array([None if value is None else id_text(value) for value in values], pa.string()), False
    loose = [_loose(kind, value) for value in values]
    if all(value is None or isinstance(value, str) for value in loose):
        return pa.array(loose, pa.string()), False
    return pa.array([None if value is None else _to_json(value) for value in loose], pa.string()), True


def _fits(value: Any) -> bool:
    return value is None or len(value) <= 15 or fits_a_float(value)


def _from_utf8(values: Values) -> pa.Array:
    array = arrow_array(values).view(pa.string())
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:  # one of them is no UTF-8
        return arrow_array([None if value is None else id_text(value) for value in values])
    return array


def _plain(wanted: pa.DataType, values: Values) -> pa.Array:
    """Arrow infers the type and must come to the one that is wanted: given the type, it would cut 1.5 to 1."""
    array = arrow_array(values)
    if array.type != wanted and array.null_count < len(array):
        raise pa.ArrowTypeError(f"{array.type} is not {wanted}")
    return array if array.type == wanted else array.cast(wanted)


def _floats(wanted: pa.DataType, values: Values) -> pa.Array:
    array = arrow_array(values)
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise pa.ArrowTypeError(f"{array.type} is not {wanted}")
    return array.cast(wanted)


def _booleans(wanted: pa.DataType, values: Values) -> pa.Array:
    array = arrow_array(values)
    if (
        pa.types.is_integer(array.type)
        and pc.all(pc.is_in(array.drop_null(), arrow_array([0, 1]))).as_py() is not False
    ):
        return array.cast(wanted)
    return _plain(wanted, values)


def _parsed(wanted: pa.DataType, values: Values) -> pa.Array:
    return _plain(pa.string(), values).cast(wanted)


def _moments(wanted: pa.DataType, values: Values) -> pa.Array:
    naive = wanted if pa.types.is_date(wanted) else pa.timestamp("us")
    return _parsed(naive, values).cast(wanted)


def _lists(wanted: pa.DataType, values: Values) -> pa.Array:
    return pa.array(values, wanted)


_EXACT: dict[Kind, Callable[[pa.DataType, Values], pa.Array]] = {
    Kind.FLOAT: _floats,
    Kind.NUMERIC: _parsed,
    Kind.BOOLEAN: _booleans,
    Kind.TIMESTAMPTZ: _moments,
    Kind.TIMESTAMP: _moments,
    Kind.DATE: _moments,
    Kind.INTEGERS: _lists,
    Kind.FLOATS: _lists,
    Kind.TEXTS: _lists,
}


def _loose(kind: Kind, value: Any) -> Any:
    """A value as the declared type would have it, where it can; text for bytes."""
    if isinstance(value, bytes):
        return id_text(value)
    if kind is Kind.FLOAT and isinstance(value, int) and abs(value) < _WHOLE:
        return float(value)
    if kind is Kind.BOOLEAN and value in (0, 1):
        return bool(value)
    if kind.temporal and isinstance(value, str):
        return _moment_text(kind, value)
    return value


def _moment_text(kind: Kind, written: str) -> str:
    """A time as the documents stage writes it; one that Python cannot hold as PostgreSQL does."""
    zone = kind is Kind.TIMESTAMPTZ
    if not _DATE.fullmatch(written):
        return _CLOCK.sub(r"\g<0>+00", written) if zone else written
    if kind is Kind.DATE:
        return written
    moment = datetime.fromisoformat(written)
    return (moment.replace(tzinfo=UTC) if zone else moment).isoformat()


def id_text(value: Any) -> str:
    """The text of an id, in a record and in a tombstone alike; bytes that are no text as hex digits. Of a bytearray,
    which is text, with U+FFFD for what is no UTF-8."""
    if isinstance(value, bytearray):
        return value.decode("utf-8", "replace")
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _checked_json(value: Any) -> str | None:
    """Text that is JSON as it is; any other value as JSON."""
    if value is None:
        return None
    if not isinstance(value, str):
        return _to_json(_loose(Kind.JSON, value))
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return value if _is_json(value) else _to_json(value)
    return value


def _is_json(text: str) -> bool:
    """As databases see it: with NaN, and with halves of surrogate pairs."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # more digits or levels than Python reads: refused later by name
        return True
    return True


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
