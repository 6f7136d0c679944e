"""One call of `sync_tenant`: its arguments, what its parts share, and how its results are made and recorded."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.containment import contained
from vecsync_dagster.documents import Rejection
from vecsync_dagster.embedding import EmbeddingProvider
from vecsync_dagster.errors import InternalError, TenantsLost, VecsyncError
from vecsync_dagster.ledger.base import Ledger, Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.sources.base import Source
from vecsync_dagster.stores.base import VectorStore
from vecsync_dagster.sync.embedders import Embedders
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import Outcome, PartitionResult, SyncOptions
from vecsync_dagster.sync.partition import PartitionSync
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster.sync.snapshots import Snapshots
from vecsync_dagster.sync.verify import CheckOutcome, graded, kept

__all__ = ["Job", "run_of"]


@dataclass(slots=True)
class Job:
    """`mode` is that of the read under way: full, incremental, partial (a limit or an offset), ids or retry. `notes`:
    what people should know of a collection's run, besides its figures. `settled`: the partitions whose writing ended
    well. `left`: see `PartitionResult`. `moved`: collections that lie elsewhere than before, of a run
    that does not write to them."""

    name: str
    entity: EntityConfig
    tenant: str
    source: Source
    stores: Mapping[str, VectorStore]
    embedders: Embedders
    ledger: Ledger
    settings: SyncConfig
    checks: ChecksConfig
    options: SyncOptions
    snapshots: Snapshots | None
    rejections: RejectionLog | None
    progress: Callable[[Figures], None]
    stop: Callable[[], bool]
    missing_for: timedelta
    lost: Callable[[], TenantsLost | None]
    places: Mapping[str, str]
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    mode: str = ""
    interrupted: bool = False
    settled: list[PartitionSync] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    met: bool = False
    """Whether the read under way had a record."""
    _started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _begun: float = field(default_factory=time.monotonic)
    _noted: set[int] = field(default_factory=set)
    _rows: int | None = None

    def begin(self, mode: str) -> None:
        """A read begins: its results count their seconds from here."""
        self.mode = mode
        self.met = False
        self._started_at = datetime.now(UTC)
        self._begun = time.monotonic()
        self._rows = None

    def watch(self, figures: Figures) -> bool:
        """Tell how far it is; whether the run was asked to end."""
        self.progress(figures)
        self.interrupted = self.interrupted or self.stop()
        return self.interrupted

    def source_rows(self) -> int:
        """Live rows by the source's own count: asked once a read, which serves several collections."""
        if self._rows is None:
            self._rows = self.source.count(self.tenant)
        return self._rows

    def leave(self, keys: Iterable[str]) -> None:
        if self.entity.writeback:
            self.left.update(keys)

    def keep(self, rejections: Sequence[Rejection]) -> None:
        """Into invalid_records.jsonl. One record may be rejected for several collections: it is kept once."""
        if self.rejections is not None:
            fresh = [r for r in rejections if id(r.record) not in self._noted]
            self._noted.update(id(r.record) for r in fresh)
            self.rejections.keep(self.name, self.tenant, fresh)

    def note(self, collection: str, text: str) -> None:
        self.notes[collection] = "; ".join(filter(None, (self.notes.get(collection), text)))

    def page_done(self) -> None:
        self._noted.clear()

    def result(
        self,
        collection: str,
        figures: Figures,
        *,
        error: VecsyncError | None = None,
        checks: Sequence[CheckOutcome] = (),
        provider: EmbeddingProvider | None = None,
        started_at: datetime | None = None,
    ) -> PartitionResult:
        """The result of one partition, recorded in the ledger (not that of a dry run)."""
        outcome: Outcome = "failed" if error else "interrupted" if self.interrupted else "success"
        figures.seconds = time.monotonic() - self._begun
        result = PartitionResult(
            run_id=self.run_id,
            entity=self.name,
            collection=collection,
            tenant=self.tenant,
            mode=self.mode,
            outcome=outcome,
            started_at=started_at or self._started_at,
            ended_at=datetime.now(UTC),
            figures=figures,
            space=str(provider.space) if provider else "",
            semantic=provider.semantic if provider else True,
            # A few records are no export of the partition: only its vectors are other ones now.
            stages=self.options.stages if self.options.ids is None else ("vectors",),
            checks=tuple(graded(check, self.checks) for check in checks),
            error=error,
            note=self.notes.get(collection, ""),
            left=self.left,
        )
        if self.options.dry_run:
            return result
        try:
            with contained(f"{collection} of {self.tenant}: recording the run"):
                self.ledger.record_run(run_of(result), _kept(result))
        except InternalError as failed:
            result = replace(result, outcome="failed", error=result.error or failed)
            with contained(f"{collection} of {self.tenant}: recording the failed run"):
                self.ledger.record_run(run_of(result))
        return result


def _kept(result: PartitionResult) -> list[CheckResult]:
    place = (result.entity, result.collection, result.tenant)
    return [kept(check, *place, result.ended_at, result.run_id) for check in result.checks]


def run_of(result: PartitionResult) -> Run:
    """As the ledger keeps it. What did not get as far as the store is no sync of the partition: its mode is the last
    stage's name."""
    return Run(
        run_id=result.run_id,
        entity=result.entity,
        collection=result.collection,
        tenant=result.tenant,
        mode=result.mode if "vectors" in result.stages else result.stages[-1],
        outcome=result.outcome,
        started_at=result.started_at,
        ended_at=result.ended_at,
        figures=result.figures.as_dict(),
        error=f"{result.error.code}: {result.error}" if result.error else None,
        failed_checks=tuple(check.name for check in result.checks if not check.passed and not check.warning),
    )
