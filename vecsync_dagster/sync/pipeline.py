"""The sync of one entity and tenant, streaming: export -> documents -> decide -> embed -> write -> remove.

The calling thread reads and decides; a small pool of threads embeds and writes, so that fetching, embedding
and uploading overlap while memory holds a few batches. Knows nothing of Dagster, the CLI or a YAML file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain

from vecsync_dagster.config.automation import TenantsConfig
from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.documents import document_id
from vecsync_dagster.embedding import EmbeddingProvider
from vecsync_dagster.errors import (
    InternalError,
    LedgerRejected,
    LedgerUnavailable,
    StoreLocked,
    TenantsLost,
    Transient,
    VecsyncError,
)
from vecsync_dagster.identity import Key, differ
from vecsync_dagster.ledger.base import Ledger, Missing
from vecsync_dagster.sources.base import Cursor, Filtered, Losable, Page, Read, Source
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import GLOBAL, VectorStore
from vecsync_dagster.sync.absence import Absence, absence_of, is_ruled_out
from vecsync_dagster.sync.embedders import Embedders
from vecsync_dagster.sync.feed import Feed
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.gate import refused
from vecsync_dagster.sync.job import Job
from vecsync_dagster.sync.lost_ledger import tell_of_all, tell_of_lost_ledger
from vecsync_dagster.sync.not_begun import failed_after
from vecsync_dagster.sync.options import STAGES, PartitionResult, SyncOptions, check_tenant
from vecsync_dagster.sync.partition import PartitionSync
from vecsync_dagster.sync.read_ahead import in_turn, read_ahead
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster.sync.self_repair import repair_found, told_of_left_over
from vecsync_dagster.sync.snapshots import Snapshots
from vecsync_dagster.sync.streams import Stream, stream_of
from vecsync_dagster.sync.taken import require_own_ids
from vecsync_dagster.sync.target import Target, keyed
from vecsync_dagster.sync.verify import (
    REPAIRED,
    CheckOutcome,
    guard_again,
    held_back,
    is_unexplained,
    last_full_run,
    once_reported,
    over_perhaps,
    rejected_now,
    removal_guard,
    statuses,
    still_stopped,
    unidentified_now,
    validation_outcome,
    verify,
)
from vecsync_dagster.sync.whole import keep_read, was_read
from vecsync_dagster.words import named, number_of

__all__ = ["sync_tenant"]

_log = logging.getLogger(__name__)
_DUE = 10_000
"""Documents that failed before and are asked for at once."""


def sync_tenant(
    name: str,
    entity: EntityConfig,
    tenant: str,
    *,
    source: Source,
    store: VectorStore | Mapping[str, VectorStore],
    provider: EmbeddingProvider | Sequence[EmbeddingProvider] | Embedders,
    ledger: Ledger,
    collections: Sequence[str] | None = None,
    settings: SyncConfig | None = None,
    checks: ChecksConfig | None = None,
    options: SyncOptions | None = None,
    snapshots: Snapshots | None = None,
    rejections: RejectionLog | None = None,
    progress: Callable[[Figures], None] | None = None,
    stop: Callable[[], bool] | None = None,
    missing_for: timedelta | None = None,
    lost: Callable[[], TenantsLost | None] | None = None,
    places: Mapping[str, str] | None = None,
) -> list[PartitionResult]:
    """Bring the collections of one entity up to date for one tenant; one result for each collection.

    `name` is the entity's name; `collections` None means all of its collections. `store` is one store or
    one for each collection. `provider` is one provider or a chain of them. `progress` is called with the
    figures so far, often; once `stop` returns True the batches in flight are finished and the run
    ends as interrupted. `missing_for`: how long a tenant must be missing before anything of it is removed. `lost`:
    asked where a full read has no record of a tenant; why the source is taken for broken, so that nothing is removed.
    `places`: where the points of each collection lie; of a collection that lay elsewhere the run reads and compares
    everything.

    What one collection's store or provider refuses is that collection's result; it is not raised. Raises
    InvalidTenant, PartitionBusy (another run has this entity and tenant), and ledger errors.
    """
    check_tenant(tenant, source.count)
    names = list(entity.collections if collections is None else collections)
    if not names:
        return []
    job = Job(
        name=name,
        entity=keyed(entity, source),
        tenant=tenant,
        source=source,
        stores=store if isinstance(store, Mapping) else dict.fromkeys(names, store),
        embedders=_embedders(provider, ledger),
        ledger=ledger,
        settings=settings or SyncConfig(),
        checks=checks or ChecksConfig(),
        options=options or SyncOptions(),
        snapshots=snapshots,
        rejections=rejections,
        progress=progress or (lambda _: None),
        stop=stop or (lambda: False),
        missing_for=TenantsConfig().missing_for if missing_for is None else missing_for,
        lost=lost or (lambda: None),
        places=places or {},
    )
    with contextlib.nullcontext() if job.options.dry_run else ledger.hold(name, tenant):
        _come(job, names)
        groups, results = _groups(job, names)
        for group in groups:
            results += _sync_group(job, *group)
    # Only now is it certain that nobody else wrote these partitions meanwhile: a hold that was lost has raised.
    return _settled(job, results)


def _settled(job: Job, results: Sequence[PartitionResult]) -> list[PartitionResult]:
    """The results, those as failures whose marks could not be taken away: the next full run compares them."""
    settled = {result.collection: result for result in results}
    for part in job.settled:
        try:
            with contained(f"{part.target}: settling"):
                part.settle()
        except InternalError as error:
            name = part.target.collection
            [settled[name]] = failed_after(job.ledger, [settled[name]], error)
    return [settled[result.collection] for result in results]


def _embedders(provider: EmbeddingProvider | Sequence[EmbeddingProvider] | Embedders, ledger: Ledger) -> Embedders:
    if isinstance(provider, Embedders):
        return provider
    return Embedders([provider] if isinstance(provider, EmbeddingProvider) else provider, ledger)


def _come(job: Job, names: Iterable[str]) -> None:
    """Before anything is read: whether the collections still lie where the ledger knows their points."""
    for name, place in job.places.items():
        if name in names:
            if job.options.depth == "apply":
                job.ledger.come_to(name, place)
            elif job.ledger.place_of(name) not in (None, place):
                job.moved.add(name)  # the run that writes reads all of it


def _groups(job: Job, names: Sequence[str]) -> tuple[list[tuple[list[str], Cursor | None]], list[PartitionResult]]:
    """Collections that can share one read: those whose last runs came equally far. And failed results of those of
    which that is not known."""
    if job.options.ids is not None or _in_full(job):
        return [(list(names), None)], []
    cursors: dict[str, Cursor | None] = {}
    failed: list[PartitionResult] = []
    job.begin(job.options.special or "incremental")
    for name in names:
        try:
            with contained(f"{name} of {job.tenant}: looking where to go on"):
                cursors[name] = _watermark(job, name)
        except VecsyncError as error:
            failed.append(job.result(name, Figures(), error=error))
    groups = dict.fromkeys(cursors.values())
    return [([name for name in cursors if cursors[name] == cursor], cursor) for cursor in groups], failed


def _in_full(job: Job) -> bool:
    """Whether all records of the tenant are asked for: each tenant that is synced so gets rid of what it has lost."""
    full = (job.options.mode or job.settings.mode) == "full" or not job.source.incremental
    return full and job.options.ids is None


def _watermark(job: Job, name: str) -> Cursor | None:
    """Where to go on from; None for a full read, where the source itself says that nothing less will do."""
    cursor = job.ledger.watermark(job.name, name, job.tenant, job.entity.synced_as(name))
    if name in job.moved or (cursor is None and job.ledger.is_moved(job.name, name, job.tenant)):
        job.note(name, "a full sync instead of an incremental one: the store lies elsewhere than before")
        return None
    if cursor is None or not isinstance(job.source, Losable):
        return cursor
    lost = job.source.lost(Read(job.tenant, since=cursor), partial(_are_known, job, name))
    if lost is None:
        return cursor
    _log.warning("%s of %s: %s: a full sync instead", name, job.tenant, lost)
    job.note(name, f"a full sync instead of an incremental one: {lost}")
    return None


def _are_known(job: Job, collection: str, keys: Sequence[Key]) -> bool:
    """Whether the ledger has each of these keys, as a tenant's record or as everybody's."""
    kind = job.entity.type or job.name
    ids = [(document_id(GLOBAL, kind, key), document_id("", kind, key)) for key in keys]
    rows = job.ledger.rows(job.name, collection, list(chain.from_iterable(ids)), job.ledger.now())
    return all(
        any(i in rows and not differ(rows[i].key, key) for i in some) for key, some in zip(keys, ids, strict=True)
    )


def _sync_group(job: Job, names: list[str], since: Cursor | None) -> list[PartitionResult]:
    """Partitions that share one read."""
    job.begin(job.options.special or ("full" if since is None else "incremental"))
    try:
        with contained(f"{job.name} of {job.tenant}: beginning to read"):
            stream = stream_of(job, since)
    except VecsyncError as error:
        return [job.result(name, Figures(), error=error) for name in names]
    job.begin(job.options.special or ("full" if stream.complete else "incremental"))
    if job.options.stages == ("export",):
        return _export(job, names, stream)
    try:
        with contained(f"{job.name} of {job.tenant}: checking records"):
            left_out, stream = refused(job, names, stream)
    except VecsyncError as error:
        return [job.result(name, Figures(), error=error) for name in names]
    names = [name for name in names if name not in {result.collection for result in left_out}]
    return left_out + _sync_parts(job, names, stream)


def _sync_parts(job: Job, names: Sequence[str], stream: Stream) -> list[PartitionResult]:
    with (
        ThreadPoolExecutor(job.settings.parallel, thread_name_prefix="vecsync") as executor,
        ThreadPoolExecutor(1, thread_name_prefix="vecsync-ledger") as ledger_thread,
    ):
        parts = {name: _open(job, name, stream, executor, ledger_thread) for name in names}
        running = {name: part for name, part in parts.items() if isinstance(part, PartitionSync)}
        ended, cursor = _feed(job, stream, running) if running else (False, None)
        if stream.fresh and stream.complete and ended:
            _tell_of_the_filter(job, running)
        absence: Absence | None = None
        with _contained_in(job, running.values(), "looking for the tenant"):
            absence = _absence(job, list(running.values()), stream, ended=ended)
        for part in running.values():
            with part.contains("ending the run"):
                _end(job, part, stream, absence, ended=ended)
        with _contained_in(job, running.values(), "keeping what is missing"):
            if _is_missed_no_more(job, list(running.values()), stream, absence):
                job.ledger.found(job.name, [job.tenant])
    return [
        part if isinstance(part, PartitionResult) else _result(job, part, stream, cursor) for part in parts.values()
    ]


@contextlib.contextmanager
def _contained_in(job: Job, parts: Iterable[PartitionSync], doing: str) -> Iterator[None]:
    """What is the tenant's, and not one collection's: where it is raised, each of these partitions has failed."""
    try:
        with contained(f"{job.name} of {job.tenant}: {doing}"):
            yield
    except VecsyncError as error:
        for part in parts:
            part.error = part.error or error


def _tell_of_the_filter(job: Job, parts: Mapping[str, PartitionSync]) -> None:
    """Where no record came because of the filter, it may be wrong: that is said, however right it may be."""
    if not isinstance(job.source, Filtered) or any(part.figures.fetched for part in parts.values()):
        return
    try:
        with contained(f"{job.name} of {job.tenant}: looking behind the filter"):
            kept_out = job.source.kept_out(job.tenant)
    except VecsyncError as error:
        _log.warning("%s of %s: what the filter keeps out is not known: %s", job.name, job.tenant, error)
        return
    if kept_out:
        note = f"entities.{job.name}.filter lets no record through, and there are some"
        _log.warning("tenant %s: %s", job.tenant, note)
        for name in parts:
            job.note(name, note)


def _export(job: Job, names: Sequence[str], stream: Stream) -> list[PartitionResult]:
    """The export alone: a snapshot is written, and neither provider nor store is needed."""
    figures = Figures()
    error: VecsyncError | None = None
    try:
        with contained(f"{job.name} of {job.tenant}: exporting"), contextlib.closing(stream.pages()) as pages:
            for page in pages:
                figures.fetched += page.records.num_rows
                if job.watch(figures):
                    break
    except VecsyncError as failed:
        error = failed
    return [job.result(name, replace(figures), error=error) for name in names]


def _open(
    job: Job, name: str, stream: Stream, executor: Executor, ledger_thread: Executor
) -> PartitionSync | PartitionResult:
    """The run of one partition, or its failed result if its store or provider cannot be had."""
    try:
        with contained(f"{name} of {job.tenant}: opening store and provider"):
            return _opened(job, name, stream, executor, ledger_thread)
    except VecsyncError as error:
        return job.result(name, Figures(), error=error)


def _opened(job: Job, name: str, stream: Stream, executor: Executor, ledger_thread: Executor) -> PartitionSync:
    require_own_ids(job.ledger, job.name, job.entity, name, job.source)
    writing = job.options.depth != "plan"
    embedder = job.embedders.of(job.name, name, pin=writing, planning=job.options.dry_run)
    unreachable = _unreachable(job, name, embedder.provider.space) if job.options.depth == "apply" else None
    target = Target(
        job.name,
        job.entity,
        name,
        job.tenant,
        job.stores[name],
        job.ledger,
        embedder,
        job.settings,
        job.checks.max_truncated_share,
        job.leave,
    )
    part = PartitionSync(
        target,
        job.options.depth,
        executor,
        ledger_thread,
        run_id=job.run_id,
        mode=job.mode,
        retry_permanent=job.options.ids is not None and not job.options.retry,
        unreachable=unreachable,
        asked=job.options.ids,
        fresh=stream.fresh,
        complete=stream.complete,
        in_full=_in_full(job),
        keep_rejected=job.keep,
        watch=job.watch,
        stop=job.stop,
        source=job.source,
        note=partial(job.note, name),
    )
    if job.options.depth == "apply" and unreachable is None:
        if not part.start.held:
            tell_of_lost_ledger(job, target)
        if not part.start.collection_held:
            tell_of_all(job, target)
    return part


def _unreachable(job: Job, name: str, space: Space) -> Transient | None:
    """Make sure of the collection. Why its store cannot be had now, if it cannot: what would have been written is
    to be known as failed. Raises what only somebody can put right, and StoreLocked: another process is using the
    store, so it is no failure of any document."""
    try:
        job.stores[name].ensure_collection(name, space)
    except StoreLocked:
        raise
    except Transient as error:
        return error
    return None


def _feed(job: Job, stream: Stream, parts: Mapping[str, PartitionSync]) -> tuple[bool, Cursor | None]:
    """Feed every page to every partition. Returns whether the stream came to its end, and the cursor to go on from."""
    cursor = stream.since
    try:
        with contained(f"{job.name} of {job.tenant}: reading records"):
            feed = Feed(job, parts)
            if _is_first(job, stream, parts.values()):
                end = _feed_dead(job, feed, list(parts.values()))
                # A full run that met no record may be mistaken: it leaves where earlier ones came.
                cursor = cursor if _in_full(job) else end
            # Closed here and now, not by the garbage collector: the source may hold a connection open.
            with contextlib.closing(_pages(job, stream, list(parts.values()))) as pages:
                try:
                    for page in pages:
                        cursor = page.cursor or cursor
                        job.met = job.met or page.records.num_rows > 0
                        feed.page(page)
                        if job.interrupted or all(part.error for part in parts.values()):
                            return False, None
                except Exception:
                    feed.finish()  # what came before the export broke
                    raise
                feed.finish()
            if stream.fresh and stream.since is not None and not job.options.partial:
                _feed_by_ids(job, feed, parts)
    except VecsyncError as error:
        for part in parts.values():
            part.error = part.error or error
        return False, None
    return True, cursor


def _is_first(job: Job, stream: Stream, parts: Iterable[PartitionSync]) -> bool:
    """Whether nobody has read one of the partitions yet, and there is somebody whose records may have moved to this
    tenant."""
    if not (stream.fresh and stream.complete and job.source.incremental) or job.options.depth != "apply":
        return False
    return any(not was_read(part.target) for part in parts) and job.ledger.has_others(job.name, job.tenant)


def _feed_dead(job: Job, feed: Feed, parts: Sequence[PartitionSync]) -> Cursor | None:
    """Records that moved here and were marked as deleted, or kept out by the filter: a read of every live one does not
    meet them. Returns where they end: a partition that has no others goes on from there."""
    cursor = None
    read = job.source.read(Read(job.tenant, dead=True), job.settings.page)
    with contextlib.closing(_read_out(job, read, parts)) as pages:
        for page in pages:
            cursor = page.cursor or cursor
            feed.disown(page)
            if job.interrupted:
                break
    return cursor


def _pages(job: Job, stream: Stream, parts: Sequence[PartitionSync]) -> Generator[Page, None, None]:
    """The pages of a stream, each when there is room for it."""
    if not stream.holds_source:
        return in_turn(stream.pages(), partial(_make_room, parts))
    if stream.complete or job.options.depth == "plan":
        return _read(job, stream.pages(), parts, lambda: job.watch(parts[0].figures) or _has_room(parts))
    return _read_out(job, stream.pages(), parts)


def _read_out(job: Job, pages: Iterator[Page], parts: Sequence[PartitionSync]) -> Generator[Page, None, None]:
    """Pages of a few records, read to the end before the first one is taken: a tombstone may have to wait for what
    is being written, and a record for a look at its point."""
    return _read(job, pages, parts, lambda: job.watch(parts[0].figures))


def _read(
    job: Job, pages: Iterator[Page], parts: Sequence[PartitionSync], free: Callable[[], bool]
) -> Generator[Page, None, None]:
    folder = None if job.snapshots is None else job.snapshots.folder
    return read_ahead(pages, free, partial(_make_room, parts), folder)


def _has_room(parts: Sequence[PartitionSync]) -> bool:
    """A partition that failed takes nothing more, so that it has room."""
    crowded = False
    for part in parts:
        with part.contains("writing batches"):
            crowded = not part.has_room() or crowded
    return not crowded


def _make_room(parts: Sequence[PartitionSync]) -> None:
    for part in parts:
        with part.contains("writing batches"):
            part.make_room()


def _feed_by_ids(job: Job, feed: Feed, parts: Mapping[str, PartitionSync]) -> None:
    """Documents that failed before are not among the changed rows, nor need those be whose former row is gone: they
    are asked for by id."""
    for name, part in parts.items():
        if part.error is not None:
            continue
        with part.contains("reading what failed before"):
            for ids in _to_ask_for(job, part):
                if part.error is not None or job.interrupted:
                    break
                read = job.source.read(Read(job.tenant, ids=ids), job.settings.page)
                with contextlib.closing(_read_out(job, read, [part])) as pages:
                    for page in pages:
                        feed.again(name, page)


def _to_ask_for(job: Job, part: PartitionSync) -> Iterator[Sequence[str]]:
    # Also those that are not due: what failed in an outage is tried at once. `decide` leaves the others.
    name, whenever = part.target.collection, datetime.max.replace(tzinfo=UTC)
    yield from job.ledger.all_due(job.name, name, job.tenant, whenever, _DUE)
    if part.unmet:
        yield part.unmet


def _end(job: Job, part: PartitionSync, stream: Stream, absence: Absence | None, *, ended: bool) -> None:
    all_seen = False
    if job.interrupted:
        part.cancel()
    part.finish()
    # Asked again: a batch that did not begin because of a late signal must not end in a success.
    if not job.watch(part.figures) and stream.complete and ended and part.error is None:
        waits = absence is not None and not _confirmed(job, part, absence)
        part.remove_unseen(absence, waits=waits, allow=job.options.allow_removals, tenant_gone=job.options.tenant_gone)
        if absence is not None and part.figures.removals_waiting:
            _note_waiting(job, part, absence)
        if stream.fresh:
            part.repair(job.source, allow_removals=job.options.allow_removals)
        all_seen = not part.holds_back
    if ended and job.options.finds_absent and not job.interrupted and part.error is None:
        part.remove_absent(job.source_rows, allow=job.options.allow_removals, retry=job.options.retry)
    if ended and not stream.complete and not job.interrupted and part.error is None:
        part.leave_former()
    part.conclude()
    if part.error is None:
        if not job.interrupted:
            part.remember(all_seen=all_seen)
        job.settled.append(part)


def _absence(job: Job, parts: Sequence[PartitionSync], stream: Stream, *, ended: bool) -> Absence | None:
    """What is known of a tenant of which a complete read had no record: that read is one more look at the source.
    None where there is nothing that could be missed."""
    if is_ruled_out(job.entity, job.tenant):
        return None  # the configuration says so, not a look
    if job.met:
        # An old snapshot had its records: that says nothing of whether they are there now.
        if stream.fresh and job.options.depth == "apply" and any(part.start.missing for part in parts):
            read = {part.target.collection for part in parts} if stream.complete else set()
            for collection, tenant in job.ledger.seen(job.name):
                if tenant == job.tenant and collection not in read:
                    job.ledger.doubt(job.name, collection, tenant)
            job.ledger.found(job.name, [job.tenant])
        return None
    if not stream.complete or not ended or not any(part.start.held for part in parts):
        return None
    _require_belief(job, stream)
    return absence_of(job.tenant, _look(job, stream), job.missing_for)


def _is_missed_no_more(job: Job, parts: Sequence[PartitionSync], stream: Stream, absence: Absence | None) -> bool:
    """Whether a tenant that was missing, or was at a look, is there after all, or nothing is left of it: tombstones may
    have emptied it."""
    if not stream.fresh or job.options.depth != "apply":
        return False
    if absence is not None and not any(part.error or part.holds_back for part in parts):
        return True  # each document was removed, or its record is back
    tally = partial(job.ledger.tally, job.name, tenant=job.tenant)
    missed = any(part.start.missing for part in parts)
    return missed and not any(tally(collection=name).rows for name in job.entity.collections)


def _require_belief(job: Job, stream: Stream) -> None:
    """Raises TenantsLost where the source is taken for broken, whoever named the tenant: such a look counts for
    nothing. By hand it is believed."""
    if not stream.fresh or job.tenant == GLOBAL or job.options.allow_removals:
        return
    lost = job.lost()
    if lost is not None:
        raise lost


def _confirmed(job: Job, part: PartitionSync, absence: Absence) -> bool:
    """Whether the emptiness is believed. A tenant is missing for a while; of everybody's records, the last full run of
    this very collection must have found none either: runs of two collections a second apart are one look."""
    if not absence.confirmed(job.ledger.now()):
        return False
    last = last_full_run(job.ledger, job.name, part.target.collection, job.tenant)
    return job.tenant != GLOBAL or bool(last.removals_waiting)


def _look(job: Job, stream: Stream) -> Missing:
    if stream.fresh and job.options.depth == "apply":
        return job.ledger.miss(job.name, [job.tenant])[job.tenant]
    before = job.ledger.missing(job.name).get(job.tenant, Missing(job.ledger.now(), 0))
    # An old snapshot is no look at the source, however many looks there were before it.
    return Missing(before.since, before.looks + 1 if stream.fresh else 0)


def _note_waiting(job: Job, part: PartitionSync, absence: Absence) -> None:
    name, waiting = part.target.collection, part.figures.removals_waiting
    wait = "waits" if waiting == 1 else "wait"
    note = f"{number_of(waiting, 'removal')} {wait} for a second look: {absence.since_when(job.ledger.now())}"
    called = job.ledger.tenant_names(job.name).get((job.name, job.tenant), "")
    _log.warning("%s of %s: %s", name, named(job.tenant, called), note)
    job.note(name, note)


def _result(job: Job, part: PartitionSync, stream: Stream, cursor: Cursor | None) -> PartitionResult:
    """The result, with its checks; the watermark moves only if all of it went well."""
    checks: list[CheckOutcome] = []
    if part.error is None and not job.interrupted and not job.options.dry_run:
        with part.contains("checking the result"):
            checks = _checks(job, part, stream)
            _move_watermark(job, part, stream, cursor)
    elif job.options.depth == "apply" and not isinstance(part.error, (LedgerRejected, LedgerUnavailable)):
        with part.contains("counting what failed"):  # and is not as an earlier run left it, whatever ended this one
            t = part.target
            checks = [statuses(t, t.ledger.tally(t.entity, t.collection, t.tenant).failures)]
    return job.result(
        part.target.collection,
        part.figures,
        error=part.error,
        checks=checks,
        provider=part.target.embedder.provider,
        started_at=part.started_at,
    )


def _move_watermark(job: Job, part: PartitionSync, stream: Stream, cursor: Cursor | None) -> None:
    name = part.target.collection
    if not _moves_watermark(job, name, stream):
        return
    if cursor is not None:
        job.ledger.set_watermark(job.name, name, job.tenant, cursor, job.entity.synced_as(name))
    elif not job.source.incremental and not part.figures.removals_waiting:
        keep_read(job.ledger, job.name, job.entity, name, job.tenant)


def _moves_watermark(job: Job, name: str, stream: Stream) -> bool:
    """Whether the partition has all that lies before the stream's cursor. A snapshot of an incremental export may
    begin where another collection's last run ended, which came further."""
    if job.options.depth != "apply" or job.options.partial:
        return False
    if stream.fresh or stream.complete:
        return True
    return stream.since == job.ledger.watermark(job.name, name, job.tenant, job.entity.synced_as(name)) is not None


def _checks(job: Job, part: PartitionSync, stream: Stream) -> list[CheckOutcome]:
    """Those that this run can make; the last results of others stay what they are."""
    full = job.mode == "full"
    checks = [validation_outcome(part.figures)] if full and "documents" in job.options.stages else []
    if job.options.depth != "apply":
        return checks
    t = part.target
    count = partial(t.ledger.tally, t.entity, t.collection, t.tenant)
    tally, unidentified = count(), part.figures.unidentified
    if checks and part.holds_back:  # of records that are kept, some were rejected before
        checks = [rejected_now(tally, unidentified)]
    identity = job.settings.verify == "identity" or (full and (job.settings.verify == "auto" or part.doubted))
    failed = t.ledger.failed_checks(t.entity, t.collection, t.tenant)
    whole = not job.options.partial
    wrote = part.figures.touched and not (whole and identity)
    remade = over_perhaps(t, failed, tally, whole=whole) if wrote else []
    if not full:
        unidentified = unidentified_now(job.ledger, job.name, t.collection, job.tenant)
        if still_stopped(failed, incremental=not job.options.partial) is None:
            checks.append(rejected_now(tally, unidentified))
        if job.options.partial:
            stopped = removal_guard(t, part.figures, part.lacking, part.counted)
            return [*checks, statuses(t, tally.failures), *([] if stopped.passed else [stopped]), *remade]
    # A complete export is the source's count, of the very moment that was synced.
    rows = part.figures.fetched + part.figures.spared if full else job.source_rows()
    held = held_back(failed)
    if full or part.holds_back:
        checks.append(removal_guard(t, part.figures, part.lacking))
    elif held is not None and (again := guard_again(held, tally, rows, unidentified)).passed:
        checks.append(again)
        held = None
    look = partial(
        verify,
        t,
        part.figures,
        source_rows=rows,
        unidentified=unidentified,
        full=full,
        held=held,
    )
    found = look(tally, identity=identity)
    if not identity and job.settings.verify == "auto" and is_unexplained(found, failed):
        identity = True  # the checks would contradict each other until the next full run
        found = look(tally, identity=True)
    if not identity:
        return checks + found + remade + once_reported(failed)
    were_red = {one.check for one in failed if REPAIRED not in one.facts}
    found = _repaired(job, part, stream, found, lambda: look(count(), identity=True))
    return checks + [replace(one, over=True) if one.passed and one.name in were_red else one for one in found]


def _repaired(
    job: Job,
    part: PartitionSync,
    stream: Stream,
    found: list[CheckOutcome],
    look_again: Callable[[], list[CheckOutcome]],
) -> list[CheckOutcome]:
    """The outcomes of a comparison, after what they found is repaired."""
    # A run of some stages alone has an older read: it is not for repairing.
    if not stream.fresh or job.options.stages != STAGES:
        return found
    full, only_report = job.mode == "full", job.settings.repair == "report"
    if not only_report:
        found = repair_found(
            part.target,
            job.source,
            part.figures,
            found,
            look_again,
            complete=full,
            believed=not part.holds_back,
            allow_removals=job.options.allow_removals,
            watch=job.watch,
        )
    if full:
        part.compared(found)
    return told_of_left_over(found, part.left_over, part.left_named, part.left_done, warn=only_report)
