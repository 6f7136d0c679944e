"""`vecsync demo`: the first thing somebody runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.signals import stop_on_signals

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Option(help="Where to put the example.")] = Path("vecsync-demo"),
    no_record: Annotated[bool, typer.Option("--no-record", help="Do not show the results in Dagster's UI.")] = False,
) -> None:
    """Make a small example, sync it, and search it. Needs no key, no server and no download.

    Three made-up firms share one estimating program: materials and works in Russian, Czech and English. Run it
    again and it says that nothing changed; change something in the database, and only that is synced.
    """
    from vecsync_dagster.cli.report import relative, show_outcome
    from vecsync_dagster.cli.running import Wanted, run_sync
    from vecsync_dagster.config.loading import load_config
    from vecsync_dagster.demo import write_demo
    from vecsync_dagster.sync import SyncOptions

    file = write_demo(folder)
    config = load_config(file)
    output.stdout().print(f"Example data and configuration: {relative(file.parent)}\n", soft_wrap=True)
    with stop_on_signals() as stop:
        outcome = run_sync(config, Wanted(), SyncOptions(), stop=stop, record=not no_record)
    show_outcome(config, outcome)
    if outcome.ok:
        _show_searches(config)
        _show_next(str(file))
    raise typer.Exit(outcome.exit_code)


def _show_searches(config: Config) -> None:
    from vecsync_dagster.cli.search import show_hits
    from vecsync_dagster.cli.searching import find
    from vecsync_dagster.demo import SEARCHES
    from vecsync_dagster.sync import Workspace

    out = output.stdout()
    with Workspace(config, read_only=True) as workspace:
        for search in SEARCHES:
            found = find(workspace, search.text, tenant=search.tenant, collection=search.collection, limit=4)
            out.print(f"\n{found.tenant_name or search.tenant} asks: {search.text}", style="bold", soft_wrap=True)
            out.print(search.why, style="dim", soft_wrap=True)
            show_hits(found)


def _show_next(file: str) -> None:
    from vecsync_dagster.demo import SEARCHES

    last = SEARCHES[-1]
    search = ("search", last.text, "--tenant", last.tenant, "--collection", last.collection)
    lines = (
        ("The same in Dagster's UI: assets, partitions, runs and checks", ("ui",)),
        ("Search as one of the firms", search),
        ("What is synced, when, and what is not", ("status",)),
        ("What a sync would do and cost", ("sync", "all", "--dry-run")),
    )
    out = output.stdout()
    out.print("\nNext:", style="bold")
    for what, arguments in lines:
        out.print(f"  {what}", style="dim")
        out.print(f"    {output.command_line(*arguments, '--config', file)}", style="cyan", soft_wrap=True)
