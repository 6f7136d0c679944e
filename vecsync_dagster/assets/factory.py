"""The four assets of an entity (export, documents, embeddings, vectors) as one streaming op, and its job.

One op, because batches stream through all four at once. Every spec is skippable: the op yields events for
just the partitions and assets it handled, whether it runs for one partition, a range, or any set of them.
Steps are few and streams are shared, so jobs run in one process: a process for each step would only cost its
start (3.7 s a run).
"""

# Without `from __future__ import annotations`: Dagster reads the annotations of `context` and `config` as objects.

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import SENSOR_NAME_TAG
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt
from pydantic import Field

from vecsync_dagster.alerts import PRICE_TAG
from vecsync_dagster.assets.events import (
    Event,
    Told,
    asset_key,
    events_of,
    failure_of,
    log_failed_checks,
    mark_shown,
    show_failed,
    told_before,
)
from vecsync_dagster.automation.partitions import (
    ALL_JOB,
    RANGE_END_TAG,
    RANGE_TAG,
    add_tenants,
    partitions_of,
    selections,
    tenants_name,
)
from vecsync_dagster.checks import evaluation, failing_last, headlines, over_in_grid, red_checks
from vecsync_dagster.config.models import Config, EntityConfig, SourceConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import (
    ChecksFailed,
    LedgerRejected,
    LedgerUnavailable,
    Transient,
    VecsyncError,
    WrongUsage,
)
from vecsync_dagster.sync import STAGES, PartitionResult, Selection, Stage, SyncOptions, Workspace
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.sync.metrics import run_metrics, write_metrics
from vecsync_dagster.sync.retention import forget_old_after
from vecsync_dagster.sync.standing import make_checks_again
from vecsync_dagster.words import number_of

__all__ = ["SyncRun", "build_all_job", "build_entity_assets", "build_entity_job", "build_source_assets", "pool_of"]

EMBEDDED_POOL = "vecsync_embedded_store"
FEW_TENANTS = 4
MAX_RETRIES = 2
RETRY_SECONDS = 30.0
NEWS_SECONDS = 3600.0

_DESCRIPTIONS: dict[Stage, str] = {
    "export": "Records of a tenant as the source gave them, kept as a Parquet snapshot",
    "documents": "Valid records, rendered and hashed for the collection; rejected ones are listed",
    "embeddings": "Vectors of the texts that are new or changed, each text paid for once",
    "vectors": "Points of the tenant in the vector store, equal to the source",
}


class SyncRun(dg.Config):
    """What a run can be told in the launchpad."""

    mode: Literal["full", "incremental", "configured"] = Field(
        default="configured", description="full sees removals; configured: as vecsync.yaml says"
    )
    partitions: list[str] | None = Field(
        default=[],  # where it is null, the launchpad leaves it out
        description="partition keys (collection|tenant) for a run that is started without one; none: all there are",
    )
    allow_removals: bool = Field(default=False, description="remove even what the removal guard would stop")

    tenant_gone: bool = Field(
        default=False, description="remove all of a tenant of which the source has no record, however much that is"
    )

    def options(self, stages: tuple[Stage, ...] = STAGES) -> SyncOptions:
        mode = None if self.mode == "configured" else self.mode
        return SyncOptions(mode=mode, allow_removals=self.allow_removals, tenant_gone=self.tenant_gone, stages=stages)


def build_entity_assets(settings: Config, name: str) -> dg.AssetsDefinition:
    entity = settings.entities[name]
    partitions = partitions_of(name, entity)
    upstream = [dg.AssetKey([entity.source, *entity.table.split(".")]), *(asset_key(name, stage) for stage in STAGES)]
    specs = [
        dg.AssetSpec(
            asset_key(name, stage),
            deps=[before],
            description=_DESCRIPTIONS[stage],
            group_name=name,
            skippable=True,
            kinds=_kinds(settings, name, stage),
        )
        for stage, before in zip(STAGES, upstream, strict=False)
    ]

    @dg.multi_asset(
        name=f"{name}_sync",
        specs=specs,
        can_subset=True,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool_of(settings),
    )
    def entity_sync(context: dg.AssetExecutionContext, config: SyncRun) -> Iterator[Event]:
        stages: tuple[Stage, ...] = tuple(s for s in STAGES if asset_key(name, s) in context.selected_asset_keys)
        chosen = _chosen(context, partitions)
        keys = (config.partitions or None) if chosen is None else chosen
        with Workspace(settings) as workspace:
            explicit = chosen is not None and SENSOR_NAME_TAG not in context.run.tags
            run = _Run(context, workspace, config.options(stages), show_unchanged=explicit)
            yield from run.events(run.sync(name, keys))

    return entity_sync


def build_source_assets(settings: Config) -> list[dg.AssetSpec]:
    """The tables and collections that entities read, each once: what vecsync reads of it and where it is."""
    found: dict[dg.AssetKey, dg.AssetSpec] = {}
    for name, entity in settings.entities.items():
        source = settings.sources[entity.source]
        key = dg.AssetKey([entity.source, *entity.table.split(".")])
        thing = "Collection" if source.type == "mongo" else "Table or view"
        columns = dict.fromkeys([*entity.fields, *_of_rows(entity)])
        reads = "reads the columns listed here"
        does = f"{reads}, and writes syncMetadata" if entity.writeback else f"only {reads}"
        found[key] = dg.AssetSpec(
            key,
            description=f"{thing} {entity.table} of source {entity.source}. vecsync {does}.",
            group_name=found[key].group_name if key in found else name,
            kinds={source.type},
            metadata={
                "connection": _place(source),
                "dagster/column_schema": dg.TableSchema([dg.TableColumn(column, "") for column in columns]),
            },
        )
    return list(found.values())


def _of_rows(entity: EntityConfig) -> list[str]:
    """The columns that say whose a row is, when it changed and whether it counts."""
    of = entity.tenancy
    tenancy = [] if of is None else [of.column, of.global_flag, of.name if isinstance(of.name, str) else None]
    return [name for name in (*tenancy, entity.updated_at, entity.deleted_at, *entity.filter) if name is not None]


def _place(source: SourceConfig) -> str:
    """Where a source is, without its secrets: those stand in the environment."""
    return source.path if source.type == "sqlite" else f"the URL in the environment variable {source.url.env}"


def build_entity_job(name: str) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        f"{name}_job",
        # Without checks: one that is planned by a run and not made would show as skipped.
        selection=dg.AssetSelection.assets(*(asset_key(name, stage) for stage in STAGES)).without_checks(),
        description=f"Sync {name}: a partition, a range, or (started without one) every tenant",
        executor_def=dg.in_process_executor,
    )


def build_all_job(settings: Config) -> dg.JobDefinition:
    """One run over all entities. A job cannot hold assets of different partitions, so this one is an op that
    yields their events."""

    @dg.op(name="all_sync", pool=pool_of(settings), out=dg.Out(dg.Nothing))
    def all_sync(context: dg.OpExecutionContext, config: SyncRun) -> Iterator[Event]:
        with Workspace(settings) as workspace:
            run = _Run(context, workspace, config.options(), show_unchanged=False)
            synced = (
                run.sync(name, _own(config.partitions or None, entity)) for name, entity in settings.entities.items()
            )
            yield from run.events(chain.from_iterable(synced))

    @dg.job(
        name=ALL_JOB,
        description="Sync every tenant of every entity in one run",
        executor_def=dg.in_process_executor,
    )
    def sync_all_job() -> None:
        all_sync()

    return sync_all_job


class _Run:
    """One op's run: syncs selections one after the other, tries what failed for a moment again, yields the events of
    each partition once, and fails at the end."""

    def __init__(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        workspace: Workspace,
        options: SyncOptions,
        *,
        show_unchanged: bool,
    ) -> None:
        self._context = context
        self._workspace = workspace
        self._options = options
        self._show_unchanged = show_unchanged
        self._started_at = datetime.now(UTC)
        self._logged_at = time.monotonic()
        self._attempts_left = MAX_RETRIES
        self._keys: dict[str, Sequence[str] | None] = {}
        self._results: dict[tuple[str, str, str], PartitionResult] = {}
        self._problems: dict[str, VecsyncError] = {}
        self._found: Sequence[ChecksFailed] = ()
        self._red: set[dg.AssetCheckKey] = set()
        self._lost: VecsyncError | None = None

    def events(self, synced: Iterator[Event]) -> Iterator[Event]:
        """All of the run: `synced`, what is tried again, the checks, and its end. Without the ledger no other partition
        can be synced; the run has figures, and says so, all the same."""
        try:
            yield from failing_last(chain(synced, self._again(), self._checked_again()), self._red)
            for entity in self._keys:
                yield from headlines(self._context.instance, self._workspace, entity)
        except (LedgerRejected, LedgerUnavailable) as error:
            self._lost = error
        self._finish()

    def sync(self, entity: str, keys: Sequence[str] | None) -> Iterator[Event]:
        """What kept an entity from being synced at all is kept for the end: the others go on."""
        self._keys[entity] = keys
        self._problems.pop(entity, None)
        self._red |= red_checks(self._workspace, entity)
        try:
            contain = contained(f"{entity}: choosing partitions", dg.DagsterError)
            with asking(self._workspace, entity, options=self._options, wanted=_tenant_of(keys)), contain:
                chosen = self._selections(entity, keys)
                if len(chosen) > FEW_TENANTS:
                    self._workspace.look_ahead(entity)
        except (LedgerRejected, LedgerUnavailable):
            raise
        except VecsyncError as error:
            self._problems[entity] = error
            return
        yield from self._synced(chosen)

    def _again(self) -> Iterator[Event]:
        """Partitions and entities that failed in a way that may pass, up to MAX_RETRIES times; nothing else is run
        again. Between the attempts others may have the store."""
        while self._attempts_left:
            failed = [result for result in self._results.values() if isinstance(result.error, Transient)]
            entities = [name for name, error in self._problems.items() if isinstance(error, Transient)]
            if not failed and not entities:
                return
            self._attempts_left -= 1
            told = [f"{r.collection}|{r.tenant} ({r.error.code})" for r in failed[:5] if r.error] + entities
            self._context.log.warning("trying again in %.0f s: %s", RETRY_SECONDS, ", ".join(told))
            self._workspace.close()
            time.sleep(RETRY_SECONDS)
            yield from self._synced(_selections_of(failed))
            for entity in entities:
                yield from self.sync(entity, self._keys[entity])

    def _checked_again(self) -> Iterator[Event]:
        found = make_checks_again(self._workspace, list(self._results.values()), self._context.log.warning)
        # A run of single partitions would be shown as theirs that failed.
        self._found = [one for one in found if self._keys[str(one.fields["entity"])] is None]
        own = {f"{collection}|{tenant}" for _, collection, tenant in self._results}
        for entity in self._keys:
            yield from over_in_grid(self._context.instance, self._workspace, entity, self._started_at, own)

    def _synced(self, chosen: Sequence[Selection]) -> Iterator[Event]:
        before: dict[str, Told | None] = {}
        for selection in chosen:
            if selection.entity not in before:
                before[selection.entity] = self._told(selection.entity)
            for latest in self._interruptible(selection):
                result = self._with_earlier_attempts(latest)
                if self._attempts_left and isinstance(result.error, Transient):
                    continue  # Dagster takes one result of a check and partition in a run: that of the last attempt
                events = list(events_of(self._workspace, result, self._options.stages, before[result.entity]))
                if events:
                    yield from events
                    mark_shown(self._workspace, result, events)
                    self._log(result)
                elif result.outcome == "failed":  # not materialized, but why it was stopped is to be seen
                    name = self._workspace.ledger.tenant_name(result.entity, result.tenant)
                    for check in result.checks:
                        if not check.passed:
                            yield evaluation(result.entity, result.collection, result.tenant, check, name)

    def _interruptible(self, selection: Selection) -> list[PartitionResult]:
        """Synced; where the run is canceled meanwhile, the batches in flight are finished, and the ledger is told."""
        with capture_interrupts():
            results = self._workspace.sync(
                selection, self._options, progress=self._log_progress, stop=check_captured_interrupt
            )
            canceled = check_captured_interrupt()
        if canceled:
            raise DagsterExecutionInterruptedError
        return results

    def _told(self, entity: str) -> Told | None:
        return None if self._show_unchanged else told_before(self._context.instance, self._workspace, entity)

    def _with_earlier_attempts(self, result: PartitionResult) -> PartitionResult:
        """The result with what this run has done and paid for in the partition before."""
        place = result.entity, result.collection, result.tenant
        if (earlier := self._results.get(place)) is not None:
            figures = replace(result.figures)
            figures.add_work(earlier.figures)
            result = replace(result, figures=figures, started_at=earlier.started_at)
        self._results[place] = result
        return result

    def _finish(self) -> None:
        """Raises dagster.Failure that names what failed in the last attempt (the others stay materialized)."""
        results = list(self._results.values())
        errors = [
            {"entity": entity, "tenant": None, "code": error.code, "message": str(error)}
            for entity, error in self._problems.items()
        ]
        errors += [{"entity": None, "tenant": None, "code": one.code, "message": str(one)} for one in self._found]
        failure = failure_of(results, self._problems, found=self._found)
        if self._lost is not None:
            errors.append({"entity": None, "tenant": None, "code": self._lost.code, "message": str(self._lost)})
            failure = failure or dg.Failure(f"{self._lost.code}: {self._lost}", allow_retries=False)
        ended_at = datetime.now(UTC)
        config, ledger = self._workspace.config, self._workspace.ledger
        names: Mapping[tuple[str, str], str] = {}
        with suppress(LedgerRejected, LedgerUnavailable):  # without its ledger the run has figures all the same
            names = ledger.tenant_names()
        metrics = run_metrics(results, started_at=self._started_at, ended_at=ended_at, errors=errors, names=names)
        try:
            write_metrics(config, ledger, metrics)
            forget_old_after(results, config, ledger)
        except VecsyncError as error:
            # What was synced is synced; the run fails, and names first which partitions did.
            self._context.log.warning("after the sync: %s: %s", error.code, error)
            failure = failure or dg.Failure(f"after the sync: {error.code}: {error}", allow_retries=False)
        quiet = sum(1 for result in results if result.outcome == "success" and not result.figures.touched)
        paid = sum(result.figures.price_usd for result in results)
        if paid or self._workspace.config.alerts.cost_usd_per_run is not None:
            self._context.instance.add_run_tags(self._context.run.run_id, {PRICE_TAG: f"{paid:.6f}"})
        self._context.log.info("%s, %d unchanged", number_of(len(results), "partition"), quiet)
        if failure is not None:
            with suppress(LedgerRejected, LedgerUnavailable):  # that the run failed is known without the ledger
                context = dg.OpExecutionContext.get()
                show_failed(context, self._workspace, results, self._problems, self._options.stages)
        log_failed_checks(self._context.log, results)
        if failure is not None:
            raise failure

    def _selections(self, entity: str, keys: Sequence[str] | None) -> list[Selection]:
        if keys is not None:
            self._require_partitions(entity, keys)
            return self._workspace.in_order(selections(entity, keys))
        full = self._options.mode_of(self._workspace.config.sync.mode) == "full"
        tenants, lost = self._workspace.believable_tenants(entity, renew="all" if full else "cheap")
        if lost is not None:
            self._context.log.error(str(lost))
        if lost is not None and full:
            self._problems[entity] = lost
        elif (reserved := self._workspace.reserved_tenant(entity)) is not None:
            self._problems[entity] = reserved
        found = list(self._workspace.select([entity], tenants))
        add_tenants(self._context.instance, entity, [selection.tenant for selection in found])
        return found

    def _require_partitions(self, entity: str, keys: Sequence[str]) -> None:
        """Keys typed into the launchpad may be wrong. Raises WrongUsage that says what a key looks like."""
        known = set(self._context.instance.get_dynamic_partitions(tenants_name(entity)))
        known.update(self._workspace.tenants(entity))
        collections = self._workspace.entity(entity).collections
        for key in keys:
            collection, _, tenant = str(key).partition("|")
            if collection not in collections or tenant not in known:
                example = f"{next(iter(collections))}|{min(known, default='global')}"
                raise WrongUsage(f"{entity} has no partition {key!r}; one looks like {example!r}", entity=entity)

    def _log_progress(self, figures: Figures) -> None:
        """By this the sensors know that a run is alive that has been with one partition for more than a day."""
        if time.monotonic() - self._logged_at >= NEWS_SECONDS:
            self._logged_at = time.monotonic()
            self._context.log.info("so far %d fetched, %d embedded", figures.fetched, figures.embedded)

    def _log(self, result: PartitionResult) -> None:
        figures = result.figures
        self._context.log.info(
            "%s of %s: %d fetched, %d rejected, %d upserted, %d payloads, %d removed, %d embedded, %.1f s",
            result.collection,
            result.tenant,
            figures.fetched,
            figures.invalid,
            figures.upserted,
            figures.payload_only,
            figures.removed,
            figures.embedded,
            figures.seconds,
        )
        if result.note:
            self._context.log.warning("%s of %s: %s", result.collection, result.tenant, result.note)
        if not result.semantic:
            self._context.log.warning("%s: hash vectors, search in it is NOT semantic", result.collection)


def _chosen(context: dg.AssetExecutionContext, partitions: dg.PartitionsDefinition[str]) -> list[str] | None:
    """The partitions that the run was started for. A backfill from a job's page names the first of them beside the
    range of all, and Dagster's own `partition_keys` would be that one alone."""
    first, last = (context.run.tags.get(tag) for tag in (RANGE_TAG, RANGE_END_TAG))
    if first is not None and last is not None:
        with dg.partition_loading_context(dynamic_partitions_store=context.instance):
            return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))
    return list(context.partition_keys) if context.has_partition_key else None


def _own(keys: Sequence[str] | None, entity: EntityConfig) -> Sequence[str] | None:
    """Those of the partition keys that are of the entity's collections."""
    return None if keys is None else [key for key in keys if key.partition("|")[0] in entity.collections]


def _selections_of(results: Sequence[PartitionResult]) -> list[Selection]:
    """The partitions of these results; collections of one tenant together, because they share a read."""
    collections: dict[tuple[str, str], list[str]] = {}
    for result in results:
        collections.setdefault((result.entity, result.tenant), []).append(result.collection)
    return [Selection(entity, tenant, tuple(names)) for (entity, tenant), names in collections.items()]


def _tenant_of(keys: Sequence[str] | None) -> Callable[[str], bool]:
    """Says which tenants the partition keys are of; None: all."""
    tenants = None if keys is None else {str(key).partition("|")[2] for key in keys}
    return lambda tenant: tenants is None or tenant in tenants


def pool_of(config: Config) -> str | None:
    """An embedded store belongs to one process at a time: runs that need it queue for a pool of one."""
    return EMBEDDED_POOL if any(store.is_embedded for store in config.stores.values()) else None


def _kinds(config: Config, name: str, stage: Stage) -> set[str]:
    entity = config.entities[name]
    if stage == "export":
        return {config.sources[entity.source].type}
    return {config.stores[c.store].type for c in entity.collections.values()} if stage == "vectors" else set()
