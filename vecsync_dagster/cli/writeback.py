"""`vecsync writeback`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import ConfigError, VecsyncError, WrongUsage

__all__ = ["writeback"]


def writeback(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    backfill: Annotated[
        bool,
        typer.Option("--backfill", help="Every document without `syncMetadata`, or with one it should not have."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what the ledger knows of each document to the document itself: `syncMetadata` in MongoDB.

    For entities with `writeback: true`; each sync does it too, so this command is for what a sync could not write
    back, and with `--backfill` for documents that were there before, also those never synced; documents that are
    nobody's, or live no longer, lose it. No other field is touched, and nothing is synced.
    """
    settings = read_config(ctx, config)
    from rich.progress import track

    from vecsync_dagster.sync import Workspace

    console = output.stderr()

    written: dict[str, int] = {}
    failed = False
    with Workspace(settings) as workspace:
        if entity is not None and not workspace.entity(entity).writeback:
            raise WrongUsage(f"{entity} has no `writeback: true`", entity=entity)
        names = [entity] if entity else [name for name, one in settings.entities.items() if one.writeback]
        for name in names:
            try:
                with contained(f"{name}: listing the tenants"):
                    tenants = workspace.tenants(name)
            except VecsyncError as error:
                output.error(error.code, str(error))
                failed = True
                continue
            for tenant in track(tenants, name, console=console, transient=True, disable=not console.is_terminal):
                write = partial(workspace.write_back, name, tenant, backfill=backfill)
                count = _done(f"{name} of {tenant}", write)
                if count is None:
                    failed = True
                else:
                    written[name] = written.get(name, 0) + count
            if backfill:
                failed = _done(name, partial(workspace.withdraw, name)) is None or failed
    if as_json:
        output.print_json({"command": "writeback", "backfill": backfill, "written": written})
        raise typer.Exit(int(failed))
    if not names:
        output.stdout().print("no entity has `writeback: true`; nothing to do")
    for name, count in written.items():
        output.stdout().print(f"{name}: syncMetadata of {output.number_of(count, 'document')} written")
    raise typer.Exit(int(failed))


def _done(where: str, write: Callable[[], int]) -> int | None:
    """To how many documents it was written; None where it failed, which is said: the others go on."""
    try:
        with contained(f"{where}: writing syncMetadata"):
            return write()
    except ConfigError:
        raise
    except VecsyncError as error:
        output.error(error.code, f"{where}: {error}")
        return None
