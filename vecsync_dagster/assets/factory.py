"""The four assets of an entity (export, documents, embeddings, vectors) as one streaming op, and its job.

One op, because batches stream through all four at once. Every spec is skippable: the op yields events for
just the partitions and assets it handled, whether it runs for one partition, a range, or any set of them.
Steps are few and streams are shared, so jobs run in one process: a process for each step would only cost its
start (3.7 s a run).
"""

# Without `from __future__ import annotations`: Dagster reads the annotations of `context` and `config` as objects.

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from vecsync_dagster.alerts import PRICE_TAG
from vecsync_dagster.assets.events import Event, asset_key, events_of, failure_of, settled_partitions, worth_an_event
from vecsync_dagster.automation.partitions import add_tenants, partitions_of, selections, tenants_name
from vecsync_dagster.checks import evaluation, failing_last, headlines
from vecsync_dagster.config.models import Config, EntityConfig
from vecsync_dagster.errors import Transient
from vecsync_dagster.sync import STAGES, PartitionResult, Selection, Stage, SyncOptions, Workspace
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.sync.metrics import run_metrics, write_metrics

__all__ = ["SyncRun", "build_all_job", "build_entity_assets", "build_entity_job", "pool_of"]

EMBEDDED_POOL = "vecsync_embedded_store"
FEW_TENANTS = 4
MAX_RETRIES = 2
RETRY_SECONDS = 30.0

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
        default=None,
        description="partition keys (collection|tenant) for a run that is started without one; none: all there are",
    )
    allow_removals: bool = Field(default=False, description="remove even what the removal guard would stop")

    def options(self, stages: tuple[Stage, ...] = STAGES) -> SyncOptions:
        mode = None if self.mode == "configured" else self.mode
        return SyncOptions(mode=mode, allow_removals=self.allow_removals, stages=stages)


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
        explicit = context.has_partition_key or context.has_partition_key_range
        keys = list(context.partition_keys) if explicit else config.partitions
        with Workspace(settings) as workspace:
            run = _Run(context, workspace, config.options(stages), show_unchanged=explicit)
            yield from run.sync(name, keys)
            run.finish()

    return entity_sync


def build_entity_job(name: str, entity: EntityConfig) -> UnresolvedAssetJobDefinition:
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
            for name in settings.entities:
                keys = config.partitions
                collections = settings.entities[name].collections
                own = None if keys is None else [key for key in keys if key.partition("|")[0] in collections]
                yield from run.sync(name, own)
            run.finish()

    @dg.job(
        name="sync_all_job",
        description="Sync every tenant of every entity in one run",
        executor_def=dg.in_process_executor,
    )
    def sync_all_job() -> None:
        all_sync()

    return sync_all_job


class _Run:
    """One op's run: syncs selections one after the other, yields their events, fails at the end."""

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
        self._results: list[PartitionResult] = []

    def sync(self, entity: str, keys: Sequence[str] | None) -> Iterator[Event]:
        settled = frozenset() if self._show_unchanged else settled_partitions(self._context.instance, entity)
        with asking(self._workspace, entity, options=self._options, wanted=_tenant_of(keys)):
            chosen = self._selections(entity, keys)
        if len(chosen) > FEW_TENANTS:
            self._workspace.look_ahead(entity)
        yield from failing_last(self._synced(entity, chosen, settled))
        yield from headlines(self._context.instance, self._workspace.ledger, entity)

    def _synced(self, entity: str, chosen: Sequence[Selection], settled: frozenset[str]) -> Iterator[Event]:
        for selection in chosen:
            for result in self._workspace.sync(selection, self._options):
                self._results.append(result)
                if worth_an_event(result, settled):
                    yield from events_of(self._workspace, result, self._options.stages)
                    self._log(result)
                elif result.outcome == "failed":  # not materialized, but why it was stopped is to be seen
                    yield from (evaluation(entity, result.collection, result.tenant, check) for check in result.checks)

    def finish(self) -> None:
        """Raises dagster.Failure that names the partitions that failed (the others stay materialized), or
        dagster.RetryRequested where trying again may help."""
        metrics = run_metrics(self._results, started_at=self._started_at, ended_at=datetime.now(UTC))
        write_metrics(self._workspace.config, self._workspace.ledger, metrics)
        quiet = sum(1 for result in self._results if result.outcome == "success" and not result.figures.touched)
        tags = {
            "vecsync/partitions": str(len(self._results)),
            "vecsync/unchanged": str(quiet),
            PRICE_TAG: f"{self._price():.6f}",
        }
        self._context.instance.add_run_tags(self._context.run.run_id, tags)
        self._context.log.info("%d partitions, %d of them unchanged", len(self._results), quiet)
        failure = failure_of(self._results)
        if failure is None:
            return
        if any(isinstance(result.error, Transient) for result in self._results):
            # Running again costs little: what was done is found unchanged.
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=RETRY_SECONDS) from failure
        raise failure

    def _price(self) -> float:
        """What the run paid, with its earlier attempts."""
        paid = sum(result.figures.price_usd for result in self._results)
        before = self._context.instance.get_run_by_id(self._context.run.run_id)
        # On a first attempt the tag can only be one that was copied from a run that this one repeats.
        earlier = before.tags.get(PRICE_TAG) if before is not None and self._context.retry_number else None
        return paid + float(earlier or 0)

    def _selections(self, entity: str, keys: Sequence[str] | None) -> list[Selection]:
        if keys is not None:
            self._require_partitions(entity, keys)
            return selections(entity, keys)
        found = list(self._workspace.select([entity], self._believable(entity)))
        add_tenants(self._context.instance, entity, [selection.tenant for selection in found])
        return found

    def _believable(self, entity: str) -> list[str]:
        """All tenants; without those that vanished where the source is taken for broken: nothing of them is removed."""
        roll = self._workspace.call_the_roll(entity)
        if roll.lost is None:
            return self._workspace.tenants(entity)
        self._context.log.error(str(roll.lost))
        return [tenant for tenant in self._workspace.tenants(entity) if tenant not in roll.lost.missing]

    def _require_partitions(self, entity: str, keys: Sequence[str]) -> None:
        """Keys typed into the launchpad may be wrong. Raises dagster.Failure that says what a key looks like."""
        known = set(self._context.instance.get_dynamic_partitions(tenants_name(entity)))
        known.update(self._workspace.tenants(entity))
        collections = self._workspace.entity(entity).collections
        for key in keys:
            collection, _, tenant = str(key).partition("|")
            if collection not in collections or tenant not in known:
                example = f"{next(iter(collections))}|{min(known, default='global')}"
                raise dg.Failure(f"{entity} has no partition {key!r}; one looks like {example!r}", allow_retries=False)

    def _log(self, result: PartitionResult) -> None:
        figures = result.figures
        self._context.log.info(
            "%s of %s: %d fetched, %d upserted, %d payloads, %d removed, %d embedded, %.1f s",
            result.collection,
            result.tenant,
            figures.fetched,
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
