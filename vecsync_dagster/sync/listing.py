"""A source that cannot be asked for its tenants leaves a trace: a failed run in the ledger, not only in a log."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable, VecsyncError
from vecsync_dagster.ledger.base import LISTING, Ledger, Partition, Run
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.options import SyncOptions

if TYPE_CHECKING:
    from vecsync_dagster.sync.workspace import Workspace

__all__ = ["asking"]

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
    except (LedgerRejected, LedgerUnavailable):
        raise
    except VecsyncError as error:
        if not workspace.read_only:
            runs = [] if options is None else list(_partitions(workspace, entity, options, collection, wanted, error))
            _record(workspace, [*_of_entity(workspace, entity, error), *runs], refresh=refresh)
        raise
    if not workspace.read_only:
        _record(workspace, _of_entity(workspace, entity, None), refresh=refresh)


def _is_down(ledger: Ledger, entity: str) -> bool:
    """Whether the entity's source could not be asked the last time."""
    last = ledger.runs(entity, "", 1, collection="", mode=LISTING)
    return bool(last) and last[0].outcome == "failed"


def _of_entity(workspace: Workspace, entity: str, error: VecsyncError | None) -> list[Run]:
    """The run of the entity itself, where it says something new."""
    if _is_down(workspace.ledger, entity) is (error is not None):
        return []
    return [_run(Partition(entity, "", ""), LISTING, error)]


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
                yield _run(Partition(entity, name, tenant), mode, error)


def _run(partition: Partition, mode: str, error: VecsyncError | None) -> Run:
    now = datetime.now(UTC)
    outcome = "success" if error is None else "failed"
    told = None if error is None else f"{error.code}: {error}"
    return Run(uuid.uuid4().hex, *partition, mode, outcome, now, now, {}, told)


def _record(workspace: Workspace, runs: Sequence[Run], *, refresh: bool) -> None:
    workspace.ledger.record_runs(runs)
    if not runs or not refresh:
        return
    try:
        refresh_metrics(workspace.config, workspace.ledger)
    except OutputUnwritable as error:  # it must hide neither the source's error nor that it answers
        _log.warning("%s: %s", error.code, error)
