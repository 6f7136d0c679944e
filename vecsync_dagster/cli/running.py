"""Running a sync for the command line: which partitions are meant, one after the other, and what came out.

Imports the whole engine: commands import this module when they run, not when they are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from vecsync_dagster.cli import output
from vecsync_dagster.cli.progress import SyncProgress
from vecsync_dagster.cli.signals import INTERRUPTED, Stop
from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import ConfigError, LedgerRejected, LedgerUnavailable, OutputUnwritable, VecsyncError
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.metrics import run_metrics, write_metrics

__all__ = ["Outcome", "Problem", "Wanted", "record_results", "run_sync", "wanted_entities"]

ScopeName = Literal["all", "global", "tenants", "tenant"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which partitions are to be synced. `tenant` goes with the scope `tenant`."""

    scope: ScopeName = "all"
    tenant: str | None = None
    entity: str | None = None
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What kept an entity, or one of its tenants, from having results at all; or, without an entity, what went
    wrong after the sync."""

    entity: str | None
    tenant: str | None
    error: VecsyncError

    def as_dict(self) -> dict[str, Any]:
        return {
            "entity": self.entity,
            "tenant": self.tenant,
            "code": self.error.code,
            "message": str(self.error),
        }


@dataclass(slots=True)
class Outcome:
    """One run over many partitions."""

    started_at: datetime
    ended_at: datetime
    results: list[PartitionResult] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def ok(self) -> bool:
        return not self.interrupted and not self.problems and all(result.ok for result in self.results)

    @property
    def nothing_changed(self) -> bool:
        return self.ok and not any(result.figures.touched or result.figures.removed for result in self.results)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        return run_metrics(
            self.results,
            started_at=self.started_at,
            ended_at=self.ended_at,
            outcome="interrupted" if self.interrupted else "success" if self.ok else "failed",
            errors=[problem.as_dict() for problem in self.problems],
        )


def run_sync(config: Config, wanted: Wanted, options: SyncOptions, *, stop: Stop, record: bool) -> Outcome:
    """Sync what is wanted, write sync_metrics.json, and with `record` tell Dagster. A dry run does neither.

    What goes wrong with a partition is in the outcome. Raises ConfigError for names that do not exist.
    """
    outcome = Outcome(datetime.now(UTC), datetime.now(UTC))
    with Workspace(config, read_only=options.dry_run) as workspace:
        selections = _select(workspace, wanted, outcome.problems)
        for entity in dict.fromkeys(selection.entity for selection in selections):
            _warn_of_rows_left_out(workspace, entity)
        with SyncProgress(len(selections)) as progress:
            _sync(workspace, selections, options, outcome, progress, stop)
        outcome.ended_at = datetime.now(UTC)
        workspace.close()  # what follows needs no store: others may have it
        if not options.dry_run:
            _write_metrics(config, outcome)
            if record:
                record_results(workspace, outcome.results)
    return outcome


def _warn_of_rows_left_out(workspace: Workspace, entity: str) -> None:
    """Rows that no sync ever sees are said, not passed over."""
    unassigned = workspace.source(entity).unassigned()
    if unassigned:
        rows = output.number_of(unassigned, "row")
        output.warn(f"{entity}: {rows} without a tenant and not global: nobody's, so not synced")
    if workspace.reserved_tenant(entity):
        output.warn(f"{entity}: a tenant is called {GLOBAL!r}, which is the name of everybody's records: not synced")


def _sync(
    workspace: Workspace,
    selections: Sequence[Selection],
    options: SyncOptions,
    outcome: Outcome,
    progress: SyncProgress,
    stop: Stop,
) -> None:
    for selection in selections:
        if stop():
            break
        progress.begin(selection)
        try:
            results = workspace.sync(selection, options, progress=progress.figures, stop=stop)
        except VecsyncError as error:
            outcome.problems.append(Problem(selection.entity, selection.tenant, error))
            if isinstance(error, (LedgerUnavailable, LedgerRejected)):
                break  # without its ledger no other partition can be synced either
        else:
            outcome.results += results
            progress.end(results)
    outcome.interrupted = stop()


def _select(workspace: Workspace, wanted: Wanted, problems: list[Problem]) -> list[Selection]:
    """The wanted partitions; an entity whose source cannot be asked is a problem, not the end of the others."""
    selections: list[Selection] = []
    for entity in wanted_entities(workspace, wanted):
        try:
            tenants = list(_tenants(workspace, entity, wanted))
        except VecsyncError as error:
            problems.append(Problem(entity, wanted.tenant, error))
            continue
        selections += workspace.select([entity], tenants, wanted.collection)
    if not selections and not problems and wanted.scope in ("tenant", "global"):
        what = f"tenant {wanted.tenant}" if wanted.scope == "tenant" else "global records"
        where = wanted.entity or ", ".join(workspace.config.entities)
        raise ConfigError(f"no {what} in {where}, neither in the source nor in the ledger", tenant=wanted.tenant)
    return selections


def wanted_entities(workspace: Workspace, wanted: Wanted) -> Sequence[str]:
    """The names of the wanted entities. Raises ConfigError that lists what there is for a wrong name."""
    if wanted.entity is not None:
        entity = workspace.entity(wanted.entity)
        if wanted.collection is not None and wanted.collection not in entity.collections:
            raise ConfigError(
                f"no collection {wanted.collection!r} in entity {wanted.entity}; "
                f"there are: {', '.join(entity.collections)}",
                collection=wanted.collection,
            )
        return [wanted.entity]
    if wanted.collection is not None:
        return [workspace.owner_of(wanted.collection)]
    return list(workspace.config.entities)


def _tenants(workspace: Workspace, entity: str, wanted: Wanted) -> Iterator[str]:
    for tenant in workspace.tenants(entity):
        match wanted.scope:
            case "all":
                yield tenant
            case "global" if tenant == GLOBAL:
                yield tenant
            case "tenants" if tenant != GLOBAL:
                yield tenant
            case "tenant" if tenant == wanted.tenant:
                yield tenant
            case _:
                pass


def _write_metrics(config: Config, outcome: Outcome) -> None:
    """A file that cannot be written fails the run, but what was synced is shown all the same."""
    try:
        write_metrics(config.state_folder, outcome.as_dict())
    except OutputUnwritable as error:
        outcome.problems.append(Problem(None, None, error))


def record_results(workspace: Workspace, results: Sequence[PartitionResult]) -> None:
    """Show the results in Dagster's UI too. Its storage is a convenience here: the sync itself is done."""
    from alembic.util import CommandError
    from dagster import DagsterError
    from dagster._check import CheckError
    from sqlalchemy.exc import SQLAlchemyError

    from vecsync_dagster.assets.recording import record

    try:
        record(workspace, results)
    except (DagsterError, CheckError, SQLAlchemyError, CommandError, OSError, VecsyncError) as error:
        reason = str(error) if isinstance(error, VecsyncError) else type(error).__name__
        output.warn(f"Dagster's storage did not take the results, so its UI lacks this run ({reason})")
