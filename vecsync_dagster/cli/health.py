"""`vecsync health`: what a supervisor asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config

__all__ = ["health"]


def health(ctx: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say in one exit code whether all is well: for a supervisor, a container's health check, or monitoring.

    Exit code 0: the last run of every partition and its last full one succeeded, no check finds an error, every
    partition was synced within `checks.freshness.max_age`, and whoever began to listen to changes still does. 1: not
    so, or nothing was synced yet, or the ledger does not answer; what is wrong is printed. Reads the ledger alone.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.health import health as health_of
    from vecsync_dagster.sync.listening import said

    with Workspace(settings, read_only=True) as workspace:
        ledger = workspace.ledger
        with suppress(LedgerRejected, LedgerUnavailable):  # one that takes nothing now tells what it knows
            ledger.end_dead_runs()
        now = ledger.now()
        found = health_of(settings, ledger.last_runs(), now, ledger.check_results(failed=True))
        told = {name: said(one, now) for name, one in ledger.listeners().items() if name in settings.entities}
    deaf = [f"{name}: {words[0]}" for name, words in told.items() if words is not None and not words[1]]
    wrong = [*_wrong(found), *deaf]
    if as_json:
        output.print_json({"command": "health", "healthy": not wrong, "wrong": wrong, **found})
    elif wrong:
        for line in wrong:
            output.stdout().print(line, soft_wrap=True, highlight=False)
    else:
        output.stdout().print(f"{output.number_of(found['partitions'], 'partition')}, all well", highlight=False)
    raise typer.Exit(1 if wrong else 0)


def _wrong(found: dict[str, Any]) -> Iterator[str]:
    if not found["partitions"] and not found["failing"]:
        yield "nothing was synced yet"
    if found["failing"]:
        yield f"{output.number_of(found['failing'], 'failure')}; `vecsync status --failed-checks` names them"
    if found["overdue"]:
        yield f"{output.number_of(found['overdue'], 'partition')} not synced in time; `vecsync status` names them"
