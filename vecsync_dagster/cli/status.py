"""`vecsync status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, print_table

if TYPE_CHECKING:
    from vecsync_dagster.cli.overview import Overview

__all__ = ["status"]


def status(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    tenant: Annotated[str | None, typer.Option(metavar="ID", help="Only this tenant, or `global`.")] = None,
    days: Annotated[int, typer.Option(min=0, help="Count documents that no run has seen for so many days.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Say what is synced: last sync, documents by status, retries that are due, what was rejected.

    Asks the ledger only, never the store or the source, so it works during a sync. Where a source has a
    modification column only a full run sees every document: `unseen` counts those that none has seen.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.overview import overview
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        if entity is not None:
            workspace.entity(entity)
        seen = overview(workspace, entity=entity, tenant=tenant, days=days)
    if as_json:
        output.print_json(seen.as_dict())
    elif seen.partitions:
        _show(seen)
    else:
        output.stdout().print("nothing was synced yet; `vecsync sync all` does")


def _show(seen: Overview) -> None:
    out = output.stdout()
    unseen = Column(f"unseen {seen.days} d", number=True, optional=True)
    counts = (
        Column("documents", number=True),
        Column("synced", number=True),
        Column("pending", number=True, optional=True),
        Column("stale", number=True, optional=True),
        Column("failed", number=True, optional=True),
        unseen,
        Column("last sync"),
    )
    scope_columns = (Column("collection"), Column("scope"), Column("tenants", number=True), *counts)
    scopes = [(s.collection, s.scope, s.tenants, *s.counts.cells(), s.last_sync) for s in seen.scopes]
    print_table(out, scope_columns, scopes, title="Scopes")
    out.print()
    last = (Column("last run"), Column("invalid", number=True, optional=True), Column("retries", optional=True))
    tenant_columns = (Column("collection"), Column("tenant", shrink=True), *counts, *last)
    tenants = [
        (p.collection, p.tenant, *p.counts.cells(), p.last_sync, p.outcome, p.rejected, p.retries)
        for p in seen.partitions
    ]
    print_table(out, tenant_columns, tenants, title="Tenants")
    out.print()
    for collection, space in seen.spaces.items():
        out.print(f"{collection}: vectors of {space or 'no model yet'}", soft_wrap=True)
    for partition in seen.partitions:
        if partition.error is not None:
            where = f"{partition.collection} of {partition.tenant}"
            output.stderr().print(f"last run failed: {where}: {partition.error}", style="red", soft_wrap=True)
