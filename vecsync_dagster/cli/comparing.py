"""Ledger against store for the command line: which collections are meant, comparing and repairing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from vecsync_dagster.cli.running import Wanted, wanted_entities
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import LedgerUnavailable, VecsyncError
from vecsync_dagster.sync import Figures, Selection, Workspace
from vecsync_dagster.sync.compare import NAMED, Difference, spoken
from vecsync_dagster.sync.drift import Comparison, compare_settled
from vecsync_dagster.sync.standing import COMPARED, check_everything
from vecsync_dagster.words import named

__all__ = [
    "Comparison",
    "check_found",
    "check_places",
    "check_repaired",
    "collections_of",
    "compare_all",
    "names_of",
    "repair_all",
]

_SHOWN = 20
Names = Mapping[tuple[str, str], str]
"""What people call the tenants, by entity and tenant."""


def compare_all(
    workspace: Workspace, entity: str | None, collection: str | None, problems: dict[str, VecsyncError] | None = None
) -> list[Comparison]:
    """Compare the wanted collections; one that cannot be compared or repaired has its error in `problems`, and the
    others go on; it is raised where there are none. Raises NotFound for names that do not exist."""
    found = []
    for owner, name in collections_of(workspace, entity, collection):
        with _problem_of(name, problems):
            found.append(compare_settled(workspace, owner, name))
    return found


def repair_all(
    workspace: Workspace,
    found: Iterable[Comparison],
    problems: dict[str, VecsyncError] | None = None,
    *,
    allow_removals: bool = False,
) -> dict[str, Figures]:
    """Repair the collections that have differences, in one more pass over each; what was done, by collection. A tenant
    that cannot be repaired has its error in `problems`, as `collection of tenant`, and the others go on."""
    done = {}
    for one in found:
        if one.total:
            with _problem_of(one.collection, problems):
                differences = workspace.differences(one.entity, one.collection)
                failed = None if problems is None else partial(_note, problems, workspace.ledger.tenant_names(), one)
                done[one.collection] = workspace.repair(
                    one.entity, one.collection, differences, failed, allow_removals=allow_removals
                )
    return done


def _note(problems: dict[str, VecsyncError], names: Names, one: Comparison, tenant: str, error: VecsyncError) -> None:
    problems.setdefault(_place(names, one.entity, one.collection, tenant), error)


def _place(names: Names, entity: str, collection: str, tenant: str) -> str:
    return f"{collection} of {named(tenant, names.get((entity, tenant), ''))}"


@contextmanager
def _problem_of(place: str, problems: dict[str, VecsyncError] | None) -> Iterator[None]:
    try:
        with contained(f"{place}: reconciling"):
            yield
    except LedgerUnavailable:
        raise  # without its ledger no other collection can be compared either
    except VecsyncError as error:
        if problems is None:
            raise
        problems.setdefault(place, error)


def check_repaired(
    workspace: Workspace, found: Iterable[Comparison], problems: dict[str, VecsyncError] | None = None
) -> None:
    """Make the checks again of every partition that was repaired, and those over all partitions of its entity. One that
    cannot be checked has its error in `problems`, and the others go on."""
    places = [(one.entity, one.collection, one.tenants) for one in found if one.total]
    check_places(workspace, places, problems)


def check_found(
    workspace: Workspace, found: Sequence[Comparison], problems: dict[str, VecsyncError] | None = None
) -> bool:
    """Keep what was found as the last results of the checks, where there are differences or were some before; returns
    whether. An entity that cannot be checked has its error in `problems`."""
    differing = {one.entity for one in found if one.total}
    made = False
    for entity in dict.fromkeys(one.entity for one in found):
        failed = (one.check for one in workspace.ledger.check_results(entity) if not one.passed)
        if entity in differing or not COMPARED.isdisjoint(failed):
            with _problem_of(entity, problems):
                made = True
                for _ in check_everything(workspace, entity, found):
                    pass
    return made


def check_places(
    workspace: Workspace,
    places: Sequence[tuple[str, str, Iterable[str]]],
    problems: dict[str, VecsyncError] | None = None,
) -> None:
    """`places`: entity, collection and tenants; otherwise as `check_repaired`."""
    names = workspace.ledger.tenant_names()
    for entity, collection, tenants in places:
        known: set[str] = set()
        with _problem_of(entity, problems):
            known.update(workspace.tenants(entity))
        for tenant in sorted(known.intersection(tenants)):
            with _problem_of(_place(names, entity, collection, tenant), problems):
                workspace.verify(Selection(entity, tenant, (collection,)))
    for entity in dict.fromkeys(entity for entity, _, _ in places):
        with _problem_of(entity, problems):
            for _ in check_everything(workspace, entity):
                pass


def names_of(differences: Sequence[Difference], total: int) -> list[str]:
    """A line for each of the first differences, and one for how many more of `total` there are."""
    some = differences[:_SHOWN]
    lines = [f"  {spoken(difference.kind)} {difference.document_id or difference.point_id}" for difference in some]
    more = f"  and {total - len(some):,} more; --json names up to {NAMED:,}"
    return [*lines, more] if total > len(some) else lines


def collections_of(workspace: Workspace, entity: str | None, collection: str | None) -> Iterator[tuple[str, str]]:
    """(entity, collection) of what is wanted. Raises NotFound for names that do not exist."""
    for name in wanted_entities(workspace, Wanted(entity=entity, collection=collection)):
        for candidate in workspace.entity(name).collections:
            if collection in (None, candidate):
                yield name, candidate
