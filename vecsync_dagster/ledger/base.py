"""The protocol of the ledger: what the store is known to hold, one row a document and collection.

The ledger learns of a write only after the store confirmed it. Times are UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from vecsync_dagster.errors import TenantsLost
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.ledger.record_states import FailedRow, Failures, RecordState, Status
from vecsync_dagster.sources.base import Cursor, Fingerprint
from vecsync_dagster.space import Space

__all__ = [
    "DIED",
    "LISTING",
    "LOST",
    "REPEATED",
    "Confirmed",
    "Failed",
    "InvalidRecord",
    "LastRuns",
    "Ledger",
    "LedgerPoint",
    "LedgerRow",
    "Listener",
    "Missing",
    "Partition",
    "PartitionTotals",
    "Recognised",
    "Rejected",
    "Run",
    "RunStart",
    "Seen",
    "Status",
    "Tally",
]


_NO_KEY = Key("")


# What is made once a document and run is not frozen: a frozen one takes three times as long to make.
@dataclass(slots=True)
class LedgerRow:
    """What `changes.decide` needs to know of a document. Hashes are those the store confirmed
    (None: it never held the document); `attempt_hash` is that of the last attempt that failed. `number` is the
    row's own, never given to another one. `key`: of the record."""

    number: int
    document_id: str
    tenant: str
    space: str
    status: Status
    content_hash: str | None
    payload_hash: str | None
    attempt_hash: str | None
    retry_count: int
    next_attempt_at: datetime | None
    field_hashes: str | None
    seen: bool
    """Whether this run made the row, or failed with it (last_seen_at is the run's own start)."""
    last_attempt_at: datetime | None = None
    text_hash: str | None = ""
    """Of the prepared text that the document's vector is of; None where nobody noted it, as in earlier versions."""
    truncated: int | None = None
    """Whether that text was cut."""
    key: Key = _NO_KEY

    @property
    def knows_text(self) -> bool:
        return self.text_hash is not None


class Owned(NamedTuple):
    """Whose a document is, and its record's key."""

    tenant: str
    key: Key


class RunStart(NamedTuple):
    """When a run of a partition began, and what was known then: how many rows the partition had, whether its tenant
    was missing, whether a document of the partition was confirmed, and one of the collection, whoever's. `former`:
    whether there are documents that `Ledger.keep_former` kept."""

    at: datetime
    known: int
    missing: bool = False
    held: bool = False
    collection_held: bool = False
    former: bool = False


class Missing(NamedTuple):
    """The source has had no row of a tenant since then, by that many looks, one after the other."""

    since: datetime
    looks: int


class Listener(NamedTuple):
    """A process listens to the changes of an entity since then, and said so last at the time `at`. `problem`: why it
    hears nothing at present."""

    since: datetime
    at: datetime
    problem: str | None


class Recognised(NamedTuple):
    """Numbers of the rows whose records are as they were, and the ids of the other documents asked for."""

    numbers: list[int]
    others: set[str]


class Tally(NamedTuple):
    """Rows of a partition; those of them that the store should hold (content_hash is not null); those that failed;
    those whose record is rejected now, while the store keeps its last good version; those whose text is longer than
    the model takes, as far as it is known. `former`: rows that are kept beside another one of the same record, until
    the store holds that (`Ledger.keep_former`); they are no `stale` ones."""

    rows: int
    held: int
    failures: Failures
    stale: int = 0
    truncated: int = 0
    former: int = 0


@dataclass(slots=True)
class Confirmed:
    """A write the store confirmed. `vector_written` raises vector_version by one. `record_hash`: see
    `Ledger.recognise`. `modified_fields`: names of what changed in it (None: not known, or nothing did; the last
    ones stay). `db_key`: `identity.Key.native` of the record. `text_hash`: the cache's key of the vector, None where
    none was looked up (what is known stays); `truncated`: the model takes less than the whole text."""

    document_id: str
    db_id: str
    point_id: str
    content_hash: str
    payload_hash: str
    vector_written: bool
    record_hash: str | None = None
    field_hashes: str | None = None
    modified_fields: tuple[str, ...] | None = None
    db_key: str | None = None
    text_hash: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed. The confirmed hashes of the row stay as they are."""

    document_id: str
    db_id: str
    point_id: str
    attempt_hash: str
    error_code: str
    error: str
    retry_count: int
    next_attempt_at: datetime | None
    """None: permanent, until reset or until the document changes."""
    modified_fields: tuple[str, ...] | None = None
    db_key: str | None = None


@dataclass(slots=True)
class LedgerPoint:
    """A row as reconciliation sees it: a point the store should hold (content_hash is not None)."""

    point_id: str
    document_id: str
    db_id: Key
    tenant: str
    content_hash: str
    payload_hash: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not become a document. No field's value in here, only names and ids.
    `collection` None: rejected for all collections of its entity."""

    db_id: str | None
    code: str
    field: str | None
    error: str
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One sync of one partition: a row of `sync_run`. `figures` as sync.figures.Figures.as_dict()."""

    run_id: str
    entity: str
    collection: str
    tenant: str
    mode: str
    outcome: str  # success | failed | interrupted
    started_at: datetime
    ended_at: datetime
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    failed_checks: tuple[str, ...] = ()
    """Names of the checks that found an error."""

    @property
    def ok(self) -> bool:
        return self.outcome == "success" and not self.failed_checks


DIED = (
    "RUN_DIED: it left no result: its process was killed, or could not tell the ledger; Dagster's sensors, where they "
    "are on, have the partition synced again"
)
"""The error of a run that was recorded by others (`Ledger.end_dead_runs`)."""

LISTING = "tenants"
"""The mode of a run that did no more than to ask a source for its tenants: kept where it failed, and once more when
the source answers again. It is of no partition: `collection` and `tenant` are empty."""

LOST: Final = TenantsLost.default_code
"""How the error of such a run begins where the source answered, but lacks so many tenants that it is taken for
broken."""


class Partition(NamedTuple):
    entity: str
    collection: str
    tenant: str


@dataclass(frozen=True, slots=True)
class LastRuns:
    """The last syncs of one partition: of any mode and outcome, the last one that succeeded, and the last full one of
    any outcome, that succeeded and that failed. A few records by id, a retry, a limit or an export alone are no sync
    of a partition."""

    last: Run
    success: Run | None = None
    full: Run | None = None
    full_success: Run | None = None
    full_failure: Run | None = None

    @property
    def undone(self) -> Run | None:
        """The last run where it did not succeed, else the last full one where it did not: what only a full run does is
        still to be done then, however well later runs ended. None where all is well."""
        return next((run for run in (self.last, self.full) if run is not None and run.outcome != "success"), None)


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record that is rejected now, and why; no value of it. `id` None: it has no usable id. `state`: what the store
    has of it: stale (its last good version), failed (nothing), unidentified (it cannot be told apart)."""

    entity: str
    collection: str
    tenant: str
    id: str | None
    code: str | None
    field: str | None
    error: str | None
    since: datetime
    state: str


REPEATED = "the id occurs more than once; the first record was taken"
"""Why a record is rejected whose id another record of the same read has."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last sync of a partition that left nothing out. `at`: when it began. `settings`: a hash of
    what documents are made by. `fingerprint`: None where the source has none. `doubted_at`: see `Ledger.doubt`."""

    at: datetime
    settings: str
    fingerprint: Fingerprint | None = None
    doubted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PartitionTotals:
    """Counts and dates of one partition for `status`."""

    entity: str
    collection: str
    tenant: str
    documents: int
    by_status: Mapping[str, int]
    rejected: int
    """Those of `failed` whose record was never valid: no attempt helps before it is."""
    waiting: int
    """Those of `failed` that wait for their next attempt; `next_retry`: the first one's time."""
    next_retry: datetime | None
    last_synced_at: datetime | None
    last_seen_at: datetime | None
    unseen_since: int
    """Documents whose last_seen_at is older than the date asked for."""


@runtime_checkable
class Ledger(Protocol):
    """Contract (vecsync_dagster_tests/ledger/ledger_contract.py runs it over every implementation):

    - Every statement is bounded by entity and collection, and by tenant wherever a tenant is given.
    - No statement grows with the number of rows: lists are sent in chunks.
    - Each writing call is one transaction: all of it or nothing.
    - Methods may be called from several threads; no transaction stays open between calls
      (iterators read in chunks by key).
    """

    # -- space -------------------------------------------------------------------------------------
    def space_of(self, collection: str) -> Space | None:
        """The space the collection was pinned to at its first sync."""
        ...

    def pin_space(self, entity: str, collection: str, space: Space) -> Space:
        """Pin `space` unless one is pinned already; returns the one that holds. Safe when raced."""
        ...

    def place_of(self, collection: str) -> str | None:
        """Where the points of the collection lie; None where no run of this version has noted it yet."""
        ...

    def come_to(self, collection: str, place: str) -> bool:
        """The collection lies at `place` from now on. True where it lay elsewhere: until a full run has compared a
        partition point by point (`finish_writing`) it has a mark and no watermark, and it is due. Safe when raced."""
        ...

    def is_moved(self, entity: str, collection: str, tenant: str) -> bool:
        """Whether the partition has such a mark."""
        ...

    def hold(self, entity: str, tenant: str) -> AbstractContextManager[None]:
        """Exclusive right to sync this entity and tenant, over all processes that share the ledger.

        Entering raises PartitionBusy, without waiting, where another run has it; a killed process loses it.
        """
        ...

    def hold_all(self, entity: str) -> AbstractContextManager[None]:
        """Nobody syncs any tenant of the entity meanwhile, also one that is new.

        Entering raises PartitionBusy, without waiting, where somebody does; a killed process loses it.
        """
        ...

    # -- documents ---------------------------------------------------------------------------------
    def rows(self, entity: str, collection: str, ids: Sequence[str], started_at: datetime) -> dict[str, LedgerRow]:
        """Rows of those document ids, whatever their tenant (a moved document is found here)."""
        ...

    def namesakes(
        self, entity: str, collection: str, tenant: str, keys: Iterable[str], *, most: int | None = None
    ) -> Iterator[dict[str, Owned]]:
        """Documents that the store holds for other tenants, and whose keys differ from these of the tenant's in nothing
        but the tenant, which is a part of them: all of them, those of a few keys at a time. The caller may forget each
        before it asks for the next. None of a key that more than `most` documents share so."""
        ...

    def formers_of(self, entity: str, collection: str, tenant: str, keys: Iterable[str]) -> dict[str, Owned]:
        """Documents that `keep_former` kept for other tenants, and whose records have one of these keys today."""
        ...

    def confirm(
        self,
        entity: str,
        collection: str,
        tenant: str,
        space: Space,
        writes: Sequence[Confirmed],
        seen_at: datetime,
        *,
        moved: bool = False,
    ) -> list[str]:
        """Status synced, hashes stored, retry_count 0, error gone, last_synced_at = now. last_seen_at = seen_at where
        the partition did not have the row yet; for others see `mark_seen`.

        Rows of another tenant are taken over only where `moved` says that these documents were known to be
        there. Else that tenant's run took them meanwhile: they stay, and their ids are returned.
        """
        ...

    def recognise(
        self,
        entity: str,
        collection: str,
        tenant: str,
        space: Space,
        record_hashes: Mapping[str, str],
        started_at: datetime,
    ) -> Recognised:
        """Of those documents (id -> hash of the record as it is now) most need nothing and no further look: they
        are synced, of this tenant and space, of just this record, of a known text, and not made in this run.
        Nothing is written: the run remembers their numbers."""
        ...

    def touch(
        self, entity: str, collection: str, tenant: str, record_hashes: Mapping[str, str | None], seen_at: datetime
    ) -> None:
        """last_seen_at = seen_at (never earlier than it was) and the record's hash for rows of this tenant that
        were seen and need nothing. Rows that were `stale` become `synced` again."""
        ...

    def keep_texts(
        self, entity: str, collection: str, tenant: str, space: Space, texts: Mapping[str, tuple[str, bool]]
    ) -> None:
        """Which vector of the cache each of these documents has (id -> text hash, and whether the text was cut), where
        the row does not say so and holds a vector of this space."""
        ...

    def mark_stale(
        self, entity: str, collection: str, tenant: str, ids: Sequence[str], code: str, error: str, seen_at: datetime
    ) -> int:
        """The records are there but are rejected now: keep the rows of this tenant as seen, status `stale`.
        Returns how many there were."""
        ...

    def keep_former(
        self, entity: str, collection: str, tenant: str, keys: Mapping[str, Key], error: str, seen_at: datetime
    ) -> None:
        """The records of these documents (id -> the record's key of today) have other document ids by now, which the
        store does not hold: keep the rows of this tenant as seen, status `stale`, error code `FORMER`."""
        ...

    def formers(self, entity: str, collection: str, tenant: str) -> list[str]:
        """Ids of the documents that were kept so."""
        ...

    def fail(
        self, entity: str, collection: str, tenant: str, space: Space, failures: Sequence[Failed], seen_at: datetime
    ) -> None:
        """Status failed; a row that does not exist is made with null hashes."""
        ...

    def unseen(
        self,
        entity: str,
        collection: str,
        tenant: str,
        before: datetime,
        seen: BitMap64 | None = None,
        chunk: int = 500,
    ) -> Iterator[list[tuple[str, str]]]:
        """(document id, point id) of rows of the partition with last_seen_at < before whose number is not in `seen`,
        in chunks. The caller may forget each chunk before it asks for the next."""
        ...

    def mark_seen(self, entity: str, collection: str, tenant: str, numbers: Sequence[int], seen_at: datetime) -> None:
        """last_seen_at = seen_at (never earlier than it was) for those rows of the partition."""
        ...

    def mark_all_seen(self, entity: str, collection: str, tenant: str, seen_at: datetime) -> None:
        """Every row that the partition has was seen by a full run that began then."""
        ...

    def forget(
        self, entity: str, collection: str, tenant: str, ids: Sequence[str], *, with_vectors: bool = False
    ) -> None:
        """Delete those rows of the partition: after the store confirmed the removal. `with_vectors`: and their cached
        vectors that no other document needs; otherwise those stay until the partition is dropped, or are too old."""
        ...

    def all_due(
        self, entity: str, collection: str, tenant: str, now: datetime, chunk: int = 10_000
    ) -> Iterator[list[Key]]:
        """Keys of failed rows whose next attempt is due, in chunks, by document id: each once, also where attempts are
        made meanwhile."""
        ...

    def never_stored(self, entity: str, collection: str, tenant: str, chunk: int = 10_000) -> Iterator[list[Key]]:
        """Keys of rows of which the store never held anything, in chunks, by document id."""
        ...

    def now(self) -> datetime:
        """The ledger's clock: what back-off is counted from."""
        ...

    def run_start(self, entity: str, collection: str, tenant: str) -> RunStart:
        """A start time for a run of this partition: now, but always later than every last_seen_at in it
        (a clock that goes backwards must not make seen rows look unseen, nor the reverse)."""
        ...

    # -- failed documents --------------------------------------------------------------------------
    def failed_rows(
        self,
        entity: str,
        collections: Sequence[str],
        *,
        due: datetime | None = None,
        or_outage: bool = False,
        ids: Sequence[str] | None = None,
        tenant: str | None = None,
        limit: int = 10_000,
    ) -> list[FailedRow]:
        """Failed documents of an entity over all tenants or of one, oldest attempt first; not those whose record
        was rejected. `due`: only those whose next attempt is due then (never a permanent one); `or_outage`: and those
        that wait because a whole service failed. `ids`: only these document ids."""
        ...

    def failures(
        self, entity: str, collections: Sequence[str], ids: Sequence[str] | None = None
    ) -> tuple[Failures, datetime | None]:
        """How many of those wait for their next attempt, or are not tried again; and when the first of them is due."""
        ...

    def reset(self, entity: str, collections: Sequence[str], ids: Sequence[str] | None = None) -> int:
        """retry_count 0 and due now for failed documents, permanent ones too; not for those whose record was
        rejected. Returns how many."""
        ...

    def postpone(self, entity: str, collection: str, tenant: str, ids: Sequence[str], until: datetime) -> None:
        """Failed rows that are still due, because an attempt did not get as far as them: to the end of the queue,
        without counting it."""
        ...

    # -- records -----------------------------------------------------------------------------------
    def touched(self, entity: str, tenant: str, since: datetime | None, chunk: int = 500) -> Iterator[list[str]]:
        """Ids of the tenant's documents of which a row changed at or after `since` (None: all) in any collection,
        each once, in order, in chunks."""
        ...

    def records(
        self,
        entity: str,
        collections: Sequence[str],
        *,
        tenant: str | None = None,
        collection: str | None = None,
        status: Status | None = None,
        ids: Sequence[str] | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> list[RecordState]:
        """Records with their state in each of `collections`, the worst first, then by document id. `status`: only
        records of this overall status, or of this status in `collection`. `ids`: only these document ids."""
        ...

    def count_records(
        self,
        entity: str,
        collections: Sequence[str],
        *,
        tenant: str | None = None,
        collection: str | None = None,
    ) -> dict[Status, int]:
        """How many records have which overall status, or which one in `collection`."""
        ...

    def absent(
        self, entity: str, collection: str, others: Sequence[str], tenant: str | None, limit: int
    ) -> tuple[int, list[tuple[str, str | None]]]:
        """Records (of one tenant, or of all) that the store holds in one of the `others` but not in `collection`:
        how many, and the first ones as (document id, the error code of its row here: None where it has none)."""
        ...

    # -- partitions --------------------------------------------------------------------------------
    def with_rows(self, entity: str, collection: str | None = None) -> list[str]:
        """Every tenant that has documents, also ones that failed or were rejected: whoever would lose something."""
        ...

    def with_rows_or_marks(self, entity: str, collection: str | None = None) -> list[str]:
        """Those, and every tenant with runs that did not finish: whoever the store may hold anything of, also what only
        the store ever learned."""
        ...

    def has_scope(self, entity: str, collection: str, *, is_global: bool) -> bool:
        """Whether the ledger has rows of everybody's documents (`is_global`), or of any tenant's."""
        ...

    def has_others(self, entity: str, tenant: str) -> bool:
        """Whether the ledger has rows of another tenant."""
        ...

    def traces(self, entity: str, collections: Collection[str]) -> list[str]:
        """Every tenant of which the ledger has anything besides the history of its runs: rows and marks of runs in
        these collections, as no run removes others, and what was noted of it, such as how far it was read, what its
        checks found and which records were rejected."""
        ...

    def ever_synced(self, entity: str) -> list[str]:
        """Every tenant that the ledger has any run of, also of the export alone."""
        ...

    def tally(self, entity: str, collection: str, tenant: str) -> Tally:
        """The rows of the partition, counted; also those never stored (rejected or failed at their first attempt)."""
        ...

    def truncated_ids(self, entity: str, collection: str, tenant: str, limit: int) -> list[str]:
        """The ids of the records whose text is longer than the model takes, the first ones."""
        ...

    def points(
        self, entity: str, collection: str, tenant: str | None = None, chunk: int = 1000
    ) -> Iterator[list[LedgerPoint]]:
        """Rows the store should hold, ordered by point id (bytewise), of one partition or all."""
        ...

    def totals(self, unseen_before: datetime) -> list[PartitionTotals]:
        """All partitions, by grouped queries."""
        ...

    # -- incremental -------------------------------------------------------------------------------
    def watermark(self, entity: str, collection: str, tenant: str, settings: str = "") -> Cursor | None:
        """How far the partition has come; None where it never did, or did so under other settings (a hash of
        what documents are made by): rows that did not change since then would keep their old documents. None as well
        where its collection has come to another place since then (`come_to`)."""
        ...

    def set_watermark(self, entity: str, collection: str, tenant: str, cursor: Cursor, settings: str = "") -> None: ...

    def drop_partition(self, entity: str, collection: str, tenant: str, *, with_vectors: bool = True) -> None:
        """Forget how far a partition that is gone had come (its rows are forgotten already), and `with_vectors` the
        cached vectors of its former documents that nobody needs. Marks of runs that did not finish stay: they name
        points that only the store knows."""
        ...

    def set_seen(self, entity: str, collection: str, tenant: str, seen: Seen, *, full: bool = False) -> None:
        """A doubt stays, unless a `full` run began after it."""
        ...

    def doubt(self, entity: str, collection: str, tenant: str) -> None:
        """Documents were removed from the partition that may be there: it is due in full. Nothing is noted of one that
        was never seen, which is due in any case."""
        ...

    def doubted(self, entity: str) -> dict[tuple[str, str], datetime]:
        """The partitions (collection, tenant) that are due in full because of `doubt`, and since when."""
        ...

    def seen(self, entity: str) -> dict[tuple[str, str], Seen]:
        """Of every partition (collection, tenant) that was ever synced."""
        ...

    # -- missing tenants ---------------------------------------------------------------------------
    def miss(self, entity: str, tenants: Sequence[str]) -> dict[str, Missing]:
        """One more look at the source found no row of these tenants; a tenant may be `global`."""
        ...

    def found(self, entity: str, tenants: Sequence[str]) -> None:
        """The source has rows of these tenants again, or nothing of them is left that could be missed."""
        ...

    def missing(self, entity: str) -> dict[str, Missing]:
        """Every tenant whose last look found no row."""
        ...

    # -- names of tenants --------------------------------------------------------------------------
    def tenant_names(self, entity: str | None = None) -> dict[tuple[str, str], str]:
        """(entity, tenant) -> what people call it, of all whose name was asked for; empty where it has none."""
        ...

    def tenant_name(self, entity: str, tenant: str) -> str:
        """Empty where none is known."""
        ...

    def set_tenant_names(self, entity: str, names: Mapping[str, str]) -> None:
        """Names by tenant; those of others stay."""
        ...

    def forget_tenant_names(self, entity: str, tenants: Iterable[str] | None = None) -> None:
        """None: of all tenants."""
        ...

    # -- unfinished runs ---------------------------------------------------------------------------
    def begin_writing(self, entity: str, collection: str, tenant: str, run_id: str, mode: str | None = None) -> None:
        """The run is about to change the partition in the store. Committed before the store is told anything: what
        the store learns and the ledger does not is looked for only where a run did not finish. `mode`: of a run that
        `record_run` will be told of."""
        ...

    def unfinished(self, entity: str, collection: str, tenant: str) -> list[str]:
        """Ids of the runs that began to write into the partition and did not finish, oldest first."""
        ...

    def is_cut_short(self, entity: str, collection: str, tenant: str) -> bool:
        """Whether one of them is a sync that did not finish, or was left as the collection came to another place.
        The others are left by runs that ended well: what differs is not explained by them."""
        ...

    def finish_writing(self, entity: str, collection: str, tenant: str, run_ids: Sequence[str]) -> None:
        """All that those runs wrote is in the ledger."""
        ...

    def end_dead_runs(self, entity: str | None = None) -> list[Run]:
        """Record the runs as failed (`DIED`) that began to write and are over without a result: their processes were
        killed. Returns those that were not recorded yet."""
        ...

    # -- runs --------------------------------------------------------------------------------------
    def record_run(self, run: Run, checks: Sequence[CheckResult] = ()) -> None:
        """With the results of the checks that the run made; those it did not make stay as they were."""
        ...

    def record_checks(self, results: Sequence[CheckResult]) -> None:
        """Results of checks that were made without a run."""
        ...

    def check_results(
        self, entity: str | None = None, tenant: str | None = None, *, failed: bool = False
    ) -> list[CheckResult]:
        """The last result of each check of each partition; with `tenant`, of its partitions alone. `failed`: only those
        that did not pass."""
        ...

    def failed_checks(self, entity: str, collection: str, tenant: str) -> list[CheckResult]:
        """Those of one partition that did not pass the last time."""
        ...

    def unshown(self, entity: str) -> set[tuple[str, str]]:
        """Collection and tenant of the partitions to which runs began to write, until they are `shown`."""
        ...

    def shown(self, entity: str, collection: str, tenant: str, until: datetime) -> None:
        """Dagster shows all stages of the partition as the run left them that ended then, or a later one did."""
        ...

    def last_runs_of_undone(self, entity: str) -> dict[Partition, LastRuns]:
        """The same of the partitions that have a run that did not succeed, by an index of those alone."""
        ...

    def listens(self, entities: Mapping[str, str | None], since: datetime) -> None:
        """A process that listens since then says so, for each entity with what keeps it from hearing anything now."""
        ...

    def listens_no_more(self, entities: Iterable[str], since: datetime) -> None:
        """Said by who has listened since then; what another one said since stays."""
        ...

    def listeners(self) -> dict[str, Listener]:
        """Of each entity the one that said so last; also one that died."""
        ...

    def record_runs(self, runs: Sequence[Run]) -> None:
        """All of them in one transaction."""
        ...

    def runs(
        self,
        entity: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
        *,
        collection: str | None = None,
        mode: str | None = None,
        outcome: str | None = None,
    ) -> list[Run]:
        """Newest first."""
        ...

    def last_runs(self, entity: str | None = None, tenant: str | None = None) -> dict[Partition, LastRuns]:
        """The last syncs of every partition that was ever synced, however many runs came after them; of an entity
        whose source could not be asked, under an empty collection and tenant."""
        ...

    def reject(self, run_id: str, entity: str, tenant: str, rejected: Sequence[Rejected], at: datetime) -> None: ...

    def rejected(self, entity: str | None = None, tenant: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first, as plain dictionaries of the table's columns."""
        ...

    def invalid(self, last: Mapping[Partition, LastRuns | None], limit: int = 1000) -> list[InvalidRecord]:
        """The records of these partitions that are rejected now."""
        ...

    def unidentified_since(self, place: Partition, full: Run | None) -> int:
        """How many records without a usable id of their own runs have rejected since the last full one succeeded, which
        that one did not; None: since ever."""
        ...

    def forget_rejected(self, entity: str, tenant: str | None = None, collection: str | None = None) -> None:
        """Forget what was ever rejected there; None: of all tenants, in all collections."""
        ...

    # -- what left the configuration ---------------------------------------------------------------
    def collections(self) -> list[tuple[str, str]]:
        """(entity, collection) of all that was ever synced and not forgotten, configured or not."""
        ...

    def left_by_others(
        self, entity: str, collection: str, beginnings: Sequence[str], most: int
    ) -> list[tuple[str, str, Key]]:
        """Entity, tenant and key of at most so many documents whose ids are one of these and their keys, and that are
        of the entity which had the collection before this one."""
        ...

    def documents(self, entity: str, collection: str) -> int:
        """Rows of all its partitions."""
        ...

    def forget_collection(self, entity: str, collection: str, heir: str | None = None) -> None:
        """Forget everything about it, in chunks: rows, runs, watermarks and its space. Calling it again goes on.
        `heir`: another entity has the collection, and keeps its space."""
        ...

    def forget_partition(self, entity: str, collection: str, tenant: str) -> None:
        """Forget everything about a partition without rows, its runs too."""
        ...

    def forget_entity(self, entity: str) -> None:
        """Forget the runs and rejected records of an entity, and its tenants' names; its alerts are over."""
        ...

    # -- embedding cache ---------------------------------------------------------------------------
    def vectors(self, space: Space, text_hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The cached ones of those texts (hash: SHA-256 hex of the prepared text)."""
        ...

    def keep_vectors(self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None = None) -> None:
        """Committed before the vectors are written anywhere: a text is paid for once. `origin`: where they come from;
        raises SpaceMismatch, and keeps none, where those of the space have come from elsewhere since."""
        ...

    def origin_of(self, space: Space) -> str | None:
        """Where the vectors of the space came from when one was last made; None where that is not known."""
        ...

    def require_origin(self, space: Space, origin: str) -> None:
        """Raises SpaceMismatch where the vectors of the space have come from elsewhere since."""
        ...

    def keep_origin(self, space: Space, origin: str, *, anew: bool = False) -> None:
        """`anew`: and forget the cached vectors of the space, at once."""
        ...

    def check(self) -> str:
        """Try the connection and the schema's version. Raises LedgerUnavailable / LedgerRejected."""
        ...

    def close(self) -> None: ...
