"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.errors import WrongUsage
from vecsync_dagster.identity import storable

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config

__all__ = ["CollectionOption", "ConfigOption", "EntityOption", "JsonOption", "config_path", "read_config", "text"]

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration file.", show_default="vecsync.yaml"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
EntityOption = Annotated[str | None, typer.Option("--entity", "-e", metavar="NAME", help="Only this entity.")]
CollectionOption = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only this collection.")]


T = TypeVar("T", str, "list[str]", "str | None", "list[str] | None")


def text(value: T) -> T:
    """The callback of ids and tenants: text that is not UTF-8 matches none. Raises BadParameter."""
    for one in [value] if isinstance(value, str) else value or ():
        if not storable(one):
            raise typer.BadParameter(f"{one!r} is no valid UTF-8")
    return value


def config_path(ctx: typer.Context, given: Path | None) -> Path:
    """The file of `--config`, whether it stood behind the command or before it. Raises WrongUsage, ConfigError."""
    from vecsync_dagster.config.loading import DEFAULT, find_config

    named = given or ctx.find_root().params.get("config")
    if named is not None and not named.is_file():
        raise WrongUsage(f"{named}: no such configuration file")
    file = find_config(named)
    output.use_config(None if file == DEFAULT else file)
    return file


def read_config(ctx: typer.Context, given: Path | None) -> Config:
    """The configuration of `--config`; what is tried again from here on is told on stderr. Raises ConfigError."""
    from stamina.instrumentation import set_on_retry_hooks

    from vecsync_dagster.cli.output import tell_of_retry
    from vecsync_dagster.config.loading import load_config

    # stamina's own hook prints to stdout where structlog is installed, into the midst of a table or of JSON.
    set_on_retry_hooks([tell_of_retry])
    return load_config(config_path(ctx, given))
