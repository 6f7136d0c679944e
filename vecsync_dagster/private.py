"""Files and folders that hold records, vectors or what was said of them: for their owner alone, whatever the umask."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

__all__ = ["private_contents", "private_file", "private_folder", "restrict_umask", "user_umask"]

_log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_umask: int | None = None


def restrict_umask() -> None:
    """For a process of our own: what the embedded engine, SQLite and Dagster write is private as well."""
    global _umask
    before = os.umask(0o077)
    _umask = before if _umask is None else _umask


def user_umask() -> int:
    """The umask that the process was started with: for files that people asked for by name."""
    if _umask is not None:
        return _umask
    current = os.umask(0o077)
    os.umask(current)
    return current


def private_folder(path: Path) -> None:
    """Make `path`, and what is missing above it, readable by its owner alone. One that is there is tightened, with
    all that is in it. Raises OSError.

    Left as they are: shared ones like /tmp, the home, the working and the configuration's folder, which are not
    vecsync's alone, and those of another user, which is logged.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    if missing or os.name != "posix":
        return
    status = path.stat()
    if not status.st_mode & _OTHERS or status.st_mode & stat.S_ISVTX:
        return
    if path.resolve() in (Path.cwd(), Path.home()) or (path / "vecsync.yaml").exists():
        return
    if status.st_uid != os.geteuid():
        _log.warning("%s can be read by others, and belongs to another user: run `chmod -R go= %s`", path, path)
        return
    private_contents(path)
    path.chmod(status.st_mode & ~_OTHERS & 0o7777)  # last: until then the next run looks again


def private_contents(folder: Path) -> None:
    """Tighten all that is in `folder`: somebody else's code may have made it, with the umask. Raises OSError."""
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _tighten(Path(inner, name))


def private_file(path: Path) -> None:
    """Make `path` before somebody else's code does, which would do so with the umask; tighten one that is there.

    Raises OSError.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    _tighten(path)


def _tighten(path: Path) -> None:
    """Another process may have removed it, or it belongs to another user: the folder around it is closed anyway."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS or status.st_uid != os.geteuid():
            return
        path.chmod(status.st_mode & ~_OTHERS & 0o7777)
    except FileNotFoundError:
        return
