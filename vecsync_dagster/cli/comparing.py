"""Ledger against store for the command line: which collections are meant, comparing and mending them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vecsync_dagster.cli.running import Wanted, wanted_entities
from vecsync_dagster.sync import Figures, Selection, Workspace
from vecsync_dagster.sync.compare import NAMED, Difference
from vecsync_dagster.sync.drift import Comparison, compare_whole
from vecsync_dagster.sync.standing import check_everything

__all__ = ["Comparison", "check_repaired", "collections_of", "compare_all", "names_of", "repair_all"]

_SHOWN = 20


def compare_all(workspace: Workspace, entity: str | None, collection: str | None) -> list[Comparison]:
    """Compare the wanted collections. Raises ConfigError for names that do not exist, and a service's errors."""
    return [compare_whole(workspace, *names) for names in collections_of(workspace, entity, collection)]


def repair_all(workspace: Workspace, found: Iterable[Comparison]) -> dict[str, Figures]:
    """Mend the collections that have differences, in one more pass over each; what was done, by collection."""
    return {
        one.collection: workspace.repair(one.entity, one.collection, workspace.differences(one.entity, one.collection))
        for one in found
        if one.total
    }


def check_repaired(workspace: Workspace, found: Iterable[Comparison]) -> None:
    """Make the checks again of every partition that was repaired, and those over all partitions of its entity."""
    repaired = [one for one in found if one.total]
    for one in repaired:
        known = set(workspace.tenants(one.entity))
        for tenant in sorted({tenant for tenant, _ in one.counts} & known):
            for _ in workspace.verify(Selection(one.entity, tenant, (one.collection,))):
                pass
    for entity in dict.fromkeys(one.entity for one in repaired):
        for _ in check_everything(workspace, entity):
            pass


def names_of(differences: Sequence[Difference], total: int) -> list[str]:
    """A line for each of the first differences, and one for how many more of `total` there are."""
    some = differences[:_SHOWN]
    lines = [f"  {difference.kind} {difference.document_id or difference.point_id}" for difference in some]
    more = f"  and {total - len(some):,} more; --json names up to {NAMED:,}"
    return [*lines, more] if total > len(some) else lines


def collections_of(workspace: Workspace, entity: str | None, collection: str | None) -> Iterator[tuple[str, str]]:
    """(entity, collection) of what is wanted. Raises ConfigError for names that do not exist."""
    for name in wanted_entities(workspace, Wanted(entity=entity, collection=collection)):
        for candidate in workspace.entity(name).collections:
            if collection in (None, candidate):
                yield name, candidate
