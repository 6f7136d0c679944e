"""A real year of a software catalogue, and what each month of it should do to four collections.

Worked out from the data alone: nothing of the package is used here, so that it can be held against it.
"""

from __future__ import annotations

import gzip
import hashlib
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

__all__ = ["DATA", "PAYLOAD", "TEXTS", "Catalogue", "Delta", "Expected", "deltas", "snapshot"]

DATA = Path(__file__).parents[2] / "shared" / "data" / "software"
Record = dict[str, Any]

TEXTS: dict[str, list[str]] = {
    "tools": ["{name}.", "{name}.", "{description}"],
    "functionality": ["Features: {functionality}.", "{functionality}.", "Categories: {categories}."],
    "usecases": ["Deployment: {deployment}."],
    "interface": ["Interface: {interface}.", "Status: {status}."],
}
FIELDS: dict[str, list[str]] = {
    "tools": ["name", "description"],
    "functionality": ["functionality", "categories"],
    "usecases": ["deployment"],
    "interface": ["interface", "status"],
}
PAYLOAD = ["stars", "licenses", "website", "source_code_url", "lastUpdated"]
_NAMESPACE = uuid.UUID("6f1d3ec2-5d0b-5f0e-9a3c-0c2b1a7e4d58")


@dataclass(frozen=True)
class Delta:
    """What happened in one month. `upserts` and `deletes` may name ids that were there or not."""

    month: str
    upserts: dict[str, Record]
    deletes: set[str]


def snapshot() -> dict[str, Record]:
    """The catalogue of 2023-09, by id."""
    return {record["id"]: record for record in _lines(DATA / "2023-09.snapshot.jsonl.gz")}


def deltas() -> Iterator[Delta]:
    """The eleven months after it, in order."""
    for path in sorted(DATA.glob("*.delta.jsonl.gz")):
        events = list(_lines(path))
        upserts = {event["record"]["id"]: event["record"] for event in events if event["op"] == "upsert"}
        yield Delta(path.name[:7], upserts, {event["id"] for event in events if event["op"] == "delete"})


def _lines(path: Path) -> Iterator[Record]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield orjson.loads(line)


@dataclass
class Expected:
    """What one month does to one collection."""

    new: int = 0
    changed: int = 0
    payload_only: int = 0
    removed: int = 0
    texts: set[str] = field(default_factory=set)
    """Distinct texts of the new and changed documents."""

    @property
    def written(self) -> int:
        return self.new + self.changed


@dataclass
class Catalogue:
    """The catalogue as it stands, and every text that a vector was ever made of."""

    records: dict[str, Record] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)

    def step(self, records: Mapping[str, Record]) -> tuple[dict[str, Expected], int]:
        """Go on to these records: what that does to each collection, and how many texts are to be embedded."""
        expected = {collection: self._difference(collection, records) for collection in TEXTS}
        fresh = set().union(*(one.texts for one in expected.values())) - self.paid
        self.paid |= fresh
        self.records = dict(records)
        return expected, len(fresh)

    def _difference(self, collection: str, records: Mapping[str, Record]) -> Expected:
        found = Expected(removed=len(self.records.keys() - records.keys()))
        for identity, record in records.items():
            before = self.records.get(identity)
            if before is not None and _meaning(collection, before) == _meaning(collection, record):
                found.payload_only += _payload(before) != _payload(record)
                continue
            found.new += before is None
            found.changed += before is not None
            found.texts.add(text_of(collection, record))
        return found

    def points(self, collection: str) -> dict[str, Record]:
        """Point id -> the whole payload, hashes included."""
        return {
            str(uuid.uuid5(_NAMESPACE, f"tools/global-tool-{identity}")): _point(collection, record)
            for identity, record in self.records.items()
        }


def text_of(collection: str, record: Record) -> str:
    shown = {name: _shown(record[name]) for name in FIELDS[collection]}
    return " ".join(" ".join(part.format(**shown) for part in TEXTS[collection]).split())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(sorted((_clean(item) for item in value), key=lambda item: (item.lower(), item)))
    return _clean(value)


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _meaning(collection: str, record: Record) -> list[Any]:
    """A record's text, but for letter case, blanks around it, and the order of arrays."""
    values = [record[name] for name in FIELDS[collection]]
    return [
        sorted((_clean(item).lower() for item in value), key=_json)
        if isinstance(value, list)
        else _clean(value).lower()
        for value in values
    ]


def _payload(record: Record) -> Record:
    """The payload's fields, arrays in their order. An empty text is no value."""
    plain = {name: _clean(value) if isinstance(value, str) else value for name in PAYLOAD for value in [record[name]]}
    return {name: None if value == "" else value for name, value in plain.items()}


def _point(collection: str, record: Record) -> Record:
    identity = f"global-tool-{record['id']}"
    fixed = {"id": identity, "entity": "tools", "type": "tool", "dbId": record["id"], "tenantId": None}
    payload = {**fixed, "scope": "global", "isGlobal": True, **_payload(record)}
    hashed = _hash(_json(payload))
    content = _hash(_json(TEXTS[collection]) + _json(_meaning(collection, record)))
    return {**payload, "contentHash": content, "payloadHash": hashed}


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
