"""The retry worker's job: one batch of due documents of each entity, and events for the partitions it changed."""

# Without `from __future__ import annotations`: Dagster reads the annotation of `context` as an object.

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from vecsync_dagster.assets.events import Event, Told, events_of, failure_of, told_before
from vecsync_dagster.assets.factory import pool_of
from vecsync_dagster.automation.partitions import add_tenants
from vecsync_dagster.checks import evaluation, failing_last, headlines, over_in_grid, red_checks
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, PartitionBusy, VecsyncError
from vecsync_dagster.sync import PartitionResult, Workspace, due_rows, retry_rows
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.standing import make_checks_again

__all__ = ["RETRY_JOB", "build_retry_job"]

RETRY_JOB = "vecsync_retry_job"


def build_retry_job(settings: Config) -> dg.JobDefinition:
    """An op rather than assets: what is due lies in any partitions of any entities. The run takes the hold of each
    tenant, as a sync does."""

    @dg.op(name="retry_due", pool=pool_of(settings), out=dg.Out(dg.Nothing))
    def retry(context: dg.OpExecutionContext) -> Iterator[Event]:
        results: list[PartitionResult] = []
        problem: VecsyncError | None = None
        with Workspace(settings) as workspace:
            try:
                red = {key for entity in settings.entities for key in red_checks(workspace, entity)}
                yield from failing_last(_retried(context, workspace, results), red)
                for entity in settings.entities:
                    yield from headlines(context.instance, workspace, entity)
            except (LedgerRejected, LedgerUnavailable) as error:
                problem = error  # what was retried is retried, and said below
            try:
                if results:
                    refresh_metrics(settings, workspace.ledger)
            except VecsyncError as error:
                problem = problem or error
        _finish(context, results, problem)

    @dg.job(name=RETRY_JOB, description="Try documents again that failed before and are due")
    def vecsync_retry_job() -> None:
        retry()

    return vecsync_retry_job


def _retried(context: dg.OpExecutionContext, workspace: Workspace, results: list[PartitionResult]) -> Iterator[Event]:
    """What is due of all entities; then the checks are made again that may be over with it."""
    began = datetime.now(UTC)
    for entity in workspace.config.entities:
        rows = due_rows(workspace, entity)
        add_tenants(context.instance, entity, [row.tenant for row in rows])
        before = told_before(context.instance, workspace, entity)
        for result in retry_rows(workspace, entity, rows):
            results.append(result)
            yield from _events(workspace, result, before)
    make_checks_again(workspace, results, context.log.warning)
    own = {f"{one.collection}|{one.tenant}" for one in results}
    for entity in workspace.config.entities:
        yield from over_in_grid(context.instance, workspace, entity, began, own)


def _events(workspace: Workspace, result: PartitionResult, before: Told) -> Iterator[Event]:
    """A partition whose points changed is materialized; one where all failed again has another check result only."""
    if result.outcome == "success" and result.figures.writes:
        yield from events_of(workspace, result, result.stages, before)
        return
    for check in result.checks:
        if check.name == "statuses":
            name = workspace.ledger.tenant_name(result.entity, result.tenant)
            yield evaluation(result.entity, result.collection, result.tenant, check, name)


def _finish(context: dg.OpExecutionContext, results: Sequence[PartitionResult], problem: VecsyncError | None) -> None:
    """Documents that failed again are in the ledger and in the check. What failed as a whole fails the run, as does a
    `problem` with the ledger or the metrics; but not a partition that another run was busy with: its documents come
    next time."""
    written = sum(result.figures.writes for result in results)
    failed = sum(result.figures.failed for result in results)
    context.log.info("%d partitions: %d documents synced or removed, %d failed again", len(results), written, failed)
    failure = failure_of([result for result in results if not isinstance(result.error, PartitionBusy)])
    if problem is not None:
        failure = failure or dg.Failure(f"{problem.code}: {problem}", allow_retries=False)
    if failure is not None:
        raise failure
