"""What a run that compared every point does about the differences it found: it repairs them, and its checks say so.

Nothing is paid for: vectors come from the cache alone. Nothing is removed but orphans, after a complete read and
within the removal guard: a document that the source does not have is left to the removal of what was not seen, and
what somebody else wrote is left to people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from vecsync_dagster.sources.base import Source
from vecsync_dagster.sync.compare import FOREIGN, Difference, compare_partition, in_chunks
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.reconcile import repair_unpaid, too_many_orphans
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.verify import (
    BY_RUN,
    REMEDY,
    REPAIRED,
    CheckOutcome,
    differences_told,
    foreign_told,
    remedies,
    remedy_of,
)
from vecsync_dagster.words import number_of

__all__ = ["repair_found", "still_differs", "told_of_left_over"]

_COMPARED = ("identity", "isolation")
_LATER = "orphans are removed by a full run"


def repair_found(
    target: Target,
    source: Source,
    figures: Figures,
    found: list[CheckOutcome],
    look_again: Callable[[], list[CheckOutcome]],
    *,
    complete: bool,
    believed: bool,
    allow_removals: bool,
    watch: Callable[[Figures], bool],
) -> list[CheckOutcome]:
    """The checks as they are after what they `found` is repaired. The caller holds the right to sync the tenant.

    `complete`: the whole source was read, so that orphans may go, if it is `believed`: no removal was stopped or
    waits. What was repaired is added to `figures`; once `watch` says that the run was asked to end, the rest is left.
    """
    total = sum(_count(check) for check in found if check.name in _COMPARED)
    if not total:
        return found
    why_kept = _why_orphans_stay(target, found, complete=complete, believed=believed, allow=allow_removals)
    done = Figures()
    kept = {FOREIGN, "orphan"} if why_kept else {FOREIGN}
    differences = (d for d in _differences(target, found, total) if d.kind not in kept)
    for some in takewhile(lambda _: not watch(figures), in_chunks(differences)):
        done.add(repair_unpaid(target, source, some))
    figures.repaired += done.upserted + done.payload_only + done.removed + done.taken_in
    figures.failed += done.failed
    figures.lost += done.lost
    figures.lost_elsewhere += done.lost_elsewhere
    figures.altered += done.altered
    return [_told(target, before, after, why_kept, done) for before, after in zip(found, look_again(), strict=True)]


def told_of_left_over(
    found: Iterable[CheckOutcome],
    left_over: Mapping[str, int],
    named: Sequence[Difference],
    done: Figures,
    *,
    warn: bool,
) -> list[CheckOutcome]:
    """The outcomes, with what runs that did not finish had left, of each kind, and this one has repaired before it
    compared, and what it has `done`. Some of it may be drift, which nobody can tell apart: `warn` where no repair is to
    go unnoticed. What is lost always warns."""
    outcomes = []
    for one in found:
        of_tenants = one.name == "isolation"
        own = {kind: n for kind, n in left_over.items() if (kind == "wrong_tenant") is of_tenants}
        if one.name in _COMPARED and one.passed and own:
            gone = _lost(one, done)
            bad = warn or gone > 0
            facts: Mapping[str, int | str] = {**own, REPAIRED: "all"} if bad else one.facts
            message = f"{_repair_message(own, gone)}; a run had not finished, or the store had moved"
            some = [d for d in named if d.kind in own]
            one = replace(one, passed=not bad, warning=bad, message=message, facts=facts, differences=some)
        outcomes.append(one)
    return outcomes


def still_differs(outcome: CheckOutcome) -> bool:
    """Whether it is a comparison, after which something is left that is not somebody else's."""
    facts = outcome.facts.keys()
    return outcome.name in _COMPARED and not outcome.passed and REPAIRED not in facts and not facts <= {FOREIGN}


def _count(check: CheckOutcome, *kinds: str) -> int:
    return sum(n for kind, n in check.facts.items() if isinstance(n, int) and (not kinds or kind in kinds))


def _differences(target: Target, found: Sequence[CheckOutcome], total: int) -> Iterable[Difference]:
    """Those that were named, if they are all; there may be more than memory is to hold."""
    named = [d for check in found for d in check.differences]
    return named if len(named) == total else compare_partition(target, wary=True)


def _why_orphans_stay(
    target: Target, found: Sequence[CheckOutcome], *, complete: bool, believed: bool, allow: bool
) -> str:
    """Empty where they are to go."""
    orphans = sum(_count(check, "orphan") for check in found if check.name == "identity")
    if not orphans:
        return ""
    if not complete:
        return _LATER
    if not believed:
        return "orphans stay for as long as documents that the source lacks are kept"
    return too_many_orphans(target, orphans, allow=allow)


def _told(target: Target, before: CheckOutcome, after: CheckOutcome, why_kept: str, done: Figures) -> CheckOutcome:
    """What is repaired warns, once: the next run finds nothing. What is left is as bad as it was."""
    if before.passed:
        return after
    if before.name == "counts" and after.passed:
        store, ledger = (int(before.facts[of]) for of in ("store", "ledger"))
        had = f"the store had {number_of(store, 'point')}, the ledger said {ledger:,}"
        if store == ledger:
            had = "another entity's points stood in for lost ones"
        if done.lost:
            return replace(after, passed=False, warning=True, message=f"{had}; identity or isolation says why")
        return replace(after, passed=False, warning=True, message=f"repaired: {had}")
    if before.name not in _COMPARED:
        return replace(after, message=after.message.replace(BY_RUN, REMEDY))
    if after.passed:
        told = _repair_message(before.facts, _lost(before, done))
        return replace(before, warning=True, message=told, facts={**before.facts, REPAIRED: "all"})
    left, found = differences_told(after.facts), differences_told(before.facts)
    reasons = [left if left == found else f"{left} left of {found}", *_lost_told(_lost(before, done))]
    remedy = REMEDY
    if "orphan" in after.facts and why_kept:
        reasons.append(why_kept)
        stored = partial(target.store.count, target.collection, target.tenant)
        way = remedy_of(target.settings, {"orphan": _count(after, "orphan")}, stored)
        remedy = way if why_kept == _LATER or way != BY_RUN else REMEDY
    if before.name == "identity" and done.altered:
        reasons.append(f"{done.altered} of them of rejected records, altered in the store: until these are valid")
    reasons += foreign_told(target.ledger, target.entity, target.collection, after.facts, after.differences)
    if before.name == "identity" and done.cache_misses:
        reasons.append(f"vectors that the cache does not have: {done.cache_misses}, which the repair would pay for")
    return replace(after, message="; ".join([*reasons, *remedies(after.facts, remedy)]))


def _lost(check: CheckOutcome, done: Figures) -> int:
    return done.lost_elsewhere if check.name == "isolation" else done.lost - done.lost_elsewhere


def _repair_message(found: Mapping[str, int | str], lost: int) -> str:
    """`lost`: how many of those that are missing, or were under a wrong tenant, nobody can write."""
    counted = Counter({kind: n for kind, n in found.items() if isinstance(n, int)})
    counted.subtract({"missing": lost} if "missing" in found else {})
    repaired = [f"repaired: {differences_told(+counted)}"] if +counted else []
    return "; ".join([*repaired, *_lost_told(lost)])


def _lost_told(lost: int) -> list[str]:
    told = f"{number_of(lost, 'point')} missing whose records are rejected: their last good version is lost"
    return [told] if lost else []
