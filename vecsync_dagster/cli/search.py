"""`vecsync search`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, print_table
from vecsync_dagster.words import named

if TYPE_CHECKING:
    from vecsync_dagster.cli.searching import Answer, Found

__all__ = ["search", "show_hits"]

_COLUMNS = (Column("score", number=True), Column("whose"), Column("document"), Column("name"))


def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="What to look for, in any language the model knows.")],
    tenant: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Who asks, by id, never by name: a tenant sees its own and the global records; `global` only those.",
        ),
    ],
    config: ConfigOption = None,
    collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where to look; may be left out if there is only one.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many documents.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Search a collection by meaning, as one tenant.

    There is no search over all tenants: --tenant is required. While a sync has the embedded store open, this
    waits for it a while (stores.*.lock_timeout_s), then says who has it.
    """
    if not text.strip():
        raise typer.BadParameter("the text is empty", param_hint="TEXT")
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.searching import find, only_collection
    from vecsync_dagster.cli.tenants import called_that
    from vecsync_dagster.sync import Workspace, check_tenant

    with Workspace(settings, read_only=True) as workspace:
        place = collection or only_collection(workspace)
        check_tenant(tenant)
        answer = find(workspace, text, tenant=tenant, collection=place, limit=limit)
        hint = "" if answer.known else called_that(workspace, tenant)
    if not answer.known:
        who = named(tenant, answer.tenant_name)
        output.note(f"{who} has no documents of its own in {place}: only global ones can be found{hint}")
    if as_json:
        output.print_json(asdict(answer))
        return
    if answer.hits:
        show_hits(answer)
    else:
        output.stdout().print("nothing found")


def show_hits(answer: Answer) -> None:
    """Print the documents as a table."""
    rows = [(f"{hit.score:.3f}", _whose(answer, hit), hit.document_id, hit.name) for hit in answer.hits]
    print_table(output.stdout(), _COLUMNS, rows)


def _whose(answer: Answer, hit: Found) -> str:
    """The name is enough for the one who asks."""
    own = answer.tenant_name if hit.tenant == answer.tenant else ""
    return own or hit.tenant or hit.scope
