"""Repairing what differs between ledger and store: on demand, and where a run did not finish."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby

from vecsync_dagster.containment import contained
from vecsync_dagster.documents import Document, DocumentBuilder, Rejection, document_id
from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import LedgerUnavailable, PartitionBusy, SourceRejected, VecsyncError
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.base import LedgerRow
from vecsync_dagster.sources.base import Read, Source, is_certain
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.absence import is_suspicious
from vecsync_dagster.sync.apply import BatchFailed, apply_changes, mark_rejected, remove
from vecsync_dagster.sync.changes import Change, Kind
from vecsync_dagster.sync.compare import (
    FOREIGN,
    NAMED,
    Difference,
    as_of,
    compare_partition,
    compare_row,
    in_chunks,
    is_of,
)
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.guard import believes
from vecsync_dagster.sync.owners import live
from vecsync_dagster.sync.rebuild import take_in
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.whole import UNREAD, was_read
from vecsync_dagster.words import number_of

__all__ = ["repair", "repair_unfinished", "repair_unpaid", "too_many_orphans"]

_log = logging.getLogger(__name__)


def repair_unfinished(
    target: Target, source: Source, *, allow_removals: bool
) -> tuple[Figures, Counter[str], list[Difference]]:
    """Repair what a run that did not finish left in this partition, whose right to sync the caller holds; returns how
    many differences there were of each kind, and the first ones.

    It may have told the store what the ledger never heard of; where the source has changed back since, nothing
    else would look there. Foreign points stay: they are no run's; so do orphans that are too many (the ledger may have
    been lost), and what is another tenant's too, which is being synced.
    """
    counted: Counter[str] = Counter()
    first: list[Difference] = []
    for d in _own(target):
        counted[d.kind] += 1
        if len(first) < NAMED:
            first.append(d)
    kept = too_many_orphans(target, counted["orphan"], allow=allow_removals)
    # More are not kept in memory: they are looked for again.
    found = first if counted.total() == len(first) else _own(target)
    return _mend_beside(target, source, (d for d in found if d.kind != "orphan" or not kept)), counted, first


def _own(target: Target) -> Iterator[Difference]:
    """What differs in the partition and may be a run's of ours."""
    for d in compare_partition(target, wary=True):
        if d.kind != FOREIGN and (d.kind != "orphan" or _is_own_orphan(target, d)):
            yield d


def too_many_orphans(target: Target, orphans: int, *, allow: bool) -> str:
    """Why so many points of the partition are not removed by a run, which the removal guard decides; empty if they are
    not too many, or `allow`ed."""
    t = target
    guard = t.settings.removal_guard
    if allow or not orphans or not is_suspicious(guard, orphans, t.store.count(t.collection, t.tenant)):
        return ""
    return f"the orphans are more than {guard.share:.0%} of the partition: none was removed"


def repair_unpaid(target: Target, source: Source, differences: Iterable[Difference]) -> Figures:
    """Repair what a run found in this partition, whose right to sync the caller holds, without a call of the provider.

    Left as it is: what needs a vector that the cache does not have (`cache_misses` counts those), a document that the
    source does not have, and what is another tenant's too, which is being synced.
    """
    return _mend_beside(target, source, differences, unpaid=True)


def _mend_beside(target: Target, source: Source, differences: Iterable[Difference], *, unpaid: bool = False) -> Figures:
    """Repair beside a run that holds the target's tenant."""
    figures = Figures()
    for tenant, some in _by_tenant(differences):
        other = replace(target, tenant=tenant)
        with suppress(PartitionBusy), _held(other, some, already=target.tenant):
            figures.add(_mend(other, source, some, unpaid=unpaid))
    return figures


def repair(
    target_of: Callable[[str], Target],
    source: Source,
    differences: Iterable[Difference],
    failed: Callable[[str, VecsyncError], None] | None = None,
    *,
    allow_removals: bool = False,
) -> Figures:
    """Repair every difference but foreign points. An orphan whose record the source has is taken into the ledger as it
    is, and its partition is due in full; other orphans are deleted within the removal guard, or where `allow_removals`.
    What else differs is written again from the source's record, with vectors from the cache. A record that the source
    no longer has is removed, if a run has read the whole partition with the settings of today.

    Each tenant is held while it is repaired, also the one under which a point lies by mistake, and what a run has put
    right meanwhile is left alone: what it has written but not yet told the ledger looks like an orphan, or like a
    point of another tenant's. `target_of` gives the target of a tenant. `failed` is told the tenant and error where one
    cannot be repaired, as a run is under way (PartitionBusy) or a service fails, and the others go on; without it the
    first such error is raised. What was repaired stays. Raises LedgerUnavailable.
    """
    figures = Figures()
    gone: dict[str, list[Difference]] = {}

    def of_tenant(tenant: str, some: list[Difference], mend: Callable[[Target], Figures]) -> None:
        try:
            with contained(f"repairing tenant {tenant}"):
                target = target_of(tenant)
                with _held(target, some):
                    figures.add(mend(target))
        except LedgerUnavailable:
            raise
        except VecsyncError as error:
            if failed is None:
                raise
            failed(tenant, error)

    for tenant, some in _by_tenant(d for d in differences if d.kind != FOREIGN):
        lost = gone.setdefault(tenant, [])
        of_tenant(tenant, some, partial(_mend, source=source, differences=some, gone=lost, allow=allow_removals))
    for tenant, some in gone.items():
        of_tenant(tenant, some, partial(_remove_orphans, source=source, orphans=some, allow=allow_removals))
    return figures


def _by_tenant(differences: Iterable[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    for some in in_chunks(differences):
        for tenant, group in groupby(sorted(some, key=_tenant), key=_tenant):
            yield tenant, list(group)


def _tenant(difference: Difference) -> str:
    return difference.tenant or difference.stored_tenant or GLOBAL


@contextmanager
def _held(target: Target, differences: Sequence[Difference], already: str | None = None) -> Iterator[None]:
    """The right to sync all the tenants that these differences are about, but the one that the caller holds already.

    Should the repairing not come to its end, the next full run looks again.
    """
    tenants = {target.tenant, *(d.stored_tenant for d in differences if d.stored_tenant is not None)}
    partition, run_id = (target.entity, target.collection, target.tenant), uuid.uuid4().hex
    with ExitStack() as holds:
        for tenant in sorted(tenants - {already}):
            holds.enter_context(target.ledger.hold(target.entity, tenant))
        target.ledger.begin_writing(*partition, run_id)
        yield
    target.ledger.finish_writing(*partition, [run_id])


def _mend(
    target: Target,
    source: Source,
    differences: Sequence[Difference],
    *,
    unpaid: bool = False,
    gone: list[Difference] | None = None,
    allow: bool = False,
) -> Figures:
    """Differences of one tenant, which is held. Orphans that the source does not have are added to `gone`; None: they
    are removed."""
    t = target
    figures = Figures()
    orphans = _still_orphans(t, [d for d in differences if d.kind == "orphan"])
    there = _at_source(t, source, [d for d in orphans if _is_own_orphan(t, d)])
    taken = take_in(t, list(there), t.ledger.run_start(t.entity, t.collection, t.tenant).at) if there else set()
    if taken:
        t.ledger.doubt(t.entity, t.collection, t.tenant)  # nobody knows how old they are
        figures.taken_in += len(taken)
        # Where runs crossed, a point may have another text's vector: what costs nothing is written again.
        known = [replace(d, kind="stale_hash", tenant=t.tenant) for i, d in there.items() if i in taken]
        figures.add(replace(_rewrite(t, source, known, unpaid=True), cache_misses=0, taken_in=0))
    lost = [d for d in orphans if d.document_id not in there]
    if gone is not None:
        gone += lost
    elif lost:
        t.store.delete_foreign(t.collection, [d.point_id for d in lost])
        figures.removed += len(lost)
    ours = _still_different(t, [d for d in differences if d.kind != "orphan"])
    formers = set(t.ledger.formers(t.entity, t.collection, t.tenant)) if ours else set()
    figures.add(_mend_formers(t, [d for d in ours if d.document_id in formers]))
    ours = [d for d in ours if d.document_id not in formers]
    ours += [d for identity, d in there.items() if identity not in taken]
    if ours:
        figures.add(_rewrite(t, source, ours, unpaid=unpaid, allow=allow))
    return figures


def _remove_orphans(target: Target, source: Source, orphans: Sequence[Difference], *, allow: bool) -> Figures:
    """Raises SourceRejected where they are too many, or may be the last good versions of a tenant's records of which
    the source has none at this moment."""
    t = target
    why = too_many_orphans(t, len(orphans), allow=allow)
    if not why and not allow and any(_is_own_orphan(t, d) for d in orphans) and not source.count(t.tenant):
        why = "it has no record of them at all, and none was removed"
    if why:
        raise SourceRejected(
            f"{t}: {number_of(len(orphans), 'orphan')} that the source does not have: {why}. If that is right: "
            "`vecsync reconcile --repair --allow-removals`",
            entity=t.entity,
            tenant=t.tenant,
        )
    figures = Figures()
    for some in in_chunks(orphans):
        still = _still_orphans(t, some)
        t.store.delete_foreign(t.collection, [d.point_id for d in still])
        figures.removed += len(still)
    return figures


def _at_source(target: Target, source: Source, orphans: Sequence[Difference]) -> dict[str, Difference]:
    """Those whose records the source has, or cannot be asked for by the text of their keys; by document id. Not those
    of which the ledger knows that the store has them under their ids of today."""
    t = target
    today = {d.point_id: document_id(t.tenant, t.config.type or t.entity, d.db_id) for d in orphans if d.db_id}
    rows = t.ledger.rows(t.entity, t.collection, [*today.values()], datetime.now(UTC)) if today else {}
    stored = {i for i, row in rows.items() if row.tenant == t.tenant and row.content_hash is not None}
    orphans = [d for d in orphans if today.get(d.point_id) not in stored]
    keys = [Key(d.db_id) for d in orphans if d.db_id is not None]
    found = live(target, source, target.tenant, keys) if keys else set()
    return {
        d.document_id: d
        for d in orphans
        if d.document_id is not None
        and d.db_id is not None
        and (Key(d.db_id) in found or not is_certain(source, Key(d.db_id)))
    }


def _still_orphans(target: Target, orphans: Sequence[Difference]) -> list[Difference]:
    """Those that the ledger does not know now either: a run may have ended meanwhile."""
    claimed = [d.document_id for d in orphans if d.document_id is not None]
    rows = target.ledger.rows(target.entity, target.collection, claimed, datetime.now(UTC)) if claimed else {}
    return [d for d in orphans if d.document_id not in rows or not is_of(target, d, rows[d.document_id])]


def _still_different(target: Target, differences: Sequence[Difference]) -> list[Difference]:
    """Those that are so now too, as they are now."""
    t = target
    named = {d.document_id: d for d in differences if d.document_id is not None and d.db_id is not None}
    if not named:
        return []
    rows = t.ledger.rows(t.entity, t.collection, list(named), datetime.now(UTC))
    points = {p.point_id: p for p in t.store.retrieve(t.collection, [d.point_id for d in named.values()])}
    found: list[Difference | None] = []
    for identity, d in named.items():
        row, point = rows.get(identity), points.get(d.point_id)
        if row is not None and row.tenant == t.tenant:
            found.append(compare_row(row, d.point_id, point))
    return [d for d in found if d is not None]


def _mend_formers(target: Target, differences: Sequence[Difference]) -> Figures:
    """Of documents that are kept under former ids, which no record can be written to: no good version goes, for it is
    the last one. What lies under a wrong tenant is put back, or goes if it is not as it was written, and what is lost
    is forgotten; the rest stays as it is, until the record is stored under its id of today."""
    t = target
    figures = Figures()
    returned = _return(t, differences)
    figures.payload_only += len(returned)
    strays = [d for d in differences if d.kind == "wrong_tenant" and d.point_id not in returned]
    t.store.delete_foreign(t.collection, [d.point_id for d in strays])
    missing = [d for d in differences if d.kind == "missing"]
    if lost := [d.document_id for d in [*strays, *missing] if d.document_id is not None]:
        t.ledger.forget(t.entity, t.collection, t.tenant, lost)
        figures.lost += len(lost)
        figures.lost_elsewhere += len(strays)
    return figures


def _return(target: Target, differences: Iterable[Difference]) -> set[str]:
    """Puts points that somebody gave to another tenant back under their own. Returns their ids: of what was not written
    so for the tenant nobody knows whose it is."""
    t = target
    ids = [d.point_id for d in differences if d.kind == "wrong_tenant"]
    points = [own for p in (t.store.retrieve(t.collection, ids) if ids else ()) if (own := as_of(t.tenant, p))]
    t.store.set_payload(t.collection, points)
    return {point.point_id for point in points}


def _rewrite(
    target: Target, source: Source, differences: Sequence[Difference], *, unpaid: bool, allow: bool = False
) -> Figures:
    t = target
    figures = Figures()
    wanted = {d.document_id: d for d in differences if d.document_id is not None}
    builder = DocumentBuilder(t.entity, t.config, t.tenant, [t.collection])
    now = datetime.now(UTC)
    ids = [d.db_id for d in wanted.values() if d.db_id is not None]
    found: dict[str, Document] = {}
    rejected: dict[str, Rejection] = {}
    # They are a few hundred at most: read out before anything is embedded, which may have to wait.
    for page in source.read(Read(t.tenant, ids=ids), t.settings.page):
        batch = builder.build(page.records)[t.collection]
        found |= {d.document_id: d for d in _firsts(batch.documents, found) if d.document_id in wanted}
        rejected |= {
            r.document_id: r for r in batch.rejections if r.document_id in wanted and r.document_id is not None
        }
    rejected = {i: r for i, r in rejected.items() if i not in found}
    # Only what was asked for by its key and did not come back is gone.
    there = found.keys() | rejected.keys()
    lost = {i: d for i, d in wanted.items() if i not in there and d.db_id is not None and is_certain(source, d.db_id)}
    # First of all, whatever can be written or removed: what is this tenant's is not to be read by another one.
    returned = _return(t, wanted.values())
    rows = t.ledger.rows(t.entity, t.collection, list(found), now)
    kinds = {i: _mending(wanted[i], rows.get(i), d.content_hash) for i, d in found.items()}
    # What else lies under a wrong tenant may be another one's version, unless its payload alone is written anew.
    misplaced = [i for i, d in wanted.items() if d.kind == "wrong_tenant" and d.point_id not in returned]
    strays = {i for i in misplaced if i in there and kinds.get(i) is not Kind.PAYLOAD_ONLY}
    t.store.delete_foreign(t.collection, [wanted[i].point_id for i in strays])
    changes = [Change(kinds[i], d, rows.get(i)) for i, d in found.items()]
    if unpaid:
        changes, misses = _without_cost(t, changes)
        figures.cache_misses += misses
    for start in range(0, len(changes), t.settings.batch):
        figures.add(_apply(t, changes[start : start + t.settings.batch], now))
    figures.payload_only += sum(1 for c in changes if c.kind is Kind.PAYLOAD_ONLY)
    figures.add(_mend_rejected(t, [(wanted[i], r) for i, r in rejected.items()], strays, now))
    if unpaid or (lost and not was_read(t)):
        figures.payload_only += len(returned - {c.document.point_id for c in changes})
        if not unpaid:
            _log.warning("%s: %d records were asked for, not found and kept: %s", t, len(lost), UNREAD)
        return figures
    if lost and not allow:
        _refuse_a_broken_source(t, source)
    remove(t, t.tenant, [(i, d.point_id) for i, d in lost.items()])
    figures.removed += len(lost)
    return figures


def _mend_rejected(
    target: Target, some: Sequence[tuple[Difference, Rejection]], strays: Container[str], now: datetime
) -> Figures:
    """Of records that are rejected, of which nothing can be written until they are valid again. Another version in the
    store, if it is whole, is the last good one: a run wrote it and could not tell the ledger, or the store is older. Of
    what is lost, as what was under a wrong tenant and not as it was written (`strays`), the ledger says from then on
    that the store does not have it."""
    t = target
    figures = Figures()
    if others := {r.document_id: r for d, r in some if d.kind == "stale_hash" and r.document_id is not None}:
        taken = take_in(t, list(others), now, {i: r.db_key for i, r in others.items()})
        rows = t.ledger.rows(t.entity, t.collection, list(taken), now)
        mark_rejected(t, [r for i, r in others.items() if i in taken], rows, now)
        figures.taken_in += len(taken)
        figures.altered += len(others) - len(taken)
    # Not as it was written, and no version of any record that the ledger knows.
    unknown = [d.point_id for d, _ in some if d.kind == "orphan"]
    t.store.delete_foreign(t.collection, unknown)
    figures.removed += len(unknown)
    gone = {r.document_id: r for d, r in some if r.document_id and (d.kind == "missing" or r.document_id in strays)}
    if gone:
        _log.warning("%s: of %s that are rejected the last good version is lost", t, number_of(len(gone), "record"))
        t.ledger.forget(t.entity, t.collection, t.tenant, list(gone))
        mark_rejected(t, list(gone.values()), {}, now)
        figures.lost += len(gone)
        figures.lost_elsewhere += sum(i in strays for i in gone)
    return figures


def _refuse_a_broken_source(target: Target, source: Source) -> None:
    """Raises SourceRejected where the source lacks so much of what the store has of the tenant, or all of it, that no
    single record goes."""
    t = target
    there = source.count(t.tenant)
    if not believes(t, source, there):
        held = t.ledger.tally(t.entity, t.collection, t.tenant).held
        raise SourceRejected(
            f"{t}: the source has {number_of(there, 'record')}, the ledger {held}: it is taken for broken, and nothing "
            "that it lacks is removed. If that is right, sync all of it with --full --allow-removals",
            entity=t.entity,
            tenant=t.tenant,
        )


def _firsts(documents: Sequence[Document], met: Container[str]) -> list[Document]:
    """The first of those that have one id, as a full read takes it, unless it was met before."""
    first: dict[str, Document] = {}
    for document in documents:
        if document.document_id not in met:
            first.setdefault(document.document_id, document)
    return list(first.values())


def _without_cost(target: Target, changes: Sequence[Change]) -> tuple[list[Change], int]:
    """Those that need no vector or have it in the cache, and how many do not."""
    cached = target.embedder.cached([c.document.text for c in changes])
    free = [c for c, known in zip(changes, cached, strict=True) if known or c.kind is Kind.PAYLOAD_ONLY]
    return free, len(changes) - len(free)


def _apply(target: Target, changes: Sequence[Change], now: datetime) -> Figures:
    try:
        return apply_changes(target, changes, now)
    except BatchFailed as failed:
        error: VecsyncError = failed.error
        raise error from failed


def _mending(difference: Difference, row: LedgerRow | None, content_hash: str) -> Kind:
    if row is None:
        return Kind.NEW
    same_text = row.content_hash == content_hash
    return Kind.PAYLOAD_ONLY if difference.payload_only and same_text else Kind.CHANGED


def _is_own_orphan(target: Target, difference: Difference) -> bool:
    """Whether it is a point that a run of ours wrote: its id is that of the document it names."""
    d = difference
    return d.kind == "orphan" and d.document_id is not None and point_id(target.entity, d.document_id) == d.point_id
