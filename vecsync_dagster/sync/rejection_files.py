"""Taking a tenant's records out of invalid_records.jsonl and the files that were rotated away."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import orjson

__all__ = ["left_over", "rewrite_without"]

_NEW = ".invalid-"
"""Begins the names of files that are being written."""


def left_over(folder: Path) -> list[Path]:
    """What a killed process left that was writing a file anew."""
    return list(folder.glob(f"{_NEW}*"))


def rewrite_without(path: Path, entity: str, tenant: str | None) -> None:
    """Replace the file by one without the lines of that tenant, None: of the whole entity; whole or not at all."""
    if not path.exists() or not _has(path, entity, tenant):
        return
    with (
        path.open("rb") as lines,
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=_NEW, delete=False) as kept,
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
        found = _parsed(line)
    except (ValueError, RecursionError):
        return True  # a line that was not finished: nobody can read it, and it may hold a part of a record
    return isinstance(found, dict) and found.get("entity_type") == entity and tenant in (None, found.get("tenant"))


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # it takes neither half of a surrogate pair nor every number
        return json.loads(line)
