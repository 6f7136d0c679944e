"""`vecsync`: the commands, what they share, and exit codes.

0 done, 1 failed (an error, a partition or a check), 2 wrong usage, or a name or an id that does not exist, 130
interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.alerts import alerts
from vecsync_dagster.cli.check import check
from vecsync_dagster.cli.commands import Command, Group
from vecsync_dagster.cli.demo import demo
from vecsync_dagster.cli.drop import drop
from vecsync_dagster.cli.export import export, tenants
from vecsync_dagster.cli.health import health
from vecsync_dagster.cli.invalid import invalid
from vecsync_dagster.cli.ledger import ledger
from vecsync_dagster.cli.migrate import migrate
from vecsync_dagster.cli.options import ConfigOption
from vecsync_dagster.cli.reconcile import reconcile
from vecsync_dagster.cli.retry import retry
from vecsync_dagster.cli.search import search
from vecsync_dagster.cli.signals import WRONG_USAGE, interruptible
from vecsync_dagster.cli.status import status
from vecsync_dagster.cli.sync import sync
from vecsync_dagster.cli.triggers import install_triggers
from vecsync_dagster.cli.ui import ui
from vecsync_dagster.cli.watch import watch
from vecsync_dagster.cli.writeback import writeback
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import ConfigError, InvalidTenant, NotFound, VecsyncError, WrongUsage
from vecsync_dagster.private import restrict_umask

__all__ = ["app", "main"]


_USAGE = (NotFound, WrongUsage, InvalidTenant)
"""What somebody typed is wrong: raised before anything is done. A partition's own errors are in its result."""


app = typer.Typer(
    cls=Group,
    name="vecsync",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.stdout().print(f"vecsync {version('vecsync-dagster')}", highlight=False)
        raise typer.Exit


@app.callback()
def _vecsync(
    config: ConfigOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keeps vector stores exactly in sync with the databases you already run.

    New here? `vecsync demo` makes a small example, syncs it and searches it.
    """


for _command in (
    demo,
    sync,
    watch,
    status,
    health,
    invalid,
    retry,
    search,
    check,
    reconcile,
    drop,
    migrate,
    export,
    tenants,
    install_triggers,
    ui,
    writeback,
):
    app.command(cls=Command)(_command)
app.add_typer(ledger, name="ledger")
app.add_typer(alerts, name="alerts")


_built = cache(partial(typer.main.get_command, app))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit. `arguments` None: those of the process."""
    restrict_umask()
    output.use_config(None)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter must not end a sync.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with output.log_to_stderr(), interruptible(), contained("vecsync"):
            _built()(arguments, prog_name="vecsync")
    except VecsyncError as error:
        output.error(error.code, output.in_config(error) if isinstance(error, ConfigError) else str(error))
        sys.exit(WRONG_USAGE if isinstance(error, _USAGE) else 1)
