"""The contract with the source: where too many of its records are invalid, nothing of that partition is written.

The share is known only when all records were read. So they are read, checked and kept as a snapshot first; the sync
proper then reads that snapshot, and sees exactly what was checked. A run by ids is not checked: the share of a few
records that somebody asked for says nothing of the partition.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from vecsync_dagster.documents import DocumentBuilder, Rejection
from vecsync_dagster.errors import ValidationFailed
from vecsync_dagster.ledger.base import Rejected
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.job import Job
from vecsync_dagster.sync.options import PartitionResult
from vecsync_dagster.sync.streams import Stream
from vecsync_dagster.sync.verify import validation_outcome

__all__ = ["refused"]


def refused(job: Job, names: Sequence[str], stream: Stream) -> tuple[list[PartitionResult], Stream]:
    """Failed results of those collections of which too many records are invalid, and the stream for the others: it
    has what was checked. Raises what reading raises."""
    if job.checks.max_invalid_share is None or job.options.depth == "plan" or job.options.ids is not None:
        return [], stream
    builder = DocumentBuilder(job.name, job.entity, job.tenant, names)
    figures = {name: Figures() for name in names}
    first: dict[str, Rejection] = {}
    with contextlib.closing(stream.pages()) as read:
        for page in read:
            for name, batch in builder.build(page.records).items():
                figures[name].fetched += page.records.num_rows
                figures[name].invalid += len(batch.rejections)
                if batch.rejections:
                    first.setdefault(name, batch.rejections[0])
            if job.watch(next(iter(figures.values()))):
                return [], stream
    again = stream.again()
    bad = [name for name in names if _too_many(job, figures[name])]
    if bad:
        _keep(job, bad, again)
    return [_refusal(job, name, figures[name], first[name]) for name in bad], again


def _too_many(job: Job, figures: Figures) -> bool:
    share = job.checks.max_invalid_share
    enough = figures.invalid >= job.checks.min_invalid
    return share is not None and enough and figures.invalid > share * figures.fetched


def _refusal(job: Job, name: str, figures: Figures, first: Rejection) -> PartitionResult:
    error = ValidationFailed(
        f"{name} of {job.tenant}: {figures.invalid} of {figures.fetched} records are invalid, more than "
        f"checks.max_invalid_share allows ({job.checks.max_invalid_share:.0%}): nothing was written or removed; "
        f"the first: id {first.db_id}: {first.error}",
        entity=job.name,
        rejected=figures.invalid,
    )
    return job.result(name, figures, error=error, checks=[validation_outcome(figures, stopped=job.mode)])


def _keep(job: Job, names: Sequence[str], stream: Stream) -> None:
    """What was wrong with the records, for people, in one more pass: it may be all of them."""
    builder = DocumentBuilder(job.name, job.entity, job.tenant, names)
    at = job.ledger.run_start(job.name, names[0], job.tenant).at
    with contextlib.closing(stream.pages()) as read:
        for page in read:
            for name, batch in builder.build(page.records).items():
                job.keep(batch.rejections)
                told = [Rejected(r.db_id, r.code, r.field, r.error, name) for r in batch.rejections]
                job.ledger.reject(job.run_id, job.name, job.tenant, told, at)
            job.page_done()
