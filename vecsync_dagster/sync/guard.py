"""The removal guard where a source is asked about a few records only: whether it is believed about those that it lacks,
or lacks so much of the rest that it is taken for broken. Of what is kept the tenant's full runs decide, with their
guard and their time."""

from __future__ import annotations

from datetime import UTC, datetime

from vecsync_dagster.sources.base import Source
from vecsync_dagster.sync.absence import is_suspicious
from vecsync_dagster.sync.owners import is_in, live
from vecsync_dagster.sync.target import Target

__all__ = ["believes", "lacks_suspiciously_much"]


def believes(target: Target, source: Source, there: int, *, lacking: int | None = None) -> bool:
    """Whether the source, which has so many records of the partition (`there`), is believed about single ones that it
    lacks. Where it has none at all, only if those were asked for one by one, and are all that is held (`lacking`): a
    tenant's last record may go, but an import, or a broken view, is not to take any."""
    if lacks_suspiciously_much(target, source, there):
        return False
    t = target
    return there > 0 or (lacking is not None and t.ledger.tally(t.entity, t.collection, t.tenant).held <= lacking)


def lacks_suspiciously_much(target: Target, source: Source, there: int) -> bool:
    """`there`: how many records the source has of the partition. Of what the store never held nothing can be lost: what
    the source has of it is asked for where that decides."""
    t = target
    tally = t.ledger.tally(t.entity, t.collection, t.tenant)
    guard, unstored = t.settings.removal_guard, tally.rows - tally.held
    if not is_suspicious(guard, tally.held - there + unstored, tally.held):
        return False
    return is_suspicious(guard, tally.held - there + (_of_rejected(t, source) if unstored else 0), tally.held)


def _of_rejected(target: Target, source: Source) -> int:
    """How many records the source has of which the store never held anything, under no id."""
    t = target
    formers = t.ledger.formers(t.entity, t.collection, t.tenant)
    rows = t.ledger.rows(t.entity, t.collection, formers, datetime.now(UTC)) if formers else {}
    held = {str(row.key) for row in rows.values()}
    count = 0
    for some in t.ledger.never_stored(t.entity, t.collection, t.tenant):
        keys = [key for key in some if str(key) not in held]
        found = live(t, source, t.tenant, keys) if keys else set()
        count += sum(is_in(key, found) for key in keys)
    return count
