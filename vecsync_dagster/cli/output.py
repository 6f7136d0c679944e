"""Where output goes: data to stdout, everything else to stderr. Nothing here knows a command."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console

from vecsync_dagster.errors import ConfigError
from vecsync_dagster.pauses import pause_told
from vecsync_dagster.words import number_of

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

__all__ = [
    "command_in_use",
    "command_line",
    "error",
    "in_config",
    "log_to_stderr",
    "note",
    "number_of",
    "print_json",
    "print_lines",
    "stderr",
    "stdout",
    "stop_writing",
    "tell_of_retry",
    "use_command",
    "use_config",
    "warn",
    "with_config",
]

PIPE_WIDTH = 160  # columns of a table that no terminal shows


_COMMAND = re.compile(r"`vecsync ([^`]+)`")
_used_config: Path | None = None
_command = ""


class _Console(Console):
    """Commands in messages are those that work here: with the configuration in use."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(with_config(one) if isinstance(one, str) else one for one in objects), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def use_config(path: Path | None) -> None:
    """The file that --config or VECSYNC_CONFIG named: commands that messages suggest are to name it too."""
    global _used_config  # one process runs one command
    _used_config = path


def use_command(name: str) -> None:
    """The command that runs: what it did is recorded under its name."""
    global _command  # one process runs one command
    _command = name


def command_in_use() -> str:
    return _command


def with_config(text: str) -> str:
    """The text with `--config FILE` in each command that it suggests, where there is one in use."""
    if _used_config is None or "`vecsync " not in text:
        return text
    option = shlex.join(["--config", str(_used_config)])

    def named(found: re.Match[str]) -> str:
        return found[0] if re.search("--(config|help)", found[1]) else f"`vecsync {found[1]} {option}`"

    return _COMMAND.sub(named, text)


def print_lines(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Lines with their styles. Where they suggest several commands, --config is named once, below them."""
    commands = sum(len(_COMMAND.findall(line)) for line, _ in lines)
    once = _used_config is not None and commands > 1
    for line, style in lines:
        Console.print(console, line if once else with_config(line), style=style, soft_wrap=True, highlight=False)
    if once:
        option = shlex.join(["--config", str(_used_config)])
        Console.print(console, f"add to these commands: {option}", style="dim", soft_wrap=True, highlight=False)


def in_config(error: ConfigError) -> str:
    """The error's message, with the file that was read."""
    message = str(error)
    name = "" if _used_config is None else str(_used_config)
    return message if name in message else f"{message} ({name})"


def stop_writing() -> None:
    """Whoever read stdout has read enough: what is still to come goes nowhere, also what Python flushes at its end."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


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
    """A pause has its reason."""
    told = pause_told(details)
    if told is not None:
        warn(told)


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
    console = _Console(file=file, markup=False, highlight=False, emoji=False)
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
