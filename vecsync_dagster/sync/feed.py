"""Pages of records on their way to the partitions of one run.

Most records of most runs are as they were: the ledger is asked for those by a hash of the whole record, and of
the rest alone documents are made. It is asked one page ahead, in a thread of its own, so that its database works
while the next page is read. Where few documents of a page are left, they wait for those of the next pages: a
batch is decided about, not a handful.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vecsync_dagster.documents import DocumentBatch, DocumentBuilder
from vecsync_dagster.documents.columns import Records
from vecsync_dagster.embedding.base import Limited
from vecsync_dagster.identity import storable
from vecsync_dagster.ledger.base import Recognised
from vecsync_dagster.sources.base import Page
from vecsync_dagster.sync.job import Job
from vecsync_dagster.sync.partition import PartitionSync

__all__ = ["Feed"]

_AHEAD = 1


@dataclass(slots=True)
class _Waiting:
    """A page that the ledger is being asked about. `asked` lacks the partitions that take every record; `once`
    are the rows whose ids the page has once."""

    tombstones: Sequence[str]
    records: Records
    hashes: dict[str, list[str]]
    once: dict[str, int]
    asked: dict[str, Future[Recognised]]


class Feed:
    """Not thread-safe: it belongs to the thread that reads."""

    def __init__(self, job: Job, parts: Mapping[str, PartitionSync]) -> None:
        self._job = job
        self._parts = parts
        limits: dict[str, int | None] = {}
        for name, part in parts.items():
            with part.contains("looking at the model's limit"):
                provider = part.target.embedder.provider
                if isinstance(provider, Limited):
                    limits[name] = provider.own_limit
        self._builder = DocumentBuilder(job.name, job.entity, job.tenant, list(parts), limits)
        self._waiting: deque[_Waiting] = deque()
        self._late: dict[str, DocumentBatch] = {name: DocumentBatch([], []) for name in parts}
        self._undecided: set[str] = set()

    def page(self, page: Page) -> None:
        """Raises ConfigError if the configuration names a field that the records do not have, and ledger errors."""
        self._waiting.append(self._ask(page))
        while len(self._waiting) > _AHEAD:
            self._take(self._waiting.popleft())

    def finish(self) -> None:
        while self._waiting:
            self._take(self._waiting.popleft())
        self._decide(())

    def disown(self, page: Page) -> None:
        """Of a page of tombstones alone: none of these records is anybody's."""
        for part in self._parts.values():
            part.disown(tuple(filter(storable, page.tombstones)))
        self._job.page_done()
        self._job.watch(next(iter(self._parts.values())).figures)

    def again(self, name: str, page: Page) -> None:
        """Records of one collection that were asked for by id; those this run has seen already are left out."""
        batch = self._builder.build(page.records)[name]
        self._parts[name].take(batch, (), again=True)
        self._job.page_done()
        self._job.watch(self._parts[name].figures)

    def _ask(self, page: Page) -> _Waiting:
        records = self._builder.read(page.records)
        hashes = self._builder.record_hashes(records)
        once = _once(self._builder.ids(records))
        # What a page that waits removes, and this one has again, is not in the ledger when its turn comes.
        for dead in (key for waiting in self._waiting for key in waiting.tombstones):
            once.pop(self._builder.id_of(dead), None)
        asked: dict[str, Future[Recognised]] = {}
        for name, part in self._parts.items():
            with part.contains("recognising records"):
                if part.recognises:
                    asked[name] = part.recognise({identity: hashes[name][row] for identity, row in once.items()})
        # What no ledger could hold was never a document.
        tombstones = () if self._job.options.partial else tuple(filter(storable, page.tombstones))
        return _Waiting(tombstones, records, hashes, once, asked)

    def _take(self, page: _Waiting) -> None:
        if not self._undecided.isdisjoint(page.once):
            self._decide(())  # what came first is met first
        wanted: dict[str, Sequence[int]] = {}
        for name, part in self._parts.items():
            if name not in page.asked:
                wanted[name] = range(len(page.records))
                continue
            with part.contains("recognising records"):
                found = part.recognised(page.asked[name])
                # An id that a page before had too was decided there: its record here is looked at, as a duplicate.
                others = found.others if part.unchanged(found.numbers) else set(page.once)
                wanted[name] = _rows(page, others)
        if any(wanted.values()):
            self._add(self._builder.documents(page.records, page.hashes, wanted))
        rejected = any(batch.rejections for batch in self._late.values())
        if page.tombstones or rejected or len(self._undecided) >= self._job.settings.batch:
            self._decide(page.tombstones)
        self._job.watch(next(iter(self._parts.values())).figures)

    def _add(self, batches: Mapping[str, DocumentBatch]) -> None:
        for name, batch in batches.items():
            self._late[name].documents.extend(batch.documents)
            self._late[name].rejections.extend(batch.rejections)
            self._undecided.update(document.document_id for document in batch.documents)

    def _decide(self, tombstones: Sequence[str]) -> None:
        for name, part in self._parts.items():
            part.take(self._late[name], tombstones)
            self._late[name] = DocumentBatch([], [])
        self._undecided.clear()
        self._job.page_done()


def _once(ids: Sequence[str | None]) -> dict[str, int]:
    """Document id -> row. Records without an id, or with one that the page has twice, are always looked at."""
    rows = {identity: row for row, identity in enumerate(ids) if identity is not None}
    if len(rows) < len(ids):
        for identity, times in Counter(ids).items():
            if identity is not None and times > 1:
                del rows[identity]
    return rows


def _rows(page: _Waiting, others: set[str]) -> Sequence[int]:
    """The rows of those documents, and of those that were not asked for."""
    if not others and len(page.once) == len(page.records):
        return ()
    known = {row for identity, row in page.once.items() if identity not in others}
    return [row for row in range(len(page.records)) if row not in known]
