"""Documents as a collection gives them, each decoded so that a value which the driver cannot decode is its own fault.

The driver decodes what the server sends at once: one such value would end the read of everybody's documents, and name
none. So batches are taken as bytes and decoded here, a good one by one call. In a bad one, each bad document is decoded
field by field, and a field that cannot be is `Unreadable`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import bson
from bson.binary import OLD_BINARY_SUBTYPE, UUID_SUBTYPE
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.change_stream import CollectionChangeStream
from pymongo.collection import Collection
from pymongo.cursor import RawBatchCursor

from vecsync_dagster.unreadable import Unreadable

__all__ = ["Documents", "Stream", "aggregated", "decoded", "found", "watched"]

Document = dict[str, Any]
_Options = CodecOptions[Document]
_DOCUMENT, _ARRAY, _BINARY, _BOOLEAN, _REGEX = 0x03, 0x04, 0x05, 0x08, 0x0B
_FIXED = {
    0x01: 8,
    0x06: 0,
    0x07: 12,
    _BOOLEAN: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}
"""Type -> bytes of a value."""
_COUNTED = {0x02: 4, 0x0D: 4, 0x0E: 4, _BINARY: 5, 0x0C: 16, _DOCUMENT: 0, _ARRAY: 0, 0x0F: 0}
"""Type -> bytes of a value beside those that its first four count."""
_KEPT = {
    UUID_SUBTYPE: "holds a UUID that is not 16 bytes long",
    OLD_BINARY_SUBTYPE: "holds binary data of subtype 2 with a wrong length in it",
}


class Documents:
    """What one query finds; a cursor of the server stands behind it until it ends or is closed."""

    def __init__(self, batches: RawBatchCursor[Any], options: _Options) -> None:
        self._batches = batches
        self._options = options

    def __iter__(self) -> Iterator[Document]:
        for batch in self._batches:
            yield from _decoded_all(batch, self._options)

    def __enter__(self) -> Documents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._batches.close()


def found(collection: Collection[Document], *args: Any, **kwargs: Any) -> Documents:
    """As `Collection.find`."""
    return Documents(collection.find_raw_batches(*args, **kwargs), collection.codec_options)


def aggregated(collection: Collection[Document], pipeline: Sequence[Mapping[str, Any]], **kwargs: Any) -> Documents:
    """As `Collection.aggregate`."""
    return Documents(collection.aggregate_raw_batches(pipeline, **kwargs), collection.codec_options)


class Stream:
    """A change stream, as the driver's; see `watched`."""

    def __init__(self, events: CollectionChangeStream[RawBSONDocument], options: _Options) -> None:
        self._events = events
        self._options = options

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()

    @property
    def alive(self) -> bool:
        return self._events.alive

    @property
    def resume_token(self) -> Mapping[str, Any] | None:
        token = self._events.resume_token
        return decoded(bytes(token.raw), self._options) if isinstance(token, RawBSONDocument) else token

    def try_next(self) -> Document | None:
        event = self._events.try_next()
        return None if event is None else decoded(bytes(event.raw), self._options)


def watched(collection: Collection[Document], pipeline: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> Stream:
    """As `Collection.watch`."""
    raw = collection.codec_options.with_options(document_class=RawBSONDocument)
    return Stream(collection.with_options(raw).watch(list(pipeline), **kwargs), collection.codec_options)


def _decoded_all(batch: bytes, options: _Options) -> list[Document]:
    try:
        return bson.decode_all(batch, options)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (found again below, document by document)
        return [decoded(raw, options) for raw in _each(batch)]


def _each(batch: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(batch):
        end = start + struct.unpack_from("<i", batch, start)[0]
        yield batch[start:end]
        start = end


def decoded(raw: bytes, options: _Options) -> Document:
    """The document; in it, `Unreadable` for what cannot be decoded. Raises InvalidBSON where it is none at all."""
    document = _whole(raw, options)
    return dict(_fields(raw, options)) if document is None else document


def _whole(raw: bytes, options: _Options) -> Document | None:
    try:
        return bson.decode(raw, options)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (whatever it is, it is this value's)
        return None


def _fields(raw: bytes, options: _Options) -> Iterator[tuple[str, Any]]:
    start, end = 4, len(raw) - 1
    while start < end:
        value, after = _bounds(raw, start, end)
        alone = _whole(b"".join((struct.pack("<i", after - start + 5), raw[start:after], b"\x00")), options)
        if alone is None:
            name = raw[start + 1 : value - 1].decode("utf-8", "replace")
            yield name, _partly(raw[start], raw[value:after], options)
        else:
            yield from alone.items()
        start = after


def _bounds(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the value of the field that starts here begins, and what comes after it."""
    kind = raw[start]
    try:
        value = after = raw.index(0, start + 1) + 1
        if kind in _COUNTED:
            after += _COUNTED[kind] + struct.unpack_from("<I", raw, value)[0]
        elif kind == _REGEX:
            after = raw.index(0, raw.index(0, value) + 1) + 1
        else:
            after += _FIXED[kind]
    except (KeyError, ValueError, struct.error):
        after = end + 1
    if after > end:
        raise InvalidBSON("fields beyond the end of their document, or of an unknown type")
    return value, after


def _partly(kind: int, value: bytes, options: _Options) -> Any:
    """A value that cannot be decoded as a whole: of a list or an object, what can be."""
    if kind in (_DOCUMENT, _ARRAY):
        try:
            inside = list(_fields(value, options))
        except InvalidBSON:
            return Unreadable("holds a value that is no valid BSON")
        return dict(inside) if kind == _DOCUMENT else [one for _, one in inside]
    if kind == _BINARY and value[4] in _KEPT:
        return Unreadable(_KEPT[value[4]])
    if kind == _BOOLEAN:
        return Unreadable("holds a boolean that is neither true nor false")
    return Unreadable("holds a value that is no valid BSON")
