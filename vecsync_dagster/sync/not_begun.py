"""Results of a tenant whose sync failed outside the run of each of its collections: before, or after."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from vecsync_dagster.errors import PartitionBusy, VecsyncError
from vecsync_dagster.identity import as_storable
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.job import run_of
from vecsync_dagster.sync.options import PartitionResult, Selection, SyncOptions

__all__ = ["failed_after", "failed_results"]


def failed_results(
    ledger: Ledger,
    selection: Selection,
    options: SyncOptions,
    configured: str,
    started_at: datetime,
    error: VecsyncError,
) -> list[PartitionResult]:
    """One for each collection, recorded in the ledger as a failed run; but not where another run is in the partition,
    which records its own. `configured`: the mode where the options name none."""
    results = [_failed(selection, name, options, configured, started_at, error) for name in selection.collections]
    if not options.dry_run and not isinstance(error, PartitionBusy):
        ledger.record_runs([run_of(result) for result in results])
    return results


def failed_after(ledger: Ledger, results: Sequence[PartitionResult], error: VecsyncError) -> list[PartitionResult]:
    """These results as failures. What the runs did is in the ledger already: a run of its own says what came after."""
    failed = [replace(result, outcome="failed", error=result.error or error) for result in results]
    for result in failed:
        own = replace(result, run_id=uuid.uuid4().hex, started_at=datetime.now(UTC), figures=Figures())
        ledger.record_run(run_of(replace(own, ended_at=datetime.now(UTC))))
    return failed


def _failed(
    selection: Selection,
    collection: str,
    options: SyncOptions,
    configured: str,
    started_at: datetime,
    error: VecsyncError,
) -> PartitionResult:
    return PartitionResult(
        run_id=uuid.uuid4().hex,
        entity=selection.entity,
        collection=collection,
        tenant=as_storable(selection.tenant),  # whose failure is known to the ledger, too
        mode=options.mode_of(configured),
        outcome="failed",
        started_at=started_at,
        ended_at=datetime.now(UTC),
        figures=Figures(),
        space="",
        semantic=True,
        stages=options.stages,
        error=error,
    )
