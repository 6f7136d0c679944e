"""invalid_records.jsonl: every rejected record with the reason, for the people who own the source.

The only place outside the store and the snapshots that holds record values; it lies in the state folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from vecsync_dagster.documents import Rejection
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.private import private_file, private_folder
from vecsync_dagster.sync.rejection_files import left_over, rewrite_without

if sys.platform != "win32":
    import fcntl

__all__ = ["RejectionLog"]

MAX_BYTES = 50 * 2**20
KEPT_FILES = 3


class RejectionLog:
    """Appends {timestamp, entity_type, tenant, field, error, record} a line; the file is rotated at 50 MiB.

    Several processes may write and rotate it: each holds the file itself locked meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, entity: str, tenant: str, rejections: Sequence[Rejection]) -> None:
        """Raises OutputUnwritable where the file cannot be written."""
        now = datetime.now(UTC).isoformat()
        lines = [
            _line(
                {
                    "timestamp": now,
                    "entity_type": entity,
                    "tenant": tenant,
                    "field": rejection.field,
                    "error": rejection.error,
                    "record": rejection.record,
                }
            )
            for rejection in rejections
        ]
        try:
            while lines:
                with self._locked() as file:
                    lines = self._append(file, lines)
        except OSError as error:
            raise OutputUnwritable(
                f"{self.path} cannot be written: {error.strerror or type(error).__name__}", path=str(self.path)
            ) from error

    def forget(self, entity: str, tenant: str | None) -> None:
        """Take out the records of a tenant, None: of the whole entity. Raises OutputUnwritable."""
        try:
            if not any(map(Path.exists, files := self._files())) and not left_over(self.path.parent):
                return
            # Locked, so that no other process rotates or adds to what is being rewritten.
            with self._locked():
                for file in left_over(self.path.parent):
                    file.unlink(missing_ok=True)
                for file in reversed(files):  # the locked one last: a new one by its name is locked by nobody
                    rewrite_without(file, entity, tenant)
        except OSError as error:
            raise OutputUnwritable(
                f"{self.path} cannot be written: {error.strerror or type(error).__name__}", path=str(self.path)
            ) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _files(self) -> list[Path]:
        """The file, and those it was rotated to, the newest first."""
        return [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, KEPT_FILES + 1))]

    def _append(self, file: BinaryIO, lines: list[bytes]) -> list[bytes]:
        """Writes what the file has room for, at least one line of an empty one; rotates before the others, which are
        returned."""
        size = file.seek(0, os.SEEK_END)
        if size and _last_byte(file) != b"\n":  # a line that was not finished
            size += file.write(b"\n")
        fitting = 0
        for line in lines:
            if size and size + len(line) >= MAX_BYTES:
                break
            size += len(line)
            fitting += 1
        file.write(b"".join(lines[:fitting]))
        file.flush()
        if fitting < len(lines):
            self._rotate()
        return lines[fitting:]

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file that has the name while it is locked: another process may rotate it before we have the lock."""
        private_folder(self.path.parent)
        while True:
            private_file(self.path)
            with self.path.open("a+b") as file:
                if sys.platform != "win32":
                    fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_current(file):
                    yield file
                    return

    def _is_current(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Oldest first; the locked file last, so that its lock holds until all names are right."""
        names = self._files()
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _line(line: dict[str, Any]) -> bytes:
    """The line; a value that JSON cannot hold is shown by its type, and the others as they are."""
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except (TypeError, RecursionError):  # too deep, too long a number, half of a surrogate pair
        pass
    record = {str(name): _shown(value) for name, value in line["record"].items()}
    return json.dumps({**line, "record": record}, default=str).encode() + b"\n"


def _shown(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"
