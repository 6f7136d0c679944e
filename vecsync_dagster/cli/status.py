"""`vecsync status`."""

from __future__ import annotations

from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config, text
from vecsync_dagster.cli.tables import Column, Tenant, print_table
from vecsync_dagster.words import by_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from vecsync_dagster.cli.overview import Overview
    from vecsync_dagster.cli.recordpages import RecordPage
    from vecsync_dagster.ledger.check_results import CheckResult
    from vecsync_dagster.sync import Workspace

__all__ = ["status"]

_UNSYNCED = 20


class State(StrEnum):
    PENDING = "pending"
    SYNCED = "synced"
    STALE = "stale"
    FAILED = "failed"


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def status(
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
    state: Annotated[
        State | None, typer.Option(help="Only records in this state: in --collection, else the worst of all.")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", callback=text, help="Only this record, with every fact about it."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Records on a page.")] = 20,
    page: Annotated[int, typer.Option(min=1, help="Which page of records.")] = 1,
    days: Annotated[int, typer.Option(min=0, help="Count documents that no run has seen for this many days.")] = 7,
    format_: Annotated[
        Format, typer.Option("--format", "-f", help="csv is for records: with --entity.")
    ] = Format.TABLE,
    failed_checks: Annotated[
        bool,
        typer.Option(
            "--failed-checks",
            help="Only what is wrong, and why: runs and checks that failed, errors first.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit code 1 if a partition's last run, its last full run or a check failed."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is synced: last sync, documents by status, failed checks, retries that are due, what was rejected.

    With --entity: each record with a badge for each of its collections (green synced, yellow ~ stale, red !
    failed or rejected, grey ? pending) and the error, the worst first, and the health of the whole in per cent. A
    record's state is the worst over all collections.

    Reads the ledger, never the store, so it works during a sync. Asks the source only if --tenant is a name, as that
    might be the id of a tenant there. Where a source has a modification column only a full run sees every document:
    `unseen` counts those that none has seen.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.overview import overview
    from vecsync_dagster.cli.recordpages import record_page
    from vecsync_dagster.cli.tenants import require_tenant, tenant_called
    from vecsync_dagster.sync import Workspace

    with Workspace(settings, read_only=True) as workspace:
        name = _entity(workspace, entity, collection, wanted=state is not None or identity is not None)
        tenant = tenant_called(workspace, tenant)
        if name is None and format_ is Format.CSV:
            raise typer.BadParameter("csv is for records: give --entity", param_hint="--format")
        seen = overview(workspace, entity=name, tenant=tenant, days=days)
        if not seen.partitions:
            require_tenant(workspace, tenant, (), "the ledger: it was never synced, or is gone")
        records = None
        if name is not None:
            records = record_page(
                workspace,
                name,
                collection=collection,
                tenant=tenant,
                status=None if state is None else state.value,
                identity=identity,
                limit=limit,
                page=page,
            )
    if failed_checks and not as_json:
        _show_failures(seen, output.stdout())
    elif as_json or format_ is Format.JSON:
        output.print_json({**seen.as_dict(), **({} if records is None else records.as_dict())})
    elif records is not None:
        _show_records(records, as_csv=format_ is Format.CSV, in_full=identity is not None)
        if strict:
            _show_failures(seen, output.stderr())
    elif seen.partitions:
        _show(seen)
    else:
        output.stdout().print("nothing was synced yet; `vecsync sync all` does")
        _show_failures(seen, output.stderr())
    if strict and not seen.healthy:
        raise typer.Exit(1)


def _show_records(records: RecordPage, *, as_csv: bool, in_full: bool) -> None:
    from vecsync_dagster.cli.badges import show_page, write_csv

    if as_csv:
        write_csv(records)
    else:
        show_page(records, in_full=in_full)


def _entity(workspace: Workspace, entity: str | None, collection: str | None, *, wanted: bool) -> str | None:
    """The entity whose records are meant, if records are. Raises NotFound for names that do not exist."""
    from vecsync_dagster.cli.running import Wanted, wanted_entities

    names = wanted_entities(workspace, Wanted(entity=entity, collection=collection))
    if entity is None and collection is None and not wanted:
        return None
    if len(names) > 1:
        raise typer.BadParameter(f"say of which entity: {', '.join(names)}", param_hint="--entity")
    return names[0]


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
    rejected = Column("rejected", number=True, optional=True)
    scope_columns = (Column("collection"), Column("scope"), Column("tenants", number=True), *counts, rejected)
    scopes = [
        (seen.called(s.entity, s.collection), s.scope, s.tenants, *s.counts.cells(), s.last_sync, s.rejected)
        for s in seen.scopes
    ]
    print_table(out, scope_columns, scopes, title="Scopes")
    out.print()
    last = (
        Column("last run"),
        Column("failed checks", rare=True),
        rejected,
        Column("retries", optional=True),
    )
    tenant_columns = (Column("collection"), Column("tenant"), *counts, *last)
    tenants = [
        (
            seen.called(p.entity, p.collection),
            Tenant(p.tenant, p.tenant_name),
            *p.counts.cells(),
            p.last_sync,
            f"full {p.outcome}" if p.only_full else p.outcome,
            p.checks,
            p.rejected,
            p.retries,
        )
        for p in seen.partitions
    ]
    print_table(out, tenant_columns, tenants, title="Tenants")
    out.print()
    for collection, space in seen.spaces.items():
        out.print(f"{collection}: vectors of {space or 'no model yet'}", soft_wrap=True)
    for listening in seen.listening:
        style = "dim" if listening.hears else "yellow"
        output.stderr().print(f"{listening.entity}: {listening.text}", style=style, soft_wrap=True)
    for one in seen.missing:
        output.stderr().print(f"{one.entity}: {one.text}", style="yellow", soft_wrap=True)
    if seen.never_synced:
        more = len(seen.never_synced) - _UNSYNCED
        told = ", ".join([*seen.never_synced[:_UNSYNCED], *([f"and {more:,} more"] if more > 0 else [])])
        output.stderr().print(f"never synced: {told}", style="yellow", soft_wrap=True, highlight=False)
    _show_failures(seen, output.stderr())
    places = {(p.entity, p.collection, p.tenant): p.where for p in seen.partitions}
    for cut in seen.cut:
        place = places.get((cut.entity, cut.collection, cut.tenant), cut.collection)
        output.stderr().print(f"{place}: {cut.message}", style="dim", soft_wrap=True)
    for leftover in seen.leftovers:
        output.warn(str(leftover))


def _show_failures(seen: Overview, console: Console) -> None:
    """Errors before warnings; among them what is about an entity before what is about one partition."""
    overall = [(check, f"all of {check.entity}") for check in seen.failed_checks]
    checks = [(check, partition.where) for partition in seen.partitions for check in partition.failed_checks]
    errors = (_unreachable(seen), _failed_checks(overall, False), _failed_runs(seen), _failed_checks(checks, False))
    red = [(line, "red") for line in chain(*errors)]
    yellow = [(line, "yellow") for line in _failed_checks([*overall, *checks], True)]
    output.print_lines(console, [*red, *yellow])


def _failed_runs(seen: Overview) -> Iterator[str]:
    ended: dict[str, list[tuple[str, str]]] = {}
    for partition in seen.partitions:
        if partition.outcome not in (None, "success") and not partition.left_over:
            what = f"last {'full ' * partition.only_full}run {partition.outcome}"
            ended.setdefault(what, []).append((partition.where, partition.error or ""))
    for what, places in ended.items():
        yield from (f"{what}: {told}" for told in by_reason(places))


def _failed_checks(found: Iterable[tuple[CheckResult, str]], warning: bool) -> Iterator[str]:
    state = "warns" if warning else "failed"
    for check, where in found:
        if check.warning is warning:
            yield f"check {check.check} {state} ({check.at:%Y-%m-%d %H:%M}Z): {where}: {check.message}"


def _unreachable(seen: Overview) -> Iterator[str]:
    from vecsync_dagster.ledger.base import LOST

    for entity, error in seen.unreachable.items():
        what = "lacks tenants" if error.startswith(LOST) else "failed"
        yield f"source of {entity} {what}: {error}"
