"""`vecsync export` and `vecsync tenants`: what the source has, without the store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, Tenant, print_table

__all__ = ["export", "tenants"]


class Scope(StrEnum):
    GLOBAL = "global"
    TENANT = "tenant"


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    scope: Annotated[
        Scope | None, typer.Option(help="Only records for everybody, or only those of tenants.", show_default="both")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this tenant, by id, never by name, or `global`.")
    ] = None,
    collection: CollectionOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many documents in all.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Skip this many documents.")] = 0,
    format_: Annotated[Format, typer.Option("--format", "-f", help="parquet needs --output.")] = Format.JSONL,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Appears whole or not at all.", show_default="stdout"),
    ] = None,
) -> None:
    """Write documents {id, text, metadata} as they would be synced, straight from the source.

    In the order of entities, tenants (global first) and ids, so that --limit and --offset make stable pages.
    Records that are not valid are left out and counted. An entity that feeds several collections gives one
    document for each, and says which in `collection`.
    """
    if tenant is not None and tenant != "global" and scope is Scope.GLOBAL:
        raise typer.BadParameter("a tenant's records are not global ones", param_hint="--tenant")
    if format_ is Format.PARQUET and to is None:
        raise typer.BadParameter("parquet is not written to a terminal: give --output FILE", param_hint="--format")
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.exporting import Export, write_export
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        documents = Export(
            workspace,
            entity=entity,
            collection=collection,
            scope=None if scope is None else scope.value,
            tenant=tenant,
            limit=limit,
            offset=offset,
        )
        count = write_export(documents, format_.value, to)
    rejected = f"; not valid: {output.number_of(documents.rejected, 'record')}" if documents.rejected else ""
    output.note(f"exported: {output.number_of(count, 'document')}{rejected}")


def tenants(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tenants, with their number of records in the source.

    A tenant with 0 records everywhere is one that only the ledger still knows: the next sync removes it.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        names = [entity] if entity is not None else list(settings.entities)
        counts = {name: {t: workspace.source(name).count(t) for t in workspace.tenants(name)} for name in names}
        called = {tenant: called for (_, tenant), called in workspace.ledger.tenant_names(entity).items() if called}
    keys = list(dict.fromkeys(key for found in counts.values() for key in found))
    listed = sorted(key for key in keys if key != "global")
    listed = ["global", *listed] if "global" in keys else listed
    if as_json:
        rows = [
            {
                "tenant": t,
                "tenant_name": called.get(t, ""),
                "records": {name: found.get(t, 0) for name, found in counts.items()},
            }
            for t in listed
        ]
        output.print_json({"count": len(rows), "tenants": rows})
        return
    columns = (Column("tenant"), *(Column(name, number=True) for name in names))
    cells: list[tuple[Tenant | int, ...]] = [
        (Tenant(t, called.get(t, "")), *(counts[name].get(t, 0) for name in names)) for t in listed
    ]
    print_table(output.stdout(), columns, cells)
