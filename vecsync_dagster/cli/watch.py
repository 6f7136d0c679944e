"""`vecsync watch`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.options import ConfigOption, EntityOption, read_config
from vecsync_dagster.cli.signals import Stop, stop_on_signals
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.config import Config
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
    events_only: Annotated[
        bool,
        typer.Option("--events-only", help="Only what sources tell: Dagster's sensors look at all tenants already."),
    ] = False,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
) -> None:
    """Sync each tenant as soon as its rows change, until a signal ends it.

    PostgreSQL tells of changes where `vecsync install-triggers` was run; all tenants of every source are looked at
    every few minutes in any case (`automation.watch.poll`). What came of it is in sync_metrics.json, in Dagster's UI
    and in the alerts, as after `vecsync sync`; an entity whose source is down keeps no other one waiting.

    SIGTERM and Ctrl-C finish the batches in flight; exit code 0. Runs beside Dagster's sensors, or without them:
    neither does again what the other has done. `vecsync ui` runs it by itself, with --events-only.
    """
    settings = read_config(ctx, config)
    from vecsync_dagster.cli.waking import told_by, wakers_of
    from vecsync_dagster.sync import Workspace
    from vecsync_dagster.sync.listening import saying
    from vecsync_dagster.sync.watching import Watch

    with Workspace(settings, read_only=True) as workspace:
        names = list(settings.entities) if entity is None else [entity]
        for name in names:
            workspace.entity(name)
    if events_only:
        told = {*told_by(settings)}
        names = [name for name in names if name in told]
        if not names:
            output.note("no source tells of changes; start this again after `vecsync install-triggers`")

    rounds = _Rounds(settings, record=not no_record)
    with stop_on_signals() as stop:
        if until_stdin_ends:
            threading.Thread(target=_stop_with_stdin, args=(stop,), daemon=True).start()
        wakers = wakers_of(settings, names)
        listening = f"; listening to {', '.join(waker.name for waker in wakers)}" if wakers else ""
        output.note(f"watching {', '.join(names) or 'nothing'}{listening} (Ctrl-C ends it)")
        watching = Watch(settings, names, wakers, stop=stop, done=rounds.done, rest=rounds.rest, looks=not events_only)
        with saying(settings, watching.heard):
            watching.run()
        rounds.end()


class _Rounds:
    """What each round ends in."""

    def __init__(self, settings: Config, *, record: bool) -> None:
        from vecsync_dagster.cli.batches import Batch

        self._settings = settings
        self._batch = Batch(settings.automation.watch.record) if record else None
        self._down: set[str] = set()

    def done(self, workspace: Workspace, found: Round) -> None:
        from vecsync_dagster.cli.running import Outcome, Problem, end_run

        problems = [Problem(*one) for one in found.problems]
        interrupted = any(result.outcome == "interrupted" for result in found.results)
        outcome = Outcome(found.started_at, datetime.now(UTC), found.results, problems, interrupted)
        with suppress(LedgerRejected, LedgerUnavailable):  # the round's results say so
            outcome.names = workspace.ledger.tenant_names()
        for result in found.results:
            _tell(result, outcome.named(result.entity, result.tenant))
        away = {name for name, tenant, _ in found.problems if tenant is None} - self._down
        self._down.update(away)
        self._down.difference_update(found.reached)
        outage = bool(away or found.reached)
        end_run(workspace, outcome, record=self._batch is not None, outage=outage, batch=self._batch)
        for problem in outcome.problems:
            if problem.entity is None:  # met after the sync
                output.error(problem.error.code, str(problem.error))

    def rest(self) -> None:
        if self._batch is not None and self._batch.is_due:
            self.end()

    def end(self) -> None:
        """Record what is kept back. What cannot be recorded here the next full run shows."""
        from vecsync_dagster.cli.reporting import record_results
        from vecsync_dagster.sync import Workspace

        results = [] if self._batch is None else self._batch.take()
        if not results:
            return
        try:
            with contained("recording in Dagster"), Workspace(self._settings, read_only=True) as workspace:
                record_results(workspace, results)
        except VecsyncError as error:
            output.warn(f"Dagster's UI lacks what was synced: {error.code}: {error}")


def _stop_with_stdin(stop: Stop) -> None:
    """Whoever started us has ended, however it did."""
    while os.read(sys.stdin.fileno(), 4096):  # a reader of its own would hold a lock that ends Python with an error
        pass
    stop.asked = True


def _tell(result: PartitionResult, tenant: str) -> None:
    figures = result.figures
    if result.error is not None:
        output.warn(f"{result.collection} of {tenant}: {result.error.code}: {result.error}")
        return
    written = f"{figures.upserted} written, {figures.payload_only} payloads, {figures.removed} removed"
    output.stdout().print(f"{result.collection} of {tenant}: {written}", highlight=False)
