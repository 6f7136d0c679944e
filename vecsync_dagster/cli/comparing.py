"""Ledger against store for the command line: counted as they stream by, never collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from vecsync_dagster.cli.running import Wanted, wanted_entities
from vecsync_dagster.sync import Figures, Workspace
from vecsync_dagster.sync.compare import Difference

__all__ = ["Comparison", "collections_of", "compare_all", "repair_all"]

_EXAMPLES = 20


@dataclass(slots=True)
class Comparison:
    """The differences of one collection: how many by (tenant, kind), and the first few.

    `synced` False: neither ledger nor store know the collection. `points`: what the store holds.
    """

    entity: str
    collection: str
    synced: bool
    points: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[Difference] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.counts.total()

    def count(self, differences: Iterable[Difference]) -> None:
        for difference in differences:
            # What lies under a wrong tenant is the ledger's tenant's business; an orphan has only the store's.
            self.counts[difference.tenant or difference.stored_tenant or "(none)", difference.kind] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(difference)

    def as_dict(self) -> dict[str, Any]:
        counts = [{"tenant": t, "kind": kind, "points": n} for (t, kind), n in sorted(self.counts.items())]
        return {
            "entity": self.entity,
            "collection": self.collection,
            "synced": self.synced,
            "points": self.points,
            "total": self.total,
            "differences": counts,
            "examples": [asdict(example) for example in self.examples],
        }


def compare_all(workspace: Workspace, entity: str | None, collection: str | None) -> list[Comparison]:
    """Compare the wanted collections. Raises ConfigError for names that do not exist, and a service's errors."""
    return [_compare(workspace, *names) for names in collections_of(workspace, entity, collection)]


def repair_all(workspace: Workspace, found: Iterable[Comparison]) -> dict[str, Figures]:
    """Mend the collections that have differences, in one more pass over each; what was done, by collection."""
    return {
        one.collection: workspace.repair(one.entity, one.collection, workspace.differences(one.entity, one.collection))
        for one in found
        if one.total
    }


def _compare(workspace: Workspace, entity: str, collection: str) -> Comparison:
    store = workspace.store_of(entity, collection)
    known = workspace.ledger.space_of(collection) is not None or store.pinned_space(collection) is not None
    comparison = Comparison(entity, collection, synced=known)
    if known:
        comparison.points = store.count(collection)
        comparison.count(workspace.differences(entity, collection))
    return comparison


def collections_of(workspace: Workspace, entity: str | None, collection: str | None) -> Iterator[tuple[str, str]]:
    """(entity, collection) of what is wanted. Raises ConfigError for names that do not exist."""
    for name in wanted_entities(workspace, Wanted(entity=entity, collection=collection)):
        for candidate in workspace.entity(name).collections:
            if collection in (None, candidate):
                yield name, candidate
