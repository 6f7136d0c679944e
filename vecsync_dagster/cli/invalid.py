"""`vecsync invalid`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.formats import csv_cell
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config, text
from vecsync_dagster.cli.tables import Column, Tenant, print_table

if TYPE_CHECKING:
    from vecsync_dagster.ledger.base import InvalidRecord, LastRuns, Partition
    from vecsync_dagster.sync import Workspace

__all__ = ["invalid"]

_NAMES = ("entity", "collection", "tenant", "id", "code", "field", "error", "since", "state")


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def invalid(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="ID|NAME",
            callback=text,
            help="Only this tenant, by id or name (an id takes precedence), or `global`.",
        ),
    ] = None,
    collection: CollectionOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Records at most.")] = 100,
    format_: Annotated[Format, typer.Option("--format", "-f", help="How to print them.")] = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the records that are rejected now, and why: ids, fields and reasons, no values.

    A record that is valid again or gone is not listed. Records without a usable id of their own are those that the
    last full run met, and runs since. Reads the ledger alone, but for a tenant's name, which might be an id at the
    source; the values are in invalid_records.jsonl in the state folder.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.tenants import require_tenant, tenant_called
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        tenant = tenant_called(workspace, tenant)
        partitions = _partitions(workspace, entity, tenant, collection)
        require_tenant(
            workspace, tenant, {one.tenant for one in partitions}, "the ledger: it was never synced, or is gone"
        )
        # One more than asked for tells whether there are more.
        found = workspace.ledger.invalid(partitions, limit + 1)
        names = workspace.ledger.tenant_names(entity)
    more, found = len(found) > limit, found[:limit]
    if as_json or format_ is Format.JSON:
        records = [{**asdict(one), "tenant_name": names.get((one.entity, one.tenant), "")} for one in found]
        output.print_json({"command": "invalid", "records": records, "more": more})
    elif format_ is Format.CSV:
        _write_csv(found)
    else:
        _show(found, names, more=more)


def _partitions(
    workspace: Workspace, entity: str | None, tenant: str | None, collection: str | None
) -> dict[Partition, LastRuns | None]:
    """Those that were ever synced, or of which single records were. Raises NotFound for unknown names."""
    from vecsync_dagster.cli.comparing import collections_of
    from vecsync_dagster.ledger.base import Partition

    found: dict[Partition, LastRuns | None] = {}
    for name, wanted in collections_of(workspace, entity, collection):
        last = workspace.ledger.last_runs(name, tenant)
        tenants = {*workspace.ledger.with_rows(name, wanted), *(key.tenant for key in last if key.collection == wanted)}
        for one in sorted(tenants):
            if tenant in (None, one):
                place = Partition(name, wanted, one)
                found[place] = last.get(place)
    return found


def _write_csv(found: Sequence[InvalidRecord]) -> None:
    writer = csv.DictWriter(sys.stdout, _NAMES, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in asdict(one).items()} for one in found)


def _show(found: Sequence[InvalidRecord], names: Mapping[tuple[str, str], str], *, more: bool) -> None:
    out = output.stdout()
    if not found:
        out.print("no record is rejected")
        return
    columns = [Column("collection"), Column("tenant"), Column("id"), Column("field"), Column("why")]
    tenants = [Tenant(one.tenant, names.get((one.entity, one.tenant), "")) for one in found]
    rows = [
        (one.collection, tenant, one.id or "", one.field or "", one.error or one.code or "")
        for one, tenant in zip(found, tenants, strict=True)
    ]
    print_table(out, columns, rows)
    if more:
        out.print(f"only the first {len(found):,}; --limit shows more")
