"""`vecsync retry`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import CollectionOption, ConfigOption, EntityOption, JsonOption, read_config, text
from vecsync_dagster.cli.signals import stop_on_signals
from vecsync_dagster.cli.tables import Column, Tenant, print_table
from vecsync_dagster.words import named

if TYPE_CHECKING:
    from vecsync_dagster.cli.retrying import RetryOutcome

__all__ = ["retry"]

_FIGURES = ("tried", "synced", "removed", "invalid", "failed")
_CALLED = {"invalid": "rejected"}


def retry(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    collection: CollectionOption = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", metavar="ID", callback=text, help="Only this record, due or not; may be given several times."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also documents that are not due yet.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget how often they failed first: tries permanent ones too.")
    ] = False,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not show the results in Dagster's UI (saves a second).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try documents that failed again, the oldest attempt first: those that are due now.

    Dagster's sensor `vecsync_retry` does the same by itself. Only what failed is tried, in the collections where it
    failed; a record that the database does not have any more is removed. What failed in an outage is tried at once, and
    no outage uses up a retry. A document that was itself refused more often than sync.retry.max_retries is permanent:
    it waits for --reset, or until it changes. A record that was rejected is not
    tried: it waits until it is fixed in the database. Exit code 1 if any failed again.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.retrying import RetryWanted, run_retry

    with stop_on_signals() as stop:
        wanted = RetryWanted(entity, collection, tuple(ids or ()), waiting=everything, reset=reset)
        outcome = run_retry(settings, wanted, stop=stop, record=not no_record)
    if as_json:
        output.print_json({"command": "retry", **outcome.as_dict()})
    else:
        _show(outcome)
    raise typer.Exit(outcome.exit_code)


def _show(outcome: RetryOutcome) -> None:
    out = output.stdout()
    document = outcome.as_dict()
    partitions: list[dict[str, Any]] = document["partitions"]
    if outcome.reset:
        out.print(f"Reset: {output.number_of(outcome.reset, 'document')}.")
    if partitions:
        _show_table(partitions)
    else:
        out.print("Nothing to retry.")
    if outcome.waiting:
        out.print(f"{output.number_of(outcome.waiting, 'document')} will be tried again, from {_time(outcome)} on.")
    if outcome.permanent:
        permanent = output.number_of(outcome.permanent, "document")
        output.warn(f"permanent: {permanent} without retries left; --reset tries them again")
    for partition in partitions:
        if partition["error"] is not None:
            where = f"{partition['collection']} of {named(partition['tenant'], partition['tenant_name'])}"
            error = partition["error"]
            output.stderr().print(f"failed: {where}: {error['code']}: {error['message']}", style="red", soft_wrap=True)
    if outcome.unsynced and not outcome.failed:
        some = output.number_of(len(outcome.unsynced), "partition")
        output.note(
            f"the last sync of {some} did not succeed, and may have missed more: `vecsync sync` makes up for it"
        )
    if outcome.interrupted:
        output.warn("interrupted: what was confirmed is kept; run it again and it goes on from there")


def _show_table(partitions: list[dict[str, Any]]) -> None:
    """One row for each partition, whichever number of batches it had."""
    sums: dict[tuple[str, Tenant], Counter[str]] = {}
    for partition in partitions:
        tenant = Tenant(partition["tenant"], partition["tenant_name"])
        counts = sums.setdefault((partition["collection"], tenant), Counter())
        counts.update({name: partition[name] for name in _FIGURES})
    figures = (Column(_CALLED.get(name, name), number=True) for name in _FIGURES)
    columns = (Column("collection"), Column("tenant"), *figures)
    rows: list[tuple[str | int | Tenant, ...]] = [
        (*place, *(counts[name] for name in _FIGURES)) for place, counts in sums.items()
    ]
    print_table(output.stdout(), columns, rows)


def _time(outcome: RetryOutcome) -> str:
    moment = outcome.next_attempt_at
    return "now" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"
