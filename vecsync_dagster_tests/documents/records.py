"""Records of AI tools, an entity that makes two collections of them, and their documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.documents import Document, DocumentBatch, DocumentBuilder, Rejection

__all__ = ["TOOL", "TOOLS", "build", "document", "json_batch", "rejection"]

TOOLS: Mapping[str, Any] = {
    "source": "db",
    "table": "tools",
    "type": "tool",
    "required": ["name"],
    "types": {"price": "number"},
    "collections": {
        "tools": {"text": "{name} {description}", "payload": ["price", "website"]},
        "functionality": {"text": ["Features: {functionality}.", "{categories}"], "payload": ["price"]},
    },
}

TOOL: Mapping[str, Any] = {
    "id": "alpha-7",
    "name": "Alpha",
    "description": "Writes tests",
    "price": 5,
    "website": "https://alpha.example",
    "functionality": ["search", "chat"],
    "categories": ["writing"],
}


def json_batch(rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows of any values: every column is text that holds JSON; None is null."""
    columns = {
        name: pa.array([None if row[name] is None else json.dumps(row[name]) for row in rows], pa.string())
        for name in rows[0]
    }
    fields = [pa.field(name, pa.string(), metadata={b"vecsync": b"json"}) for name in columns]
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))


def build(
    records: pa.RecordBatch | Sequence[Mapping[str, Any]],
    *,
    tenant: str = "global",
    entity: Mapping[str, Any] = TOOLS,
) -> dict[str, DocumentBatch]:
    """The documents of all the entity's collections; rows may be given instead of a batch."""
    config = EntityConfig.model_validate(entity)
    builder = DocumentBuilder("tools", config, tenant, list(config.collections))
    return builder.build(records if isinstance(records, pa.RecordBatch) else json_batch(records))


def document(tenant: str = "global", collection: str = "tools", **changes: Any) -> Document:
    """The document of the example tool, with some of its fields changed."""
    batch = build([{**TOOL, **changes}], tenant=tenant)[collection]
    assert batch.rejections == []
    return batch.documents[0]


def rejection(collection: str = "tools", **changes: Any) -> Rejection:
    """Why the example tool is rejected once these fields are changed."""
    batch = build([{**TOOL, **changes}])[collection]
    assert batch.documents == []
    return batch.rejections[0]
