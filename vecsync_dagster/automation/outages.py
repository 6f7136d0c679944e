"""What a sensor tells people when it looks: also while it cannot, as it starts no run then that would tell them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from vecsync_dagster.alerts import Seen, observe
from vecsync_dagster.automation.found_by import found_by
from vecsync_dagster.checks.headlines import RUNS, runs_are_red, runs_outcome, show_headlines, show_runs
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable, VecsyncError
from vecsync_dagster.sync import CheckOutcome, Workspace
from vecsync_dagster.sync.metrics import end_dead_runs

__all__ = ["tick"]

_LEDGER = (LedgerRejected, LedgerUnavailable)
_log = logging.getLogger("vecsync.automation")


@contextmanager
def tick(
    instance: dg.DagsterInstance, config: Config, entity: str, seen: Seen | None = None, *, all_checks: bool = False
) -> Iterator[Workspace]:
    """The workspace of a sensor that looks at the entity's source.

    Runs that were killed are recorded first. Where it cannot look, the check `runs` of `health` fails, once, however
    often it tries. The entity's alerts follow what the ledger knows in each tick, good or bad; with `all_checks` so
    does what Dagster shows of all its checks. `seen`: what the sensor finds. The error is raised again."""
    seen = seen or Seen()
    seen.run_of = found_by(instance)
    try:
        with Workspace(config) as workspace:
            died = end_dead_runs(config, workspace.ledger, entity)
            yield workspace
            try:
                observe(config, workspace.ledger, seen, only=entity)
                if all_checks:
                    show_headlines(instance, workspace, entity)
                elif died or runs_are_red(instance, entity):
                    show_runs(instance, entity, runs_outcome(workspace, entity, workspace.ledger.tenant_names(entity)))
            except (*_LEDGER, OutputUnwritable) as error:
                # What the sensor asks for holds all the same: the next tick brings these up to date.
                _log.warning("%s: alerts and checks are as they were: %s: %s", entity, error.code, error)
    except VecsyncError as error:
        show_runs(instance, entity, _failed(config, entity, error))
        raise


def _failed(config: Config, entity: str, error: VecsyncError) -> CheckOutcome:
    """As the ledger has it, beside other runs that failed; without the ledger, the error alone."""
    if not isinstance(error, _LEDGER):
        try:
            with Workspace(config) as workspace:
                observe(config, workspace.ledger, only=entity)
                known = runs_outcome(workspace, entity, workspace.ledger.tenant_names(entity))
                if not known.passed:
                    return known
        except VecsyncError as another:  # it must not hide why the sensor cannot look
            _log.warning("%s: %s: %s", entity, another.code, another)
    return CheckOutcome(RUNS, False, f"no run can start: {error.code}: {error}")
