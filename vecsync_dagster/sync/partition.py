"""One partition in one run: takes batches of documents, decides, hands work on, removes what is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

from pyroaring import BitMap64

from vecsync_dagster.containment import contained
from vecsync_dagster.documents import Document, DocumentBatch, Rejection, document_id
from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.errors import StoreRateLimited, StoreTimeout, StoreUnavailable, ValidationFailed, VecsyncError
from vecsync_dagster.identity import Key, differ, native_of
from vecsync_dagster.ledger.base import LedgerRow, Recognised, Rejected
from vecsync_dagster.sources.base import Source, is_certain
from vecsync_dagster.sync.absence import Absence, is_suspicious
from vecsync_dagster.sync.apply import (
    BatchFailed,
    apply_changes,
    embed_changes,
    fail_changes,
    find_recut,
    keep_failed,
    keep_texts,
    mark_rejected,
    remove,
    settle,
)
from vecsync_dagster.sync.changes import Change, Kind, decide
from vecsync_dagster.sync.compare import Difference, compare_row
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.former import Former, is_stored
from vecsync_dagster.sync.guard import believes, lacks_suspiciously_much
from vecsync_dagster.sync.owners import Claim, buried, contested, firsts, live, refusal, repeated
from vecsync_dagster.sync.probe import clear_probe
from vecsync_dagster.sync.rebuild import take_in
from vecsync_dagster.sync.reconcile import repair_unfinished
from vecsync_dagster.sync.renamed import WAITS, Renamed
from vecsync_dagster.sync.self_repair import still_differs
from vecsync_dagster.sync.suspects import Suspects
from vecsync_dagster.sync.target import Target
from vecsync_dagster.sync.verify import LISTED, CheckOutcome
from vecsync_dagster.sync.whole import NAMELESS, NO_RECORD, UNREAD, was_read
from vecsync_dagster.sync.writing import Writing
from vecsync_dagster.words import number_of

__all__ = ["Depth", "PartitionSync"]

Depth = Literal["plan", "embed", "apply"]
"""How far a run goes: only say what would change; fill the embedding cache; or write."""

_WATCH_S = 0.2
_STORE_AWAY = (StoreRateLimited, StoreTimeout, StoreUnavailable)


class PartitionSync:
    """The state of one partition's run. Not thread-safe: `take` and `finish` belong to one thread; the
    batches themselves are written by the executor's threads.

    `error` is the first error of the whole partition; after it nothing more is taken. `unmet`: ids that a
    tombstone called gone, and that a live record has which this run has not met. `lacking`: the first documents that
    the removal guard kept. `left_over`: how many differences of each kind runs that did not finish had left;
    `left_named`: the first ones; `left_done`: what was done about them.
    """

    def __init__(
        self,
        target: Target,
        depth: Depth,
        executor: Executor,
        ledger_thread: Executor,
        *,
        run_id: str,
        mode: str,
        retry_permanent: bool,
        unreachable: VecsyncError | None,
        asked: Sequence[str] | None,
        fresh: bool,
        complete: bool,
        in_full: bool,
        keep_rejected: Callable[[Sequence[Rejection]], None],
        watch: Callable[[Figures], bool],
        stop: Callable[[], bool],
        source: Source,
        note: Callable[[str], None],
    ) -> None:
        """`executor` embeds and writes batches; `ledger_thread` looks up and marks rows, so that this never waits
        behind a batch. `watch` is told the figures while batches are waited for; once `stop` says True no batch is
        begun.

        `unreachable`: why the store cannot be had; the first batch is marked with it, and the run ends. `asked`:
        the ids of the records that are read, if it is not all of them. `fresh`: what is read is what the source has
        during this run; `complete`: it is all of that; `in_full`: that was asked
        for. `source` is asked about single records only. `note` is told
        what people should know of the run besides its figures.
        """
        self.target = target
        self.depth = depth
        self.figures = Figures()
        self.error: VecsyncError | None = None
        self.start = target.ledger.run_start(target.entity, target.collection, target.tenant)
        self.started_at, self._known = self.start.at, self.start.known
        self.unmet: list[str] = []
        self.lacking: list[str] = []
        self.counted: tuple[int, int] | None = None
        self.left_over: Counter[str] = Counter()
        self.left_named: list[Difference] = []
        self.left_done = Figures()
        self._seen = BitMap64()
        self._unstored = BitMap64()  # those of them of which the store held nothing when they were met
        self._run_id = run_id
        self._retry_permanent = retry_permanent
        self._unreachable = unreachable
        self._asked = asked
        self._fresh = fresh
        self._waits = asked is None and not complete  # until the attempts that are not due are
        self._sees_firsts = complete or asked is not None  # of several records with one id
        self._met: set[str] = set()
        self._nameless = 0  # rejected records without a usable id
        self._called_gone: set[str] = set()
        self._executor = executor
        self._ledger_thread = ledger_thread
        self._keep_rejected = keep_rejected
        self._watch = watch
        self._stop = stop
        self._source = source
        self._note = note
        self._buffer: list[Change] = []
        self._running: dict[Future[Figures], list[Change]] = {}
        self._pending: set[str] = set()
        self._broken = False
        self._planned: set[str] = set()
        self._refused: set[str] = set()
        self._writing = Writing(target, run_id, mode)
        self._suspects = Suspects(target)
        self._unsettled: VecsyncError | None = None
        self._former = Former(target, source, self.started_at, in_full=in_full, complete=complete)
        self._renamed = Renamed(target, source, self.started_at)
        self._failed: list[Change] = []
        self._taken = 0  # documents that the store had and the ledger did not know

    @contextmanager
    def contains(self, doing: str) -> Iterator[None]:
        """Whatever is raised in here is this partition's failure alone."""
        try:
            with contained(f"{self.target}: {doing}"):
                yield
        except VecsyncError as error:
            self.error = self.error or error

    @property
    def recognises(self) -> bool:
        """Whether asking the ledger for records that did not change makes sense: not for a few that were asked for
        by their ids, of which this is to know which it met."""
        return self.depth == "apply" and self._asked is None and self._known > 0 and self.error is None

    def recognise(self, record_hashes: dict[str, str]) -> Future[Recognised]:
        """Asks which of these documents need no look, because their records are as they were."""
        t = self.target
        bounds = (t.entity, t.collection, t.tenant, t.space)
        return self._ledger_thread.submit(t.ledger.recognise, *bounds, record_hashes, self.started_at)

    def recognised(self, asked: Future[Recognised]) -> Recognised:
        """The ledger's answer; where it failed, that is the partition's error, and nothing more is taken."""
        found = [Recognised([], set())]
        with self.contains("recognising records"):
            found.append(asked.result())
        return found[-1]

    def unchanged(self, numbers: Sequence[int]) -> bool:
        """These rows were recognised. False, and nothing is taken, where this run has met one of them before."""
        if not self._seen.isdisjoint(rows := BitMap64(numbers)):
            return False
        self._seen |= rows
        self.figures.fetched += len(numbers)
        self.figures.unchanged += len(numbers)
        return True

    def take(self, batch: DocumentBatch, tombstones: Sequence[str], *, again: bool = False) -> None:
        """Decide about one batch. `again`: documents that this run has seen already are left out silently."""
        if self.error is not None:
            return
        with self.contains("deciding about records"):
            self._take(batch, again)
            self._bury(tombstones)
            self._collect(block=False)
            self._leave_failed()

    def has_room(self) -> bool:
        """Whether another page can be taken now: memory holds the batches being written and as many that wait, and
        those of one page."""
        self._collect(block=False)
        return self.error is not None or len(self._running) < 2 * self.target.settings.parallel

    def make_room(self) -> None:
        """Wait until there is room, or the run is to end."""
        while not self.has_room() and not self._watch(self.figures):
            self._collect(block=True)

    def finish(self) -> None:
        """Write what is left and wait for every batch in flight."""
        try:
            if self.error is None:
                self._submit(everything=True)
            else:
                self._drop()
        finally:
            while self._running:
                if self._watch(self.figures):
                    self.cancel()
                self._collect(block=True)
            self.error = self.error or self._unreachable
            self._settle_suspects()
            self._leave_failed()
            if self._taken:
                self._note(f"{number_of(self._taken, 'document')} that the ledger did not know taken in from the store")

    def _settle_suspects(self) -> None:
        figures, changes, self._unsettled = settle(self.target, self._suspects, self.started_at)
        self.figures.add(figures)
        self._failed += changes

    def conclude(self) -> None:
        """After `finish`, and after what is gone was removed: documents of which it is not known whether they
        themselves are to blame fail the partition, but keep no removal."""
        self.error = self.error or self._unsettled

    def cancel(self) -> None:
        """Drop what was not begun yet (a run that is interrupted): it does not count."""
        self._drop()
        for future in [future for future in self._running if future.cancel()]:
            self.figures.add(_undone(self._running.pop(future)))

    def _leave_failed(self) -> None:
        """Of documents that failed here: what former owners have of them goes, and they are this tenant's to retry."""
        failed = {c.document.document_id: c for c in self._failed}
        self._failed = []
        if not failed or self._unreachable is not None or isinstance(self.error, _STORE_AWAY):
            return  # the run fails, and the next one meets them again
        t = self.target
        with self.contains("leaving former owners"):
            rows = t.ledger.rows(t.entity, t.collection, list(failed), self.started_at)
            left = self._former.leave({i: c.document.key for i, c in failed.items()}, rows)
            self.figures.removed += len(left)
            again = [c.failure for i, c in failed.items() if i in left and c.failure is not None]
            keep_failed(t, again, self.started_at)

    def _drop(self) -> None:
        """What is no batch yet."""
        self.figures.add(_undone(self._buffer))
        self._buffer.clear()

    # -- deciding ----------------------------------------------------------------------------------

    def _take(self, batch: DocumentBatch, again: bool) -> None:
        if not batch.documents and not batch.rejections:
            return
        t = self.target
        ids = [d.document_id for d in batch.documents]
        ids += [r.document_id for r in batch.rejections if r.document_id is not None]
        if self._asked is not None:
            self._met.update(ids)
            named = [r.db_id for r in batch.rejections if r.db_id is not None]
            self._met.update(map(self._document_id, named))
            self._nameless += len(batch.rejections) - len(named)
        rows = t.ledger.rows(t.entity, t.collection, ids, self.started_at)
        rows |= self._taken_in(batch, rows)
        documents, refused = self._refuse(self._ours(batch.documents, rows), rows)
        documents, others = self._firsts(documents, batch.rejections, rows)
        documents, duplicates = self._split(documents, rows)
        # A rejected record with the id of a good one had the row until this was met.
        here = (rows[d.document_id] for d in documents if d.document_id in rows)
        self.figures.unidentified += sum(map(self._met_before, here))
        self._leave_namesakes(documents, rows)
        rejections = self._own(batch, documents, rows, again=again) + ([] if again else refused + others + duplicates)
        self.figures.fetched += len(documents) + len(rejections)
        rows = self._leave_rejected(batch, rows)
        self._reject(rejections, rows)
        changes = decide(
            documents,
            rows,
            tenant=t.tenant,
            space=self._space(),
            retry_permanent=self._retry_permanent,
            doubted=self._writing.doubted,
            now=t.ledger.now() if self._waits else None,
        )
        find_recut(t, changes)
        self._look_at_points(changes)
        self._meet(change.row for change in changes if change.row is not None)
        unchanged: list[Change] = []
        for change in changes:
            setattr(self.figures, change.kind, getattr(self.figures, change.kind) + 1)
            (unchanged if change.kind is Kind.UNCHANGED else self._buffer).append(change)
        self._pending.update(_ids(self._buffer))
        if unchanged and self.depth == "apply":
            self._pending.update(_ids(unchanged))
            self._running[self._ledger_thread.submit(self._touch, unchanged)] = unchanged
        self._submit(everything=False)

    def _taken_in(self, batch: DocumentBatch, rows: Mapping[str, LedgerRow]) -> dict[str, LedgerRow]:
        """The rows of those of these documents that the store has and the ledger did not know. What costs nothing is
        written again instead: where runs crossed, a point may have another text's vector."""
        if self.depth != "apply" or self._unreachable is not None:
            return {}
        new = [d for d in batch.documents if d.document_id not in rows]
        ids = [r.document_id for r in batch.rejections if r.document_id is not None and r.document_id not in rows]
        if not (new or ids) or not self._store_knows_more:
            return {}
        if not self._writing.doubted:
            cached = self.target.embedder.cached([d.text for d in new])
            ids += [d.document_id for d, free in zip(new, cached, strict=True) if not free]
        t = self.target
        # As seen by an earlier run: of this one each is met but once.
        taken = take_in(t, ids, self.started_at - timedelta(microseconds=1))
        self._known += len(taken)
        self._taken += len(taken)
        return t.ledger.rows(t.entity, t.collection, list(taken), self.started_at) if taken else {}

    @cached_property
    def _store_knows_more(self) -> bool:
        """Whether it has more of the partition's points than the ledger says, when the run meets its first document
        without a row. What is being written meanwhile may look so, too."""
        t = self.target
        return t.store.count(t.collection, t.tenant, t.entity) > t.ledger.tally(t.entity, t.collection, t.tenant).held

    def _look_at_points(self, changes: Sequence[Change]) -> None:
        """Whoever asks for a record wants it in the store: an unchanged one is written again where its point is not
        there as the ledger says."""
        if self._asked is None or self.depth != "apply" or self._unreachable is not None:
            return
        t = self.target
        same = [change for change in changes if change.kind is Kind.UNCHANGED]
        held = {c.document.point_id: (c, c.row) for c in same if c.row is not None and c.row.status != "failed"}
        points = {p.point_id: p for p in t.store.retrieve(t.collection, list(held))} if held else {}
        for point, (change, row) in held.items():
            difference = compare_row(row, point, points.get(point))
            if difference is not None:
                keeps_vector = difference.payload_only and not self._writing.doubted
                change.kind = Kind.PAYLOAD_ONLY if keeps_vector else Kind.CHANGED

    def _ours(self, documents: list[Document], rows: dict[str, LedgerRow]) -> list[Document]:
        """Without those that have moved to another tenant since an old snapshot was made."""
        if self._fresh:
            return documents
        t = self.target
        claimed = {i for i, row in rows.items() if row.tenant != t.tenant}
        there = self._former.elsewhere(d.db_id for d in documents)
        claimed |= {d.document_id for d in documents if self._former.in_other_scope(d.db_id) in there}
        new = {d.document_id: d for d in documents if d.document_id not in rows}
        if self._former.has_namesakes(d.key for d in new.values()):
            claimed |= new.keys()
        moved = self._gone({d.document_id: d.key for d in documents if d.document_id in claimed})
        return [document for document in documents if document.document_id not in moved]

    def _gone(self, keys: Mapping[str, Key]) -> set[str]:
        """Those of these documents, which what was read calls gone, that are: an old snapshot may be mistaken."""
        if self._fresh or not keys:
            return set(keys)
        there = live(self.target, self._source, self.target.tenant, keys.values())
        return {identity for identity, key in keys.items() if str(key) not in there}

    def _space(self) -> str:
        return str(self.target.space)

    def _refuse(self, documents: list[Document], rows: dict[str, LedgerRow]) -> tuple[list[Document], list[Rejection]]:
        """The documents, and as rejected those whose id is that of another record which is there as well."""
        t = self.target
        claims = [
            Claim(document, row.tenant, row.key)
            for document in documents
            for row in (rows.get(document.document_id),)
            if row is not None and (row.tenant != t.tenant or differ(row.key, document.key))
        ]
        nowhere = {i for i, row in rows.items() if _is_nowhere(row)}
        if self.depth == "apply":
            for tenant in {c.tenant for c in claims if c.document.document_id in nowhere} - {t.tenant}:
                t.ledger.doubt(t.entity, t.collection, tenant)  # its record is rejected still, without a row now
        claims = [claim for claim in claims if claim.document.document_id not in nowhere]
        new = [d for d in documents if (row := rows.get(d.document_id)) is None or row.content_hash is None]
        others = self._former.elsewhere(d.db_id for d in new)
        if others:
            there = ((d, others.get(self._former.in_other_scope(d.db_id))) for d in new)
            claims += [Claim(document, row.tenant, row.key) for document, row in there if row is not None]
        if not claims:
            return documents, []
        refused = {id(claim.document): refusal(t, claim) for claim in contested(t, self._source, claims)}
        if self.depth == "apply":
            self._former.take_over(claim for claim in claims if id(claim.document) not in refused)
        return [d for d in documents if id(d) not in refused], list(refused.values())

    def _firsts(
        self, documents: list[Document], rejections: Sequence[Rejection], rows: dict[str, LedgerRow]
    ) -> tuple[list[Document], list[Rejection]]:
        """The documents, with the first of those records that have one id in place of the others, and these as
        rejected; also the first good one beside a record that is rejected anyhow. A full read meets them all in order;
        any other one may meet just one of them."""
        if self._sees_firsts:
            return documents, []
        changed = {d.document_id: d.key for d in documents if not _is_stored_as(d, rows.get(d.document_id))}
        bad = {r.document_id: Key(r.db_id or "", r.db_key) for r in rejections if r.document_id is not None}
        # Of another tenant's row, or of one whose key is of another type, the record is contested.
        bad = {i: key for i, key in bad.items() if self._is_stored_here(rows.get(i)) and not differ(rows[i].key, key)}
        first = firsts(self.target, self._source, bad | changed)
        kept = [d for d in documents if (one := first.get(d.document_id)) is None or _same(d, one)]
        if len(kept) == len(documents) and first.keys().isdisjoint(bad):
            return documents, []
        mine, theirs = set(map(id, kept)), {document.document_id for document in kept}
        missed, _ = self._split([one for identity, one in first.items() if identity not in theirs], rows)
        others = [document for document in documents if id(document) not in mine]
        return kept + missed, [self._repeated(one, first[one.document_id].key) for one in others]

    def _split(self, documents: list[Document], rows: dict[str, LedgerRow]) -> tuple[list[Document], list[Rejection]]:
        """Documents seen for the first time in this run, and the rest as rejected duplicates."""
        first: dict[str, Document] = {}
        duplicates: list[Rejection] = []
        for document in documents:
            identity = document.document_id
            row = rows.get(identity)
            if identity in first:
                duplicates.append(self._repeated(document, first[identity].key))
            elif identity in self._pending:
                duplicates.append(self._repeated(document, self._pending_key(identity)))
            elif row is not None and self._met_before(row) and not _is_rejected(row):
                duplicates.append(self._repeated(document, row.key))
            else:
                first[identity] = document
        return list(first.values()), duplicates

    def _pending_key(self, identity: str) -> Key | None:
        pending = chain(self._buffer, *self._running.values())
        return next((change.document.key for change in pending if change.document.document_id == identity), None)

    def _own(
        self, batch: DocumentBatch, documents: Sequence[Document], rows: Mapping[str, LedgerRow], *, again: bool
    ) -> list[Rejection]:
        """The rejections; one whose id another record of this run has is the one that has it a second time. `again`:
        the run may have met this very record before."""
        taken: dict[str, Key | None] = {one.document_id: one.key for one in (*batch.documents, *documents)}
        found: list[Rejection] = []
        for one in batch.rejections:
            if one.document_id is None or one.db_id is None:
                found.append(one)
                continue
            key, identity = Key(one.db_id, one.db_key), one.document_id
            row = rows.get(identity)
            if identity in self._pending:
                taken.setdefault(identity, self._pending_key(identity))
            elif row is not None and self._met_before(row) and not again:
                taken.setdefault(identity, row.key)
            found.append(repeated(self.target, key, one.record, taken[identity]) if identity in taken else one)
            taken.setdefault(identity, key)
        return found

    def _repeated(self, document: Document, taken: Key | None) -> Rejection:
        return repeated(self.target, document.key, document.payload, taken)

    def _is_elsewhere(self, row: LedgerRow | None) -> bool:
        return row is not None and row.tenant != self.target.tenant

    def _meet(self, rows: Iterable[LedgerRow]) -> None:
        """Rows that are accounted for: of those that the partition had when the run began."""
        met = [row for row in rows if row.tenant == self.target.tenant and not row.seen]
        self._unstored.update(row.number for row in met if row.content_hash is None and row.number not in self._seen)
        self._seen.update(row.number for row in met)

    def _met_before(self, row: LedgerRow) -> bool:
        return row.seen or row.number in self._seen

    def _leave_namesakes(self, documents: Sequence[Document], rows: Mapping[str, LedgerRow]) -> None:
        """What is new here may have moved from another tenant, and have had another key there."""
        if self.depth == "apply" and self._unreachable is None:
            new = (d.key for d in documents if not self._is_stored_here(rows.get(d.document_id)))
            self.figures.removed += len(self._former.leave_namesakes(new))

    def disown(self, keys: Sequence[str]) -> None:
        """Of records of the tenant that the source calls gone: what former owners have of them goes."""
        t = self.target
        if self.error is not None or self.depth != "apply" or self._unreachable is not None:
            return
        with self.contains("leaving former owners"):
            gone = {self._document_id(key): key for key in keys}
            rows = t.ledger.rows(t.entity, t.collection, list(gone), self.started_at)
            self.figures.removed += len(self._former.leave(gone, rows))

    def _leave_rejected(self, batch: DocumentBatch, rows: dict[str, LedgerRow]) -> dict[str, LedgerRow]:
        """The rows without those of former owners of records that are rejected here: these are removed."""
        if not batch.rejections or self.depth != "apply" or self._unreachable is not None:
            return rows
        met = {*self._pending, *(d.document_id for d in batch.documents)}
        rejected = {r.document_id: Key(r.db_id or "", r.db_key) for r in batch.rejections if r.document_id is not None}
        # Where the tenant has a good one, nobody else does: it was met or written as its own.
        rejected = {i: key for i, key in rejected.items() if i not in met and not self._is_stored_here(rows.get(i))}
        moved = {} if self._fresh else self._gone(rejected)  # since an old snapshot was made
        left = self._former.leave({i: key for i, key in rejected.items() if i not in moved}, rows)
        self.figures.removed += len(left)
        return {i: row for i, row in rows.items() if i not in left}

    def _is_stored_here(self, row: LedgerRow | None) -> bool:
        """Whether the store holds the document as one of this tenant's."""
        return row is not None and row.tenant == self.target.tenant and is_stored(row)

    def _reject(self, rejections: Sequence[Rejection], rows: dict[str, LedgerRow]) -> None:
        if not rejections:
            return
        t = self.target
        self.figures.invalid += len(rejections)
        # What the ledger cannot keep in this partition: without an id, or with one that it has in another one.
        lost = [r for r in rejections if r.document_id is None or self._is_elsewhere(rows.get(r.document_id))]
        self.figures.unidentified += len(lost)
        if self.depth != "apply":
            self._refused.update(self._document_id(r.db_id) for r in rejections if r.db_id is not None)
        self._meet(rows[r.document_id] for r in rejections if r.document_id in rows)
        if self.depth == "apply":
            self._keep_rejected(rejections)
            told = [Rejected(r.db_id, r.code, r.field, r.error, t.collection) for r in rejections]
            t.ledger.reject(self._run_id, t.entity, t.tenant, told, self.started_at)
            t.left(r.db_id for r in lost if r.db_id is not None)
            mark_rejected(t, rejections, rows, self.started_at)
        if not t.settings.skip_invalid:
            raise ValidationFailed(
                f"{t}: rejected {number_of(len(rejections), 'record')}, and skip_invalid is false; the first: "
                f"id {rejections[0].db_id}: {rejections[0].error}",
                entity=t.entity,
                rejected=len(rejections),
            )

    # -- writing -----------------------------------------------------------------------------------

    def _submit(self, *, everything: bool) -> None:
        size = self.target.settings.batch
        while len(self._buffer) >= size or (everything and self._buffer):
            batch, self._buffer = self._buffer[:size], self._buffer[size:]
            if self.depth == "plan":
                self._plan(batch)
                continue
            if self.depth == "apply" and self._unreachable is None:
                self._writing.begin()
            self._running[self._executor.submit(self._work, batch)] = batch

    def _touch(self, unchanged: list[Change]) -> Figures:
        """Beside the reading of the next page: the ledger's database works while Python does something else."""
        t = self.target
        record_hashes = {change.document.document_id: change.document.record_hash for change in unchanged}
        t.ledger.touch(t.entity, t.collection, t.tenant, record_hashes, self.started_at)
        keep_texts(t, unchanged)
        return Figures()

    def _work(self, batch: list[Change]) -> Figures:
        if self._broken or self._stop():
            return _undone(batch)  # the run ended before it began
        try:
            return self._write(batch)
        except Exception:
            self._broken = True  # the others would fail likewise, after they were paid for
            raise

    def _write(self, batch: list[Change]) -> Figures:
        if self.depth == "embed":
            return embed_changes(self.target, batch)
        if self._unreachable is not None:
            raise BatchFailed(self._unreachable, fail_changes(self.target, batch, self._unreachable, self.started_at))
        figures = apply_changes(self.target, batch, self.started_at, self._suspects)
        figures.removed += self._former.replaced(batch)
        return figures

    def _plan(self, batch: list[Change]) -> None:
        """Count what embedding would cost, each distinct text once over the whole partition."""
        texts = [c.document.text for c in batch if c.kind is not Kind.PAYLOAD_ONLY]
        fresh = [text for text in dict.fromkeys(texts) if text not in self._planned]
        self._planned.update(fresh)
        plan = self.target.embedder.plan(fresh)
        self.figures.embedded += plan.to_embed
        self.figures.cache_misses += plan.to_embed
        self.figures.cache_hits += len(texts) - plan.to_embed
        self.figures.tokens += plan.tokens
        self.figures.price_usd += plan.price
        self._pending.difference_update(_ids(batch))

    def _collect(self, *, block: bool) -> None:
        """Take in finished batches; with `block` wait for one, but not longer than until the next look at `watch`."""
        if not self._running:
            return
        done, _ = wait(self._running, timeout=_WATCH_S if block else 0, return_when=FIRST_COMPLETED)
        for future in done:
            changes = self._running.pop(future)
            self._pending.difference_update(_ids(changes))
            self._failed += [c for c in changes if c.failure is not None and not self._is_stored_here(c.row)]
            try:
                with contained(f"{self.target}: writing a batch", BatchFailed):
                    self.figures.add(future.result())
            except BatchFailed as failed:
                self.figures.add(failed.figures)
                self.error = self.error or failed.error
            except VecsyncError as error:
                self.error = self.error or error

    # -- removing ----------------------------------------------------------------------------------

    def _bury(self, tombstones: Sequence[str]) -> None:
        self._called_gone.update(tombstones)
        for keys in _apart(tombstones):
            self._bury_some({self._document_id(key): key for key in keys})

    def _bury_some(self, gone: Mapping[str, str]) -> None:
        """Remove rows that the source itself says are gone. It says so of one of its rows: where it keeps old versions,
        another one of the same id may be live."""
        t = self.target
        rows = t.ledger.rows(t.entity, t.collection, list(gone), self.started_at)
        # A record whose id has the same text, but is of another type, is another record.
        known = [i for i, row in rows.items() if self._is_same(row, gone[i])]
        asked = {*known, *self._pending.intersection(gone)}
        there = live(t, self._source, t.tenant, [gone[i] for i in asked]) if asked else set()
        absent = {i for i in asked if str(gone[i]) not in there}
        self.unmet += [gone[i] for i in known if i not in absent and not self._met_before(rows[i])]
        if not self._pending.isdisjoint(absent):
            if not self._take_back({i: gone[i] for i in absent}):
                return
            rows |= t.ledger.rows(t.entity, t.collection, list(absent), self.started_at)
            known = [i for i, row in rows.items() if self._is_same(row, gone[i])]
        same = dict.fromkeys(i for i in known if i in absent)
        if same:
            self._remove_known(list(same))
        if self.depth == "apply" and self._unreachable is None:
            # A record that moved here, and is gone, is its former owner's no more.
            moved = {i: key for i, key in gone.items() if i not in self._pending and i not in same}
            self.figures.removed += len(self._former.leave(moved, rows))

    def _is_same(self, row: LedgerRow, key: str) -> bool:
        return row.tenant == self.target.tenant and not differ(row.key, key)

    def _take_back(self, gone: Mapping[str, str]) -> bool:
        """Documents that this run met before their tombstones: what is not being written yet will not be, the rest is
        awaited. False where the run ends before it is written."""
        dead: list[Change] = []
        left: list[Change] = []
        for change in self._buffer:
            key = gone.get(change.document.document_id)
            (left if key is None or differ(change.document.key, key) else dead).append(change)
        self._buffer = left
        self.figures.add(_undone(dead))
        self._pending.difference_update(_ids(dead))
        buffered = set(_ids(left))
        while not (self._pending - buffered).isdisjoint(gone):
            if self._watch(self.figures):
                return False
            self._collect(block=True)
        return self.error is None

    def remove_absent(self, source_rows: Callable[[], int], *, allow: bool, retry: bool) -> None:
        """After a read by ids that came to its end: remove those that the source does not have any more. It must have
        been asked for them by their keys: the text alone may be that of a key of a type that nobody thinks of. What is
        held goes only where the source is believed about single records."""
        asked = {self._document_id(key): key for key in self._asked or ()}
        absent = {identity: key for identity, key in asked.items() if identity not in self._met}
        if not absent:
            return
        t = self.target
        rows = t.ledger.rows(t.entity, t.collection, list(absent), self.started_at)
        rows = {identity: row for identity, row in rows.items() if row.tenant == t.tenant}
        if self._nameless or not was_read(t):
            self._note_kept((row.key for row in rows.values()), NAMELESS if self._nameless else UNREAD)
            return
        again = [row.key for i, row in rows.items() if row.key.native not in (None, native_of(absent[i]))]
        found = live(t, self._source, t.tenant, again) if again else set()
        there = {i: row.key for i, row in rows.items() if row.key in found}
        unknown = {i: r.key for i, r in rows.items() if i not in there and not is_certain(self._source, r.key)}
        self._note_kept(there.values(), "the source has them, by ids of another type; the next full sync reads them")
        why = "the type of their ids is not known, so they may be there; the next full sync decides"
        self._note_kept(unknown.values(), why)
        gone = {i: key for i, key in absent.items() if i not in there and i not in unknown}
        kept = set() if allow else self._unbelieved(gone, rows, source_rows, retry=retry)
        self._called_gone.update(key for i, key in gone.items() if i not in kept)
        if leaving := sorted(rows.keys() & gone.keys() - kept):
            self._remove_known(leaving)

    def _unbelieved(
        self, gone: Mapping[str, str], rows: Mapping[str, LedgerRow], source_rows: Callable[[], int], *, retry: bool
    ) -> set[str]:
        """Those of these documents, which the source lacks, that stay all the same. A `retry` asks for what failed,
        whether or not anybody would miss it."""
        t = self.target
        former = self._formers_of(gone)
        held = {i: n for i in gone if (n := is_stored(rows.get(i)) + former[str(gone[i])])}
        if not (held or (retry and rows)):
            return set()
        there = source_rows()
        if retry and not there:
            self._note_kept((gone[i] for i in gone if i in rows), NO_RECORD)
            return {*gone}
        if not held or believes(t, self._source, there, lacking=sum(held.values())):
            return set()
        if not there and not lacks_suspiciously_much(t, self._source, there):
            self._note_kept((gone[i] for i in held), NO_RECORD)
            return {*held}
        self.figures.removals_blocked += len(held)
        self.lacking = sorted(held)[:LISTED]
        self.counted = (there, t.ledger.tally(t.entity, t.collection, t.tenant).held)
        return {*gone}

    def _formers_of(self, gone: Mapping[str, str]) -> Counter[str]:
        """How many documents are held under former ids, by their keys, where there are any of these."""
        t = self.target
        ids = t.ledger.formers(t.entity, t.collection, t.tenant) if self.start.former and gone else []
        rows = t.ledger.rows(t.entity, t.collection, ids, self.started_at) if ids else {}
        return Counter(str(row.key) for row in rows.values())

    def _note_kept(self, keys: Iterable[str], why: str) -> None:
        kept = sorted(map(str, keys))
        if kept:
            self._note(f"{number_of(len(kept), 'record')} asked for, not found and kept, such as {kept[0]}: {why}")

    def _document_id(self, db_id: str) -> str:
        return document_id(self.target.tenant, self.target.config.type or self.target.entity, db_id)

    def _remove_known(self, ids: Sequence[str]) -> None:
        """Remove the documents of this tenant among those ids."""
        t = self.target
        rows = t.ledger.rows(t.entity, t.collection, ids, self.started_at)
        self._meet(rows.values())
        gone = [(i, point_id(t.entity, i)) for i, row in rows.items() if row.tenant == t.tenant]
        if gone and self.depth == "apply":
            self._writing.begin()
            remove(t, t.tenant, gone)
        if self.depth != "embed":
            self.figures.removed += len(gone)

    def remove_unseen(self, absence: Absence | None, *, waits: bool, allow: bool, tenant_gone: bool) -> None:
        """After a complete export: remove what it did not have, unless that is suspiciously much. `absence`: the
        export had no record at all; `waits`: that is not believed yet."""
        t = self.target
        bounds = (t.entity, t.collection, t.tenant)
        gone = missed = max(self._known - len(self._seen), 0)
        known = self._known - len(self._unstored)
        guarded = not allow and not (tenant_gone and absence is not None)
        anyhow = guarded and self._is_suspicious(gone, known)
        if gone and (anyhow or self.depth == "apply" or self._refused):
            settled = self._settle_renamed(anyhow=anyhow)
            gone, missed = gone - settled.stay_or_went, missed - settled.not_missed
            known -= settled.not_known
        if guarded and self._is_suspicious(missed, known):
            self.figures.removals_blocked += missed
            self.lacking = self._first_missed()
            return
        if waits and not allow:
            self.figures.removals_waiting += gone - self._remove_buried()
            return
        if gone and self.depth == "apply":
            self._writing.begin()
            gone = 0
            for rows in t.ledger.unseen(*bounds, self.started_at, self._seen, t.settings.delete_batch):
                absent = self._absent([identity for identity, _ in rows])
                leaving = [row for row in rows if row[0] in absent]
                remove(t, t.tenant, leaving, with_vectors=absence is not None)
                gone += len(absent)
                self.figures.spared += len(rows) - len(absent)
        self.figures.removed += gone

    def _remove_buried(self) -> int:
        """Of what the export did not have, the documents of rows that the source still has, and itself calls gone:
        nothing vanished. Returns how many."""
        t = self.target
        if not was_read(t):
            return 0  # the keys may mean other rows, and the filter may be mistaken
        done, chunk = 0, t.settings.delete_batch
        for some in t.ledger.unseen(t.entity, t.collection, t.tenant, self.started_at, self._seen, chunk):
            rows = t.ledger.rows(t.entity, t.collection, [identity for identity, _ in some], self.started_at)
            gone = {self._document_id(key): key for key in buried(t, self._source, [r.key for r in rows.values()])}
            same = {i for i, row in rows.items() if i in gone and self._is_same(row, gone[i])}
            leaving = same & self._absent([*same]) if same else same
            if leaving and self.depth == "apply":
                self._writing.begin()
                remove(t, t.tenant, [row for row in some if row[0] in leaving], with_vectors=True)
            done += len(leaving)
        self.figures.removed += done
        return done

    def _first_missed(self) -> list[str]:
        """The first documents that the store holds and the export did not have."""
        t = self.target
        for some in t.ledger.unseen(t.entity, t.collection, t.tenant, self.started_at, self._seen):
            rows = t.ledger.rows(t.entity, t.collection, [identity for identity, _ in some], self.started_at)
            held = [i for i, _ in some if i in rows and rows[i].content_hash is not None]
            if held:
                return held[:LISTED]
        return []

    def _is_suspicious(self, gone: int, known: int) -> bool:
        return is_suspicious(self.target.settings.removal_guard, gone, known)

    def _settle_renamed(self, *, anyhow: bool) -> _Settled:
        """Of what the export has under another document id by now: what the store holds under that one goes, and what
        it does not hold yet stays."""
        t = self.target
        replaced, waiting, not_missed, not_known = 0, 0, 0, 0
        first = None
        for some in t.ledger.unseen(t.entity, t.collection, t.tenant, self.started_at, self._seen):
            judged = self._renamed.judge([identity for identity, _ in some], self._met_before, anyhow=anyhow)
            not_missed += len(judged.replaced.keys() | judged.waiting.keys() | judged.unstored)
            twice = (row for i, row in judged.replaced.items() if i not in judged.unstored)
            not_known += len(judged.unstored) + sum(self._was_held(row) for row in twice)
            if self.depth != "apply":  # what is not refused is going to be replaced
                waiting += sum(self._document_id(key) in self._refused for key in judged.waiting.values())
                continue
            if judged.replaced:
                self._writing.begin()
                remove(t, t.tenant, [row for row in some if row[0] in judged.replaced])
            t.ledger.keep_former(t.entity, t.collection, t.tenant, judged.waiting, WAITS, self.started_at)
            replaced += len(judged.replaced)
            waiting += len(judged.waiting)
            first = first or min(judged.waiting.values(), default=None)
        self.figures.removed += replaced
        if first is not None:
            self._note(
                f"{number_of(waiting, 'record')} cannot be synced under the ids of today, such as {first}: "
                "what is stored of them stays under their former ids"
            )
        return _Settled(replaced + waiting, not_missed, not_known)

    def _was_held(self, row: LedgerRow) -> bool:
        """Whether the store held it when the run began."""
        return row.number in self._seen and row.number not in self._unstored

    def leave_former(self) -> None:
        """After a read that is not complete: of what earlier runs kept for records that were not stored under their ids
        of today, that goes which is not needed any more."""
        t = self.target
        if self.depth != "apply" or not self.start.former:
            return
        over = self._renamed.over(self._called_gone if was_read(t) else ())
        if over:
            self._writing.begin()
            remove(t, t.tenant, [(identity, point_id(t.entity, identity)) for identity in over])
            self.figures.removed += len(over)

    def _absent(self, ids: Sequence[str]) -> set[str]:
        """Those that are gone for sure: the source is asked by their keys. A record may have come back since its turn
        in the read, as in an import that deletes and inserts; with an old time no incremental run would find it."""
        t = self.target
        rows = t.ledger.rows(t.entity, t.collection, ids, self.started_at)
        if not self._fresh:
            return self._gone({i: row.key for i, row in rows.items() if is_certain(self._source, row.key)})
        return {*ids} - self._renamed.there(rows)

    @property
    def holds_back(self) -> bool:
        """Whether the export lacks documents that are kept all the same."""
        return bool(self.figures.removals_blocked or self.figures.removals_waiting)

    def remember(self, *, all_seen: bool) -> None:
        """Which documents the source had. `all_seen`: all that are left."""
        t = self.target
        if self.depth != "apply":
            return
        if all_seen:
            t.ledger.mark_all_seen(t.entity, t.collection, t.tenant, self.started_at)
        else:
            t.ledger.mark_seen(t.entity, t.collection, t.tenant, list(self._seen), self.started_at)

    # -- ending ------------------------------------------------------------------------------------

    def repair(self, source: Source, *, allow_removals: bool) -> None:
        """After a complete export that was not suspicious: put right what runs that did not finish left between
        store and ledger. Whatever else differs is for the checks to find."""
        if not self._writing.doubted or self.depth != "apply" or self.holds_back:
            return
        clear_probe(self.target)  # no look at the partition finds one
        if self._writing.cut_short:
            done, self.left_over, self.left_named = repair_unfinished(
                self.target, source, allow_removals=allow_removals
            )
            self.left_done = done
            # Not as documents of the source, which are counted already.
            done.repaired = done.upserted + done.payload_only + done.removed + done.taken_in
            done.upserted = done.payload_only = done.removed = 0
            self.figures.add(done)

    def compared(self, checks: Iterable[CheckOutcome]) -> None:
        """After a comparison of every point, and what was repaired: where nothing of ours differs any more, marks have
        served their purpose."""
        if self.doubted and not self.holds_back and not any(map(still_differs, checks)):
            self._writing.repaired()

    @property
    def doubted(self) -> bool:
        """Whether a run that ended before this one may have left store and ledger different."""
        return self._writing.doubted

    def settle(self) -> None:
        """The run has ended well and the ledger knows all that it wrote."""
        self._writing.finish()


class _Settled(NamedTuple):
    """Of documents that the export did not have: those that are done with, as they stay or went; those that nobody
    could miss, as the store holds or will hold their records under other ids, or never held any; and by how many rows
    the ledger has more than the store had records, for either reason."""

    stay_or_went: int = 0
    not_missed: int = 0
    not_known: int = 0


def _ids(changes: Iterable[Change]) -> Iterator[str]:
    return (change.document.document_id for change in changes)


def _apart(keys: Iterable[str]) -> Iterable[list[str]]:
    """The keys in lists that have each text once: those of several types may have one."""
    lists: dict[int, list[str]] = {}
    times: Counter[str] = Counter()
    for key in keys:
        lists.setdefault(times[str(key)], []).append(key)
        times[str(key)] += 1
    return lists.values()


def _same(one: Document, other: Document) -> bool:
    return (one.content_hash, one.payload_hash) == (other.content_hash, other.payload_hash)


def _is_stored_as(document: Document, row: LedgerRow | None) -> bool:
    """Whether what the store holds under its id is just this document."""
    return row is not None and (row.content_hash, row.payload_hash) == (document.content_hash, document.payload_hash)


def _is_rejected(row: LedgerRow) -> bool:
    return row.status == "stale" or (row.status == "failed" and row.attempt_hash == "")


def _is_nowhere(row: LedgerRow) -> bool:
    """Whether it stands for a record that was never valid: of that nothing is there."""
    return _is_rejected(row) and row.content_hash is None


def _undone(changes: Sequence[Change]) -> Figures:
    """What takes them out of the figures that they were counted in when they were decided about."""
    figures = Figures(fetched=-len(changes))
    for kind, count in Counter(change.kind for change in changes).items():
        setattr(figures, kind, -count)
    return figures
