"""Checks over all partitions of an entity at once: those that must fail even if nothing runs any more.

What the comparison finds of a partition is that partition's result too, so that both say the same.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from vecsync_dagster.containment import contained
from vecsync_dagster.errors import ChecksFailed, LedgerRejected, LedgerUnavailable, VecsyncError
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sync.compare import FOREIGN, Difference, kind_in_partition, lies_elsewhere, met_foreign, spoken
from vecsync_dagster.sync.drift import Comparison, compare_settled
from vecsync_dagster.sync.dropping import leftovers
from vecsync_dagster.sync.health import RED_PARTITIONS, configured, is_configured
from vecsync_dagster.sync.options import PartitionResult, Selection, is_tenant
from vecsync_dagster.sync.verify import (
    REMEDY,
    REPAIRED,
    CheckOutcome,
    difference_outcome,
    foreign_told,
    graded,
    kept,
    misplaced_told,
    remedies,
    remedy_of,
)
from vecsync_dagster.sync.workspace import Workspace
from vecsync_dagster.words import number_of

__all__ = [
    "COMPARED",
    "FRESHNESS",
    "RECONCILIATION",
    "Place",
    "bring_in_line",
    "check_again",
    "check_everything",
    "check_freshness",
    "check_others",
    "make_checks_again",
]

_log = logging.getLogger(__name__)

Place = tuple[str, str, Sequence[CheckOutcome]]
"""A collection, a tenant, and the checks that were made of the two."""

RECONCILIATION: Mapping[str, str] = {
    "reconciliation": "No point is missing, stale or unknown to the ledger; those under a wrong tenant are of "
    "isolation_of_all",
    "isolation_of_all": "No point in the whole collection can be read by a tenant it does not belong to",
}
_NONE: Final = {
    "reconciliation": "no point is missing, stale or unknown to the ledger",
    "isolation_of_all": "no point is under a wrong tenant",
}
FRESHNESS = "freshness"
_OVERALL: Final = (*RECONCILIATION, FRESHNESS)
_LISTED = 20
_WRONG_TENANT = "wrong_tenant"
_IN_PARTITIONS = "in_partitions"
_LEFTOVERS = "leftovers"
_PARTITION_CHECK: Final[Mapping[str, str]] = {"reconciliation": "identity", "isolation_of_all": "isolation"}
_COMPARED = (*_PARTITION_CHECK.values(),)
_OVER: Final = {check: name for name, check in _PARTITION_CHECK.items()}
COMPARED: Final = frozenset({*RECONCILIATION, *_COMPARED})
"""The checks that a comparison of everything makes."""


def check_everything(
    workspace: Workspace, entity: str, known: Iterable[Comparison] = (), *, partitions: bool = True
) -> Iterator[CheckOutcome]:
    """`RECONCILIATION`, by one pass over each collection of the entity that is not compared already (`known`). What it
    finds of a partition is kept as that partition's result as well (`partitions`), also where one that failed
    before differs no more. What was found since a comparison began is newer, and stays."""
    found = _compare_everything(workspace, entity, known, partitions=partitions)
    if any(map(_is_over, found)):  # runs have repaired it meanwhile
        found = _compare_everything(workspace, entity, partitions=partitions)
    for one in found:
        yield _kept(workspace, entity, one.outcome, one.began)


class _Whole(NamedTuple):
    """One of `RECONCILIATION` as a comparison that `began` then found it; `red`: the partitions' results that say it,
    or newer ones."""

    outcome: CheckOutcome
    began: datetime
    red: Sequence[CheckResult]


def _is_over(found: _Whole) -> bool:
    """Whether no partition differs any more in which differences were found."""
    return bool(found.outcome.facts.get(_IN_PARTITIONS)) and not found.red


def _compare_everything(
    workspace: Workspace, entity: str, known: Iterable[Comparison] = (), *, partitions: bool
) -> list[_Whole]:
    made = {one.collection: one for one in known if one.entity == entity}
    counts: dict[str, dict[str, int]] = {name: {} for name in RECONCILIATION}
    named: dict[str, list[Difference]] = {name: [] for name in RECONCILIATION}
    theirs: list[str] = []
    kinds: dict[str, set[str]] = {name: set() for name in RECONCILIATION}
    ways: dict[str, set[str]] = {name: set() for name in RECONCILIATION}
    owned: Counter[str] = Counter()
    points = 0
    began = datetime.now(UTC)
    names = workspace.ledger.tenant_names(entity)
    for collection in workspace.entity(entity).collections:
        compared = made.get(collection) or compare_settled(workspace, entity, collection)
        points += compared.points
        began = min(began, compared.at)
        if partitions:
            owned += _keep_partitions(workspace, compared, ways)
        for (tenant, kind), number in sorted(compared.counts.items()):
            place = _place(collection, tenant, names, entity)
            counts[_check_of(kind)][f"{spoken(kind)} of {place}"] = number
            kinds[_check_of(kind)].add(kind)
        for difference in compared.named:
            named[_check_of(difference.kind)].append(difference)
        theirs += foreign_told(workspace.ledger, entity, collection, compared.kinds, compared.named)
    differing = _differing(configured(workspace.ledger.check_results(entity, failed=True), workspace.config))
    found = []
    for name in RECONCILIATION:
        wrong, red = sum(counts[name].values()), differing[name]
        told = "; ".join(f"{number} {what}" for what, number in list(counts[name].items())[:_LISTED])
        remedy = ways[name].pop() if owned[name] >= wrong and len(ways[name]) == 1 else REMEDY
        hints = [*(theirs if FOREIGN in kinds[name] else []), *remedies(kinds[name], remedy)]
        message = "; ".join([f"{number_of(wrong, 'difference')}: {told}", *hints]) if wrong else _NONE[name]
        facts = {"points": points, "differences": wrong, **({_IN_PARTITIONS: owned[name]} if wrong else {})}
        outcome = CheckOutcome(name, wrong == 0, message, facts, named[name])
        if name == "reconciliation":
            outcome = _with_leftovers(workspace, entity, outcome)
        if 0 < wrong <= owned[name] and _LEFTOVERS not in outcome.facts and _tell_it(workspace, name, red):
            outcome = replace(outcome, facts={**outcome.facts, RED_PARTITIONS: len(red)})
        found.append(_Whole(outcome, began, red))
    return found


def _differing(results: Iterable[CheckResult]) -> dict[str, list[CheckResult]]:
    """For each of `RECONCILIATION` the results that say of a partition that it differs."""
    found = [one for one in results if one.collection and _is_open(one)]
    return {name: [one for one in found if one.check == check] for name, check in _PARTITION_CHECK.items()}


def _tell_it(workspace: Workspace, name: str, red: Sequence[CheckResult]) -> bool:
    """Whether the partitions' results are as bad as the check over all of them: then they say all there is to say."""
    return any(not one.warning for one in red) or workspace.config.checks.severity_of(name) == "warn"


def _keep_partitions(workspace: Workspace, compared: Comparison, ways: Mapping[str, set[str]]) -> Counter[str]:
    """How many differences are in partitions that the ledger knows, for each of `RECONCILIATION`; what repairs them is
    added to `ways`. What is said of a partition here is said of two checks alone, as the others ask the source; where
    these say something else than `counts` does, that is made again."""
    entity, collection = compared.entity, compared.collection
    known = workspace.ledger.check_results(entity)
    tenants = {*workspace.ledger.with_rows_or_marks(entity, collection)}
    tenants |= {one.tenant for one in known if one.collection == collection}  # one without documents may be leaked to
    wary = {tenant for name, tenant in met_foreign(known) if name == collection}
    counted: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    named: defaultdict[tuple[str, str], list[Difference]] = defaultdict(list)
    owned: Counter[str] = Counter()
    for (tenant, kind), number in compared.counts.items():
        if tenant in tenants:
            owned[_check_of(kind)] += number
            counted[tenant, _partition_check_of(kind)][kind_in_partition(kind, wary=tenant in wary)] += number
    for tenant, number in compared.misplaced.items():
        if tenant in tenants:
            counted[tenant, "isolation"][_WRONG_TENANT] += number
    for one in compared.named:
        tenant = one.tenant or one.stored_tenant or ""
        kind = kind_in_partition(one.kind, wary=tenant in wary)
        for place in (tenant, one.stored_tenant or "") if lies_elsewhere(one) else (tenant,):
            named[place, _partition_check_of(one.kind)].append(replace(one, kind=kind))
    failed = {(r.tenant, r.check) for r in known if r.collection == collection and _is_open(r)}
    over = {key for key in failed if key[1] in _COMPARED and key not in counted}
    outcomes = []
    for tenant, check in sorted({*counted, *over}):
        found, some = counted.get((tenant, check), Counter()), named[tenant, check]
        theirs = foreign_told(workspace.ledger, entity, collection, found, some) + misplaced_told(tenant, some)
        stored = partial(workspace.store_of(entity, collection).count, collection, tenant)
        remedy = remedy_of(workspace.config.sync, found, stored)
        ways[_OVER[check]].update(remedies(found, remedy))
        outcomes.append((tenant, difference_outcome(check, found, some, theirs, remedy)))
        workspace.differing[entity, collection, tenant, check] = some
    checks = workspace.config.checks
    workspace.ledger.record_checks(
        [kept(graded(outcome, checks), entity, collection, tenant, compared.at) for tenant, outcome in outcomes]
    )
    differing = {tenant for tenant, _ in counted}
    evened = {tenant for tenant, _ in over if (tenant, "counts") in failed} - differing
    passed = {one.tenant for one in known if (one.collection, one.check, one.passed) == (collection, "counts", True)}
    uneven = {tenant for (tenant, _), found in counted.items() if found.keys() - {"stale_hash", FOREIGN}} & passed
    for tenant in sorted(evened | uneven):
        # `counts` says something else: to count is to ask the source, of which a comparison knows nothing.
        _verify(workspace, entity, collection, tenant)
    return owned


def make_checks_again(
    workspace: Workspace, results: Sequence[PartitionResult], warn: Callable[[str], object]
) -> list[ChecksFailed]:
    """What every sync ends with, and every retry: `check_again`. What was synced is synced if it cannot be made."""
    try:
        with contained("checks over all partitions"):
            return check_again(workspace, results)
    except VecsyncError as error:
        warn(f"checks over all partitions were not made again: {error.code}: {error}")
        return []


def check_again(workspace: Workspace, results: Iterable[PartitionResult]) -> list[ChecksFailed]:
    """After a run: the checks over all partitions that failed are made again where they may be over, else what was
    repaired would stay red until they are due, and fail where a partition does. The comparison, which is dear, only
    after a run that compared, and when no partition is left that failed it; and after a full run over all tenants where
    a store has points of others. Those that were never made are made once every partition is synced, else a new project
    would wait for them. Returns, for each entity, what a comparison of everything that was made found wrong.

    Raises the errors of source, store and ledger."""
    compared: dict[str, bool] = {}
    wrong: list[ChecksFailed] = []
    results = list(results)
    for result in results:
        if result.outcome == "success":
            compares = any(check.name in _COMPARED for check in result.checks)
            compared[result.entity] = compares or compared.get(result.entity, False)
    for entity, did_compare in compared.items():
        made = _check_entity(workspace, entity, [one for one in results if one.entity == entity], did_compare)
        told = [f"check {name}: {one.message}" for name, one in made if not (one.passed or one.warning)]
        wrong += [ChecksFailed(f"{entity}: {'; '.join(told)}", entity=entity)] if told else []
    return wrong


def _check_entity(
    workspace: Workspace, entity: str, results: Sequence[PartitionResult], did_compare: bool
) -> Sequence[tuple[str, CheckOutcome | CheckResult]]:
    """`check_again` for one entity. Returns what a run over all of it found, or found as it was: to another one it says
    nothing of what that has synced."""
    if any(one.figures.touched or one.figures.removed for one in results):
        _check_doubted(workspace, entity)
    check_others(workspace, entity, ((one.collection, one.tenant, one.checks) for one in results))
    made = workspace.ledger.check_results(entity, "")
    failed = {one.check: one for one in made if not one.passed}
    whole = _is_whole(workspace, entity, results)
    if did_compare and not {one.check for one in made}.issuperset(_OVERALL) and _is_synced(workspace, entity):
        check_freshness(workspace, entity)
        # Of each partition its run has said it.
        clean = [*_clean(workspace, entity, results)] if whole else []
        again = list(check_everything(workspace, entity, clean, partitions=not clean))
        return [(one.name, one) for one in again if whole]
    if FRESHNESS in failed:
        check_freshness(workspace, entity)
    if did_compare and (again := bring_in_line(workspace, entity)):
        return [(one.name, one) for one in again if whole]
    overall = [(name, failed[name]) for name in RECONCILIATION if name in failed]
    if not whole or (did_compare and any(_were_ours(one) for _, one in overall)):
        return []
    strays = _strays(workspace, entity, results)
    if (strays > 0) != any(one.facts.get("differences") for _, one in overall):
        return [(one.name, one) for one in check_everything(workspace, entity)]
    return overall if strays else []


def bring_in_line(workspace: Workspace, entity: str) -> list[CheckOutcome]:
    """After some partitions were compared: each of `RECONCILIATION` fails where a partition is known to differ, and is
    made again, by a comparison of everything, where none is left that does; returns what it made again.

    Raises the errors of store and ledger."""
    known = configured(workspace.ledger.check_results(entity), workspace.config)
    differing = _differing(known)
    overall = {one.check: one for one in known if not one.collection and one.check in RECONCILIATION}
    if any(not one.passed and _were_ours(one) and not differing[name] for name, one in overall.items()):
        return list(check_everything(workspace, entity))
    names = workspace.ledger.tenant_names(entity)
    for name, one in overall.items():
        red = [part for part in differing[name] if any(isinstance(fact, int) for fact in part.facts.values())]
        if red and (one.passed or _are_parts(one)):
            told = [f"{_place(part.collection, part.tenant, names, entity)}: {part.message}" for part in red[:_LISTED]]
            more = f"; and {len(red) - _LISTED} more" if len(red) > _LISTED else ""
            message = f"{number_of(len(red), 'partition')}: {'; '.join(told)}{more}"
            facts = {RED_PARTITIONS if _tell_it(workspace, name, red) else _IN_PARTITIONS: len(red)}
            _kept(workspace, entity, CheckOutcome(name, False, message, facts), datetime.now(UTC))
    return []


def _check_doubted(workspace: Workspace, entity: str) -> None:
    """A run may have removed what another tenant has after all, which makes that one due: until it is synced, its
    checks say what is missing."""
    doubted = workspace.ledger.doubted(entity)
    if not doubted:
        return
    known = workspace.ledger.check_results(entity)
    well = {(one.collection, one.tenant): one.at for one in known if one.check == "counts" and one.passed}
    for place, at in sorted(doubted.items()):
        if place in well and well[place] <= at:
            _verify(workspace, entity, *place)


def check_others(workspace: Workspace, entity: str, found: Iterable[Place]) -> None:
    """What lies under a wrong tenant differs in two partitions. Where `isolation` of one of them has found it, or a run
    has repaired it or found it repaired, the other one is checked again if it is known to be otherwise; not while a run
    is syncing it.

    Raises the errors of the ledger."""
    found = [*found]
    made = {(collection, tenant) for collection, tenant, _ in found}
    others = {
        (collection, tenant, not (check.passed or REPAIRED in check.facts))
        for collection, _, checks in found
        for check in checks
        if check.name == "isolation"
        for tenant in _others_of(workspace, entity, collection, check)
        if (collection, tenant) not in made
    }
    seen = workspace.ledger.seen(entity) if any(differs for *_, differs in others) else {}
    for collection, tenant, differs in sorted(others):
        failed = workspace.ledger.failed_checks(entity, collection, tenant)
        known = any(one.check == "isolation" and _is_open(one) for one in failed)
        if known != differs and (known or (collection, tenant) in seen):
            _verify(workspace, entity, collection, tenant)


def _verify(workspace: Workspace, entity: str, collection: str, tenant: str) -> None:
    """What cannot be checked now, as another run is syncing it or a service is away, is known as it was."""
    if collection not in workspace.entity(entity).collections:
        return
    try:
        workspace.verify(Selection(entity, tenant, (collection,)))
    except (LedgerRejected, LedgerUnavailable):
        raise
    except VecsyncError as error:
        _log.info("%s of %s was not checked again: %s: %s", collection, tenant, error.code, error)


def _others_of(workspace: Workspace, entity: str, collection: str, isolation: CheckOutcome) -> Iterator[str]:
    """The tenants of what was found. Of what somebody else has repaired before they are not known: all."""
    for d in isolation.differences:
        yield from (tenant for tenant in (d.tenant, d.stored_tenant) if tenant is not None)
    if isolation.over:
        known = workspace.ledger.check_results(entity, failed=True)
        yield from (one.tenant for one in known if (one.collection, one.check) == (collection, isolation.name))


def _is_synced(workspace: Workspace, entity: str) -> bool:
    """Whether each partition of the entity's tenants was synced. The source is asked who they are only where all that
    is known is well."""
    runs = workspace.ledger.last_runs(entity).items()
    if any(last.undone is not None for key, last in runs if is_configured(workspace.config, entity, key.collection)):
        return False
    seen = workspace.ledger.seen(entity)
    tenants = filter(is_tenant, workspace.tenants(entity))
    return all((name, tenant) in seen for tenant in tenants for name in workspace.entity(entity).collections)


def _clean(workspace: Workspace, entity: str, results: Sequence[PartitionResult]) -> Iterator[Comparison]:
    """After a run that compared all partitions and found no difference: what a comparison of each collection would
    find, which need not be read again."""
    passed = [{one.name for one in result.checks if one.passed} >= {*_COMPARED} for result in results]
    if all(passed) and not _strays(workspace, entity, results):
        for collection in workspace.entity(entity).collections:
            yield Comparison(entity, collection, True, workspace.store_of(entity, collection).count(collection))


def _is_whole(workspace: Workspace, entity: str, results: Sequence[PartitionResult]) -> bool:
    """Whether it was a full run over all tenants that the ledger knows."""
    for collection in workspace.entity(entity).collections:
        synced = {
            one.tenant
            for one in results
            if one.collection == collection and one.mode == "full" and "vectors" in one.stages
        }
        if not synced or not synced >= {*workspace.ledger.with_rows_or_marks(entity, collection)}:
            return False
    return True


def _strays(workspace: Workspace, entity: str, results: Sequence[PartitionResult]) -> int:
    """After a full run over all tenants: how many points are in none of their partitions. Their tenants are known to
    nobody, and no run visits them."""
    found = 0
    for collection in workspace.entity(entity).collections:
        stored = {one.tenant: _stored(one) for one in results if one.collection == collection}
        store = workspace.store_of(entity, collection)
        counted = (store.count(collection, t) if n is None else n for t, n in stored.items() if is_tenant(t))
        found += max(store.count(collection) - sum(counted), 0)
    return found


def _stored(result: PartitionResult) -> int | None:
    """What the run itself counted in the store."""
    counted = next((one.facts.get("store") for one in result.checks if one.name == "counts"), None)
    return None if counted is None else int(counted)


def _are_parts(result: CheckResult) -> bool:
    """Whether it fails because of partitions alone."""
    return RED_PARTITIONS in result.facts or result.facts.keys() == {_IN_PARTITIONS}


def _were_ours(result: CheckResult) -> bool:
    """Whether the comparison found differences that a run of a partition can repair."""
    facts = result.facts
    return bool(facts.get(RED_PARTITIONS) or facts.get(_IN_PARTITIONS, facts.get("differences")))


def _is_open(result: CheckResult) -> bool:
    """What a run has repaired is a warning until the next run, and differs no more."""
    return not result.passed and REPAIRED not in result.facts


def _with_leftovers(workspace: Workspace, entity: str, outcome: CheckOutcome) -> CheckOutcome:
    """What left the configuration is nobody's any more; entities that left it are reported with the first one, and not
    those that somebody else syncs: another project may use this ledger."""
    first = entity == next(iter(workspace.config.entities))
    found = [
        one
        for one in leftovers(workspace)
        if one.elsewhere is None and (one.entity == entity or (first and one.entity not in workspace.config.entities))
    ]
    if not found:
        return outcome
    told = "; ".join(map(str, found[:_LISTED]))
    return replace(
        outcome,
        passed=False,
        warning=outcome.passed,
        message=told if outcome.passed else f"{outcome.message}; {told}",
        facts={**outcome.facts, _LEFTOVERS: len(found)},
    )


def check_freshness(workspace: Workspace, entity: str) -> CheckOutcome:
    """Every partition was synced within `checks.freshness.max_age`, every document seen within `unseen`."""
    limits = workspace.config.checks.freshness
    now = datetime.now(UTC)
    seen = {key: one.at for key, one in workspace.ledger.seen(entity).items()}
    # A key that can be no partition is never synced: its failed run says so.
    tenants = filter(is_tenant, workspace.tenants(entity))
    wanted = [(c, tenant) for tenant in tenants for c in workspace.entity(entity).collections]
    never = [_named(key) for key in wanted if key not in seen]
    old = {_named(key): now - seen[key] for key in wanted if key in seen and now - seen[key] > limits.max_age}
    unseen = {
        f"{one.collection}|{one.tenant}": one.unseen_since
        for one in workspace.ledger.totals(now - limits.unseen)
        if one.entity == entity and one.unseen_since and is_configured(workspace.config, entity, one.collection)
    }
    lost = sum(unseen.values())
    reasons = [
        f"{number_of(count, thing)} {what}: {_some(list(names))}"
        for count, thing, what, names in (
            (len(never), "partition", "never synced", never),
            (len(old), "partition", f"not synced for {_days(limits.max_age)}", old),
            (lost, "document", f"not seen for {_days(limits.unseen)}", unseen),
        )
        if count
    ]
    facts = {
        "partitions": len(wanted),
        "never_synced": len(never),
        "too_old": len(old),
        "oldest_hours": round(max(((now - at).total_seconds() for at in seen.values()), default=0) / 3600),
        "documents_unseen": lost,
    }
    message = "; ".join(reasons) or f"{number_of(len(wanted), 'partition')}, all in time"
    return _kept(workspace, entity, CheckOutcome(FRESHNESS, not reasons, message, facts, warning=True), now)


def _kept(workspace: Workspace, entity: str, outcome: CheckOutcome, at: datetime) -> CheckOutcome:
    outcome = graded(outcome, workspace.config.checks)
    workspace.ledger.record_checks([kept(outcome, entity, "", "", at)])
    return outcome


def _check_of(kind: str) -> str:
    return "isolation_of_all" if kind == _WRONG_TENANT else "reconciliation"


def _partition_check_of(kind: str) -> str:
    return "isolation" if kind == _WRONG_TENANT else "identity"


def _place(collection: str, tenant: str, names: Mapping[tuple[str, str], str], entity: str) -> str:
    name = names.get((entity, tenant))
    return f"{collection}|{tenant}{f' ({name})' if name else ''}"


def _named(key: tuple[str, str]) -> str:
    return "|".join(key)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _days(limit: timedelta) -> str:
    hours = limit.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"
