"""Which fields of a document changed: a short hash of each, so that the ledger can tell without keeping values.

A field has another hash if and only if its value changed the document: text as the content hash sees it (letter
case and the order of lists say nothing) where the field is in the text alone, else as the payload has it.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from vecsync_dagster.documents.builder import Document
from vecsync_dagster.documents.hashing import normal
from vecsync_dagster.stores.base import RESERVED_KEYS

__all__ = ["field_hashes", "modified_fields"]

_LENGTH: Final = 8
_REVISION: Final = b"2"
"""Of the hashes: those of another one say nothing."""


class _Layout(NamedTuple):
    """What is the same for all documents of a collection: how its fields' names, in order, begin the hashes, and
    where each field is: in the payload (None), or in the text alone, at that place among its values."""

    hashed: str
    places: tuple[tuple[str, int | None], ...]
    numbers: Struct


def field_hashes(document: Document) -> str:
    """8 hex digits of the fields' names, then 8 of each field's value."""
    layout, payload, texts = _layout_of(document), document.payload, document.text_values
    numbers = [
        _number(payload[name], text=False) if place is None else _number(texts[place], text=True)
        for name, place in layout.places
    ]
    return layout.hashed + layout.numbers.pack(*numbers).hex()


def modified_fields(document: Document, before: str | None, after: str) -> tuple[str, ...] | None:
    """Names of the fields that differ between two `field_hashes`, in their order. None where nothing is known
    (never confirmed, or by other settings, with other fields) or nothing differs."""
    if before is None or before[:_LENGTH] != after[:_LENGTH] or len(before) != len(after):
        return None
    starts = range(_LENGTH, len(after), _LENGTH)
    differ = [
        name
        for (name, _), at in zip(_layout_of(document).places, starts, strict=True)
        if before[at : at + _LENGTH] != after[at : at + _LENGTH]
    ]
    return tuple(differ) or None


def _layout_of(document: Document) -> _Layout:
    return _layout(document.text_fields, tuple(document.payload))


@lru_cache(maxsize=256)
def _layout(texts: tuple[str, ...], payload: tuple[str, ...]) -> _Layout:
    own = [name for name in payload if name not in RESERVED_KEYS]
    names = tuple(dict.fromkeys([*texts, *own]))
    places = tuple((name, None if name in own else texts.index(name)) for name in names)
    return _Layout(f"{crc32(_REVISION + orjson.dumps(names)):08x}", places, Struct(f">{len(names)}I"))


def _number(value: Any, *, text: bool) -> int:
    return crc32(orjson.dumps(normal(value) if text else value, option=orjson.OPT_SORT_KEYS))
