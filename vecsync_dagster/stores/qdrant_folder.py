"""The folder of an embedded store: who holds it, and which collection leads where.

<path>/vecsync.lock         an OS lock, held while a process has the folder open; it dies with the process
<path>/holder.json          who holds the lock, for the message of whoever waits in vain
<path>/aliases.json         alias -> physical collection and its space
<path>/<physical>/          one shard of the engine for each physical collection
<path>/<physical>.creating  a shard that is not finished, or is being removed
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from vecsync_dagster.errors import OutputUnwritable, StoreLocked, StoreRejected
from vecsync_dagster.private import private_contents, private_file, private_folder
from vecsync_dagster.space import Space
from vecsync_dagster.stores.qdrant_common import SERVICE, Shape

__all__ = ["MIB", "Alias", "Folder", "shape_in", "sync_folder", "writing"]

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Alias:
    """`physical` is the shard's folder name, prefix included."""

    physical: str
    space: Space


class Folder:
    """Not thread-safe: its store calls it under a lock of its own.

    `reserve_bytes` of the disk must be free to write: the engine writes through memory maps, and a process
    that touches one on a full disk is killed (SIGBUS) instead of getting an error.
    """

    def __init__(self, path: Path, lock_timeout_s: float, reserve_bytes: int) -> None:
        self.path = path
        self._timeout_s = lock_timeout_s
        self._waited_in_vain = False
        self._reserve = reserve_bytes
        # Not local to a thread: whichever thread closes the store must be able to release it.
        self._lock = FileLock(path / "vecsync.lock", thread_local=False, mode=0o600)
        self._aliases: dict[str, Alias] = {}

    @property
    def exists(self) -> bool:
        """Whether there is a store here at all; asking creates nothing."""
        return self._lock.is_locked or (self.path / "aliases.json").exists()

    def open(self) -> None:
        """Take the lock and read the aliases, unless that is done. After a wait in vain, each later call tries once: a
        command waits once, not once for each partition. Raises StoreLocked, OutputUnwritable."""
        if self._lock.is_locked:
            return
        with writing(self.path):
            private_folder(self.path)
            try:
                self._lock.acquire(timeout=0 if self._waited_in_vain else self._timeout_s, poll_interval=0.05)
            except Timeout as error:
                self._waited_in_vain = True
                raise self._locked() from error
        self._waited_in_vain = False
        try:
            self.check_free()
            self._write("holder.json", _this_process())
            self._aliases = self._read_aliases()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        if not self._lock.is_locked:
            return
        try:
            with writing(self.path):
                (self.path / "holder.json").unlink(missing_ok=True)
                for alias in self._aliases.values():
                    private_contents(self.path / alias.physical)
        finally:
            self._lock.release()

    def alias(self, name: str) -> Alias | None:
        """Where an alias leads; None also where somebody removed the collection's folder."""
        found = self._aliases.get(name)
        return found if found is not None and (self.path / found.physical).is_dir() else None

    def names(self) -> list[str]:
        return [name for name in self._aliases if self.alias(name) is not None]

    def set_alias(self, name: str, alias: Alias) -> None:
        self._set_aliases({**self._aliases, name: alias})

    def drop_alias(self, name: str) -> None:
        if name in self._aliases:
            self._set_aliases({key: alias for key, alias in self._aliases.items() if key != name})

    def _set_aliases(self, aliases: dict[str, Alias]) -> None:
        text = {key: {"physical": value.physical, "space": str(value.space)} for key, value in aliases.items()}
        self._write("aliases.json", text)
        self._aliases = aliases

    def check_free(self) -> None:
        with writing(self.path):
            free = shutil.disk_usage(self.path).free
        if free < self._reserve:
            raise OutputUnwritable(
                f"{self.path}: {free // MIB} MiB of disk are free; the embedded store needs {self._reserve // MIB} MiB",
                path=str(self.path),
                free_bytes=free,
            )

    def _read_aliases(self) -> dict[str, Alias]:
        file = self.path / "aliases.json"
        if not file.exists():
            return {}
        try:
            read = json.loads(file.read_text("utf-8"))
            return {name: Alias(value["physical"], Space.parse(value["space"])) for name, value in read.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreRejected(
                f"{file}: damaged; restore it, or move the folder away", service=SERVICE, every_document=True
            ) from error

    def _write(self, name: str, value: object) -> None:
        """Whole or not at all, also across a power cut."""
        with writing(self.path):
            new = self.path / f"{name}.tmp"
            private_file(new)
            with new.open("w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False, indent=2)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path / name)
            sync_folder(self.path)

    def _locked(self) -> StoreLocked:
        try:
            holder = json.loads((self.path / "holder.json").read_text("utf-8"))
            who = f"process {holder['pid']} ({holder['command']}, since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):  # it may be opening or closing just now
            holder, who = {}, "another process"
        return StoreLocked(
            f"{self.path}: {who} has the embedded store open, and only one process can; waited "
            f"{self._timeout_s:g} s. Let it finish or stop it; several processes at once need a Qdrant server (url:)",
            service=SERVICE,
            pid=holder.get("pid"),
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the operating system says about a folder as OutputUnwritable."""
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(f"{path}: cannot be written: {error.strerror or error}", path=str(path)) from error


def sync_folder(path: Path) -> None:
    """Make a rename in `path` survive a power cut."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _this_process() -> dict[str, object]:
    """Program and subcommand only: further arguments might hold anything."""
    program = Path(sys.argv[0] or sys.executable)
    words = [program.parent.name if program.name == "__main__.py" else program.name]
    words += [word for word in sys.argv[1:2] if re.fullmatch(r"[a-z][a-z-]{0,30}", word)]
    return {"pid": os.getpid(), "command": " ".join(words), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}


def shape_in(folder: Path) -> Shape | None:
    """What the engine notes of a shard's vectors; None where it notes it in another way."""
    try:
        vectors = json.loads((folder / "edge_config.json").read_bytes())["vectors"][""]
        return Shape(vectors["size"], vectors["distance"].lower())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
