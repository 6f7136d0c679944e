"""A configuration brought to life: its sources, stores, providers and ledger, made when first needed.

The CLI and the Dagster assets both go through here, so that both do the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from types import TracebackType

from vecsync_dagster.config.models import Config, EntityConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.embedding import build_chain
from vecsync_dagster.errors import (
    InvalidTenant,
    LedgerRejected,
    LedgerUnavailable,
    NotFound,
    PartitionBusy,
    TenantsLost,
    VecsyncError,
)
from vecsync_dagster.ledger import SqlLedger, build_ledger
from vecsync_dagster.ledger.base import Partition, Seen
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.sources import Filtered, Fingerprint, Source, SqlSource, build_source
from vecsync_dagster.sources.base import WritesBack
from vecsync_dagster.stores import GLOBAL, VectorStore, build_store
from vecsync_dagster.stores.places import place_of
from vecsync_dagster.sync.absence import Absence, absences, is_ruled_out, look_again
from vecsync_dagster.sync.compare import Difference, compare_collection
from vecsync_dagster.sync.embedders import Embedders
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.forgetting import forget_if_gone, forget_unusable
from vecsync_dagster.sync.health import failing_tenants
from vecsync_dagster.sync.listing import keep_empty, keep_lost
from vecsync_dagster.sync.not_begun import failed_after, failed_results
from vecsync_dagster.sync.options import PartitionResult, Selection, SyncOptions
from vecsync_dagster.sync.origins import written_texts
from vecsync_dagster.sync.owners import some_keys
from vecsync_dagster.sync.pipeline import sync_tenant
from vecsync_dagster.sync.rebuild import Rebuilt, rebuild
from vecsync_dagster.sync.reconcile import repair
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster.sync.rollcall import RollCall, call_the_roll
from vecsync_dagster.sync.snapshots import Snapshots
from vecsync_dagster.sync.states import Looks, leaves_nothing_out, seen_after
from vecsync_dagster.sync.target import Target, keyed
from vecsync_dagster.sync.tenant_names import Renewal, keep_tenant_names
from vecsync_dagster.sync.verify import (
    CheckOutcome,
    graded,
    guard_again,
    held_back,
    kept,
    rejected_now,
    still_stopped,
    unidentified_now,
    verify,
)
from vecsync_dagster.sync.writeback import WriteBack

__all__ = ["Selection", "Workspace"]

_log = logging.getLogger(__name__)
_BELIEVED_S = 60


class Workspace:
    """Use as a context manager: leaving it releases files, locks and connections.

    `read_only`: nothing is made on disk; a ledger that does not exist yet is an empty one in memory. `clock`:
    the ledger's, by which failed documents become due.
    """

    def __init__(self, config: Config, *, read_only: bool = False, clock: Callable[[], datetime] = utc_now) -> None:
        self.config = config
        self.read_only = read_only
        self._clock = clock
        self._sources: dict[str, Source] = {}
        self._stores: dict[str, VectorStore] = {}
        self._looks = Looks()
        self.differing: dict[tuple[str, str, str, str], Sequence[Difference]] = {}
        """The differences that comparisons of everything have named, by entity, collection, tenant and check: the
        ledger keeps how many there are."""
        self._believed_until: dict[str, float] = {}
        self._at_source: dict[str, set[str]] = {}

    # -- parts -------------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> SqlLedger:
        folder = self.config.state_folder
        if self.read_only and self.config.ledger.url is None and not (folder / "ledger.sqlite").exists():
            return SqlLedger.open("sqlite://", clock=self._clock)
        return build_ledger(self.config.ledger, state_folder=folder, clock=self._clock)

    @cached_property
    def embedders(self) -> Embedders:
        return Embedders(build_chain(self.config.embedding), self.ledger, partial(written_texts, self))

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.config.state_folder / "snapshots")

    @cached_property
    def rejections(self) -> RejectionLog:
        return RejectionLog(self.config.state_folder / "invalid_records.jsonl")

    def entity(self, name: str) -> EntityConfig:
        """Raises NotFound that lists the entities for a name that is none of them."""
        if name not in self.config.entities:
            raise NotFound(f"no entity {name!r}; there are: {', '.join(self.config.entities)}", entity=name)
        return self.config.entities[name]

    def owner_of(self, collection: str) -> str:
        """The entity that feeds a collection. Raises NotFound that lists the collections otherwise."""
        for name, entity in self.config.entities.items():
            if collection in entity.collections:
                return name
        known = [c for entity in self.config.entities.values() for c in entity.collections]
        raise NotFound(f"no collection {collection!r}; there are: {', '.join(known)}", collection=collection)

    def source(self, entity: str) -> Source:
        if entity not in self._sources:
            config = self.entity(entity)
            source = self._sources[entity] = build_source(
                self.config.sources[config.source],
                config,
                name=config.source,
                entity_name=entity,
                path_of=self.config.path,
            )
            if isinstance(source, SqlSource) and "id" not in config.model_fields_set:
                source.widen(lambda: some_keys(self.ledger, entity, config))
        return self._sources[entity]

    def store(self, name: str) -> VectorStore:
        if name not in self._stores:
            self._stores[name] = build_store(self.config.stores[name], key=f"stores.{name}", path_of=self.config.path)
        return self._stores[name]

    def store_of(self, entity: str, collection: str) -> VectorStore:
        return self.store(self.entity(entity).collections[collection].store)

    def place_of(self, entity: str, collection: str) -> str:
        """Where the points of a collection lie, by the configuration. Raises ConfigError."""
        name = self.entity(entity).collections[collection].store
        beside = self.config.state_folder if self.config.ledger.url is None else None
        store = self.config.stores[name]
        return place_of(store, key=f"stores.{name}", path_of=self.config.path, ledger_folder=beside)

    # -- tenants and partitions --------------------------------------------------------------------

    def tenants(self, entity: str, *, renew: Renewal = "new") -> list[str]:
        """`global`, the source's tenants, and those of whom something is left here alone, in order; last of all
        a `global` that the configuration has no more: what became a tenant's was taken over by then.

        Keys are as the source has them; one that cannot be a partition fails when it is synced. `renew`: of
        which of them to ask what people call them.
        """
        return self._with_known(entity, self._listed(entity, renew))

    def _listed(self, entity: str, renew: Renewal = "new") -> list[str]:
        source = self.source(entity)
        own = source.tenants()
        self._at_source[entity] = set(own)
        if not self.read_only:
            keep_tenant_names(self.ledger, entity, self.entity(entity), source, own, renew=renew)
        return own

    def _with_known(self, entity: str, own: Sequence[str]) -> list[str]:
        if not own and self.entity(entity).tenancy is not None:
            self._tell_of_the_filter(entity)
        traces, runs = self.traces(entity), self.ledger.last_runs(entity)
        if not self.read_only:
            forget_unusable(self.ledger, entity, own, runs)
        found = {*own, *traces, *failing_tenants(self.entity(entity), runs)} - {GLOBAL}
        if self.has_global(entity):
            return [GLOBAL, *sorted(found)]
        if not found and not traces:
            keep_empty(self, entity, runs.get(Partition(entity, "", "")))
        return sorted(found) + ([GLOBAL] if GLOBAL in traces else [])

    def traces(self, entity: str) -> set[str]:
        """The tenants, and `global`, of whom anything is kept besides the history of their runs: who is among them and
        not at the source is to be forgotten."""
        known = set(self.ledger.traces(entity, self.entity(entity).collections))
        return known | self.snapshots.of(entity, set(self.ledger.ever_synced(entity)) - known)

    def _tell_of_the_filter(self, entity: str) -> None:
        """Tenants all of whose records it keeps out are none, and no run of theirs could say so."""
        source = self.source(entity)
        if isinstance(source, Filtered) and not source.count(GLOBAL) and source.kept_out(None):
            _log.warning("entities.%s.filter lets no record of any tenant through, and there are some", entity)

    def has_global(self, entity: str) -> bool:
        """Whether there can be records that everybody may see."""
        return not is_ruled_out(self.entity(entity), GLOBAL)

    def believable_tenants(self, entity: str, *, renew: Renewal = "cheap") -> tuple[list[str], TenantsLost | None]:
        """`tenants`, for a run over all of them: without those that vanished where the source is taken for broken, of
        which nothing is to be removed; and why."""
        own = self._listed(entity, renew)
        lost = _doubted(self._roll(entity, own)) if self.entity(entity).tenancy is not None else None
        missing = () if lost is None else lost.missing
        return [tenant for tenant in self._with_known(entity, own) if tenant not in missing], lost

    def call_the_roll(self, entity: str, known: Iterable[str] = ()) -> RollCall:
        """The source's tenants beside those of the ledger, and of `known` others; without `global`."""
        return self._roll(entity, self._listed(entity), known)

    def _roll(self, entity: str, own: Sequence[str], known: Iterable[str] = ()) -> RollCall:
        share = self.config.automation.tenants.max_lost_share
        config = self.entity(entity)
        # A collection that left the configuration keeps its rows, whatever becomes of its tenants.
        rows = {tenant for name in config.collections for tenant in self.ledger.with_rows(entity, name)}
        held = sorted(tenant for tenant in rows if not is_ruled_out(config, tenant))
        if not self.read_only:
            forget_unusable(self.ledger, entity, own, self.ledger.last_runs(entity))
        roll = call_the_roll(entity, own, held, known, share)
        keep_lost(self, entity, _doubted(roll))
        return roll

    def _lost(self, entity: str) -> TenantsLost | None:
        """Asked for each tenant without a row: where many are gone, the source lists its tenants once a minute."""
        now = time.monotonic()
        if now < self._believed_until.get(entity, 0):
            return None
        lost = _doubted(self.call_the_roll(entity))
        if lost is None:
            self._believed_until[entity] = now + _BELIEVED_S
        return lost

    def look_for_missing(self, entity: str, roll: RollCall, known: Iterable[str]) -> dict[str, Absence]:
        """Those of `known` tenants that the source does not list, remembered in the ledger: a look is one of several.
        None of them where the source is taken for broken: such a look counts for nothing."""
        if roll.lost is not None:
            return {}
        missing = set(roll.vanished) & set(known)
        missing_for = self.config.automation.tenants.missing_for
        return look_again(self.ledger, entity, missing, roll.listed, missing_for)

    def absences(self, entity: str) -> dict[str, Absence]:
        """Tenants (and `global`) that the last look at the source did not find, and when their documents go."""
        return absences(self.ledger, entity, self.config.automation.tenants.missing_for)

    def reserved_tenant(self, entity: str) -> InvalidTenant | None:
        """What is wrong where a tenant of the source is itself called `global`: it would look like everybody's."""
        listed = self._at_source.get(entity)
        if GLOBAL not in (self.source(entity).tenants() if listed is None else listed):
            return None
        told = f"a tenant is called {GLOBAL!r}, which is the name of everybody's records: not synced"
        return InvalidTenant(told, entity=entity, tenant=GLOBAL)

    def select(
        self, entities: Iterable[str], tenants: Sequence[str] | None = None, collection: str | None = None
    ) -> Iterator[Selection]:
        """Partitions by entity and tenant, as `in_order` has them; `tenants` None means all there are."""
        for name in entities:
            collections = tuple(self.entity(name).collections)
            if collection is not None:
                collections = tuple(c for c in collections if c == collection)
            wanted = self.tenants(name) if tenants is None else tenants
            yield from self.in_order(Selection(name, tenant, collections) for tenant in wanted)

    def in_order(self, selections: Iterable[Selection]) -> list[Selection]:
        """Partitions of one entity: last those of tenants that the source did not list when it was asked last, and
        `global` just before them. A record that moved is taken over before what was its tenant's goes, vectors and
        all."""
        return sorted(selections, key=self._turn)

    def _turn(self, selection: Selection) -> int:
        listed = self._at_source.get(selection.entity)
        if listed is None or selection.tenant in listed:
            return 0
        return 1 if selection.tenant == GLOBAL else 2

    # -- doing -------------------------------------------------------------------------------------

    def sync(
        self,
        selection: Selection,
        options: SyncOptions | None = None,
        *,
        progress: Callable[[Figures], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[PartitionResult]:
        """Sync one selection. What goes wrong with this tenant is in its results, so that others can go on;
        raised is only a ledger that cannot be reached, or that does not even take the failure."""
        options = options or SyncOptions()
        if self._is_only_a_trace(selection, options):
            options = replace(options, mode="full")  # nothing less says that it is gone, and it costs nothing
        started = datetime.now(UTC)
        where = f"{selection.entity} of {selection.tenant}"
        if not selection.collections:
            return []
        try:
            with contained(f"{where}: syncing"):
                look = self._look(selection, options)
                results = self._results(selection, options, progress, stop)
        except LedgerUnavailable:
            raise
        except VecsyncError as error:
            return failed_results(self.ledger, selection, options, self.config.sync.mode, started, error)
        try:
            with contained(f"{where}: after the sync"):
                return self._settled(selection, options, results, look)
        except LedgerUnavailable:
            raise
        except VecsyncError as error:
            return failed_after(self.ledger, results, error)

    def _is_only_a_trace(self, selection: Selection, options: SyncOptions) -> bool:
        """Whether the source did not list the tenant when it was asked last, and the store has nothing of it."""
        entity, tenant = selection.entity, selection.tenant
        listed = self._at_source.get(entity)
        if listed is None or tenant in listed or not leaves_nothing_out(options):
            return False
        if tenant == GLOBAL and self.has_global(entity):
            return False
        return not any(self.ledger.tally(entity, name, tenant).held for name in self.entity(entity).collections)

    def _results(
        self,
        selection: Selection,
        options: SyncOptions,
        progress: Callable[[Figures], None] | None,
        stop: Callable[[], bool] | None,
    ) -> list[PartitionResult]:
        return sync_tenant(
            selection.entity,
            self.entity(selection.entity),
            selection.tenant,
            source=self.source(selection.entity),
            store={c: self.store_of(selection.entity, c) for c in selection.collections},
            provider=self.embedders,
            ledger=self.ledger,
            collections=selection.collections,
            settings=self.config.sync,
            checks=self.config.checks,
            options=options,
            snapshots=self.snapshots,
            rejections=self.rejections,
            progress=progress,
            stop=stop,
            missing_for=self.config.automation.tenants.missing_for,
            lost=partial(self._lost, selection.entity),
            places={c: self.place_of(selection.entity, c) for c in selection.collections},
        )

    def _settled(
        self,
        selection: Selection,
        options: SyncOptions,
        results: list[PartitionResult],
        look: Fingerprint | None,
    ) -> list[PartitionResult]:
        entity = self.entity(selection.entity)
        if leaves_nothing_out(options):
            self._remember(entity, results, look)
        if options.depth != "apply":
            return results
        # First: it notes how far it came, and of a tenant that is gone nothing is to stay.
        note = self._not_written_back(selection, results) if entity.writeback else ""
        if all(result.ok and result.emptied for result in results):
            # Where the tenant is being synced again it is not gone.
            with suppress(PartitionBusy), self.ledger.hold(selection.entity, selection.tenant):
                forget_if_gone(self.ledger, self.snapshots, self.rejections, selection, entity, written_back=not note)
        return [replace(one, note="; ".join(filter(None, (one.note, note)))) for one in results] if note else results

    def write_back(self, entity: str, tenant: str, *, backfill: bool = False, left: Collection[str] = ()) -> int:
        """Write `syncMetadata` to the records that changed since the last time, or to those that have none; returns
        how many. `left`: keys of records that a run removed, or that are nobody's. Raises ConfigError where the entity
        has no `writeback`, and the source's errors."""
        writing = WriteBack(entity, self.entity(entity), tenant, self.source(entity), self.ledger)
        return writing.backfill() if backfill else writing.changed(left)

    def withdraw(self, entity: str) -> int:
        """Take `syncMetadata` from all records of the entity that are nobody's, or live no longer; returns from how
        many. Reads every record that has it. Raises the source's errors."""
        source = self.source(entity)
        return source.withdraw_from(None) if isinstance(source, WritesBack) else 0

    def _not_written_back(self, selection: Selection, results: Sequence[PartitionResult]) -> str:
        """A write-back that fails is no failure of the sync: the next one makes up for it. Returns why it failed."""
        try:
            with contained(f"{selection.entity} of {selection.tenant}: writing syncMetadata"):
                left = {key for result in results for key in result.left}
                self.write_back(selection.entity, selection.tenant, left=left)
        except (LedgerRejected, LedgerUnavailable):
            raise
        except VecsyncError as error:
            note = f"syncMetadata was not written back: {error.code}: {error}"
            _log.warning("%s of %s: %s", selection.entity, selection.tenant, note)
            return note
        return ""

    def look_ahead(self, entity: str) -> None:
        """Many tenants of the entity are about to be synced: look at all of them in one statement."""
        self._looks.ahead(entity, self.source(entity))

    def _look(self, selection: Selection, options: SyncOptions) -> Fingerprint | None:
        """What the tenant looks like before its read begins."""
        if not leaves_nothing_out(options):
            return None
        return self._looks.at(selection.entity, selection.tenant, self.source(selection.entity))

    def _remember(self, entity: EntityConfig, results: Sequence[PartitionResult], look: Fingerprint | None) -> None:
        for result in results:
            # Where removals wait for a second look the partition is still due: that look is asked for.
            if result.outcome == "success" and not result.figures.removals_waiting:
                seen = seen_after(result, look, entity.synced_as(result.collection))
                place = (result.entity, result.collection, result.tenant)
                self.ledger.set_seen(*place, seen, full=result.mode == "full")

    def seen(self, entity: str) -> dict[tuple[str, str], Seen]:
        """What partitions were like when they were last synced. Of collections that lie elsewhere by now, under
        settings that are nobody's: so they are due."""
        collections = self.entity(entity).collections
        known = {name: self.ledger.place_of(name) for name in collections}
        moved = {name for name, place in known.items() if place not in (None, self.place_of(entity, name))}
        seen = self.ledger.seen(entity)
        return {key: replace(one, settings="") if key[0] in moved else one for key, one in seen.items()}

    def verify(self, selection: Selection) -> list[tuple[str, list[CheckOutcome]]]:
        """The checks of each collection of a selection, made now, point by point, and kept. What the removal guard
        blocks stays blocked unless source and ledger agree: nothing was read.

        Raises PartitionBusy where a run is syncing the tenant: what that has written and not recorded yet would look
        like a difference."""
        with self.ledger.hold(selection.entity, selection.tenant):
            return list(self._verified(selection))

    def _verified(self, selection: Selection) -> Iterator[tuple[str, list[CheckOutcome]]]:
        name, tenant = selection.entity, selection.tenant
        rows = self.source(name).count(tenant)
        for collection in selection.collections:
            began = datetime.now(UTC)
            unidentified = unidentified_now(self.ledger, name, collection, tenant)
            target = self.target(name, collection, tenant)
            tally = self.ledger.tally(name, collection, tenant)
            failed = self.ledger.failed_checks(name, collection, tenant)
            validation = still_stopped(failed) or rejected_now(tally, unidentified)
            held = held_back(failed)
            guard = CheckOutcome("removal_guard", True, "nothing is held back", {"blocked": 0})
            if held is not None:
                guard = guard_again(held, tally, rows, unidentified)
            outcomes = verify(
                target,
                Figures(),
                tally,
                source_rows=rows,
                unidentified=unidentified,
                full=False,
                identity=True,
                held=None if guard.passed else guard,
            )
            checks = [graded(one, self.config.checks) for one in (validation, guard, *outcomes)]
            made = [one for one in checks if one.passed or one.name != guard.name]
            self.ledger.record_checks([kept(one, name, collection, tenant, began) for one in made])
            yield collection, checks

    def target(self, entity: str, collection: str, tenant: str) -> Target:
        """Raises SpaceMismatch or EmbeddingUnavailable where the collection's space cannot be had."""
        return Target(
            entity,
            keyed(self.entity(entity), self.source(entity)),
            collection,
            tenant,
            self.store_of(entity, collection),
            self.ledger,
            self.embedders.of(entity, collection, pin=False),
            self.config.sync,
            self.config.checks.max_truncated_share,
        )

    def differences(self, entity: str, collection: str) -> Iterator[Difference]:
        """Every difference between ledger and store in one collection, all tenants."""
        return compare_collection(self.target(entity, collection, GLOBAL))

    def repair(
        self,
        entity: str,
        collection: str,
        differences: Iterable[Difference],
        failed: Callable[[str, VecsyncError], None] | None = None,
        *,
        allow_removals: bool = False,
    ) -> Figures:
        """Repair differences of one collection; see `reconcile.repair`."""
        self.ledger.come_to(collection, self.place_of(entity, collection))

        def target_of(tenant: str) -> Target:
            return self.target(entity, collection, tenant)

        return repair(target_of, self.source(entity), differences, failed, allow_removals=allow_removals)

    def rebuild(self, entity: str, collection: str, *, force: bool = False) -> Rebuilt:
        """The ledger of one collection made anew from the store; see `rebuild.rebuild`."""
        store = self.store_of(entity, collection)
        physical = store.pinned_space(collection)
        if physical is None:
            return Rebuilt(entity, collection)
        space = self.embedders.space_of(physical, collection)
        self.ledger.come_to(collection, self.place_of(entity, collection))
        return rebuild(entity, collection, store=store, ledger=self.ledger, space=space, force=force)

    # -- life --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release everything that was opened; it opens again on its next use."""
        for store in self._stores.values():
            store.close()
        for source in self._sources.values():
            source.close()
        if "embedders" in self.__dict__:
            self.embedders.close()
            del self.embedders
        if "rejections" in self.__dict__:
            self.rejections.close()
        if "ledger" in self.__dict__:
            self.ledger.close()
            del self.ledger
        self._stores.clear()
        self._sources.clear()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _doubted(roll: RollCall) -> TenantsLost | None:
    """Why a run does not believe the source. One tenant alone that is gone says nothing of it: its looks decide, and
    the time."""
    return roll.lost if roll.lost is not None and roll.lost.known > 1 else None
