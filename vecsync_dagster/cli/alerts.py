"""`vecsync alerts`: what is open, and whether the channels work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.commands import Command, Group
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, Tenant, print_table

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config
    from vecsync_dagster.ledger.alerts import KnownAlert

__all__ = ["alerts"]

alerts = typer.Typer(
    cls=Group, no_args_is_help=True, help="Problems that are open, and the channels that tell of them."
)

_COLUMNS = (
    Column("kind"),
    Column("entity"),
    Column("collection", rare=True),
    Column("tenant", rare=True),
    Column("check", optional=True),
    Column("since"),
    Column("seen"),
    Column("not yet notified", optional=True),
)


@alerts.callback()
def _alerts() -> None:
    """Open problems, and the channels that report them."""


@alerts.command(name="list", cls=Command)
def list_open(ctx: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show open problems, and channels not yet notified.

    A problem is open from the run that found it to the first run that finds it resolved. Without a channel in the
    configuration none is kept.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.alerts import owner_of
    from vecsync_dagster.sync import Workspace

    owner, cool_down = owner_of(settings), settings.alerts.cool_down
    with Workspace(settings, read_only=True) as workspace:
        known = workspace.ledger.alerts(owner)
        untold = {name: _keys(workspace.ledger.untold(name, cool_down, owner)) for name in settings.alerts.channels}
    waiting = {one.key: [name for name, keys in untold.items() if one.key in keys] for one in known}
    if as_json:
        output.print_json({"command": "alerts list", "alerts": [_as_dict(one, waiting[one.key]) for one in known]})
        return
    if known:
        _show(known, waiting)
    elif settings.alerts.channels:
        output.stdout().print("no problem is open")
    else:
        output.stdout().print("no problem is kept, as no channel is configured; `vecsync health` tells what is wrong")
    if known and not settings.alerts.channels:
        output.note("no channel is configured: nobody is told, and problems are not kept (`alerts` in vecsync.yaml)")


@alerts.command(name="test", cls=Command)
def send_test(ctx: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a test message to each channel, and say what became of it.

    Exit code 1 if a channel did not take it, or if none is configured.
    """
    settings = read_config(ctx, config)
    results = _test(settings)
    if as_json:
        output.print_json({"command": "alerts test", "channels": results})
    else:
        for name, error in results.items():
            output.stdout().print(f"{name}: {error or 'sent'}", soft_wrap=True)
    if not results:
        output.warn("no channel is configured: add slack, email or webhook under `alerts` in vecsync.yaml")
    raise typer.Exit(0 if results and not any(results.values()) else 1)


def _test(settings: Config) -> dict[str, str | None]:
    """Channel -> why it failed, or None."""
    from vecsync_dagster import alerts as room

    errors = room.send_test(settings.alerts)
    return {name: None if error is None else f"{error.code}: {error}" for name, error in errors.items()}


def _keys(known: list[KnownAlert]) -> set[str]:
    return {one.key for one in known}


def _show(known: list[KnownAlert], waiting: dict[str, list[str]]) -> None:
    rows = [
        (
            one.alert.kind,
            one.alert.entity,
            one.alert.place[0] or None,
            Tenant(one.alert.place[1], one.tenant_name) if one.alert.partition else None,
            one.alert.check,
            one.opened_at,
            one.raised_at,
            ", ".join(waiting[one.key]) or None,
        )
        for one in known
    ]
    from vecsync_dagster.alerts.message import where

    print_table(output.stdout(), _COLUMNS, rows)
    for one in known:
        place = " of ".join(part for part in (one.alert.check, where(one)) if part)
        output.stdout().print(f"{place}: {one.alert.message}", soft_wrap=True)


def _as_dict(one: KnownAlert, waiting: list[str]) -> dict[str, object]:
    alert = one.alert
    return {
        "key": one.key,
        "kind": alert.kind,
        "entity": alert.entity,
        "partition": alert.partition,
        "tenant_name": one.tenant_name,
        "check": alert.check,
        "severity": alert.severity,
        "message": alert.message,
        "figures": dict(alert.figures),
        "run_id": alert.run_id or None,
        "opened_at": one.opened_at,
        "raised_at": one.raised_at,
        "untold": waiting,
    }
