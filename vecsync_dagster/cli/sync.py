"""`vecsync sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config, text
from vecsync_dagster.cli.signals import stop_on_signals

if TYPE_CHECKING:
    from vecsync_dagster.cli.running import ScopeName, Wanted
    from vecsync_dagster.config.models import Config

__all__ = ["sync"]


SCOPES: tuple[ScopeName, ...] = ("all", "global", "tenants", "tenant")


def sync(
    ctx: typer.Context,
    scope: Annotated[
        str,
        typer.Argument(
            metavar="SCOPE|ENTITY",
            help="all: everything. global: the records everybody may see. tenants: every tenant, without global. "
            "tenant ID: that one. Or the name of an entity: all of it, or with --id single records.",
        ),
    ],
    tenant_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID|NAME", callback=text, help="After `tenant`: its id or its name; an id takes precedence."
        ),
    ] = None,
    config: ConfigOption = None,
    entity: EntityOption = None,
    collection: CollectionOption = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", metavar="ID", callback=text, help="Only this record of the entity, now; may be given several times."
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="ID|NAME",
            callback=text,
            help="The tenant whose record --id is, by id or name (an id takes precedence), or `global`. Without it, "
            "all are searched.",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every record, also where only the changed ones would do.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and what it would cost; touch nothing.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many records of each tenant; then nothing is removed.")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Skip this many records of each tenant.")] = 0,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="Remove what is gone, however much that is.")
    ] = False,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not show the results in Dagster's UI (saves a second).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the vector store up to date with the database.

    Exit codes: 0 all is well; 1 a partition or a check failed (the others are done all the same); 2 wrong usage, or a
    name or an id that does not exist; 130 interrupted (the batches in flight were finished; run it again and it goes
    on from there).

    With --id a record is synced at once in all collections of its entity, also where its retries are used up; one
    that the database does not have any more is removed. Nothing else is touched.

    For cron: `vecsync sync all --config /etc/vecsync/vecsync.yaml`. Needs no server to be running.
    """
    if (scope == "tenant") != (tenant_id is not None):
        raise typer.BadParameter("give a tenant's ID after `tenant`, and only there", param_hint="ID")
    if ids and (full or limit is not None or offset or scope in ("global", "tenants", "tenant")):
        raise typer.BadParameter("goes with an entity, --tenant, --collection and --dry-run only", param_hint="--id")
    if tenant is not None and not ids:
        raise typer.BadParameter("goes with --id; for a whole tenant write `tenant ID`", param_hint="--tenant")
    settings = read_config(ctx, config)
    wanted = _wanted(settings, scope, tenant if tenant_id is None else tenant_id, entity, collection, ids or [])
    from vecsync_dagster.cli.report import show_outcome
    from vecsync_dagster.cli.running import run_sync
    from vecsync_dagster.sync import SyncOptions

    options = SyncOptions(
        mode="full" if full else None,
        limit=limit,
        offset=offset,
        allow_removals=allow_removals,
        dry_run=dry_run,
    )
    with stop_on_signals() as stop:
        outcome = run_sync(settings, wanted, options, stop=stop, record=not no_record)
    if as_json:
        output.print_json({"command": "sync", "dry_run": dry_run, **outcome.as_dict()})
    else:
        show_outcome(settings, outcome, dry_run=dry_run)
    raise typer.Exit(outcome.exit_code)


def _wanted(
    settings: Config, word: str, tenant: str | None, entity: str | None, collection: str | None, ids: list[str]
) -> Wanted:
    """What the words of the command line mean; the first one is a scope or an entity's name."""
    from vecsync_dagster.cli.running import Wanted

    scope: ScopeName | None = next((scope for scope in SCOPES if scope == word), None)
    if scope is None:
        if word not in settings.entities or entity not in (None, word):
            entities = ", ".join(settings.entities)
            raise typer.BadParameter(
                f"{word!r} is none of {', '.join(SCOPES)}, nor an entity: {entities}", param_hint="SCOPE|ENTITY"
            )
        entity = word
    if ids and entity is None:
        raise typer.BadParameter("say of which entity: `vecsync sync ENTITY --id ID`", param_hint="--id")
    return Wanted(scope or "all", tenant, entity, collection, tuple(ids))
