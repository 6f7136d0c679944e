"""Commands as all of ours are: how their options look in `--help`, and what a wrong value is answered with."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from vecsync_dagster.cli import output
from vecsync_dagster.errors import WrongUsage

__all__ = ["Command", "Group"]

_WORDS: Final = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"^Input should be less than or equal to (\S+)"), r"at most \1"),
    (re.compile(r"^Input should be greater than or equal to (\S+)"), r"at least \1"),
    (re.compile(r"^Input should be a valid integer.*"), "not a whole number"),
    (re.compile(r"^Input should be a valid number.*"), "not a number"),
)
"""What the library that reads the options says, and how people say it."""
_TABLES_FROM: Final = 80
_REFUSED: Final[Any] = typer.BadParameter.__mro__[1]
"""What all errors of the parser are. typer gives it no name of its own."""


class Command(TyperCommand):
    """Flags are shown by their name alone: `--full`, not `--full <bool>`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _show_flags_bare(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        return _bare(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Tables cut the names of options where they are narrow; lists do not."""
        before = self.rich_markup_mode
        if output.stdout().width < _TABLES_FROM:
            self.rich_markup_mode = None
        try:
            super().format_help(ctx, formatter)
        finally:
            self.rich_markup_mode = before

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            for pattern, words in _WORDS:
                error.message = pattern.sub(words, error.message)
            raise

    def invoke(self, ctx: Any) -> Any:
        output.use_command(str(ctx.info_name))
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            output.stop_writing()
            raise typer.Exit from None
        return result


class Group(TyperGroup):
    """The same of commands that have commands. What the parser refuses is answered as all wrong usage is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _show_flags_bare(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        return _bare(super().get_help_option(ctx))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Exits with the code. Raises WrongUsage."""
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}))
        except typer.Abort:
            output.note("aborted")
            sys.exit(1)
        except _REFUSED as error:
            if not (message := error.format_message()):  # `vecsync` alone has printed its help
                sys.exit(error.exit_code)
            context = getattr(error, "ctx", None)
            command = "vecsync" if context is None else context.command_path
            end = "" if message.endswith((".", "?")) else "."
            raise WrongUsage(f"{message}{end} See `{command} --help`") from None


def _show_flags_bare(parameters: list[Any]) -> None:
    for parameter in parameters:
        _bare(parameter)


def _bare(parameter: Any) -> Any:
    if isinstance(parameter, TyperOption) and parameter.is_flag and parameter.metavar is None:
        parameter.metavar = ""
    return parameter
