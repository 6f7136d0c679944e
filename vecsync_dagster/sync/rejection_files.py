"""Taking a tenant's records out of invalid_records.jsonl and the files that were rotated away."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import orjson

__all__ = ["rewrite_without"]


def rewrite_without(path: Path, entity: str, tenant: str | None) -> None:
    """Replace the file by one without the lines of that tenant, None: of the whole entity; whole or not at all."""
    if not path.exists() or not _has(path, entity, tenant):
        return
    with (
        path.open("rb") as lines,
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=".invalid-", delete=False) as kept,
    ):
        try:
            for line in lines:
                if not _is_of(line, entity, tenant):
                    kept.write(line)
            kept.flush()
            shutil.copymode(path, kept.name)
            Path(kept.name).replace(path)
        except BaseException:
            Path(kept.name).unlink(missing_ok=True)
            raise


def _has(path: Path, entity: str, tenant: str | None) -> bool:
    with path.open("rb") as lines:
        return any(_is_of(line, entity, tenant) for line in lines)


def _is_of(line: bytes, entity: str, tenant: str | None) -> bool:
    # Most lines are of others: they need no parsing. A record that orjson cannot hold is written in ASCII alone.
    if tenant is not None and orjson.dumps(tenant) not in line and json.dumps(tenant).encode() not in line:
        return False
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False  # a line that a killed process did not finish
    return isinstance(found, dict) and found.get("entity_type") == entity and tenant in (None, found.get("tenant"))
