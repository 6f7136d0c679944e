"""`vecsync check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, print_table

if TYPE_CHECKING:
    from vecsync_dagster.cli.probing import Probe

__all__ = ["check"]

_STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


def check(ctx: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try everything the configuration names: sources, embedding providers, stores, ledger, state folder.

    Each provider that is available embeds one short text for real, which costs a fraction of a cent where it is
    paid for. Nothing is synced. Exit code 1 if anything failed; a warning is no failure.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.probing import probe_all
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        probes = list(probe_all(workspace))
    failed = [probe for probe in probes if probe.state == "FAIL"]
    if as_json:
        output.print_json({"command": "check", "ok": not failed, "checks": [probe.as_dict() for probe in probes]})
    else:
        _show(probes)
    raise typer.Exit(1 if failed else 0)


def _show(probes: list[Probe]) -> None:
    out = output.stdout()
    columns = (Column("part"), Column("state"), Column("what"))
    print_table(out, columns, [(probe.part, probe.state, probe.message) for probe in probes])
    for state, style in _STYLES.items():
        count = sum(probe.state == state for probe in probes)
        if count:
            out.print(f"{count} {state}", style=style)
