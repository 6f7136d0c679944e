"""Keys of MongoDB documents: the text, and the key itself as extended JSON, which tells 7 from "7" and an ObjectId from
its text.

Numbers of all types are one key where they are equal, as the server has it. A sub-document's text is that of a key of
several columns, its fields in the order that they stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any

import orjson
import pyarrow as pa
from bson import Decimal128, ObjectId, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from vecsync_dagster.identity import KEY_NATIVE, KEY_TEXT, Key, key_parts, key_text, native_of, number_text
from vecsync_dagster.sources.mongo_dotted import dotted
from vecsync_dagster.sources.mongo_errors import is_transient
from vecsync_dagster.sources.mongo_values import Fields, candidates, id_text, unreadable_in, value_at

__all__ = ["among", "field_of", "is_own", "is_unique", "key_of", "with_keys", "written"]

Query = dict[str, Any]
Where = Callable[[str, Query], Query]
_NONE: Query = {"_id": {"$in": []}}
_OWN = "_id_"
"""The index that each collection has."""
_WHOLE = 2**53
_DIGITS = 40  # a Decimal128 has 34
_OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.STANDARD,
    tz_aware=True,
    tzinfo=UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


def _at_path(name: str, condition: Query) -> Query:
    return {name: condition}


def field_of(key: Sequence[str]) -> str:
    """The column that has the key's text in a page of records."""
    return key[0] if len(key) == 1 else KEY_TEXT


def is_own(key: Sequence[str]) -> bool:
    """Whether the key is MongoDB's own, or made of parts of it: a deleted document's is known by its event."""
    return all(name.partition(".")[0] == "_id" for name in key)


def is_unique(collection: Collection[dict[str, Any]], key: Sequence[str]) -> bool:
    """Whether the server lets no two documents have one key."""
    if "_id" not in key and dotted(key):  # an index goes by paths, the key perhaps by names
        return False
    try:
        if "viewOn" in collection.options():
            return False  # a view may make several documents of one
        indexes = collection.index_information()
    except OperationFailure as error:  # nothing that we may know
        if is_transient(error):
            raise
        return "_id" in key  # of all but views
    if "_id" in key:
        return _OWN in indexes  # which a time series does not have
    return any(
        index.get("unique")
        and "partialFilterExpression" not in index
        and not index.get("sparse")
        and {name for name, _ in index["key"]} <= set(key)
        for index in indexes.values()
    )


def key_of(document: Fields, names: Sequence[str]) -> Key | None:
    """The document's key, which is in these fields; None where it has no usable one."""
    if len(names) == 1:
        value = value_at(document, names[0])
        text = _text(value)
        return None if text is None else Key(text, written(value))
    values = [value_at(document, name) for name in names]
    text = _joined(values)
    return None if text is None else Key(text, f"[{','.join(map(written, values))}]")


def _text(value: Any) -> str | None:
    if isinstance(value, Decimal128):
        return number_text(value.to_decimal())
    if isinstance(value, Mapping):
        values = list(value.values())
        return _text(values[0]) if len(values) == 1 else _joined(values)
    return id_text(value)


def _joined(values: Sequence[Any]) -> str | None:
    """A field without a value is a part of the key; one with a value that cannot be a key makes it none."""
    parts = [_text(value) for value in values]
    lost = any(part is None and value is not None for part, value in zip(parts, values, strict=True))
    return None if lost or all(part is None for part in parts) else key_text(parts)


def written(value: Any) -> str:
    """A value as extended JSON; a whole number as such, of whatever type it is. Of one that cannot be read, no JSON."""
    if value.__class__ is str:
        return orjson.dumps(value).decode()
    if value.__class__ is ObjectId:
        return f'{{"$oid":"{value}"}}'
    if isinstance(value, Decimal128) and value.to_decimal().is_finite():
        number = value.to_decimal()
        value = int(number) if number == number.to_integral_value() and number.adjusted() < _DIGITS else value
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if unreadable_in(value) is not None:
        return "unreadable"
    return json_util.dumps(value, json_options=_OPTIONS)


def _whole(text: str) -> int | Decimal128:
    """MongoDB has whole numbers of 64 bits; a longer one was a decimal."""
    number = int(text)
    return number if -(2**63) <= number < 2**63 else Decimal128(text)


def among(names: Sequence[str], keys: Iterable[str], where: Where = _at_path) -> Query:
    """Documents by their keys: by the key itself where it is known and made of so many fields, else by every value that
    has its text. `where` makes the condition of a field."""
    values: list[Any] = []
    texts: list[str] = []
    for key in keys:
        native = native_of(key)
        value = None if native is None else json_util.loads(native, json_options=_OPTIONS, parse_int=_whole)
        fields = len(value) if isinstance(value, list) else 1
        if native is None or fields != len(names):  # it was made of other fields before
            texts.append(key)
        else:
            values.append(value)
    if len(names) == 1:
        return where(names[0], {"$in": [*values, *candidates(texts)]})
    exact = [_each(where, zip(names, ({"$eq": part} for part in parts), strict=True)) for parts in values]
    split = [parts for text in texts if (parts := key_parts(text, len(names))) is not None]
    alike = [_each(where, zip(names, map(_like, parts), strict=True)) for parts in split]
    return {"$or": [*exact, *alike]} if exact or alike else _NONE


def _each(where: Where, conditions: Iterable[tuple[str, Query]]) -> Query:
    parts = [where(name, condition) for name, condition in conditions]
    merged = {name: condition for part in parts for name, condition in part.items()}
    return merged if len(merged) == len(parts) else {"$and": parts}


def _like(part: str | None) -> Query:
    return {"$eq": None} if part is None else {"$in": candidates([part])}


def with_keys(records: pa.RecordBatch, keys: Sequence[Key | None]) -> pa.RecordBatch:
    """The records and, in columns of their own, their keys."""
    natives = [None if key is None else key.native for key in keys]
    columns = {
        KEY_TEXT: pa.array([None if key is None else str(key) for key in keys], pa.string()),
        KEY_NATIVE: pa.array(natives, pa.string()),
    }
    for name, column in columns.items():
        records = records.append_column(name, column)
    return records
