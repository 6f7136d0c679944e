"""Running a sync for the command line: which partitions are meant, one after the other, and what came out.

Imports the whole engine: commands import this module when they run, not when they are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from vecsync_dagster.cli import output
from vecsync_dagster.cli.batches import Batch
from vecsync_dagster.cli.progress import SyncProgress
from vecsync_dagster.cli.reporting import alert_results, record_headlines, record_results
from vecsync_dagster.cli.signals import INTERRUPTED, WRONG_USAGE, Stop
from vecsync_dagster.cli.tenants import meant_by, require_tenant, tenant_called
from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import (
    LedgerRejected,
    LedgerUnavailable,
    NotFound,
    OutputUnwritable,
    VecsyncError,
    WrongUsage,
)
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.sync.locate import locate
from vecsync_dagster.sync.metrics import run_metrics, write_metrics
from vecsync_dagster.sync.options import is_tenant
from vecsync_dagster.sync.retention import forget_old_after
from vecsync_dagster.sync.standing import make_checks_again
from vecsync_dagster.sync.tenant_names import naming
from vecsync_dagster.words import named, shown

__all__ = [
    "Outcome",
    "Problem",
    "ScopeName",
    "Wanted",
    "end_run",
    "run_sync",
    "wanted_entities",
]

ScopeName = Literal["all", "global", "tenants", "tenant"]
Part = tuple[Selection, SyncOptions]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which partitions are to be synced. `tenant` goes with the scope `tenant`, and with `ids`: single records of
    `entity`."""

    scope: ScopeName = "all"
    tenant: str | None = None
    entity: str | None = None
    collection: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What kept an entity, or one of its tenants, from having results at all; or, without an entity, what went
    wrong after the sync."""

    entity: str | None
    tenant: str | None
    error: VecsyncError

    @property
    def is_wrong_usage(self) -> bool:
        return isinstance(self.error, NotFound | WrongUsage)

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
    health: dict[str, Any] | None = None
    """Of all partitions, after the run; see `sync.health`."""
    names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What people call the tenants, by entity and tenant."""

    def named(self, entity: str, tenant: str) -> str:
        return named(tenant, self.names.get((entity, tenant), ""))

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def ok(self) -> bool:
        return not self.interrupted and not self.problems and all(result.ok for result in self.results)

    @property
    def unsynced(self) -> list[Problem]:
        """What kept entities, or tenants of them, from being synced; not what somebody mistyped."""
        return [one for one in self.problems if one.entity is not None and not one.is_wrong_usage]

    @property
    def nothing_changed(self) -> bool:
        return self.ok and not any(result.figures.touched or result.figures.removed for result in self.results)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        if self.problems and all(problem.is_wrong_usage for problem in self.problems):
            return WRONG_USAGE if all(result.ok for result in self.results) else 1
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        metrics = run_metrics(
            self.results,
            started_at=self.started_at,
            ended_at=self.ended_at,
            outcome="interrupted" if self.interrupted else "success" if self.ok else "failed",
            errors=[problem.as_dict() for problem in self.problems],
            names=self.names,
        )
        return metrics if self.health is None else {**metrics, "health": self.health}


def run_sync(config: Config, wanted: Wanted, options: SyncOptions, *, stop: Stop, record: bool) -> Outcome:
    """Sync what is wanted, write sync_metrics.json, with `record` tell Dagster, and send alerts where they are
    configured. A dry run does nothing of that.

    What goes wrong with a partition is in the outcome. Raises NotFound for names that do not exist.
    """
    outcome = Outcome(datetime.now(UTC), datetime.now(UTC))
    with Workspace(config, read_only=options.dry_run) as workspace:
        parts = _parts(workspace, wanted, options, outcome.problems)
        with suppress(LedgerRejected, LedgerUnavailable):  # the sync meets the same error, and tells it
            outcome.names = workspace.ledger.tenant_names()
        if options.dry_run:
            outcome.names = {**_unknown_names(workspace, parts, outcome.names), **outcome.names}
        for entity in _asked(workspace, wanted, parts, outcome.problems):
            try:
                with contained(f"{entity}: counting rows without a tenant"):
                    _tell_of_rows_left_out(workspace, entity, wanted, outcome.problems)
            except VecsyncError as error:  # its partitions will meet the same error, and have it in their results
                output.warn(f"{entity}: {error.code}: {error}")
        with SyncProgress(len(parts)) as progress:
            _sync(workspace, parts, outcome, progress, stop)
        if options.allow_removals:
            _look_for_lost(workspace, outcome)
        outcome.ended_at = datetime.now(UTC)
        if options.dry_run:
            workspace.close()
        else:
            end_run(workspace, outcome, record=record, problems=True)
    return outcome


def end_run(
    workspace: Workspace,
    outcome: Outcome,
    *,
    record: bool,
    problems: bool = False,
    outage: bool = False,
    batch: Batch | None = None,
) -> None:
    """What every sync ends in that is made without Dagster: the checks that may be over with it, sync_metrics.json,
    Dagster's UI, the alerts. `problems`: what could not be synced, or was not because of a signal, is a failed run in
    the UI, too; not for `watch`, which keeps retrying. `outage`: a source is away now, or is there again. `batch`: what
    is to be recorded with the results, then or later."""
    found = make_checks_again(workspace, outcome.results, output.warn)
    outcome.problems += [Problem(None, None, error) for error in found]
    workspace.close()  # what follows needs no store: others may have it
    _write_metrics(workspace, outcome)
    _forget_old(workspace, outcome)
    unsynced = {"|".join(filter(None, (one.entity, one.tenant))): one.error for one in outcome.unsynced if problems}
    cut = outcome.interrupted and problems
    results: Sequence[PartitionResult] = outcome.results
    if batch is not None:
        news = batch.add(results)
        results = batch.take() if news or batch.is_due else []
    worth = record and (results or unsynced or cut)
    told = found if problems else ()
    run_id = record_results(workspace, results, unsynced, found=told, interrupted=cut) if worth else ""
    if record and outage:
        record_headlines(workspace)
    alert_results(workspace, outcome, run_id)


def _asked(workspace: Workspace, wanted: Wanted, parts: Sequence[Part], problems: Sequence[Problem]) -> Sequence[str]:
    """The entities that are synced, also those in which there is nothing to sync; not those that have an error."""
    all_there_are = wanted_entities(workspace, wanted) if wanted.tenant is None and not wanted.ids else ()
    failed = {problem.entity for problem in problems}
    entities = dict.fromkeys([*(selection.entity for selection, _ in parts), *all_there_are])
    return [entity for entity in entities if entity not in failed]


def _tell_of_rows_left_out(workspace: Workspace, entity: str, wanted: Wanted, problems: list[Problem]) -> None:
    """Rows that no sync ever sees are said, not passed over. A tenant that was to be synced and cannot be is a
    problem."""
    unassigned = workspace.source(entity).unassigned()
    if unassigned:
        rows = output.number_of(unassigned, "row")
        output.warn(f"{entity}: {rows} without a tenant and not global: not synced")
    reserved = workspace.reserved_tenant(entity)
    if reserved is None:
        return
    if wanted.ids or wanted.scope == "global" or wanted.tenant not in (None, GLOBAL):
        output.warn(f"{entity}: {reserved}")
    else:
        problems.append(Problem(entity, None, reserved))


def _unknown_names(
    workspace: Workspace, parts: Sequence[Part], known: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """What the sources call tenants of which the ledger has no name yet: a dry run notes none."""
    found: dict[tuple[str, str], str] = {}
    for entity in dict.fromkeys(selection.entity for selection, _ in parts):
        namer = naming(workspace.entity(entity), workspace.source(entity))
        new = {one.tenant for one, _ in parts if one.entity == entity and (entity, one.tenant) not in known} - {GLOBAL}
        if new and namer is not None:
            with suppress(VecsyncError), contained(f"{entity}: reading the names of tenants"):
                names = namer.tenant_names(filter(is_tenant, new))
                found |= {(entity, tenant): name for tenant, name in names.items()}
    return found


def _sync(workspace: Workspace, parts: Sequence[Part], outcome: Outcome, progress: SyncProgress, stop: Stop) -> None:
    for selection, options in parts:
        if stop():
            break
        progress.begin(selection)
        try:
            results = workspace.sync(selection, options, progress=progress.figures, stop=stop)
        except VecsyncError as error:
            outcome.problems.append(Problem(selection.entity, selection.tenant, error))
            if isinstance(error, LedgerUnavailable):
                break  # without its ledger no other partition can be synced either
        else:
            outcome.results += results
            progress.end(results)
    outcome.interrupted = stop()


def _look_for_lost(workspace: Workspace, outcome: Outcome) -> None:
    """Of tenants that are really gone the removal is the end of a problem; who looks else may do so tomorrow."""
    for entity in {result.entity for result in outcome.results}:
        with suppress(VecsyncError):
            workspace.call_the_roll(entity)


def _parts(workspace: Workspace, wanted: Wanted, options: SyncOptions, problems: list[Problem]) -> list[Part]:
    if wanted.ids:
        return _records(workspace, wanted, options, problems)
    return [(selection, options) for selection in _select(workspace, wanted, options, problems)]


def _records(workspace: Workspace, wanted: Wanted, options: SyncOptions, problems: list[Problem]) -> list[Part]:
    """Single records, by the tenants that have them. An id that nobody knows is a problem; the others go on."""
    [entity] = wanted_entities(workspace, wanted)
    try:
        with asking(workspace, entity, refresh=False), contained(f"{entity}: looking for records"):
            wanted = replace(wanted, tenant=tenant_called(workspace, wanted.tenant))
            places = locate(workspace, entity, wanted.ids, wanted.tenant)
            if wanted.tenant is not None and not places:
                known = workspace.tenants(entity)
                require_tenant(workspace, wanted.tenant, known, f"{entity}, neither in the source nor in the ledger")
    except VecsyncError as error:
        problems.append(Problem(entity, None, error))
        return []
    for identity in dict.fromkeys(wanted.ids):
        if not any(identity in ids for ids in places.values()):
            where = "" if wanted.tenant is None else f" of tenant {shown(wanted.tenant)}"
            unknown = NotFound(f"no record {identity!r}{where}, neither in the source nor in the ledger")
            problems.append(Problem(entity, wanted.tenant, unknown))
    return [
        (selection, replace(options, ids=tuple(ids)))
        for tenant, ids in places.items()
        for selection in workspace.select([entity], [tenant], wanted.collection)
    ]


def _select(workspace: Workspace, wanted: Wanted, options: SyncOptions, problems: list[Problem]) -> list[Selection]:
    """The wanted partitions; an entity whose source cannot be asked is a problem, not the end of the others."""
    listed: dict[str, list[str]] = {}
    for entity in wanted_entities(workspace, wanted):
        recorded = asking(
            workspace,
            entity,
            options=options,
            collection=wanted.collection,
            wanted=partial(_is_wanted, wanted),
            refresh=False,
        )
        try:
            with recorded, contained(f"{entity}: listing the tenants"):
                listed[entity] = _tenants(workspace, entity, wanted, options, problems)
        except VecsyncError as error:
            problems.append(Problem(entity, None, error))
    try:  # Once for all: a name that one entity alone gives means the same tenant in the others.
        meant = replace(wanted, tenant=tenant_called(workspace, wanted.tenant))
    except VecsyncError as error:
        problems.append(Problem(None, wanted.tenant, error))
        return []
    selections = [
        selection
        for entity, tenants in listed.items()
        for selection in workspace.select(
            [entity], [one for one in tenants if _is_wanted(meant, one)], wanted.collection
        )
    ]
    if not selections and not problems and wanted.scope in ("tenant", "global"):
        what = f"tenant {shown(wanted.tenant or '')}" if wanted.scope == "tenant" else "global records"
        where = wanted.entity or ", ".join(workspace.config.entities)
        hint = "" if wanted.tenant is None else meant_by(workspace, wanted.tenant)
        raise NotFound(f"no {what} in {where}, neither in the source nor in the ledger{hint}", tenant=wanted.tenant)
    return selections


def _tenants(
    workspace: Workspace, entity: str, wanted: Wanted, options: SyncOptions, problems: list[Problem]
) -> list[str]:
    """Those there are. A full run over all leaves out those that a source lacks which is taken for broken: they are a
    problem, unless removals were allowed."""
    full = options.mode_of(workspace.config.sync.mode) == "full"
    if wanted.scope in ("tenant", "global"):
        return workspace.tenants(entity)
    if options.allow_removals or not full:
        return workspace.tenants(entity, renew="all" if full else "cheap")
    tenants, lost = workspace.believable_tenants(entity, renew="all")
    if lost is not None:
        problems.append(Problem(entity, None, lost))
    return tenants


def wanted_entities(workspace: Workspace, wanted: Wanted) -> Sequence[str]:
    """The names of the wanted entities. Raises NotFound that lists what there is for a wrong name."""
    if wanted.entity is not None:
        entity = workspace.entity(wanted.entity)
        if wanted.collection is not None and wanted.collection not in entity.collections:
            raise NotFound(
                f"no collection {wanted.collection!r} in entity {wanted.entity}; "
                f"there are: {', '.join(entity.collections)}",
                collection=wanted.collection,
            )
        return [wanted.entity]
    if wanted.collection is not None:
        return [workspace.owner_of(wanted.collection)]
    return list(workspace.config.entities)


def _is_wanted(wanted: Wanted, tenant: str) -> bool:
    match wanted.scope:
        case "all":
            return True
        case "global":
            return tenant == GLOBAL
        case "tenants":
            return tenant != GLOBAL
        case "tenant":
            return tenant == wanted.tenant


def _write_metrics(workspace: Workspace, outcome: Outcome) -> None:
    """A file that cannot be written fails the run, but what was synced is shown, and alerts go out, all the same."""
    try:
        outcome.health = write_metrics(workspace.config, workspace.ledger, outcome.as_dict())["health"]
    except (OutputUnwritable, LedgerRejected, LedgerUnavailable) as error:
        outcome.problems.append(Problem(None, None, error))


def _forget_old(workspace: Workspace, outcome: Outcome) -> None:
    """What cannot be forgotten now is forgotten by the next full run."""
    try:
        forget_old_after(outcome.results, workspace.config, workspace.ledger)
    except VecsyncError as error:
        output.warn(f"old runs and vectors were not removed from the ledger: {error.code}: {error}")
