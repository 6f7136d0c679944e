"""Running `vecsync` in tests: in this process where that is enough, as a process of its own where it is not."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecsync_dagster.cli.main import main
from vecsync_dagster.config import Config, load_config
from vecsync_dagster.demo import CONFIG, DATABASE, write_demo
from vecsync_dagster.sync import Workspace

__all__ = [
    "HARBOUR",
    "HOUSES",
    "MORAVA",
    "Ran",
    "change_rows",
    "config_of",
    "copy_sparse",
    "held",
    "replace_in_config",
    "start",
    "tree",
    "vecsync",
    "write_hash_demo",
]

_ZEROS = bytes(2**16)

HOUSES = "11111111-1111-4111-8111-111111111111"
MORAVA = "22222222-2222-4222-8222-222222222222"
HARBOUR = "33333333-3333-4333-8333-333333333333"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def vecsync(*arguments: str | Path) -> Ran:
    """Run a command in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    code: object = None
    umask = os.umask(0o022)
    os.umask(umask)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        finally:
            os.umask(umask)  # a command has its process to itself, other tests have not
    return Ran(int(str(code or 0)), _written(out), _written(err))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Somebody has the embedded store open."""
    with Workspace(config_of(folder)) as workspace:
        workspace.store("main").count("materials")
        yield


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def start(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "vecsync_dagster.cli", *map(str, arguments)]
    return subprocess.Popen(
        command,
        text=True,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def write_hash_demo(folder: Path) -> Path:
    """The demo with hash vectors, whose words are enough for what is no question of meaning."""
    file = write_demo(folder)
    replace_in_config(file, "- {provider: bundled}", "- {provider: hash, dimensions: 64}")
    replace_in_config(file, "path: state/qdrant", "path: state/qdrant, lock_timeout_s: 0.2")
    return file


def replace_in_config(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new), encoding="utf-8")


def config_of(folder: Path) -> Config:
    return load_config(folder / CONFIG)


def change_rows(folder: Path, statement: str, *values: object) -> None:
    """Change the demo's database."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute(statement, values)


def tree(folder: Path) -> dict[str, str | None]:
    """Everything below a folder, with a digest of each file's content."""
    return {str(path.relative_to(folder)): _digest(path) if path.is_file() else None for path in folder.rglob("*")}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def copy_sparse(source: str, target: str) -> None:
    """Copy a file without its zeros: the embedded store reserves hundreds of megabytes that it does not use."""
    with open(source, "rb", buffering=0) as read, open(target, "wb", buffering=0) as write:
        write.truncate(os.fstat(read.fileno()).st_size)
        for start, end in _data(read.fileno()):
            for place in range(start, end, len(_ZEROS)):
                block = os.pread(read.fileno(), min(len(_ZEROS), end - place), place)
                if block != _ZEROS[: len(block)]:
                    os.pwrite(write.fileno(), block, place)


def _data(file: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: the parts between its holes."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that there is no more
                raise
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end
