"""`vecsync watch`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, EntityOption, read_config
from vecsync_dagster.cli.signals import stop_on_signals
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.sync import PartitionResult, Workspace
    from vecsync_dagster.sync.watching import Round

__all__ = ["watch"]


def watch(
    ctx: typer.Context,
    config: ConfigOption = None,
    entity: EntityOption = None,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not show the results in Dagster's UI (saves a second).")
    ] = False,
) -> None:
    """Sync each tenant as soon as its rows change, until a signal ends it.

    PostgreSQL tells of changes where `vecsync install-triggers` was run; all tenants of every source are looked at
    every few minutes in any case (`automation.watch.poll`). What came of it is in sync_metrics.json, in Dagster's UI
    and in the alerts, as after `vecsync sync`; an entity whose source is down keeps no other one waiting.

    SIGTERM and Ctrl-C finish the batches in flight; exit code 0. Runs beside Dagster's sensors, or without them:
    neither does again what the other has done.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.batches import Batch
    from vecsync_dagster.cli.reporting import record_results
    from vecsync_dagster.cli.waking import wakers_of
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.watching import Watch

    with Workspace(settings, read_only=True) as workspace:
        names = list(settings.entities) if entity is None else [entity]
        for name in names:
            workspace.entity(name)

    down: set[str] = set()
    batch = Batch(settings.automation.watch.record)

    def record() -> None:
        """What is not recorded here the next full run shows."""
        try:
            if results := batch.take():
                with contained("recording in Dagster"), Workspace(settings, read_only=True) as workspace:
                    record_results(workspace, results)
        except VecsyncError as error:
            output.warn(f"Dagster's UI lacks what was synced: {error.code}: {error}")

    def rest() -> None:
        if batch.is_due:
            record()

    def done(workspace: Workspace, found: Round) -> None:
        from vecsync_dagster.cli.running import Outcome, Problem, end_run

        problems = [Problem(*one) for one in found.problems]
        interrupted = any(result.outcome == "interrupted" for result in found.results)
        outcome = Outcome(found.started_at, datetime.now(UTC), found.results, problems, interrupted)
        outcome.reached = found.reached
        with suppress(LedgerRejected, LedgerUnavailable):  # the round's results say so
            outcome.names = workspace.ledger.tenant_names()
        for result in found.results:
            _tell(result, outcome.named(result.entity, result.tenant))
        away = {name for name, tenant, _ in found.problems if tenant is None} - down
        down.update(away)
        down.difference_update(found.reached)
        outage = bool(away or found.reached)
        end_run(workspace, outcome, record=not no_record, outage=outage, batch=None if no_record else batch)

    with stop_on_signals() as stop:
        wakers = wakers_of(settings, names)
        listening = f"; listening to {', '.join(waker.name for waker in wakers)}" if wakers else ""
        output.note(f"watching {', '.join(names)}{listening} (Ctrl-C ends it)")
        Watch(settings, names, wakers, stop=stop, done=done, rest=rest).run()
        record()


def _tell(result: PartitionResult, tenant: str) -> None:
    figures = result.figures
    if result.error is not None:
        output.warn(f"{result.collection} of {tenant}: {result.error.code}: {result.error}")
        return
    written = f"{figures.upserted} written, {figures.payload_only} payloads, {figures.removed} removed"
    output.stdout().print(f"{result.collection} of {tenant}: {written}", highlight=False)
