"""Ledger against store over whole collections: counted as they stream by, and the first ones named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from vecsync_dagster.space import check_space
from vecsync_dagster.sync.compare import NAMED, Difference, DifferenceKind, lies_elsewhere
from vecsync_dagster.sync.workspace import Workspace

__all__ = ["Comparison", "compare_settled"]

_SECOND_LOOK = 10_000


@dataclass(slots=True)
class Comparison:
    """The differences of one collection: how many by (tenant, kind), and the first `NAMED`.

    What lies under a wrong tenant is counted once, for its owner; `misplaced`: for the tenant under which it lies.
    `synced` False: neither ledger nor store know the collection. `points`: what the store holds. `at`: when it began;
    what is found of a partition later than that is newer.
    """

    entity: str
    collection: str
    synced: bool
    points: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    counts: Counter[tuple[str, DifferenceKind]] = field(default_factory=Counter)
    misplaced: Counter[str] = field(default_factory=Counter)
    named: list[Difference] = field(default_factory=list)

    @property
    def tenants(self) -> set[str]:
        """Those in whose partitions something differs."""
        return {tenant for tenant, _ in self.counts} | self.misplaced.keys()

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def kinds(self) -> Counter[str]:
        """How many differences there are of each kind."""
        found: Counter[str] = Counter()
        for (_, kind), number in self.counts.items():
            found[kind] += number
        return found

    def count(self, differences: Iterable[Difference]) -> None:
        for difference in differences:
            # What lies under a wrong tenant is the ledger's tenant's business; an orphan has only the store's.
            self.counts[difference.tenant or difference.stored_tenant or "(none)", difference.kind] += 1
            if lies_elsewhere(difference):
                self.misplaced[difference.stored_tenant or "(none)"] += 1
            if len(self.named) < NAMED:
                self.named.append(difference)

    def as_dict(self) -> dict[str, Any]:
        counts = [{"tenant": t, "kind": kind, "points": n} for (t, kind), n in sorted(self.counts.items())]
        return {
            "entity": self.entity,
            "collection": self.collection,
            "synced": self.synced,
            "points": self.points,
            "total": self.total,
            "differences": counts,
            "named": [asdict(difference) for difference in self.named],
        }


def _compare_once(workspace: Workspace, entity: str, collection: str) -> Comparison:
    """One look at all tenants of a collection."""
    comparison = _begun(workspace, entity, collection)
    if comparison.synced:
        comparison.count(workspace.differences(entity, collection))
    return comparison


def compare_settled(workspace: Workspace, entity: str, collection: str) -> Comparison:
    """All tenants of a collection, next to runs that are under way: what they have written and not yet recorded looks
    like a difference, so that only what a second look finds again is one. More than ten thousand are no run in
    between. Raises a service's errors."""
    first = _compare_once(workspace, entity, collection)
    if not 0 < first.total <= _SECOND_LOOK:
        return first
    before = {(d.kind, d.point_id) for d in workspace.differences(entity, collection)}
    again = _begun(workspace, entity, collection, first.at)
    again.count(d for d in workspace.differences(entity, collection) if (d.kind, d.point_id) in before)
    return again


def _begun(workspace: Workspace, entity: str, collection: str, at: datetime | None = None) -> Comparison:
    at = at or datetime.now(UTC)
    store = workspace.store_of(entity, collection)
    space, pinned = workspace.ledger.space_of(collection), store.pinned_space(collection)
    if space is not None:  # vectors of another one would be compared, and repaired, beside ours
        check_space(collection, space, pinned)
    known = space is not None or pinned is not None
    return Comparison(entity, collection, known, store.count(collection) if known else 0, at)
