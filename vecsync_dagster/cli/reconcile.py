"""`vecsync reconcile`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config
from vecsync_dagster.cli.tables import Column, Tenant, print_table
from vecsync_dagster.errors import VecsyncError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vecsync_dagster.cli.comparing import Comparison

__all__ = ["reconcile"]


def reconcile(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    collection: CollectionOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what differs, then compare again.")] = False,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="With --repair, remove orphans even if they are suspiciously many.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the store with the ledger, point by point, in both directions.

    missing: a point is not there. orphan: the ledger knows nothing of it. stale hash: its payload is not what
    was written. wrong tenant: it lies under another tenant. foreign: the ledger knows nothing of it, and it names
    another entity. A repair takes records from the source, and vectors from the cache if it has them. Orphans that
    the source has are taken into the ledger; others are removed, within the removal guard. What is foreign is left to
    `vecsync drop`. What is found are the checks' last results: `status`, Dagster's UI and the alerts show it. Exit code
    1 if differences remain.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.comparing import check_found, check_repaired, compare_all, repair_all
    from vecsync_dagster.cli.reporting import report_checks
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.verify import foreign_told, remedies

    began = datetime.now(UTC)
    problems: dict[str, VecsyncError] = {}
    with Workspace(settings, read_only=not repair) as workspace:
        names = workspace.ledger.tenant_names()
        found = compare_all(workspace, entity, collection, problems)
        repaired = repair_all(workspace, found, problems, allow_removals=allow_removals) if repair else {}
        remaining = compare_all(workspace, entity, collection, problems) if repaired else found
        theirs = [
            f"{one.collection}: {text}"
            for one in remaining
            for text in foreign_told(workspace.ledger, one.entity, one.collection, one.kinds, one.named)
        ]
        if repaired:
            check_repaired(workspace, found, problems)
        if repaired or check_found(workspace, found, problems) or problems:
            workspace.close()  # what follows needs no store: others may have it
            left = {one.collection: output.number_of(one.total, "difference") for one in remaining if one.total}
            errors = {name: f"{error.code}: {error}" for name, error in problems.items()}
            report_checks(workspace, began, {**left, **errors})
    if as_json:
        output.print_json(
            {
                "command": "reconcile",
                "found": [one.as_dict() for one in found],
                "repaired": {name: figures.as_dict() for name, figures in repaired.items()},
                "remaining": [one.as_dict() for one in remaining],
                "errors": {name: {"code": error.code, "message": str(error)} for name, error in problems.items()},
            }
        )
    else:
        _show(found, names)
        for name, figures in repaired.items():
            written = figures.upserted + figures.payload_only
            taken = f", {figures.taken_in} taken into the ledger" if figures.taken_in else ""
            lost = f", {figures.lost} lost whose records are rejected" if figures.lost else ""
            stay = f", {figures.altered} left until their records are valid" if figures.altered else ""
            told = f"{written} written again, {figures.removed} removed{taken}{lost}{stay}"
            output.stdout().print(f"{name}: repaired: {told}")
        if repaired:
            output.stdout().print("\nAfter the repair:")
            _show(remaining, names)
        for text in theirs:
            output.warn(text)
        for text in () if repair else remedies(kind for one in found for kind in one.kinds):
            output.note(text)
    for name, error in problems.items():
        output.error(error.code, f"{name}: {error}")
    raise typer.Exit(1 if problems or any(one.total for one in remaining) else 0)


def _show(comparisons: list[Comparison], names: Mapping[tuple[str, str], str]) -> None:
    from vecsync_dagster.cli.comparing import names_of
    from vecsync_dagster.sync.compare import spoken

    out = output.stdout()
    rows = [
        (one.collection, Tenant(tenant, names.get((one.entity, tenant), "")), spoken(kind), count)
        for one in comparisons
        for (tenant, kind), count in sorted(one.counts.items())
    ]
    if rows:
        columns = (
            Column("collection"),
            Column("tenant"),
            Column("difference"),
            Column("points", number=True),
        )
        print_table(out, columns, rows)
    for one in comparisons:
        if not one.synced:
            out.print(f"{one.collection}: never synced")
        elif not one.total:
            out.print(f"{one.collection}: {output.number_of(one.points, 'point')}, no difference")
        else:
            out.print(f"\n{one.collection}: {output.number_of(one.total, 'difference')}:")
            for line in names_of(one.named, one.total):
                out.print(line, soft_wrap=True)
