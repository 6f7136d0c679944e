"""Lists of plain values as Arrow arrays, without PyArrow's own way for a list.

That one imports pandas, to see whether the list is one of its objects: 0.2 s and 50 MiB of every process that syncs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["arrow_array"]

_MAX_BYTES = 2**31 - 1  # of an Arrow string array: its offsets have 32 bits


def arrow_array(values: Sequence[Any]) -> pa.Array:
    """What `pa.array(values)` gives. Raises what it raises."""
    kinds = set(map(type, values))
    nullable = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return pa.nulls(len(values))
    try:
        if kinds == {str}:
            return _texts(pa.string(), list(map(str.encode, _filled(values, "", nullable))), values, nullable)
        if kinds <= {bytes, bytearray}:
            return _texts(pa.binary(), _filled(values, b"", nullable), values, nullable)
        if kinds == {int}:
            return _numbers(pa.int64(), "q", values, nullable)
        if kinds == {float}:
            return _numbers(pa.float64(), "d", values, nullable)
        if kinds == {bool}:
            return _numbers(pa.int8(), "b", values, nullable).cast(pa.bool_())
    except (OverflowError, UnicodeEncodeError):
        pass  # too large, or a lone surrogate: PyArrow has its own words for it
    return pa.array(values)


def _texts(kind: pa.DataType, encoded: Sequence[bytes | bytearray], values: Sequence[Any], nullable: bool) -> pa.Array:
    data = b"".join(encoded)
    if len(data) > _MAX_BYTES:
        raise OverflowError
    offsets = np.zeros(len(values) + 1, np.int32)
    np.fromiter(map(len, encoded), np.int32, len(encoded)).cumsum(out=offsets[1:])
    buffers = [_validity(values) if nullable else None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _numbers(kind: pa.DataType, code: str, values: Sequence[Any], nullable: bool) -> pa.Array:
    buffers = [_validity(values) if nullable else None, pa.py_buffer(array(code, _filled(values, 0, nullable)))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _filled(values: Sequence[Any], nothing: Any, nullable: bool) -> Sequence[Any]:
    return [nothing if value is None else value for value in values] if nullable else values


def _validity(values: Sequence[Any]) -> pa.Buffer:
    return pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))
