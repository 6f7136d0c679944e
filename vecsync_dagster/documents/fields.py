"""Which fields of a document changed: a short hash of each, so that the ledger can tell without keeping values.

A field has another hash if and only if its value changed the document: text as the content hash sees it (letter
case and the order of lists say nothing) where the field is in the text alone, else as the payload hash does.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import orjson

from vecsync_dagster.documents.builder import Document
from vecsync_dagster.documents.hashing import content_hasher, payload_hash

__all__ = ["field_hashes", "modified_fields"]

_LENGTH: Final = 8
_text_hash: Final = content_hasher(())


def field_hashes(document: Document) -> str:
    """8 hex digits of the fields' names, then 8 of each field's value."""
    texts, payload = document.fields
    names = _names(texts, payload)
    values = "".join(
        _hash(payload[name], text=False) if name in payload else _hash(texts[name], text=True) for name in names
    )
    return _of_names(names) + values


def modified_fields(document: Document, before: str | None, after: str) -> tuple[str, ...] | None:
    """Names of the fields that differ between two `field_hashes`, in their order. None where nothing is known
    (never confirmed, or by other settings, with other fields) or nothing differs."""
    if before is None or before[:_LENGTH] != after[:_LENGTH] or len(before) != len(after):
        return None
    names = _names(*document.fields)
    starts = range(_LENGTH, len(after), _LENGTH)
    differ = [
        name for name, at in zip(names, starts, strict=True) if before[at : at + _LENGTH] != after[at : at + _LENGTH]
    ]
    return tuple(differ) or None


def _names(texts: dict[str, Any], payload: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys([*texts, *payload]))


def _of_names(names: list[str]) -> str:
    return f"{crc32(orjson.dumps(names)):08x}"


def _hash(value: Any, *, text: bool) -> str:
    if isinstance(value, (list, dict)):
        return (_text_hash((value,)) if text else payload_hash({"": value}))[:_LENGTH]
    if text and isinstance(value, str):
        value = value.strip().lower()
    return f"{crc32(orjson.dumps(value)):08x}"
