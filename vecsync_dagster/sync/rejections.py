"""invalid_records.jsonl: every rejected record with the reason, for the people who own the source (P5).

The only place outside the store and the snapshots that holds record values; it lies in the state folder.
"""

from __future__ import annotations

import json
import logging.handlers
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from vecsync_dagster.documents import Rejection
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.sync.rejection_files import rewrite_without

__all__ = ["RejectionLog"]

MAX_BYTES = 50 * 2**20
KEPT_FILES = 3


class RejectionLog:
    """Appends {timestamp, entity_type, tenant, field, error, record} a line; the file is rotated at 50 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handler: logging.handlers.RotatingFileHandler | None = None

    def keep(self, entity: str, tenant: str, rejections: Sequence[Rejection]) -> None:
        """Raises OutputUnwritable where the file cannot be written."""
        now = datetime.now(UTC).isoformat()
        for rejection in rejections:
            line = {
                "timestamp": now,
                "entity_type": entity,
                "tenant": tenant,
                "field": rejection.field,
                "error": rejection.error,
                "record": rejection.record,
            }
            self._write(_json(line))

    def forget(self, entity: str, tenant: str | None) -> None:
        """Take out the records of a tenant, None: of the whole entity. Raises OutputUnwritable."""
        self.close()
        try:
            for name in (self.path.name, *(f"{self.path.name}.{n}" for n in range(1, KEPT_FILES + 1))):
                rewrite_without(self.path.with_name(name), entity, tenant)
        except OSError as error:
            raise OutputUnwritable(
                f"{self.path} cannot be written: {error.strerror or type(error).__name__}", path=str(self.path)
            ) from error

    def close(self) -> None:
        if self._handler is not None:
            self._handler.close()
            self._handler = None

    def _write(self, line: str) -> None:
        try:
            if self._handler is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handler = _Rotating(self.path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
            self._handler.emit(logging.makeLogRecord({"msg": line}))
        except OSError as error:
            raise OutputUnwritable(
                f"{self.path} cannot be written: {error.strerror or type(error).__name__}", path=str(self.path)
            ) from error


def _json(line: dict[str, Any]) -> str:
    """The line; a value that JSON cannot hold is shown by its type, and the others as they are."""
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, RecursionError):  # too deep, too long a number, half of a surrogate pair
        pass
    record = {str(name): _shown(value) for name, value in line["record"].items()}
    return json.dumps({**line, "record": record}, default=str)


def _shown(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


class _Rotating(logging.handlers.RotatingFileHandler):
    """The standard library's rotation; errors are raised instead of printed."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base class names it)
        raise
