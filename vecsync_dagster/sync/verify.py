"""After a run: does the store hold what the ledger says, and the ledger what the source has? (P10)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sync.compare import Difference, compare_partition
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.target import Target

__all__ = ["CHECKS", "CheckOutcome", "last_full_run", "validation_outcome", "verify"]

LISTED = 20
_RUNS_BACK = 200

CHECKS: Mapping[str, tuple[str, str]] = {
    "validation": ("documents", "Every record became a document; the rejected ones are counted"),
    "counts": ("vectors", "Source, ledger and store hold the same number of documents"),
    "identity": ("vectors", "No missing point, no orphan, no stale hash: compared id by id"),
    "isolation": ("vectors", "No point lies under a wrong tenant"),
    "removal_guard": ("vectors", "The run would not have removed suspiciously much"),
}
"""Check name -> (stage it belongs to, what it says)."""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """One check of one partition. `facts` are ids and counts only; `warning`: bad, but nothing is wrong yet."""

    name: str
    passed: bool
    message: str
    facts: Mapping[str, int | str] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    warning: bool = False


def last_full_run(ledger: Ledger, entity: str, collection: str, tenant: str) -> Figures:
    """Figures of the partition's last successful full run; zeros where there was none."""
    known = {f.name for f in fields(Figures)}
    for run in ledger.runs(entity, tenant, limit=_RUNS_BACK):
        if (run.collection, run.mode, run.outcome) == (collection, "full", "success"):
            return Figures(**{name: value for name, value in run.figures.items() if name in known})
    return Figures()


def validation_outcome(figures: Figures) -> CheckOutcome:
    rejected = figures.invalid
    return CheckOutcome(
        "validation",
        passed=rejected == 0,
        message=f"{rejected} of {figures.fetched} records were rejected" if rejected else "all records are valid",
        facts={"fetched": figures.fetched, "invalid": rejected},
        warning=True,
    )


def verify(
    target: Target, figures: Figures, *, source_rows: int, unidentified: int, full: bool, identity: bool
) -> list[CheckOutcome]:
    """The checks on `vectors`.

    `source_rows`: live rows of the tenant by the source's own count. `unidentified`: rejected records that
    the ledger cannot keep, because they have no id of their own. After an incremental run (`full` False) a
    source of another size is a warning: rows that were deleted or moved away are seen by the next full run.
    """
    outcomes = [_counts(target, source_rows, unidentified, full=full), _guard(target, figures)]
    return outcomes + (_compared(target) if identity else [])


def _compared(target: Target) -> list[CheckOutcome]:
    """Identity and isolation by one pass over ledger and store, in bounded memory: counts, and the first ids."""
    counted: Counter[str] = Counter()
    first: dict[bool, list[Difference]] = {False: [], True: []}
    for difference in compare_partition(target):
        counted[difference.kind] += 1
        some = first[difference.kind == "wrong_tenant"]
        if len(some) < LISTED:
            some.append(difference)
    wrong = Counter({"wrong_tenant": counted.pop("wrong_tenant")} if "wrong_tenant" in counted else {})
    return [_listed("identity", counted, first[False]), _listed("isolation", wrong, first[True])]


def _counts(target: Target, source_rows: int, unidentified: int, *, full: bool) -> CheckOutcome:
    bounds = (target.entity, target.collection, target.tenant)
    rows = target.ledger.count_all(*bounds)
    held = target.ledger.count(*bounds)
    stored = target.store.count(target.collection, target.tenant)
    reasons = []
    if held != stored:
        reasons.append(f"the store has {stored} points, the ledger says {held}")
    if source_rows != rows + unidentified:
        later = "" if full else " (a full run sees rows that were deleted or moved away)"
        reasons.append(f"the source has {source_rows} rows, the ledger accounts for {rows + unidentified}{later}")
    never = rows - held
    explained = f"; {never + unidentified} of the source's rows are rejected or failed" if never + unidentified else ""
    return CheckOutcome(
        "counts",
        passed=not reasons,
        message="; ".join(reasons) if reasons else f"{stored} documents in ledger and store{explained}",
        facts={
            "source": source_rows,
            "ledger": held,
            "store": stored,
            "not_stored": never,
            "unidentified": unidentified,
        },
        warning=held == stored and not full,
    )


def _guard(target: Target, figures: Figures) -> CheckOutcome:
    blocked = figures.removals_blocked
    guard = target.settings.removal_guard
    message = (
        f"the export lacks {blocked} documents that the ledger knows, more than {guard.share:.0%} of the partition: "
        f"nothing was removed. If that is right, run again with --allow-removals"
    )
    return CheckOutcome(
        "removal_guard",
        passed=blocked == 0,
        message=message if blocked else f"{figures.removed} removed",
        facts={"blocked": blocked, "removed": figures.removed},
    )


def _listed(name: str, counted: Mapping[str, int], differences: Sequence[Difference]) -> CheckOutcome:
    message = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(counted.items()))
    if counted:
        message += "; mend with `vecsync reconcile --repair`"
    return CheckOutcome(
        name, passed=not counted, message=message or "none found", facts=dict(counted), differences=differences
    )
