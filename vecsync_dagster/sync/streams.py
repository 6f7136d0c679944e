"""Which records a run reads: decided once, where its read begins, and never inferred later.

- What the source has now (`SourceStream`). A run by ids reads nothing else, whatever its stages.
- Where the records are read twice, what this run itself kept of them a moment ago.
- Where `export` is not selected, what an earlier run kept. The source may have moved on since (`fresh` is False):
  what such a stream lacks, or calls deleted, may be live again, and what it holds may have moved to another tenant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from vecsync_dagster.errors import ConfigError, SourceRejected
from vecsync_dagster.sources.base import Cursor, Page, Read, Source
from vecsync_dagster.sync.job import Job
from vecsync_dagster.sync.read_ahead import closing_pages
from vecsync_dagster.sync.snapshots import Snapshots, SnapshotWriter

__all__ = ["SourceStream", "Stream", "stream_of"]


class Stream(Protocol):
    """The records of one read, page by page."""

    @property
    def since(self) -> Cursor | None:
        """Where an incremental read began."""
        ...

    @property
    def complete(self) -> bool:
        """Whether it has every live row, once it ended without an error."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether it is what the source has during this very run."""
        ...

    @property
    def holds_source(self) -> bool:
        """Whether the source waits, with what it holds open, until each page was taken."""
        ...

    def pages(self) -> Generator[Page, None, None]: ...

    def again(self) -> Stream:
        """The same records once more, after `pages` came to its end."""
        ...


@dataclass(frozen=True, slots=True)
class SourceStream:
    """`keep`: where the pages are kept on the way; `run_id` and `settings` are noted there."""

    source: Source
    read: Read
    page: int
    entity: str
    keep: Snapshots | None
    run_id: str
    settings: str

    @property
    def since(self) -> Cursor | None:
        return self.read.since

    @property
    def complete(self) -> bool:
        return self.read.complete

    @property
    def fresh(self) -> bool:
        return True

    @property
    def holds_source(self) -> bool:
        return True

    def pages(self) -> Generator[Page, None, None]:
        with contextlib.ExitStack() as stack:
            pages = stack.enter_context(closing_pages(self.source.read(self.read, self.page)))
            if self.keep is None:
                yield from pages
                return
            writer = stack.enter_context(self._writer(self.keep))
            for page in pages:
                writer.write(page)
                yield page

    def _writer(self, keep: Snapshots) -> SnapshotWriter:
        place = (self.entity, self.read.tenant)
        return keep.writer(
            *place, complete=self.complete, since=self.since, made_by=self.run_id, settings=self.settings
        )

    def again(self) -> Stream:
        if self.keep is None:
            return self
        place = (self.keep, self.entity, self.read.tenant, self.page)
        return _SnapshotStream(*place, self.run_id, self.since, self.complete, fresh=True)


@dataclass(frozen=True, slots=True)
class _SnapshotStream:
    """The snapshot that one run kept, and no other one: `pages` raises PartitionBusy where it was replaced since."""

    snapshots: Snapshots
    entity: str
    tenant: str
    page: int
    made_by: str
    since: Cursor | None
    complete: bool
    fresh: bool
    offset: int = 0
    limit: int | None = None

    @property
    def holds_source(self) -> bool:
        return False

    def pages(self) -> Generator[Page, None, None]:
        pages = self.snapshots.pages(self.entity, self.tenant, self.page, made_by=self.made_by)
        yield from _window(pages, self.offset, self.limit)

    def again(self) -> Stream:
        return self


def stream_of(job: Job, since: Cursor | None) -> Stream:
    """What this run is to read. Raises SourceRejected where it is to read a snapshot that there is not, or that was
    made under other settings."""
    options = job.options
    settings = job.entity.read_fingerprint()
    if "export" in options.stages or options.ids is not None:
        read = Read(job.tenant, since, options.ids, options.limit, options.offset)
        keep = None if options.dry_run or options.ids is not None else job.snapshots
        return SourceStream(job.source, read, job.settings.page, job.name, keep, job.run_id, settings)
    if job.snapshots is None:
        raise ConfigError("a sync without the export stage needs a folder of snapshots", entity=job.name)
    told = job.snapshots.describe(job.name, job.tenant)
    if told.settings not in ("", settings):
        raise SourceRejected(
            f"the snapshot of {job.name} for tenant {job.tenant} was made under other settings: run its export again",
            entity=job.name,
            tenant=job.tenant,
        )
    place = (job.snapshots, job.name, job.tenant, job.settings.page)
    about = (told.made_by, told.since, told.complete and not options.partial)
    return _SnapshotStream(*place, *about, fresh=False, offset=options.offset, limit=options.limit)


def _window(pages: Iterator[Page], offset: int, limit: int | None) -> Iterator[Page]:
    """Limit and offset, as a source understands them."""
    end = None if limit is None else offset + limit
    at = 0
    for page in pages:
        start, at = at, at + page.records.num_rows
        first = min(max(offset - start, 0), page.records.num_rows)
        length = None if end is None else max(end - start - first, 0)
        yield Page(page.records.slice(first, length), page.tombstones, page.cursor)
