"""`vecsync drop`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config
from vecsync_dagster.errors import VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.config.models import Config
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.dropping import Leaving

__all__ = ["drop"]


def drop(
    ctx: typer.Context,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection to remove.")],
    config: ConfigOption = None,
    entity: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only what this entity left in a collection that another one, or another project, has."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; touch nothing.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also a collection that is in the configuration, which the next sync makes anew, and what somebody "
            "else has synced of late, or may sync, as its points name another entity; with --entity also records that "
            "are found nowhere else, and what the ledger does not know.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a collection that left the configuration: its points, ledger rows and runs.

    With --entity only what one entity left, in a collection that another one has now: it was renamed, or two exchanged
    collections. It is refused while records of it would not be found any more. In one ledger another project's entities
    look the same: name only what left.
    With the last collection of an entity that left it too, also the entity's snapshots, rejected records and Dagster
    partitions. Only stores that are still configured can be reached; where one of them does not answer nothing is
    removed. Where it is cut short, run it again. Cached vectors stay.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.dropping import drop as drop_collection
    from vecsync_dagster.sync.dropping import leaving

    with Workspace(settings, read_only=dry_run) as workspace:
        what = leaving(workspace, collection, entity, everything=force, replaced=not force)
        if not as_json:
            _show(what)
        if not dry_run:
            if not yes:
                typer.confirm(f"Permanently remove {_what(what)}?", abort=True, err=True)
            began = datetime.now(UTC)
            drop_collection(workspace, what, partial(_drop_partitions, settings))
            _check_again(workspace, began)
    if as_json:
        output.print_json({"command": "drop", "dry_run": dry_run, **asdict(what)})
    elif not dry_run:
        output.stdout().print(f"removed: {_what(what)}")


def _what(what: Leaving) -> str:
    if what.whole_collection:
        return f"collection {what.collection}"
    return f"the records of entity {', '.join(what.entities)} from collection {what.collection}"


def _check_again(workspace: Workspace, began: datetime) -> None:
    """What was told of the collection, or named it, is over: in the checks over all partitions, Dagster and alerts."""
    from vecsync_dagster.cli.comparing import check_places
    from vecsync_dagster.cli.reporting import report_checks
    from vecsync_dagster.sync.standing import RECONCILIATION

    problems: dict[str, VecsyncError] = {}
    for entity in workspace.config.entities:
        known = workspace.ledger.check_results(entity, "")
        if any(one.check in RECONCILIATION and not one.passed for one in known):
            check_places(workspace, [(entity, "", ())], problems)
    for name, error in problems.items():
        output.warn(f"{name} was not checked again: {error.code}: {error}")
    workspace.close()
    report_checks(workspace, began)


def _show(what: Leaving) -> None:
    out = output.stdout()
    for name, points in what.stores.items():
        theirs = "" if what.whole_collection else f" of entity {', '.join(what.entities)}"
        out.print(f"store {name}: {output.number_of(points, 'point')} of {what.collection}{theirs}")
    for name, reason in what.unreachable.items():
        output.warn(f"store {name} could not be asked: {reason}")
    if not what.stores and not what.unreachable:
        output.warn("no configured store has it; points in a store that left the configuration stay there")
    for entity, documents in what.entities.items():
        last = f", last synced {what.synced[entity]:%Y-%m-%d %H:%M}Z" if entity in what.synced else ""
        told = f"{output.number_of(documents, 'document')} of entity {entity}{last}"
        out.print(f"ledger: {told}; its runs and watermarks")
    for entity in what.whole:
        out.print(f"entity {entity}: nothing else of it is left: its snapshots, rejected records and partitions go too")


def _drop_partitions(settings: Config, entity: str) -> None:
    from vecsync_dagster.cli.reporting import is_recorded

    if not is_recorded(settings):
        return
    from vecsync_dagster.assets.recording import open_instance
    from vecsync_dagster.automation.partitions import tenants_name

    with open_instance(settings) as instance:
        for key in instance.get_dynamic_partitions(tenants_name(entity)):
            instance.delete_dynamic_partition(tenants_name(entity), key)
