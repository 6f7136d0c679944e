"""`vecsync ledger`: what is done to the ledger itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.commands import Command, Group
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.errors import VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.sync.rebuild import Rebuilt

__all__ = ["ledger"]

ledger = typer.Typer(cls=Group, no_args_is_help=True, help="Repair the ledger: the record of what the store holds.")


@ledger.callback()
def _ledger() -> None:
    """Repair the ledger: the record of what the store holds."""


@ledger.command(cls=Command)
def rebuild(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    collection: CollectionOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Forget the rows that the ledger has, and take what the store holds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a lost ledger anew from what the store holds, so that the next sync embeds nothing again.

    Every point of every tenant is read. One that is not ours, or whose payload is not what was written, is left
    alone and counted: the next full sync writes altered ones again, `vecsync reconcile` names what removes foreign
    ones. Failures, retries and the history of runs are not in the store: they are lost.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.comparing import check_places, collections_of
    from vecsync_dagster.cli.reporting import report_checks
    from vecsync_dagster.sync import Workspace

    began = datetime.now(UTC)
    problems: dict[str, VecsyncError] = {}
    with Workspace(settings) as workspace:
        wanted = collections_of(workspace, entity, collection)
        rebuilt = [workspace.rebuild(*names, force=force) for names in wanted]
        places = [(one.entity, one.collection, set(one.taken)) for one in rebuilt if one.space is not None]
        check_places(workspace, places, problems)
        workspace.close()
        report_checks(workspace, began)
    for name, error in problems.items():
        output.warn(f"{name} was not checked: {error.code}: {error}")
    if as_json:
        output.print_json({"command": "ledger rebuild", "collections": [_as_dict(one) for one in rebuilt]})
        return
    for one in rebuilt:
        _show(one)


def _as_dict(one: Rebuilt) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "entity": one.entity,
        "collection": one.collection,
        "space": one.space,
        "taken": dict(sorted(one.taken.items())),
        "left": dict(sorted(one.left.items())),
        "examples": [asdict(example) for example in one.examples],
    }


def _show(one: Rebuilt) -> None:
    out = output.stdout()
    if one.space is None:
        out.print(f"{one.collection}: the store does not have it")
        return
    documents = output.number_of(one.taken.total(), "document")
    out.print(f"{one.collection}: {documents} of {output.number_of(len(one.taken), 'tenant')} taken into the ledger")
    if one.left:
        out.print(f"  left alone: {', '.join(f'{count:,} {reason}' for reason, count in sorted(one.left.items()))}")
    for example in one.examples:
        out.print(f"  {example.reason} {example.point_id} of {example.tenant or '(none)'}", soft_wrap=True)
