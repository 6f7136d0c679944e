"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config

__all__ = ["CollectionOption", "ConfigOption", "EntityOption", "JsonOption", "config_path", "read_config"]

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration file.", show_default="vecsync.yaml"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
EntityOption = Annotated[str | None, typer.Option("--entity", "-e", metavar="NAME", help="Only this entity.")]
CollectionOption = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only this collection.")]


def config_path(ctx: typer.Context, given: Path | None) -> Path:
    """The file of `--config`, whether it stood behind the command or before it. Raises ConfigError."""
    from vecsync_dagster.config.loading import find_config

    return find_config(given or ctx.find_root().params.get("config"))


def read_config(ctx: typer.Context, given: Path | None) -> Config:
    """The configuration of `--config`. Raises ConfigError."""
    from vecsync_dagster.config.loading import load_config

    return load_config(config_path(ctx, given))
