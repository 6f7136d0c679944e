"""Hashes that say whether a document's text or payload changed. Equal in every process and on every machine.

Content hash and payload hash: the first 16 hex digits of SHA-256. For the content hash
strings are trimmed and lower-cased, and arrays in any order are equal; a payload is hashed as the store shows it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from vecsync_dagster.stores.base import CONTENT_HASH, PAYLOAD_HASH

__all__ = ["attempt_hash", "content_hasher", "is_payload_hash", "normal", "payload_hash", "point_id", "record_hashes"]

_NAMESPACE = uuid.UUID("6f1d3ec2-5d0b-5f0e-9a3c-0c2b1a7e4d58")
_LENGTH = 16
_REVISION = b"3"
"""To be raised when the same record under the same settings makes another document than it did: else documents
whose records did not change would keep what the old code made of them."""


class content_hasher:  # noqa: N801 (used as a function)
    """Hash of a document's text fields under one template.

    The template is part of the hash: another template is another text.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._template = orjson.dumps(list(parts))

    def __call__(self, values: Iterable[Any]) -> str:
        values = [value.strip().lower() if value.__class__ is str else normal(value) for value in values]
        return sha256(self._template + orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_LENGTH]


def payload_hash(payload: Mapping[str, Any]) -> str:
    """Hash of a payload as the store keeps it, but for the two hashes that stand in it themselves."""
    if CONTENT_HASH in payload or PAYLOAD_HASH in payload:
        payload = dict(payload)
        payload.pop(CONTENT_HASH, None)
        payload.pop(PAYLOAD_HASH, None)
    return sha256(orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_LENGTH]


def is_payload_hash(payload: Mapping[str, Any], hashed: str) -> bool:
    """Whether `hashed` is the payload's hash, or the one that earlier versions made, of its lists in any order."""
    if payload_hash(payload) == hashed:
        return True
    lists = {key: _unordered(value) for key, value in payload.items() if value.__class__ is list}
    return bool(lists) and payload_hash({**payload, **lists}) == hashed


def record_hashes(settings: bytes, records: Iterable[bytes]) -> list[str]:
    """For each record (as bytes) a hash of it and of the settings that make documents of it."""
    start = sha256(_REVISION + settings)
    hashes = []
    for record in records:
        hashed = start.copy()
        hashed.update(record)
        hashes.append(hashed.hexdigest()[:_LENGTH])
    return hashes


def attempt_hash(content_hash: str, payload_hash_: str) -> str:
    """What an attempt tried to write: both hashes in one."""
    return content_hash + payload_hash_


def point_id(entity: str, document_id: str) -> str:
    """UUIDv5 of (entity, document id): never of a process's own `hash()`."""
    return str(uuid.uuid5(_NAMESPACE, f"{entity}/{document_id}"))


def normal(value: Any) -> Any:
    """A text field's value as the content hash sees it."""
    if isinstance(value, str):
        return value.strip().lower()
    if isinstance(value, list):
        return _unordered([normal(item) for item in value])
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return value


def _unordered(values: list[Any]) -> list[Any]:
    """The same for lists of the same values, in whatever order they are."""
    if len(values) < 2:
        return values
    return sorted(values, key=lambda value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
