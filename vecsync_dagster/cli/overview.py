"""What `vecsync status` says, read from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable
from vecsync_dagster.ledger.base import LOST, LastRuns, Partition, PartitionTotals, Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.dropping import Leftover, leftovers
from vecsync_dagster.sync.health import configured, is_configured, is_gone, known_tenants, never_synced, unsynced
from vecsync_dagster.sync.listening import said
from vecsync_dagster.sync.metrics import end_dead_runs
from vecsync_dagster.words import named

__all__ = ["Counts", "MissingTenant", "Overview", "PartitionState", "ScopeState", "overview"]

Key = tuple[str, str, str]


@dataclass(slots=True)
class Counts:
    """Documents by status; `unseen`: those that no run has seen for the days asked for. A record that was never valid
    is among the documents, and is `rejected` rather than `failed`."""

    documents: int = 0
    synced: int = 0
    pending: int = 0
    stale: int = 0
    failed: int = 0
    unseen: int = 0

    def add(self, other: Counts) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def cells(self) -> tuple[int, ...]:
        return (self.documents, self.synced, self.pending, self.stale, self.failed, self.unseen)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One tenant of one collection. `last_sync`: end of the last run that succeeded. `outcome` and `error` are the last
    run's. `rejected`: records that are rejected now, as the check `validation` counts them. Retries: failed documents
    that will be tried again, and when the first is due."""

    entity: str
    collection: str
    tenant: str
    counts: Counts
    last_sync: datetime | None
    last_written: datetime | None
    outcome: str | None
    error: str | None
    rejected: int
    waiting_retries: int
    next_retry: datetime | None
    failed_checks: tuple[CheckResult, ...] = ()
    only_full: bool = False
    """Whether `outcome` is that of the last full run, as one after it succeeded."""
    left_over: bool = False
    """Whether its collection left the configuration: then nothing syncs it any more."""
    tenant_name: str = ""
    """What people call the tenant."""

    @property
    def where(self) -> str:
        return f"{self.collection} of {named(self.tenant, self.tenant_name)}"

    @property
    def checks(self) -> str:
        """Names of the checks that failed when they were last made, and how many only warned."""
        warned = sum(one.warning for one in self.failed_checks)
        failed = [one.check for one in self.failed_checks if not one.warning]
        return ", ".join([*failed, *([f"{warned} warn"] if warned else [])])

    @property
    def retries(self) -> str:
        if not self.waiting_retries or self.next_retry is None:
            return ""
        due = "due" if self.next_retry <= datetime.now(UTC) else f"from {self.next_retry:%H:%M:%S}Z"
        return f"{self.waiting_retries} {due}"


@dataclass(slots=True)
class ScopeState:
    """All partitions of one scope of a collection together."""

    entity: str
    collection: str
    scope: str
    tenants: int = 0
    counts: Counts = field(default_factory=Counts)
    last_sync: datetime | None = None
    rejected: int = 0

    def add(self, partition: PartitionState) -> None:
        self.tenants += partition.tenant != GLOBAL
        self.counts.add(partition.counts)
        self.rejected += partition.rejected
        dates = [date for date in (self.last_sync, partition.last_sync) if date is not None]
        self.last_sync = max(dates, default=None)


@dataclass(frozen=True, slots=True)
class MissingTenant:
    """A tenant with documents of which the last look at the source found no row. `removed_after`: its documents stay
    at least until then. `text`: the same for people."""

    entity: str
    tenant: str
    since: datetime
    removed_after: datetime
    looks: int
    text: str
    tenant_name: str = ""


@dataclass(frozen=True, slots=True)
class Listening:
    """Whether somebody listens to the changes of an entity; `text`: the same for people."""

    entity: str
    since: datetime
    hears: bool
    text: str


@dataclass(frozen=True, slots=True)
class Overview:
    days: int
    spaces: Mapping[str, str | None]
    scopes: Sequence[ScopeState]
    partitions: Sequence[PartitionState]
    leftovers: Sequence[Leftover]
    """What left the configuration and is still there."""
    unreachable: Mapping[str, str]
    """Entities whose source could not be asked for its tenants when it was last tried, and why."""
    failed_checks: Sequence[CheckResult] = ()
    """Over all partitions of an entity."""
    missing: Sequence[MissingTenant] = ()
    listening: Sequence[Listening] = ()
    never_synced: Sequence[str] = ()
    """Partitions, by what people call them, that no sync was of, where anything else was synced."""
    cut: Sequence[CheckResult] = ()
    """`truncation` of the partitions with texts of which the model got a part only, but not too many to pass."""

    @property
    def healthy(self) -> bool:
        """No partition's last run failed, and no check found an error; but for what left the configuration."""
        checks = [*self.failed_checks, *(one for partition in self.partitions for one in partition.failed_checks)]
        return (
            not self.unreachable
            and all(one.warning for one in checks)
            and all(one.outcome in (None, "success") for one in self.partitions if not one.left_over)
        )

    def called(self, entity: str, collection: str) -> str:
        """The collection, with the entity where several have it."""
        entities = {one.entity for one in self.scopes if one.collection == collection}
        return f"{collection} of {entity}" if len(entities) > 1 else collection

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def overview(workspace: Workspace, *, entity: str | None, tenant: str | None, days: int) -> Overview:
    """The state of every partition that the ledger knows, or of those of one entity and tenant. A tenant that was
    removed has none any more."""
    ledger = workspace.ledger
    with suppress(LedgerRejected, LedgerUnavailable):  # a ledger that takes nothing now tells what it knows
        end_dead_runs(workspace.config, ledger, entity)
    totals = {
        (t.entity, t.collection, t.tenant): t
        for t in ledger.totals(datetime.now(UTC) - timedelta(days=days))
        if entity in (None, t.entity) and tenant in (None, t.tenant)
    }
    last = ledger.last_runs(entity, tenant)
    if tenant is not None:
        last |= ledger.last_runs(entity, "")
    failed: dict[Key, list[CheckResult]] = {}
    rejected: dict[Key, int] = {}
    cut: list[CheckResult] = []
    for check in configured(ledger.check_results(entity, tenant), workspace.config):
        if check.check == "truncation" and check.passed and check.facts.get("truncated"):
            cut.append(check)
        if check.check == "validation":
            rejected[check.entity, check.collection, check.tenant] = int(check.facts.get("invalid", 0))
        if not check.passed:
            failed.setdefault((check.entity, check.collection, check.tenant), []).append(check)
    called = ledger.tenant_names(entity)
    # Also one that was never synced, of which a comparison has found a point.
    wanted = {*totals, *(key for key in failed if key[1])}
    wanted |= {key for key in last if key.collection and not _is_gone(workspace, key, last[key])}
    partitions = [
        _partition(
            workspace,
            key,
            totals.get(key),
            last.get(Partition(*key)),
            failed.get(key, ()),
            rejected.get(key),
            called.get((key[0], key[2]), ""),
        )
        for key in sorted(wanted, key=_order)
    ]
    names = [c for name, e in workspace.config.entities.items() if entity in (None, name) for c in e.collections]
    spaces = {name: str(space) if (space := ledger.space_of(name)) else None for name in names}
    unreachable = {
        key.entity: runs.last.error or ""
        for key, runs in last.items()
        if not key.collection and not runs.last.ok and is_configured(workspace.config, key.entity, "")
    }
    never = never_synced(workspace.config, last, known_tenants(workspace.config, ledger)) if last else ()
    overall = [check for (_, collection, _), checks in failed.items() if not collection for check in checks]
    held = {name for name, error in unreachable.items() if error.startswith(LOST)}
    asked = [name for name in workspace.config.entities if entity in (None, name)]
    missing = [one for name in asked for one in _missing(workspace, name, held=name in held)]
    missing = [one for one in missing if tenant in (None, one.tenant)]
    return Overview(
        days=days,
        spaces=spaces,
        scopes=_scopes(partitions),
        partitions=partitions,
        leftovers=leftovers(workspace, entity),
        unreachable=unreachable,
        failed_checks=overall,
        missing=missing,
        listening=list(_listening(workspace, entity)),
        never_synced=[
            unsynced(key, called.get((key.entity, key.tenant), ""))
            for key in sorted(never, key=_order)
            if entity in (None, key.entity) and tenant in (None, key.tenant)
        ],
        cut=cut,
    )


def _listening(workspace: Workspace, entity: str | None) -> Iterator[Listening]:
    now = workspace.ledger.now()
    for name, listener in sorted(workspace.ledger.listeners().items()):
        if name in workspace.config.entities and entity in (None, name) and (told := said(listener, now)):
            text, hears = told
            yield Listening(name, listener.since, hears, text)


def _missing(workspace: Workspace, entity: str, *, held: bool) -> list[MissingTenant]:
    """`held`: so many are missing that the source is taken for broken."""
    now, names = workspace.ledger.now(), workspace.ledger.tenant_names(entity)
    found = []
    for one in workspace.absences(entity).values():
        name = names.get((entity, one.tenant), "")
        told = one.held_text(name) if held and one.tenant != GLOBAL else one.text(now, name)
        found.append(MissingTenant(entity, one.tenant, one.since, one.until, one.looks, told, name))
    return found


def _is_gone(workspace: Workspace, key: Partition, last: LastRuns) -> bool:
    """Removed in full: `health` does not count it, and `sync` starts no run of it."""
    return is_configured(workspace.config, key.entity, key.collection) and is_gone(
        workspace.entity(key.entity), key, last
    )


def _order(key: Key) -> tuple[str, str, bool, str]:
    """By entity and collection, global before the tenants."""
    entity, collection, tenant = key
    return entity, collection, tenant != GLOBAL, tenant


def _partition(
    workspace: Workspace,
    key: Key,
    totals: PartitionTotals | None,
    runs: LastRuns | None,
    failed: Sequence[CheckResult],
    rejected: int | None,
    tenant_name: str,
) -> PartitionState:
    last, succeeded = (runs.last, runs.success) if runs else (None, None)
    undone = runs.undone if runs else None
    shown = undone or last
    counts = Counts()
    if totals is not None:
        counts = Counts(totals.documents, unseen=totals.unseen_since, **totals.by_status)
        counts.failed -= totals.rejected
    left_over = not is_configured(workspace.config, key[0], key[1])
    retried = None if left_over else totals
    return PartitionState(
        *key,
        counts=counts,
        last_sync=succeeded.ended_at if succeeded else None,
        last_written=totals.last_synced_at if totals else None,
        outcome=shown.outcome if shown else None,
        only_full=undone is not None and undone is not last,
        error=shown.error if shown else None,
        rejected=_rejected(totals, last, rejected),
        waiting_retries=retried.waiting if retried else 0,
        next_retry=retried.next_retry if retried else None,
        failed_checks=tuple(failed),
        left_over=left_over,
        tenant_name=tenant_name,
    )


def _rejected(totals: PartitionTotals | None, last: Run | None, checked: int | None) -> int:
    """How many are rejected now. Of those without an id only the last check tells (`checked`), or where it was not made
    the last run; and a document that is kept of a tenant that is gone only its row."""
    if checked is None:
        checked = int(last.figures.get("invalid", 0)) if last else 0
    return max(totals.rejected if totals else 0, checked)


def _scopes(partitions: Iterable[PartitionState]) -> list[ScopeState]:
    scopes: dict[tuple[str, str, str], ScopeState] = {}
    for partition in partitions:
        scope = "global" if partition.tenant == GLOBAL else "tenant"
        state = scopes.setdefault(
            (partition.entity, partition.collection, scope), ScopeState(partition.entity, partition.collection, scope)
        )
        state.add(partition)
    return list(scopes.values())
