"""Values of MongoDB documents -> plain values and Arrow batches, and the way back from an id's text.

A document has no schema: the type of a column follows from the values of its batch. Where they are of one plain
type the column has it; else, and for arrays and objects, it is text that holds JSON, in which every value is what
it would be in any other batch.

ObjectId, UUID and dates become text (dates ISO 8601, in UTC), binary data hex digits, Decimal128 a number or, where
none holds it, its digits. NaN and the infinities stay what they are, for validation to reject. What a value's plain
text leaves out stands in it where there is any: a regular expression's options, the variables that code has with it.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, Inexact, InvalidOperation, localcontext
from functools import lru_cache
from types import NoneType
from typing import Any

import orjson
import pyarrow as pa
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE
from bson.decimal128 import create_decimal128_context

from vecsync_dagster.arrays import arrow_array
from vecsync_dagster.identity import number_text, storable
from vecsync_dagster.numbers import exact
from vecsync_dagster.sources.filter_values import flag_of, number_of, whole_of
from vecsync_dagster.sources.sql_types import integers, uuids
from vecsync_dagster.unreadable import Unreadable, json_or_reason, text_in

__all__ = [
    "Fields",
    "candidates",
    "id_text",
    "is_one_of",
    "meanings",
    "owned",
    "owner_text",
    "plain",
    "record_batch",
    "unreadable_in",
    "value_at",
]

Fields = Mapping[str, Any]
JSON_TEXT = {b"vecsync": b"json"}
_HEX = re.compile("(?:[0-9a-f]{2})+")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?")
_SUBTYPES = (*range(10), 128)
_EXACT = 2**53  # whole numbers that a float holds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
_CYCLE_YEARS = 400
"""After which the calendar begins again."""
_CYCLE = timedelta(days=146_097) // timedelta(milliseconds=1)
_LOGICAL = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{10}))?\+00:00")
_OPTIONS = ((re.I, "i"), (re.L, "l"), (re.M, "m"), (re.S, "s"), (re.U, "u"), (re.X, "x"))  # of a regular expression
_NAN = "NaN"  # which Python takes for unequal to itself, and the server does not
_PLAIN = frozenset({str, int, float, bool, NoneType})


def plain(value: Any) -> Any:
    """A value as JSON could hold it."""
    if value.__class__ in _PLAIN:  # nearly every value: not a class of its own beneath one of these
        return value
    if value is None or isinstance(value, (str, bool)):
        return _code(value) if isinstance(value, Code) else value
    if isinstance(value, int):
        return int(value)  # Int64 is an int of its own
    if isinstance(value, float):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (dict, Mapping)):
        return {str(key): plain(item) for key, item in value.items()}
    return _special(value)


def _special(value: Any) -> Any:
    if isinstance(value, Unreadable):
        raise TypeError("a value that cannot be read")
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, DatetimeMS):
        return _far(int(value))
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return exact(number) if number.is_finite() else math.nan if number.is_nan() else float(number)
    if isinstance(value, (bytes, Binary)):
        return value.hex()
    if isinstance(value, Timestamp):
        return _logical(value)
    if isinstance(value, DBRef):
        return plain(value.as_doc())
    return _pattern(value) if isinstance(value, Regex) else str(value)


def _code(code: Code) -> Any:
    return {"$code": str(code), "$scope": plain(code.scope)} if code.scope else str(code)


def _pattern(regex: Regex[Any]) -> str:
    """As the shell writes it, where it has options."""
    pattern = regex.pattern if isinstance(regex.pattern, str) else regex.pattern.decode("utf-8", "replace")
    options = "".join(letter for flag, letter in _OPTIONS if regex.flags & flag)
    return f"/{pattern}/{options}" if options else pattern


def _logical(when: Timestamp) -> str:
    """What counts the events of one second stands behind the point, where it sorts as they came."""
    return f"{when.as_datetime():%Y-%m-%dT%H:%M:%S}{f'.{when.inc:010d}' if when.inc else ''}+00:00"


def _far(milliseconds: int) -> str:
    """A date of a year that Python does not count to, as PostgreSQL's would be: 12024-05-01 10:00:00.5+00."""
    cycles, rest = divmod(milliseconds, _CYCLE)
    near = _EPOCH + timedelta(milliseconds=rest)
    year = near.year + cycles * _CYCLE_YEARS
    fraction = f"{near:.%f}".rstrip("0").rstrip(".")
    return f"{year if year > 0 else 1 - year:04d}{near:-%m-%d %H:%M:%S}{fraction}+00{'' if year > 0 else ' BC'}"


def value_at(document: Any, path: str) -> Any:
    """The value of a field. `a.b` is the field of that very name where the document has it; else it goes into objects,
    those with the longest name first, and into those of an array: a list of what is found there."""
    if not isinstance(document, (dict, Mapping)):  # a dict is told sooner
        return None
    if path in document:
        return document[path]
    end = path.rfind(".")
    while end > 0:
        found = _inside(document.get(path[:end]), path[end + 1 :])
        if found is not None:
            return found
        end = path.rfind(".", 0, end)
    return None


def _inside(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [found for item in value if (found := value_at(item, path)) is not None] or None
    return value_at(value, path)


def unreadable_in(value: Any) -> Unreadable | None:
    """What cannot be read of a value, or inside it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Unreadable):
            return one
        if isinstance(one, (list, dict)):
            waiting += one if isinstance(one, list) else one.values()
    return None


def record_batch(fields: Sequence[str], documents: Sequence[Fields]) -> pa.RecordBatch:
    """One row for each document, one column for each of `fields`."""
    columns = [_column_of(documents, name) for name in fields]
    schema = pa.schema(
        [
            pa.field(name, array.type, metadata=JSON_TEXT if is_json else None)
            for name, (array, is_json) in zip(fields, columns, strict=True)
        ]
    )
    return pa.RecordBatch.from_arrays([array for array, _ in columns], schema=schema)


def _column_of(documents: Sequence[Fields], name: str) -> tuple[pa.Array, bool]:
    try:
        return _column(_values(documents, name))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (found again document by document: it is one record's)
        given = [unreadable_in(value_at(document, name)) or document for document in documents]
        return json_or_reason(given, lambda one: text_in(*_column(_values([one], name)), str)), True


def _values(documents: Sequence[Fields], name: str) -> list[Any]:
    if "." in name:
        found = [value_at(document, name) for document in documents]
    else:
        found = [document.get(name) for document in documents]
    return found if _PLAIN.issuperset(map(type, found)) else list(map(plain, found))


def _column(values: Sequence[Any]) -> tuple[pa.Array, bool]:
    """The values, and whether they are text that holds JSON."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds or kinds <= {str} or kinds == {bool} or kinds == {float} or kinds == {int}:
        return arrow_array(values), False
    if kinds == {int, float} and all(abs(value) < _EXACT for value in values if type(value) is int):
        return arrow_array([None if value is None else float(value) for value in values]), False
    return arrow_array([None if value is None else _json(value) for value in values]), True


def _json(value: Any) -> str:
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # it goes less deep than the other one
        text = "null"
    # NaN and the infinities were made null as well.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if "null" in text else text


def id_text(value: Any) -> str | None:
    """The text of an id, as the documents stage makes it of the record; None for what can be none."""
    if isinstance(value, (list, dict, Unreadable)):  # in which there may be what cannot be read
        return None
    value = plain(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def owner_text(value: Any) -> str | None:
    """The text of a tenant's key; None for a value that no query by a text finds."""
    text = _one_text(value)
    return text if text is not None and is_one_of(value, owned(text)) else None


@lru_cache(maxsize=1024)
def owned(text: str) -> tuple[Any, ...]:
    """Every value that is a tenant's key with this text. None where it is what stands for bytes that are no UTF-8."""
    return () if "\ufffd" in text else tuple(one for one in candidates([text]) if _one_text(one) == text)


def _one_text(value: Any) -> str | None:
    """`id_text`, but the same for all numbers that are one to the server; None for NaN and the infinities."""
    if isinstance(value, Decimal128):
        return number_text(value.to_decimal())
    if isinstance(value, float):
        return number_text(Decimal(value) if value.is_integer() else Decimal(repr(value)))
    return id_text(value)


@lru_cache(maxsize=1024)
def meanings(text: str | None) -> tuple[Any, ...]:
    """Every value that the text of a filter may mean: the text itself, a number, a flag, a date in UTC, an ObjectId, a
    UUID. None is null, and no field at all."""
    if text is None:
        return (None,)
    found: list[Any] = [text]
    flag, number = flag_of(text, words=False), number_of(text)
    if flag is not None:
        found.append(flag)
    if number is not None:
        whole = whole_of(number)
        found += [*_doubles(number), *([] if whole is None else [whole]), *_decimal128(number)]
    if _TIME.fullmatch(text):
        with suppress(ValueError):
            found.append(_in_utc(datetime.fromisoformat(text)))
    if ObjectId.is_valid(text):
        found.append(ObjectId(text))
    return (*found, *map(uuid.UUID, uuids([text.lower()])))


def is_one_of(value: Any, wanted: Sequence[Any]) -> bool:
    """Whether the value is one of `meanings`, as the server compares: numbers by what they are, and true is not 1."""
    value, is_flag = _comparable(value), isinstance(value, bool)
    return any(isinstance(other, bool) == is_flag and _comparable(other) == value for other in wanted)


def _comparable(value: Any) -> Any:
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return _NAN if number.is_nan() else number
    if isinstance(value, float) and math.isnan(value):
        return _NAN
    if value.__class__ is bytes:
        return Binary(value)
    return _in_utc(value) if isinstance(value, datetime) else value


def _doubles(number: Decimal) -> list[float]:
    """The double of this number. None for a whole number that no double is, or a neighbour would be let in; a fraction
    is the double that has its digits."""
    double = float(number)
    if not number.is_finite():
        return [double]
    is_whole = number == number.to_integral_value()
    return [double] if math.isfinite(double) and (not is_whole or Decimal(repr(double)) == number) else []


def _decimal128(number: Decimal) -> list[Decimal128]:
    with localcontext(create_decimal128_context()) as context:
        context.traps[Inexact] = True
        try:
            return [Decimal128(context.create_decimal(number))]
        except (Inexact, InvalidOperation):
            return []  # no document can hold it


def _in_utc(when: datetime) -> datetime:
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)


def candidates(texts: Sequence[str]) -> list[Any]:
    """Every value whose text is one of these: what a query by ids or tenants may find."""
    held: list[Any] = [text for text in texts if storable(text) or "\x00" in text]
    held += integers(texts)
    held += [uuid.UUID(text) for text in uuids(texts)]
    return held + [found for text in texts for found in _others(text)]


def _others(text: str) -> list[Any]:
    """Values of further types with this text."""
    found: list[Any] = []
    if len(text) == 24 and _HEX.fullmatch(text):
        found.append(ObjectId(text))
    if _HEX.fullmatch(text):
        stored = bytes.fromhex(text)
        # That of a UUID has hyphens.
        found += [Binary(stored, subtype) for subtype in _SUBTYPES if subtype != UUID_SUBTYPE or len(stored) != 16]
    with suppress(ValueError):
        found += [datetime.fromisoformat(text)] if "T" in text else []
    if logical := _LOGICAL.fullmatch(text):
        with suppress(ValueError, OverflowError):
            found.append(Timestamp(datetime.fromisoformat(f"{logical[1]}+00:00"), int(logical[2] or 0)))
    if _DECIMAL.fullmatch(text):
        number = float(text)
        found += [number] if not number.is_integer() or abs(number) >= _EXACT else []
        with suppress(ArithmeticError):
            found.append(Decimal128(text))
    return found
