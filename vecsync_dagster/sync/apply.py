"""Doing what was decided: the store learns first, the ledger second, batch by batch.

A crash between the two is repaired by the next run: it finds the document unconfirmed, writes the same
point again, and takes the vector from the cache. What no row tells of is found by the marks of `writing.py`.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.config.models import RetryConfig
from vecsync_dagster.containment import contained, unforeseen
from vecsync_dagster.documents import Rejection, document_id
from vecsync_dagster.documents.fields import field_hashes, modified_fields
from vecsync_dagster.documents.hashing import attempt_hash, point_id
from vecsync_dagster.embedding.base import Limited
from vecsync_dagster.embedding.cache import Paid, TextUse
from vecsync_dagster.errors import LedgerRejected, SpaceMismatch, StoreRejected, VecsyncError
from vecsync_dagster.ledger.base import Confirmed, Failed, LedgerRow
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync.changes import Change, Kind
from vecsync_dagster.sync.compare import as_of
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.suspects import Failure, Refusal, Step, Suspects
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.writing import leave_mark

__all__ = [
    "BatchFailed",
    "apply_changes",
    "backoff",
    "embed_changes",
    "fail_changes",
    "find_recut",
    "keep_failed",
    "keep_texts",
    "mark_rejected",
    "outage_backoff",
    "remove",
    "settle",
]

T = TypeVar("T")
Vector = NDArray[np.float32]
_Fields = tuple[str | None, tuple[str, ...] | None]


class _Text(NamedTuple):
    change: Change
    vector: Vector
    use: TextUse


def apply_changes(
    target: Target, changes: Sequence[Change], seen_at: datetime, suspects: Suspects | None = None
) -> Figures:
    """Write one batch: payloads, vectors, and after each confirmed write the ledger. Returns what it did.

    A document that fails alone is marked alone. An error of the whole service marks what it left
    unwritten and is raised as `BatchFailed`: going on would only repeat it. `suspects`: those of all batches of a
    run, whose end settles them; None where this is the only one.
    """
    batch = _Batch(target, seen_at, suspects or Suspects(target))
    try:
        with contained(f"{target}: writing a batch"):
            batch.write(changes)
            if suspects is None:
                _, error = batch.settle()
                if error is not None:
                    raise error
    except VecsyncError as error:
        done = batch.confirmed | batch.refused
        left = [change for change in changes if change.document.document_id not in done]
        batch.mark([(change, error) for change in left], alone=False)
        raise BatchFailed(error, batch.figures) from error
    return batch.figures


def settle(target: Target, suspects: Suspects, seen_at: datetime) -> tuple[Figures, list[Change], VecsyncError | None]:
    """Mark the documents that were held until the end of the run: what was done, which they are, and the error of the
    whole partition, where they are not all to blame themselves."""
    batch = _Batch(target, seen_at, suspects)
    changes, error = batch.settle()
    return batch.figures, changes, error


def fail_changes(target: Target, changes: Sequence[Change], error: VecsyncError, seen_at: datetime) -> Figures:
    """Mark a batch as failed whose store cannot be reached at all: nothing is tried, and nothing paid for."""
    batch = _Batch(target, seen_at, Suspects(target))
    batch.mark([(change, error) for change in changes], alone=False)
    return batch.figures


class BatchFailed(Exception):
    """The batch ended early: the error, and the figures of what it did before."""

    def __init__(self, error: VecsyncError, figures: Figures) -> None:
        super().__init__(str(error))
        self.error = error
        self.figures = figures


def embed_changes(target: Target, changes: Sequence[Change]) -> Figures:
    """Warm the cache with the texts of these changes; the store and the ledger's rows stay as they are."""
    figures = Figures()
    try:
        _, failures = _embed(target, [c for c in changes if c.kind is not Kind.PAYLOAD_ONLY], figures)
    except VecsyncError as error:
        raise BatchFailed(error, figures) from error
    figures.failed += len(failures)
    return figures


def keep_texts(target: Target, changes: Sequence[Change]) -> None:
    """Of documents whose vectors stay: which text theirs is, where the ledger does not know it yet (rows of earlier
    versions, and of a rebuild)."""
    space = str(target.space)
    unknown = [
        change.document
        for change in changes
        for row in (change.row,)
        if row is not None and not row.knows_text
        if (row.content_hash, row.space) == (change.document.content_hash, space)
    ]
    if unknown:
        t = target
        uses = zip(unknown, t.embedder.uses([document.text for document in unknown]), strict=True)
        texts = {document.document_id: (use.text_hash, use.truncated) for document, use in uses if use is not None}
        t.ledger.keep_texts(t.entity, t.collection, t.tenant, t.space, texts)


def find_recut(target: Target, changes: Sequence[Change]) -> None:
    """Documents whose vectors are of another text than the model gets now, as its limit was another one, are changed:
    their text is cut, or was. Only those are looked at that the ledger did not recognise (a record's hash knows the
    limit), and that are long enough."""
    provider = target.embedder.provider
    if not isinstance(provider, Limited):
        return
    kept = [
        change
        for change in changes
        if change.kind in (Kind.UNCHANGED, Kind.PAYLOAD_ONLY)
        and change.row is not None
        and change.row.text_hash
        and change.row.content_hash == change.document.content_hash
        and (change.row.truncated or not provider.surely_fits(change.document.text))
    ]
    uses = target.embedder.uses([change.document.text for change in kept]) if kept else []
    for change, use in zip(kept, uses, strict=True):
        if use is None or change.row is None or not (use.truncated or change.row.truncated):
            continue  # another letter case, or order, is no change
        if change.row.text_hash != use.text_hash:
            change.kind = Kind.CHANGED


def mark_rejected(
    target: Target, rejections: Sequence[Rejection], rows: Mapping[str, LedgerRow], seen_at: datetime
) -> None:
    """Rows that the store holds stay and become stale: a bad record is no reason to lose the last good one. Records
    never stored get a failed row, so that the ledger accounts for every record. `rows`: those of their documents."""
    t = target
    identified = {r.document_id: r for r in rejections if r.document_id is not None}
    stored = [i for i in identified if i in rows and rows[i].tenant == t.tenant and rows[i].content_hash]
    # Reasons name fields and types, no values: many records share one.
    by_reason: dict[tuple[str, str], list[str]] = {}
    for identity in stored:
        rejection = identified.pop(identity)
        by_reason.setdefault((rejection.code, rejection.error), []).append(identity)
    for (code, error), ids in by_reason.items():
        t.ledger.mark_stale(t.entity, t.collection, t.tenant, ids, code, error, seen_at)
    # A row of another tenant is that tenant's to remove: its document does not exist here.
    never = [(i, r) for i, r in identified.items() if i not in rows or rows[i].tenant == t.tenant]
    failures = [
        Failed(
            document_id=identity,
            db_id=rejection.db_id or "",
            point_id=point_id(t.entity, identity),
            attempt_hash="",
            error_code=rejection.code,
            error=rejection.error,
            retry_count=0,
            next_attempt_at=None,
            db_key=rejection.db_key,
        )
        for identity, rejection in never
    ]
    keep_failed(t, failures, seen_at)


def keep_failed(target: Target, failures: Sequence[Failed], seen_at: datetime) -> None:
    """What another owner holds stays as it is: see `former.py`."""
    t = target
    t.ledger.fail(t.entity, t.collection, t.tenant, t.space, failures, seen_at)


def remove(target: Target, tenant: str, rows: Sequence[tuple[str, str]], *, with_vectors: bool = False) -> None:
    """Remove (document id, point id) rows of one partition: from the store, then from the ledger; `with_vectors`: and
    what nobody else needs from the cache.

    A store that fails keeps the rows, so that the next run tries again.
    """
    if rows:
        points = [point_id for _, point_id in rows]
        target.store.delete(target.collection, tenant, points)
        # Somebody gave these to another tenant. What that one's run has written is its own, and whole as it lies.
        left = target.store.retrieve(target.collection, points)
        misplaced = [p.point_id for p in left if p.tenant is None or as_of(p.tenant, p) is None]
        target.store.delete_foreign(target.collection, misplaced)
        ids = [identity for identity, _ in rows]
        keys = _keys(target, tenant, ids) if target.config.writeback else []
        target.ledger.forget(target.entity, target.collection, tenant, ids, with_vectors=with_vectors)
        target.left(keys)


def _keys(target: Target, tenant: str, ids: Sequence[str]) -> list[str]:
    """The keys of documents of one partition: as the ledger has them, for the id may be one of a former type."""
    t = target
    rows = t.ledger.rows(t.entity, t.collection, ids, t.ledger.now())
    own = document_id(tenant, t.config.type or t.entity, "")
    return [row.key if (row := rows.get(i)) and row.tenant == tenant else i.removeprefix(own) for i in ids]


def backoff(failures: int, config: RetryConfig) -> timedelta | None:
    """Time to wait after that many consecutive failures; None when the retries are used up."""
    if failures > config.max_retries:
        return None
    # The exponent is bounded so that a large multiplier cannot overflow before the cap applies.
    factor = min(config.multiplier ** min(failures - 1, 64), config.cap / config.base if config.base else 1.0)
    return min(config.base * factor, config.cap)


def outage_backoff(waited: timedelta | None, config: RetryConfig) -> timedelta:
    """Time to wait in an outage, after the wait before; it never ends. The next run that gets there tries at once."""
    if waited is None:
        return min(config.base, config.cap)
    return min(max(waited, config.base) * config.multiplier, config.cap)


class _Batch:
    """One batch on its way: who was confirmed, who failed alone, and the figures so far."""

    def __init__(self, target: Target, seen_at: datetime, suspects: Suspects) -> None:
        self.target = target
        self.suspects = suspects
        self.seen_at = seen_at
        self.figures = Figures()
        self.confirmed: set[str] = set()
        self.refused: set[str] = set()

    def write(self, changes: Sequence[Change]) -> None:
        if any(self._moved(change) for change in changes):
            leave_mark(self.target, self.target.tenant)  # the other tenant's run may be writing them too
        missing = self._payloads([c for c in changes if c.kind is Kind.PAYLOAD_ONLY])
        self._vectors([c for c in changes if c.kind is not Kind.PAYLOAD_ONLY] + missing)

    def _payloads(self, changes: list[Change]) -> list[Change]:
        """Returns those whose point is not there: somebody deleted it, so it is written anew with its vector."""
        missing: list[Change] = []
        gone: set[str] = set()

        def send(some: Sequence[Change]) -> bool:
            lost = self.target.store.set_payload(self.target.collection, [_point(change) for change in some])
            gone.update(lost)
            return len(lost) < len(some)

        def keep(some: Sequence[Change]) -> None:
            self._confirm(there := [c for c in some if c.document.point_id not in gone])
            keep_texts(self.target, there)
            missing.extend(c for c in some if c.document.point_id in gone)

        for some in self._portions(Step.PAYLOAD, changes):
            self._isolate(Step.PAYLOAD, some, lambda change: change, send, keep)
        return missing

    def _vectors(self, changes: list[Change]) -> None:
        for some in self._portions(Step.VECTORS, changes):
            embedded, failures = _embed(self.target, some, self.figures)
            self.fail(failures)
            self._isolate(Step.VECTORS, embedded, lambda one: one.change, self._upsert, self._confirm_vectors)

    def _portions(self, step: Step, changes: list[Change]) -> Iterator[list[Change]]:
        """All at once. Where this run has written nothing in many attempts: a single one, another one in each run, and
        the others only where that one was written."""
        if changes and self.suspects.given_up(step):
            one = random.choice(changes)  # noqa: S311 (it decides nothing)
            yield [one]
            changes = [change for change in changes if change is not one]
            error = self.suspects.given_up(step)
            if error is not None:
                self._leave_out(changes, error)
                return
        if changes:
            yield changes

    def _upsert(self, some: Sequence[_Text]) -> bool:
        self.target.store.upsert(self.target.collection, [_point(one.change, one.vector) for one in some])
        return True

    def _confirm_vectors(self, some: Sequence[_Text]) -> None:
        try:
            self.target.embedder.require_origin()
            self._confirm([one.change for one in some], {one.change.document.document_id: one.use for one in some})
        except (LedgerRejected, SpaceMismatch) as error:
            # Another entity's, or another model's: no row would ever tell of these points.
            if isinstance(error, SpaceMismatch) or "owner" in error.fields:
                rows = ((one.change.document.point_id, one.change.row) for one in some)
                new = [point for point, row in rows if row is None or row.content_hash is None]
                self.target.store.delete_foreign(self.target.collection, new)
            raise
        self.figures.upserted += len(some)

    def _isolate(
        self,
        step: Step,
        items: Sequence[T],
        change_of: Callable[[T], Change],
        send: Callable[[Sequence[T]], bool],
        keep: Callable[[Sequence[T]], None],
    ) -> None:
        """Write all items; where the store refuses some, or nobody foresaw what they raise, find those by halving and
        write the others. `send` returns whether the store had anything to write; `keep` confirms it.

        What the store would refuse of any item, or without any, is raised: halving would only repeat it for each of
        them. After a single item was refused, and until one is taken, the largest group is tried in turn with the
        smallest: wherever those are that it takes, a few attempts find one.
        """
        refusals: list[Refusal] = []
        groups = [items] if items else []  # the smallest first
        largest = taken = False
        while groups:
            some = groups.pop(-1 if largest else 0)
            changes = [change_of(item) for item in some]
            refused = self._attempt(((step, partial(send, some)), (Step.LEDGER, partial(keep, some))), changes)
            taken = taken or refused is None
            largest = bool(refusals) and not largest and not taken
            if refused is None:
                continue
            where, reason = refused
            self.suspects.missed(where, reason)
            stuck = self.suspects.stuck(step)
            if len(some) > 1 and not stuck:
                half = len(some) // 2
                for part in (some[:half], some[half:]):
                    insort(groups, part, key=len)
                continue
            what = "a batch" if len(some) > 1 else f"record {changes[0].document.db_id}"
            error = reason if isinstance(reason, VecsyncError) else unforeseen(reason, f"{self.target}: writing {what}")
            if len(some) == 1:
                refusals.append(self.suspects.refused(where, (changes[0], error)))
                changes = []
            if stuck:
                self.suspects.give_up(step, error)
                self._leave_out(changes + [change_of(item) for group in groups for item in group], error)
                break
        self.fail(self.suspects.decide(refusals))
        self.refused.update(refusal.failure[0].document.document_id for refusal in refusals)

    def _attempt(
        self, steps: Sequence[tuple[Step, Callable[[], bool | None]]], changes: Sequence[Change]
    ) -> tuple[Step, Exception] | None:
        """Write some items; the step at which they could not be, and why, where that may be one's fault alone."""
        for step, do in steps:
            began = self.suspects.begin(step)
            try:
                done = do()
            except StoreRejected as error:
                if error.every_document:
                    raise
                return step, error
            except (VecsyncError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 (whatever it is, it may be one document's)
                return step, error
            if done is not False:
                self.suspects.accepted(step, began, changes[-1].document.payload)
        return None

    def _leave_out(self, changes: Sequence[Change], error: VecsyncError) -> None:
        """They are not tried in this run."""
        self.refused.update(change.document.document_id for change in changes)
        self.mark([(change, error) for change in changes], alone=False)

    def settle(self) -> tuple[list[Change], VecsyncError | None]:
        own, others, error = self.suspects.settle()
        self.mark(own, alone=True)
        self.mark(others, alone=False)
        return [change for change, _ in own + others], error

    def _moved(self, change: Change) -> bool:
        return change.row is not None and change.row.tenant != self.target.tenant

    def _confirm(self, changes: Sequence[Change], uses: Mapping[str, TextUse] | None = None) -> None:
        """`uses`: by document id, where vectors were written."""
        t = self.target
        uses = uses or {}
        for moved in (False, True):
            some = [change for change in changes if self._moved(change) is moved]
            writes = [
                _write(change, uses.get(change.document.document_id), known)
                for change, known in zip(some, self._fields(some), strict=True)
            ]
            if writes:
                bounds = (t.entity, t.collection, t.tenant, t.space)
                self._leave(t.ledger.confirm(*bounds, writes, self.seen_at, moved=moved))
                self.confirmed.update(write.document_id for write in writes)

    def _leave(self, taken: Sequence[str]) -> None:
        """Documents that another tenant's run confirmed while this one wrote them: whose write came last in the
        store nobody knows."""
        if taken:
            t = self.target
            rows = t.ledger.rows(t.entity, t.collection, taken, self.seen_at)
            for tenant in sorted({t.tenant, *(row.tenant for row in rows.values())}):
                leave_mark(t, tenant)

    def fail(self, failures: Sequence[Failure]) -> None:
        """Documents that failed alone, by their own fault."""
        self.refused.update(change.document.document_id for change, _ in failures)
        self.mark(failures, alone=True)

    def mark(self, failures: Sequence[Failure], *, alone: bool) -> None:
        """`alone`: the errors are about single documents, and count against their retries where an attempt was due;
        those of a whole service count against nobody's."""
        if not failures:
            return
        t = self.target
        now = t.ledger.now()
        fields = self._fields([change for change, _ in failures])
        rows = [
            _failure(change, error, t.settings.retry, now, modified, alone=alone)
            for (change, error), (_, modified) in zip(failures, fields, strict=True)
        ]
        for (change, _), row in zip(failures, rows, strict=True):
            change.failure = row
        keep_failed(t, rows, self.seen_at)
        self.figures.failed += len(rows)

    def _fields(self, changes: Sequence[Change]) -> list[_Fields]:
        """Of each document the hashes of its fields, and which of them changed since the store last confirmed it."""
        hashes = [field_hashes(change.document) for change in changes]
        return [
            (after, modified_fields(change.document, None if change.row is None else change.row.field_hashes, after))
            for change, after in zip(changes, hashes, strict=True)
        ]


def _makes_vector(change: Change) -> bool:
    """Whether writing it gives the document another vector: a retry of its payload alone writes the same one."""
    row = change.row
    return change.kind is not Kind.RETRY or row is None or row.content_hash != change.document.content_hash


def _write(change: Change, use: TextUse | None, fields: _Fields) -> Confirmed:
    """`use`: None where the payload alone was written."""
    hashes, modified = fields
    return Confirmed(
        document_id=change.document.document_id,
        db_id=change.document.db_id,
        point_id=change.document.point_id,
        content_hash=change.document.content_hash,
        payload_hash=change.document.payload_hash,
        vector_written=use is not None and _makes_vector(change),
        record_hash=change.document.record_hash,
        db_key=change.document.db_key,
        field_hashes=hashes,
        modified_fields=modified,
        text_hash=None if use is None else use.text_hash,
        truncated=use is not None and use.truncated,
    )


def _failure(
    change: Change,
    error: VecsyncError,
    config: RetryConfig,
    now: datetime,
    modified: tuple[str, ...] | None,
    *,
    alone: bool,
) -> Failed:
    early = alone and change.waits(now)  # however often somebody tries meanwhile
    count = change.retry_count + (alone and not early)
    wait = backoff(count, config) if alone else outage_backoff(change.waited, config)
    following = None if wait is None else now + wait
    return Failed(
        document_id=change.document.document_id,
        db_id=change.document.db_id,
        point_id=change.document.point_id,
        attempt_hash=attempt_hash(change.document.content_hash, change.document.payload_hash),
        error_code=error.code,
        error=str(error),
        retry_count=count,
        next_attempt_at=change.row.next_attempt_at if early and change.row is not None else following,
        modified_fields=modified,
        db_key=change.document.db_key,
    )


def _embed(target: Target, changes: list[Change], figures: Figures) -> tuple[list[_Text], list[Failure]]:
    paid = Paid()
    try:
        result = target.embedder.embed([change.document.text for change in changes], paid)
    finally:
        # Also where the service failed on the way: what it had answered is billed, and kept.
        figures.embedded += paid.embedded
        figures.cache_misses += paid.misses
        figures.tokens += paid.tokens
        figures.api_calls += paid.api_calls
        figures.price_usd += paid.tokens * target.embedder.provider.price_per_million_tokens / 1e6
    figures.cache_hits += result.cache_hits
    figures.truncated += result.truncated
    done: list[_Text] = []
    failed: list[Failure] = []
    for change, outcome, use in zip(changes, result.outcomes, result.uses, strict=True):
        if isinstance(outcome, VecsyncError):
            failed.append((change, outcome))
        elif use is not None:
            done.append(_Text(change, outcome, use))
    return done, failed


def _point(change: Change, vector: Vector | None = None) -> Point:
    return Point(change.document.point_id, change.document.payload, vector)
