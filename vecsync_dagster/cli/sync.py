"""`vecsync sync`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.cli.signals import stop_on_signals

__all__ = ["sync"]


class Scope(StrEnum):
    ALL = "all"
    GLOBAL = "global"
    TENANTS = "tenants"
    TENANT = "tenant"


def sync(
    ctx: typer.Context,
    scope: Annotated[
        Scope,
        typer.Argument(
            help="all: everything. global: the records everybody may see. tenants: every tenant, without global. "
            "tenant ID: that one."
        ),
    ],
    tenant: Annotated[str | None, typer.Argument(metavar="[ID]", help="The tenant, after `tenant`.")] = None,
    config: ConfigOption = None,
    entity: EntityOption = None,
    collection: CollectionOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every record, also where only the changed ones would do.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and what it would cost; touch nothing.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many records of each tenant; then nothing is removed.")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many records of each tenant first.")] = 0,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="Remove what is gone, however much that is.")
    ] = False,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not show the results in Dagster's UI (saves a second).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the vector store up to date with the database.

    Exit codes: 0 all is well; 1 a partition or a check failed (the others are done all the same);
    130 interrupted (the batches in flight were finished; run it again and it goes on from there).

    For cron: `vecsync sync all --config /etc/vecsync/vecsync.yaml`. Needs no server to be running.
    """
    if (scope is Scope.TENANT) != (tenant is not None):
        raise typer.BadParameter("give a tenant's ID after `tenant`, and only there", param_hint="ID")
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.report import show_outcome
    from vecsync_dagster.cli.running import Wanted, run_sync
    from vecsync_dagster.sync import SyncOptions

    options = SyncOptions(
        mode="full" if full else None,
        limit=limit,
        offset=offset,
        allow_removals=allow_removals,
        dry_run=dry_run,
    )
    with stop_on_signals() as stop:
        outcome = run_sync(
            settings, Wanted(scope.value, tenant, entity, collection), options, stop=stop, record=not no_record
        )
    if as_json:
        output.print_json({"command": "sync", "dry_run": dry_run, **outcome.as_dict()})
    else:
        show_outcome(settings, outcome, dry_run=dry_run)
    raise typer.Exit(outcome.exit_code)
