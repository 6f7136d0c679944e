"""After a run: does the store hold what the ledger says, and the ledger what the source has?"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.ledger.base import Ledger, Partition, Tally
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.record_states import Failures
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.absence import is_suspicious
from vecsync_dagster.sync.compare import (
    FOREIGN,
    NAMED,
    Difference,
    compare_partition,
    lies_elsewhere,
    maker_of,
    spoken,
)
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.target import Target
from vecsync_dagster.words import number_of

__all__ = [
    "BY_RUN",
    "CHECKS",
    "LOOK",
    "REMEDY",
    "REPAIRED",
    "CheckOutcome",
    "checks_of",
    "difference_outcome",
    "differences_told",
    "foreign_told",
    "graded",
    "guard_again",
    "held_back",
    "is_unexplained",
    "kept",
    "last_full_run",
    "misplaced_told",
    "once_reported",
    "over_perhaps",
    "rejected_now",
    "remedies",
    "remedy_of",
    "removal_guard",
    "statuses",
    "still_stopped",
    "unidentified_now",
    "validation_outcome",
    "verify",
]

LISTED = 20
_TELLS_WHICH = ("identity", "isolation")
_STOPPED = "stopped"
"""A fact of `validation` alone where the rejected records stopped the run, which wrote nothing: its mode."""
_NAMED = 3
REPAIRED = "repaired"
"""A fact of `identity` or `isolation` whose differences the run that found them has repaired."""
REMEDY = "repair with `vecsync reconcile --repair`"
"""Of what no run repairs."""
BY_RUN = "repair: a full run (`mode: full` in the launchpad) or `vecsync reconcile --repair`"
BY_REMOVAL = (
    "if so many orphans are to go: a full run with `allow_removals` or `vecsync reconcile --repair --allow-removals`"
)
LOOK = "`vecsync reconcile` names what differs"
STOPPED = "a removal was stopped: the check removal_guard says what to do"
_THEIRS = (
    "foreign points were written by another entity or another project, and no sync of this one removes them: if "
    "somebody else uses the collection, give it another name"
)

CHECKS: Mapping[str, tuple[str, str]] = {
    "validation": ("documents", "Every record became a document; the rejected ones are counted"),
    "counts": ("vectors", "Source, ledger and store hold the same number of documents"),
    "identity": ("vectors", "No missing point, no orphan and no stale hash; compared id by id"),
    "isolation": ("vectors", "No point lies under a wrong tenant"),
    "removal_guard": ("vectors", "No unusually large removal was blocked"),
    "statuses": ("vectors", "No document failed, and none has used up its retries"),
    "collections": ("vectors", "No record is in other collections of its entity alone"),
    "truncation": ("vectors", "Few texts are longer than what the model takes"),
}
"""Check name -> (stage it belongs to, what it says)."""


def checks_of(entity: EntityConfig) -> Mapping[str, tuple[str, str]]:
    """Those of `CHECKS` that an entity has: one collection alone cannot lack what another one has."""
    return {name: check for name, check in CHECKS.items() if name != "collections" or len(entity.collections) > 1}


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """One check of one partition. `facts` are ids and counts only, `rows` the first ids, `differences` the first
    `compare.NAMED`; `warning`: bad, but nothing is wrong yet. `over`: it passed, and had failed before."""

    name: str
    passed: bool
    message: str
    facts: Mapping[str, int | str] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    warning: bool = False
    rows: Sequence[Mapping[str, str]] = ()
    over: bool = False


def graded(outcome: CheckOutcome, checks: ChecksConfig) -> CheckOutcome:
    """The outcome with the severity that the configuration gives it, if it gives one."""
    wanted = checks.severity_of(outcome.name)
    return outcome if wanted is None else replace(outcome, warning=wanted == "warn")


def kept(
    outcome: CheckOutcome, entity: str, collection: str, tenant: str, at: datetime, run_id: str = ""
) -> CheckResult:
    """What the ledger keeps of an outcome; collection and tenant are empty for a check over all partitions."""
    return CheckResult(
        entity=entity,
        check=outcome.name,
        passed=outcome.passed,
        message=outcome.message,
        at=at,
        collection=collection,
        tenant=tenant,
        warning=outcome.warning,
        facts=outcome.facts,
        run_id=run_id,
    )


def last_full_run(ledger: Ledger, entity: str, collection: str, tenant: str) -> Figures:
    """Figures of the partition's last successful full run; zeros where there was none."""
    last = ledger.runs(entity, tenant, 1, collection=collection, mode="full", outcome="success")
    return Figures.of(last[0].figures) if last else Figures()


def unidentified_now(ledger: Ledger, entity: str, collection: str, tenant: str) -> int:
    """Rejected records without a usable id of their own: those of the last full run, which met every record, and those
    that runs have met since."""
    full = next(iter(ledger.runs(entity, tenant, 1, collection=collection, mode="full", outcome="success")), None)
    found = 0 if full is None else int(full.figures.get("unidentified", 0))
    return found + ledger.unidentified_since(Partition(entity, collection, tenant), full)


def validation_outcome(figures: Figures, *, stopped: str | None = None) -> CheckOutcome:
    """`stopped`: the mode of the run that wrote nothing because of them."""
    rejected = figures.invalid
    return CheckOutcome(
        "validation",
        passed=rejected == 0,
        message=_rejected(rejected, figures.fetched) if rejected else "all records are valid",
        facts={"fetched": figures.fetched, "invalid": rejected, **({_STOPPED: stopped} if stopped else {})},
        warning=stopped is None,
    )


def _rejected(count: int, total: int) -> str:
    return f"{count:,} of {number_of(total, 'record')} rejected, see `vecsync invalid`"


def rejected_now(tally: Tally, unidentified: int) -> CheckOutcome:
    """`validation` after a run that did not meet every record: what it did not meet is rejected still."""
    rejected = tally.failures.rejected + tally.stale + unidentified
    return CheckOutcome(
        "validation",
        passed=rejected == 0,
        message=_rejected(rejected, tally.rows + unidentified) if rejected else "all records are valid",
        facts={"invalid": rejected},
        warning=True,
    )


def still_stopped(failed: Iterable[CheckResult], *, incremental: bool = False) -> CheckOutcome | None:
    """`validation`, among a partition's `failed` checks, as a run left it that its rejected records stopped: whoever
    does not read all that this run read cannot say that it is over. `incremental`: asked by an incremental run, which
    reads again what another one read."""
    for one in failed:
        if one.check == "validation" and _STOPPED in one.facts:
            if incremental and one.facts[_STOPPED] == "incremental":
                return None
            return _as_kept(one)
    return None


def held_back(failed: Iterable[CheckResult]) -> CheckOutcome | None:
    """`removal_guard`, among a partition's `failed` checks: as the run left it that kept what the source lacks."""
    return next((_as_kept(one) for one in failed if one.check == "removal_guard"), None)


def _as_kept(result: CheckResult) -> CheckOutcome:
    return CheckOutcome(result.check, result.passed, result.message, result.facts, warning=result.warning)


def verify(
    target: Target,
    figures: Figures,
    tally: Tally,
    *,
    source_rows: int,
    unidentified: int,
    full: bool,
    identity: bool,
    held: CheckOutcome | None = None,
) -> list[CheckOutcome]:
    """The checks on `vectors`, without `removal_guard`: that is the run's that read every record.

    `source_rows`: live rows of the tenant by the source's own count. `unidentified`: rejected records that
    the ledger cannot keep, because they have no id of their own. `held`: see `held_back`. Other than after a full run
    (`full`) a source of another size is a warning: rows that were deleted or moved
    away are seen by the next full run, unless that is what the guard blocks; and some of the `unidentified` may be
    valid or gone by now.
    """
    # Where the source still has nothing, what waits for a second look explains the difference.
    waits = figures.removals_waiting or (0 if held is None or full else int(held.facts.get("waiting", 0)))
    stopped = bool(figures.removals_blocked) or (held is not None and bool(held.facts.get("blocked")))
    waiting = 0 if source_rows else waits
    counts = _counts(target, tally, source_rows, unidentified, waiting, full=full, stopped=stopped)
    outcomes = [counts, statuses(target, tally.failures), _truncation(target, tally)]
    if not identity:
        return outcomes
    # Both look at every document: not for an incremental run, which is to cost what changed.
    return outcomes + _compared(target) + ([_collections(target)] if len(target.config.collections) > 1 else [])


def once_reported(failed: Iterable[CheckResult]) -> list[CheckOutcome]:
    """Of a partition's `failed` checks those whose differences a run has repaired. Such are reported once: the next
    run, which compares nothing, has nothing to add."""
    told = "none found since the last ones were repaired"
    return [CheckOutcome(one.check, True, told) for one in failed if REPAIRED in one.facts]


def over_perhaps(target: Target, failed: Iterable[CheckResult], tally: Tally, *, whole: bool) -> list[CheckOutcome]:
    """Of a partition's `failed` checks those that ask the ledger alone, made again after a run that wrote: what they
    named may be there now. `whole`: the run made `truncation` itself."""
    names = {one.check for one in failed}
    again = [_truncation(target, tally)] if "truncation" in names and not whole else []
    return again + ([_collections(target)] if "collections" in names and len(target.config.collections) > 1 else [])


def statuses(target: Target, failures: Failures) -> CheckOutcome:
    """Failed documents warn; those that nothing will try again are an error. Rejected records are `validation`'s."""
    t = target
    told = {"will be tried again": failures.waiting, "permanent": failures.permanent}
    message = ", ".join(f"{count} {what}" for what, count in told.items() if count)
    if failures.permanent:
        message += "; `vecsync retry --reset` tries those again"
    failed = failures.waiting + failures.permanent
    rows = t.ledger.failed_rows(t.entity, [t.collection], limit=LISTED, tenant=t.tenant) if failed else []
    return CheckOutcome(
        "statuses",
        passed=not failed,
        message=f"failed: {message}" if message else "none failed",
        facts={"failed": failed, "waiting": failures.waiting, "permanent": failures.permanent},
        warning=not failures.permanent,
        rows=[
            {
                "document": row.document_id,
                "error": row.error_code,
                "attempts": str(row.retry_count),
                "next": "never" if row.next_attempt_at is None else f"{row.next_attempt_at:%Y-%m-%d %H:%M:%S}",
            }
            for row in rows
        ],
    )


def _truncation(target: Target, tally: Tally) -> CheckOutcome:
    """What the model does not get of a text no search can find."""
    place = (target.entity, target.collection, target.tenant)
    cut, held = tally.truncated, tally.held
    limit = f"the {target.embedder.provider.max_tokens:,} tokens that {target.space.model} takes"
    ids = target.ledger.truncated_ids(*place, LISTED) if cut else []
    more = f" and {cut - len(ids):,} more" if cut > len(ids) else ""
    told = f"{cut:,} of {number_of(held, 'text')} cut to {limit}: {', '.join(ids)}{more}"
    return CheckOutcome(
        "truncation",
        passed=cut <= target.max_truncated_share * held,
        message=told if cut else f"no text is longer than {limit}",
        facts={"truncated": cut, "held": held},
        warning=True,
    )


def _collections(target: Target) -> CheckOutcome:
    t = target
    others = [name for name in t.config.collections if name != t.collection]
    count, first = t.ledger.absent(t.entity, t.collection, others, t.tenant, LISTED)
    return CheckOutcome(
        "collections",
        passed=not count,
        message=f"{number_of(count, 'record')} in other collections alone" if count else "none is missing here",
        facts={"missing": count},
        warning=True,
        rows=[{"document": identity, "error": code or ""} for identity, code in first],
    )


def _compared(target: Target) -> list[CheckOutcome]:
    """Identity and isolation by one pass over ledger and store, in bounded memory."""
    counted: Counter[str] = Counter()
    first: dict[bool, list[Difference]] = {False: [], True: []}
    for difference in compare_partition(target, wary=True):
        counted[difference.kind] += 1
        some = first[difference.kind == "wrong_tenant"]
        if len(some) < NAMED:
            some.append(difference)
    wrong = Counter({"wrong_tenant": counted.pop("wrong_tenant")} if "wrong_tenant" in counted else {})
    theirs = foreign_told(target.ledger, target.entity, target.collection, counted, first[False])
    stored = partial(target.store.count, target.collection, target.tenant)
    identity, isolation = (remedy_of(target.settings, some, stored) for some in (counted, wrong))
    return [
        difference_outcome("identity", counted, first[False], theirs, identity),
        difference_outcome("isolation", wrong, first[True], misplaced_told(target.tenant, first[True]), isolation),
    ]


def _counts(
    target: Target, tally: Tally, source_rows: int, unidentified: int, waiting: int, *, full: bool, stopped: bool
) -> CheckOutcome:
    blocked = full or stopped
    rows, held = tally.rows - tally.former, tally.held
    stored = target.store.count(target.collection, target.tenant)
    # Somebody else's points are not to stand in for those that are lost.
    own = target.store.count(target.collection, target.tenant, target.entity) if stored else 0
    reasons = []
    if not held == stored == own:
        of_others = f", {stored - own:,} of them not of {target.entity}" if stored != own else ""
        reasons.append(f"the store has {number_of(stored, 'point')}{of_others}, the ledger says {held:,}")
    most = rows + unidentified
    if not (most if full else rows) <= source_rows + waiting <= most:
        later = "" if blocked else " (a full run sees rows that were deleted or moved away)"
        has = f"the source has {number_of(source_rows, 'row')}"
        reasons.append(f"{has}, the ledger accounts for {most}{later}")
    hints = [LOOK] if not held == stored == own else []
    if blocked and reasons and not hints:
        hints.append(STOPPED if stopped else "a full run (`mode: full` in the launchpad) reads the source again")
    if held != own:
        hints.append(remedy_of(target.settings, {"orphan": max(own - held, 0)}, lambda: stored))
    never = tally.rows - held
    unidentified = min(unidentified, max(source_rows + waiting - rows, 0))
    lost = never + unidentified
    are = "is" if lost == 1 else "are"
    explained = f"; {lost:,} of the source's rows {are} rejected or failed" if lost else ""
    if waiting:
        explained = f"; the source has none, and {_waiting(waiting)}"
    agree = f"{number_of(stored, 'document')} in ledger and store{explained}"
    return CheckOutcome(
        "counts",
        passed=not reasons,
        message="; ".join([*reasons, *hints]) if reasons else agree,
        facts={
            "source": source_rows,
            "ledger": held,
            "store": stored,
            "not_stored": never,
            "unidentified": unidentified,
            **({"former": tally.former} if tally.former else {}),
            **({"own": own} if own != stored else {}),
        },
        warning=held == stored == own and not blocked,
    )


def is_unexplained(found: Iterable[CheckOutcome], failed: Iterable[CheckResult]) -> bool:
    """Whether the store of the partition does not have as many points as the ledger says, and no comparison has told
    which: none of the `failed` checks, as they were before, or since then the two differ by another number."""
    before = {one.check: one for one in failed}
    told = any(name in before and REPAIRED not in before[name].facts for name in _TELLS_WHICH)
    known = _surplus(before["counts"].facts) if told and "counts" in before else None
    return any(one.name == "counts" and _surplus(one.facts) not in ((0, 0), known) for one in found)


def _surplus(facts: Mapping[str, int | str]) -> tuple[int, int]:
    """How many points the store has more than the ledger says: in all, and of the entity."""
    ledger, stored = int(facts["ledger"]), int(facts["store"])
    return stored - ledger, int(facts.get("own", stored)) - ledger


def guard_again(held: CheckOutcome, tally: Tally, source_rows: int, unidentified: int) -> CheckOutcome:
    """`removal_guard` by a look that did not meet every record: over where source and ledger agree, else as it was."""
    if source_rows != tally.rows - tally.former + unidentified:
        return held
    return CheckOutcome(held.name, True, "source and ledger agree", {"blocked": 0})


def removal_guard(
    target: Target, figures: Figures, lacking: Sequence[str] = (), counted: tuple[int, int] | None = None
) -> CheckOutcome:
    """`lacking`: the first documents that were kept. `counted`: after a run of single records, how many the source has,
    and how many are held."""
    blocked = figures.removals_blocked
    guard = target.settings.removal_guard
    of = GLOBAL if target.tenant == GLOBAL else f"tenant {shlex.quote(target.tenant)}"
    command = f"`vecsync sync {of} --entity {target.entity} --full --allow-removals`"
    way = f"{command}, or in the launchpad `mode: full` and `allow_removals: true`"
    lacks = f"the source no longer has {number_of(blocked, 'synced document')}, over {guard.share:.0%} of the partition"
    if counted is not None:
        there, held = counted
        of = f"{held:,} synced documents (it has {number_of(there, 'record')})"
        lacks = f"the source lacks more than {guard.share:.0%} of {of}, among them {blocked:,} asked for by id"
    message = (
        f"{lacks}: nothing was removed. "
        f"If they are really gone, or the fields of `id` in vecsync.yaml were changed: {way}"
        + (f"; the first are {', '.join(lacking[:_NAMED])}" if lacking else "")
    )
    waiting = figures.removals_waiting
    if waiting:
        message = (
            f"the source has no record at all: {_waiting(waiting)}. If it stays so, a later run removes them; to "
            f"remove them now: {way}"
        )
    return CheckOutcome(
        "removal_guard",
        passed=not blocked and not waiting,
        message=message if blocked or waiting else f"{figures.removed} removed",
        facts={"blocked": blocked, "removed": figures.removed, **({"waiting": waiting} if waiting else {})},
        warning=not blocked and waiting > 0,
        rows=[{"document": identity} for identity in lacking],
    )


def _waiting(removals: int) -> str:
    return f"{number_of(removals, 'removal')} {'waits' if removals == 1 else 'wait'} for a second look"


def remedies(counted: Iterable[str], remedy: str = REMEDY) -> list[str]:
    """What to do about them. What is foreign alone is not to be removed without a thought."""
    return [remedy] if set(counted) - {FOREIGN} else []


def remedy_of(settings: SyncConfig, counted: Mapping[str, int], stored: Callable[[], int]) -> str:
    """What repairs differences of one partition, in which so many points are `stored`."""
    if settings.repair == "report" or settings.verify == "counts":
        return REMEDY
    orphans = counted.get("orphan", 0)
    return BY_REMOVAL if orphans and is_suspicious(settings.removal_guard, orphans, stored()) else BY_RUN


def differences_told(counted: Mapping[str, int | str]) -> str:
    return ", ".join(f"{count} {spoken(kind)}" for kind, count in sorted(counted.items()))


def misplaced_told(tenant: str, differences: Sequence[Difference]) -> list[str]:
    """Which way points are under a wrong tenant, where some of those of this `tenant`'s partition are."""
    wrong = [d for d in differences if d.kind == "wrong_tenant"]
    away = [d for d in wrong if d.tenant == tenant and lies_elsewhere(d)]
    here = [d for d in wrong if d.tenant != tenant and lies_elsewhere(d)]
    every = [d for d in wrong if not lies_elsewhere(d)]
    told = [
        f"{number_of(len(some), 'point')} of {whose} {'lies' if len(some) == 1 else 'lie'} under {where}"
        for some, whose, where in (
            (away, "this tenant", "another one"),
            (here, "another tenant", "this one"),
            (every, "this tenant", "no tenant, or can be read by all"),
        )
        if some
    ]
    first = f"of the first {NAMED:,}: " if len(wrong) >= NAMED else ""
    return [f"{first}{', '.join(told)}"] if told else []


def foreign_told(
    ledger: Ledger,
    entity: str,
    collection: str,
    counted: Mapping[str, int | str],
    differences: Iterable[Difference],
) -> list[str]:
    """What foreign points are, if there are any, and what removes those that are among the `differences`. Of an entity
    that the ledger does not know nothing proves that it left."""
    if FOREIGN not in counted:
        return []
    foreign = [d for d in differences if d.kind == FOREIGN]
    others = [d for d in foreign if d.entity not in (None, entity)]
    known = {name for name, one in ledger.collections() if one == collection}
    makers = sorted({maker for d in others if (maker := maker_of(d)) is not None})
    told = [
        f"if {name} was renamed, `vecsync drop {collection} --entity {name}{'' if name in known else ' --force'}` "
        "removes what it left"
        for name in makers[:_NAMED]
    ]
    if any(maker_of(d) is None for d in others):
        told.append("what vecsync did not make only those can remove who did")
    if len(foreign) > len(others):
        told.append(f"if nobody does, {REMEDY}")
    return ["; ".join([_THEIRS, *told])]


def difference_outcome(
    name: str,
    counted: Mapping[str, int],
    differences: Sequence[Difference],
    theirs: Sequence[str] = (),
    remedy: str = REMEDY,
) -> CheckOutcome:
    """`identity` or `isolation`, from how many differences there are of each kind and the first of them; `theirs`: what
    is told of foreign ones, or of those under a wrong tenant."""
    told = [differences_told(counted), *theirs, *remedies(counted, remedy)]
    message = "; ".join(told) if counted else "none found"
    return CheckOutcome(name, passed=not counted, message=message, facts=dict(counted), differences=differences)
