"""Records as bytes, a record's values in a row: what the hash of a whole record is taken of.

Arrow makes them for a page at once. Most records of most runs are as they were, and nothing more is asked of them:
no value of theirs becomes a Python object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from vecsync_dagster.arrays import arrow_array

__all__ = ["record_bytes"]

# Bytes that UTF-8 has nowhere, so that no text can be taken for them. Scalars by way of an array: `pa.scalar` imports
# pandas.
_BETWEEN = arrow_array([b"\xff"])[0]
_NOTHING = arrow_array([b""])[0]
_NULL = b"\xfe"
_MARK = b"\xfd"
_WRITTEN = (types.is_integer, types.is_floating, types.is_boolean, types.is_date, types.is_null)
"""What Arrow writes as text, every value as another one."""


def record_bytes(columns: Sequence[tuple[pa.Array, bool]]) -> list[bytes]:
    """For each row bytes that are equal just where all its values are, and their types. Null is one value in columns
    of all types. A column comes with whether it is text that holds JSON."""
    parts = [_marked(column, is_json) for column, is_json in columns]
    joined = pc.binary_join_element_wise(*parts, _BETWEEN, null_handling="replace", null_replacement=_NULL)
    found: list[bytes] = joined.to_pylist()
    return found


def _marked(column: pa.Array, is_json: bool) -> pa.Array:
    """The values as text, behind the name of their type; plain text has none."""
    values = _texts(column).view(pa.binary())
    name = "json" if is_json else str(column.type)
    return values if name in ("string", "null") else pc.binary_join_element_wise(_mark(name), values, _NOTHING)


@cache
def _mark(name: str) -> pa.Scalar:
    return arrow_array([_MARK + name.encode() + _MARK])[0]


def _texts(column: pa.Array) -> pa.Array:
    """Text that tells every two values of the type from each other."""
    kind = column.type
    if types.is_string(kind):
        return column
    if types.is_timestamp(kind):
        return column.view(pa.int64()).cast(pa.string())  # its own text would need the time zone's rules
    if any(is_one(kind) for is_one in _WRITTEN):
        return column.cast(pa.string())
    texts = [None if value is None else repr(value) for value in column.to_pylist()]
    return arrow_array(texts).cast(pa.string())
