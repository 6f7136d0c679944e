"""What others see of a sync that was made without Dagster: the checks that may be over with it, Dagster's UI, alerts.

None of it fails the sync: what cannot be shown or sent is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from vecsync_dagster.cli import output
from vecsync_dagster.config.models import Config
from vecsync_dagster.config.values import environment
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import ChecksFailed, OutputUnwritable, VecsyncError
from vecsync_dagster.sync import PartitionResult, Workspace
from vecsync_dagster.sync.metrics import refresh_metrics

if TYPE_CHECKING:
    from vecsync_dagster.alerts import Delivery
    from vecsync_dagster.cli.running import Outcome

__all__ = [
    "alert_results",
    "is_recorded",
    "record_headlines",
    "record_results",
    "refresh_health",
    "report_checks",
]

T = TypeVar("T")


def record_results(
    workspace: Workspace,
    results: Sequence[PartitionResult],
    unsynced: Mapping[str, VecsyncError] | None = None,
    *,
    found: Sequence[ChecksFailed] = (),
    interrupted: bool = False,
) -> str:
    """Show the results in Dagster's UI too, what checks over all partitions found, and what could not be synced; the
    run's id."""
    from vecsync_dagster.assets.recording import record

    command = output.command_in_use()
    recorded = _recorded(
        lambda: record(workspace, results, unsynced, found=found, command=command, interrupted=interrupted)
    )
    return "" if recorded is None else recorded.run_id


def report_checks(workspace: Workspace, since: datetime, failed: Mapping[str, str] | None = None) -> None:
    """Checks that were made since then without a sync: Dagster's UI, sync_metrics.json and alerts show them. `failed`:
    why the command ends with an error, by place."""
    refresh_health(workspace)
    run_id = record_headlines(workspace, failed) if is_recorded(workspace.config) else ""
    if workspace.config.alerts.channels:
        from vecsync_dagster.alerts import Seen, observe

        try:
            with contained("alerts"):
                delivery = observe(workspace.config, workspace.ledger, Seen(run_id, since)).deliver()
        except VecsyncError as error:
            output.warn(f"alerts were not sent: {error.code}: {error}")
        else:
            _warn_of_unsent(delivery)


def refresh_health(workspace: Workspace) -> None:
    """What monitoring reads in sync_metrics.json, after what was no sync."""
    try:
        refresh_metrics(workspace.config, workspace.ledger)
    except OutputUnwritable as error:
        output.warn(f"{error.code}: {error}")


def record_headlines(workspace: Workspace, failed: Mapping[str, str] | None = None) -> str:
    """Show in Dagster's UI what the ledger knows of checks and runs, where it shows anything else; the run's id."""
    from vecsync_dagster.assets.recording import record_checks

    return _recorded(lambda: record_checks(workspace, output.command_in_use(), failed)) or ""


def is_recorded(config: Config) -> bool:
    """Whether Dagster was ever told of a sync."""
    return bool(environment("DAGSTER_HOME")) or (config.state_folder / "dagster").exists()


def _recorded(recording: Callable[[], T]) -> T | None:
    """Dagster's storage is a convenience here: what it should show is done."""
    from alembic.util import CommandError
    from dagster import DagsterError
    from dagster._check import CheckError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with contained("recording in Dagster", DagsterError, CheckError, SQLAlchemyError, CommandError, OSError):
            return recording()
    except (DagsterError, CheckError, SQLAlchemyError, CommandError, OSError, VecsyncError) as error:
        reason = str(error) if isinstance(error, VecsyncError) else type(error).__name__
        output.warn(f"Dagster's storage did not take the results, so its UI lacks this run ({reason})")
        return None


def alert_results(workspace: Workspace, outcome: Outcome, run_id: str) -> None:
    """What is wrong now, or over, and what could not be sent before, goes to the channels. One that fails is a warning:
    what it was not told is kept for the next run."""
    config = workspace.config
    if not config.alerts.channels or not config.alerts.enabled:
        return
    from vecsync_dagster.alerts import Seen, announce, observe, sync_failed

    names = [*dict.fromkeys(result.entity for result in outcome.results)]
    mine = {*names, *(one.entity for one in outcome.unsynced)}
    seen = Seen(run_id, outcome.started_at, lambda one: one.entity in mine)
    if names:
        seen.cost(config, names, sum(result.figures.price_usd for result in outcome.results))
    try:
        with contained("alerts"):
            delivery = observe(config, workspace.ledger, seen).deliver()
    except VecsyncError as error:
        # Without the ledger nobody knows what was told before: better twice than not at all.
        told = [sync_failed(one.entity or "", one.tenant, f"{one.error.code}: {one.error}") for one in outcome.unsynced]
        delivery = announce(config.alerts, told)
        output.warn(f"alerts cannot be kept: {error.code}: {error}")
    _warn_of_unsent(delivery)


def _warn_of_unsent(delivery: Delivery) -> None:
    for failure in delivery.errors.values():
        output.warn(f"an alert was not sent; the next run tries again: {failure.code}: {failure}")
