"""Where output goes: data to stdout, everything else to stderr. Nothing here knows a command."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console

from vecsync_dagster.errors import VecsyncError

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

__all__ = [
    "command_line",
    "error",
    "log_to_stderr",
    "note",
    "number_of",
    "print_json",
    "stderr",
    "stdout",
    "tell_of_retry",
    "warn",
]

PIPE_WIDTH = 140  # columns of a table that no terminal shows


def stdout() -> Console:
    """For tables and text. Never interprets what data contains."""
    return _console(sys.stdout)


def stderr() -> Console:
    return _console(sys.stderr)


def print_json(document: Any) -> None:
    """One JSON document on stdout; what JSON does not know becomes text."""
    import orjson

    sys.stdout.flush()
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    sys.stdout.buffer.write(orjson.dumps(document, default=str, option=options))
    sys.stdout.buffer.flush()


def note(message: str) -> None:
    stderr().print(message, soft_wrap=True)


def warn(message: str) -> None:
    stderr().print(f"warning: {message}", style="yellow", soft_wrap=True)


def error(code: str, message: str) -> None:
    stderr().print(f"error: {code}: {message}", style="red", soft_wrap=True)


def tell_of_retry(details: RetryDetails) -> None:
    """A pause has its reason. Errors that are not ours are told by their type: a client's text may hold anything."""
    cause = details.caused_by
    reason = f"{cause.code}: {cause}" if isinstance(cause, VecsyncError) else type(cause).__name__
    warn(f"{reason}; trying again in {details.wait_for:.0f} s")


def number_of(count: int, thing: str) -> str:
    """`1 record`, `2,000 records`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def command_line(*arguments: str) -> str:
    """A line to type that runs this same program, for a shell."""
    return shlex.join([*_program(), *arguments])


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Warnings of the package as lines on stderr, each once: a run of many tenants repeats them."""
    handler = _OnceEach(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _OnceEach(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._seen:
            self._seen.add(message)
            warn(message)


def _console(file: IO[str]) -> Console:
    """Terminals have their width; elsewhere COLUMNS counts, and without it a line is `PIPE_WIDTH` wide."""
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def _program() -> Sequence[str]:
    """How this program was called: by its name where the shell would find the same one, else by its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "vecsync_dagster.cli"]
    found = shutil.which("vecsync")
    if found is not None and called.name == "vecsync" and Path(found).resolve() == called.resolve():
        return ["vecsync"]
    if called.is_absolute() and called.is_relative_to(Path.cwd()):
        called = called.relative_to(Path.cwd())
    return [str(called)]
