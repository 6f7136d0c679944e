"""A source that cannot be asked for its tenants, or lacks far too many, leaves a trace: a failed run in the ledger, not
only in a log."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vecsync_dagster.errors import (
    LedgerRejected,
    LedgerUnavailable,
    NotFound,
    OutputUnwritable,
    TenantsLost,
    VecsyncError,
    WrongUsage,
)
from vecsync_dagster.ledger.base import LISTING, LOST, LastRuns, Ledger, Partition, Run
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.health import EMPTY
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.options import SyncOptions

if TYPE_CHECKING:
    from vecsync_dagster.sync.workspace import Workspace

__all__ = ["UNASKED", "asking", "keep_empty", "keep_lost"]

UNASKED: Final = "unasked"
"""Among the figures of a partition's run that failed because its entity's source could not be asked for the tenants:
the run of the entity says so, too."""

_log = logging.getLogger(__name__)


@contextmanager
def asking(
    workspace: Workspace,
    entity: str,
    *,
    options: SyncOptions | None = None,
    collection: str | None = None,
    wanted: Callable[[str], bool] = lambda tenant: True,
    refresh: bool = True,
) -> Iterator[None]:
    """In the block the entity's source is asked which tenants there are.

    Where that fails, a failed run of the entity is recorded: once, for as long as it fails. With the `options` of a
    sync, also one of each `wanted` partition that the ledger knows and the sync would have been for. `refresh`:
    whether to bring sync_metrics.json up to date, where nobody else does. The error is raised again.
    """
    try:
        yield
    except (LedgerRejected, LedgerUnavailable, NotFound, WrongUsage):
        raise
    except VecsyncError as error:
        if not workspace.read_only:
            runs = [] if options is None else list(_partitions(workspace, entity, options, collection, wanted, error))
            _record(workspace, [*_of_entity(workspace, entity, error), *runs], refresh=refresh)
        raise
    if not workspace.read_only:
        _record(workspace, _of_entity(workspace, entity, None), refresh=refresh)


def keep_lost(workspace: Workspace, entity: str, lost: TenantsLost | None) -> None:
    """Whether the source lacks so many tenants that it is taken for broken: a failed run of the entity while it does,
    and one that says that it is over."""
    last = _failing(workspace.ledger, entity)
    before = last if last is not None and last.startswith(LOST) else None
    told = _told(lost)
    if workspace.read_only or told == before:
        return
    if lost is not None:
        _log.error("%s", lost)
    figures = {} if lost is None else {"known": lost.known, "found": lost.known - len(lost.missing)}
    _record(workspace, [_run(Partition(entity, "", ""), LISTING, told, **figures)], refresh=True)


def keep_empty(workspace: Workspace, entity: str, last: LastRuns | None) -> None:
    """The source has no tenant, nothing is here and nothing is everybody's: no partition's run can say that all is
    done, so the entity's says it. `last`: that of the entity."""
    if workspace.read_only or (last is not None and last.last.ok and last.last.figures.get(EMPTY) == 0):
        return
    if last is None or last.last.ok:  # one that failed is over when `asking` or `keep_lost` says so
        _record(workspace, [_run(Partition(entity, "", ""), LISTING, None, **{EMPTY: 0})], refresh=True)


def _failing(ledger: Ledger, entity: str) -> str | None:
    """Why the entity's tenants were not to be had the last time."""
    last = ledger.runs(entity, "", 1, collection="", mode=LISTING)
    return last[0].error if last and last[0].outcome == "failed" else None


def _of_entity(workspace: Workspace, entity: str, error: VecsyncError | None) -> list[Run]:
    """The run of the entity itself, where it says something new. That tenants are lost is over when they are back, not
    when the source answers."""
    last = _failing(workspace.ledger, entity)
    is_lost = last is not None and last.startswith(LOST)
    known = last is None or is_lost if error is None else last is not None and not is_lost
    return [] if known else [_run(Partition(entity, "", ""), LISTING, _told(error))]


def _partitions(
    workspace: Workspace,
    entity: str,
    options: SyncOptions,
    collection: str | None,
    wanted: Callable[[str], bool],
    error: VecsyncError,
) -> Iterator[Run]:
    tenants = {*workspace.traces(entity), *([GLOBAL] if workspace.has_global(entity) else [])}
    mode = options.mode_of(workspace.config.sync.mode)
    for tenant in sorted(filter(wanted, tenants)):
        for name in workspace.entity(entity).collections:
            if collection in (None, name):
                yield _run(Partition(entity, name, tenant), mode, _told(error), **{UNASKED: 1})


def _told(error: VecsyncError | None) -> str | None:
    return None if error is None else f"{error.code}: {error}"


def _run(partition: Partition, mode: str, error: str | None, **figures: int) -> Run:
    now = datetime.now(UTC)
    return Run(uuid.uuid4().hex, *partition, mode, "success" if error is None else "failed", now, now, figures, error)


def _record(workspace: Workspace, runs: Sequence[Run], *, refresh: bool) -> None:
    workspace.ledger.record_runs(runs)
    if not runs or not refresh:
        return
    try:
        refresh_metrics(workspace.config, workspace.ledger)
    except OutputUnwritable as error:  # it must hide neither the source's error nor that it answers
        _log.warning("%s: %s", error.code, error)
