"""Documents that failed, tried again when they are due: the retry worker, and the same by hand.

The oldest attempts come first, over all tenants and collections of an entity. Their records are read from the source
by id, and only the collections that failed are tried. A record that the source does not have any more is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from vecsync_dagster.ledger.record_states import FailedRow
from vecsync_dagster.sync.apply import backoff
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import PartitionResult, SyncOptions
from vecsync_dagster.sync.workspace import Selection, Workspace

__all__ = ["due_rows", "retry_rows"]

Progress = Callable[[Figures], None]
Stop = Callable[[], bool]


def due_rows(workspace: Workspace, entity: str, limit: int | None = None) -> list[FailedRow]:
    """What the worker would try now: at most `limit` documents, `sync.retry.batch` where it is None.

    Where more are due each collection gets its share: one whose store or provider is down must not keep the others
    waiting behind all of its documents.
    """
    ledger, now = workspace.ledger, workspace.ledger.now()
    most = workspace.config.sync.retry.batch if limit is None else limit
    names = tuple(workspace.entity(entity).collections)
    rows = ledger.failed_rows(entity, names, due=now, limit=most)
    if len(rows) < most or len(names) == 1:
        return rows
    shares = [ledger.failed_rows(entity, [name], due=now, limit=most) for name in names]
    in_turn = [row for turn in zip_longest(*shares) for row in turn if row is not None]
    return in_turn[:most]


def retry_rows(
    workspace: Workspace,
    entity: str,
    rows: Sequence[FailedRow],
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Iterator[PartitionResult]:
    """Try these documents again, partition by partition; one result for each.

    What goes wrong with a partition is in its result, and the others go on. Raises the ledger's own errors.
    """
    partitions: dict[tuple[str, str], list[FailedRow]] = {}
    for row in rows:
        partitions.setdefault((row.tenant, row.collection), []).append(row)
    for (tenant, collection), theirs in partitions.items():
        if stop is not None and stop():
            return
        options = SyncOptions(ids=tuple(row.db_id for row in theirs), retry=True)
        selection = Selection(entity, tenant, (collection,))
        [result] = workspace.sync(selection, options, progress=progress, stop=stop)
        if result.outcome == "failed" or not (result.figures.fetched or result.figures.removed):
            _let_others_go_first(workspace, entity, theirs)
        yield result


def _let_others_go_first(workspace: Workspace, entity: str, rows: Sequence[FailedRow]) -> None:
    """An attempt that did not get as far as the documents (no source, no model, no row of the tenant, another run is in
    the partition) is not counted, but must not keep the head of the queue either."""
    ledger, config = workspace.ledger, workspace.config.sync.retry
    wait = backoff(1, config) or config.base
    first = rows[0]
    ledger.postpone(entity, first.collection, first.tenant, [row.document_id for row in rows], ledger.now() + wait)
