"""What a sensor tells people while it cannot look: it starts no run then, so no run would tell them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from vecsync_dagster.alerts import Alerts, Unsynced, run_died, source_failed
from vecsync_dagster.checks.headlines import RUNS, runs_are_red, runs_outcome, show_runs
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, VecsyncError
from vecsync_dagster.sync import CheckOutcome, Workspace

__all__ = ["tick"]

_LEDGER = (LedgerRejected, LedgerUnavailable)
_log = logging.getLogger("vecsync.automation")


@contextmanager
def tick(instance: dg.DagsterInstance, config: Config, entity: str) -> Iterator[Workspace]:
    """The workspace of a sensor that looks at the entity's source.

    Runs that were killed are recorded first, with an alert for each. Where it cannot look, the check `runs` of `health`
    fails and an alert is raised, as after a failed run; both once, however often it tries. Both are over with the first
    tick that can. The error is raised again."""
    try:
        with Workspace(config) as workspace:
            died = workspace.ledger.end_dead_runs(entity)
            if died and config.alerts.enabled:
                Alerts(config.alerts, workspace.ledger).observe(map(run_died, died))
            yield workspace
            _over(workspace, entity)
            if died or runs_are_red(instance, entity):
                show_runs(instance, entity, runs_outcome(workspace, entity, workspace.ledger.tenant_names(entity)))
    except VecsyncError as error:
        show_runs(instance, entity, _failed(config, entity, error))
        raise


def _failed(config: Config, entity: str, error: VecsyncError) -> CheckOutcome:
    """As the ledger has it, beside other runs that failed; without the ledger, the error alone. Keeps an alert."""
    if not isinstance(error, _LEDGER):
        try:
            with Workspace(config) as workspace:
                if config.alerts.enabled:
                    Alerts(config.alerts, workspace.ledger).observe([Unsynced(entity, None, error).alert()])
                known = runs_outcome(workspace, entity, workspace.ledger.tenant_names(entity))
                if not known.passed:
                    return known
        except VecsyncError as another:  # it must not hide why the sensor cannot look
            _log.warning("%s: %s: %s", entity, another.code, another)
    return CheckOutcome(RUNS, False, f"no run can start: {error.code}: {error}")


def _over(workspace: Workspace, entity: str) -> None:
    """In each good tick: somebody else may have been the first to find that the source answers again."""
    key = source_failed(entity, "").key
    if any(known.key == key for known in workspace.ledger.alerts()):
        Alerts(workspace.config.alerts, workspace.ledger).observe([], lambda known: known.key == key)
