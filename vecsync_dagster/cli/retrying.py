"""Trying failed documents again, for the command line: which ones are meant, what became of them, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from vecsync_dagster.cli import output
from vecsync_dagster.cli.progress import SyncProgress
from vecsync_dagster.cli.reporting import alert_results, record_results, refresh_health
from vecsync_dagster.cli.running import Outcome, Wanted, wanted_entities
from vecsync_dagster.cli.signals import INTERRUPTED, Stop
from vecsync_dagster.config.models import Config
from vecsync_dagster.documents import document_id
from vecsync_dagster.errors import NotFound, WrongUsage
from vecsync_dagster.ledger.record_states import FailedRow, Failures
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync import PartitionResult, Workspace, retry_rows
from vecsync_dagster.sync.standing import make_checks_again

__all__ = ["RetryOutcome", "RetryWanted", "run_retry"]

_AT_ONCE = 100_000
_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RetryWanted:
    """Which failed documents. `ids`: of just these records, due or not. `waiting`: also those that are not due yet.
    `reset`: forget how often they failed first; only this tries permanent ones."""

    entity: str | None = None
    collection: str | None = None
    ids: tuple[str, ...] = ()
    waiting: bool = False
    reset: bool = False


@dataclass(slots=True)
class RetryOutcome:
    """`reset`: documents whose retries were forgotten. `waiting`, `permanent`: what is left, of what was meant.
    `unsynced`: collections and tenants of what was tried whose last sync did not succeed."""

    results: list[PartitionResult] = field(default_factory=list)
    reset: int = 0
    waiting: int = 0
    permanent: int = 0
    next_attempt_at: datetime | None = None
    interrupted: bool = False
    unsynced: list[tuple[str, str]] = field(default_factory=list)
    names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What people call the tenants, by entity and tenant."""

    @property
    def failed(self) -> bool:
        return any(result.outcome == "failed" or result.figures.failed for result in self.results)

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.interrupted else int(self.failed)

    def as_dict(self) -> dict[str, Any]:
        return {
            "reset": self.reset,
            "partitions": [self._result(result) for result in self.results],
            "waiting": self.waiting,
            "permanent": self.permanent,
            "next_attempt_at": self.next_attempt_at,
            "interrupted": self.interrupted,
        }

    def _result(self, result: PartitionResult) -> dict[str, Any]:
        figures = result.figures
        return {
            "entity": result.entity,
            "collection": result.collection,
            "tenant": result.tenant,
            "tenant_name": self.names.get((result.entity, result.tenant), ""),
            "outcome": result.outcome,
            "tried": figures.fetched + figures.removed,
            "synced": figures.fetched - figures.failed - figures.invalid,
            "removed": figures.removed,
            "failed": figures.failed,
            "invalid": figures.invalid,
            "error": None if result.error is None else {"code": result.error.code, "message": str(result.error)},
        }


def run_retry(config: Config, wanted: RetryWanted, *, stop: Stop, record: bool) -> RetryOutcome:
    """With `record` Dagster is told. Raises NotFound for names and ids that do not exist, and the ledger's errors."""
    outcome = RetryOutcome()
    began = datetime.now(UTC)
    with Workspace(config) as workspace:
        places = [_Place(workspace, name, wanted) for name in _entities(workspace, wanted)]
        outcome.reset = sum(place.reset() for place in places) if wanted.reset else 0
        batches = [(place.entity, some) for place in places for some in _batches(place.rows(), config.sync.retry.batch)]
        with SyncProgress(len(batches)) as progress:
            for entity, some in batches:
                results = list(retry_rows(workspace, entity, some, progress=progress.figures, stop=stop))
                outcome.results += results
                progress.end(results)
        outcome.interrupted = stop()
        left = [place.left() for place in places]
        outcome.names = workspace.ledger.tenant_names()
        if outcome.results:
            make_checks_again(workspace, outcome.results, output.warn)
            outcome.unsynced = _unsynced(workspace, outcome.results)
        workspace.close()  # what follows needs no store: others may have it
        if outcome.results:
            refresh_health(workspace)
            run_id = record_results(workspace, outcome.results) if record else ""
            alert_results(workspace, Outcome(began, datetime.now(UTC), outcome.results, names=outcome.names), run_id)
    outcome.waiting = sum(failures.waiting for failures, _ in left)
    outcome.permanent = sum(failures.permanent for failures, _ in left)
    outcome.next_attempt_at = min((first for _, first in left if first is not None), default=None)
    return outcome


def _unsynced(workspace: Workspace, results: Sequence[PartitionResult]) -> list[tuple[str, str]]:
    tried = {(one.entity, one.collection, one.tenant) for one in results}
    return [
        (key.collection, key.tenant)
        for entity in dict.fromkeys(one.entity for one in results)
        for key, last in workspace.ledger.last_runs(entity).items()
        if (entity, key.collection, key.tenant) in tried and last.undone is not None
    ]


def _entities(workspace: Workspace, wanted: RetryWanted) -> Sequence[str]:
    names = wanted_entities(workspace, Wanted(entity=wanted.entity, collection=wanted.collection))
    if wanted.ids and len(names) > 1:
        raise WrongUsage(f"--id needs --entity: an id may be in several of {', '.join(names)}")
    return names


class _Place:
    """What is meant in one entity. Raises NotFound for an id of which the ledger has no record."""

    def __init__(self, workspace: Workspace, entity: str, wanted: RetryWanted) -> None:
        config = workspace.entity(entity)
        kind = config.type or entity
        self.entity = entity
        self._ledger = workspace.ledger
        self._wanted = wanted
        self._collections = [name for name in config.collections if wanted.collection in (None, name)]
        documents = {one: [document_id(scope, kind, one) for scope in (GLOBAL, "")] for one in wanted.ids}
        self._ids = [one for some in documents.values() for one in some] if wanted.ids else None
        for identity, some in documents.items():
            if not self._ledger.records(entity, self._collections, ids=some, limit=1):
                raise NotFound(f"no record {identity!r} of {entity} in the ledger", entity=entity, id=identity)

    def reset(self) -> int:
        return self._ledger.reset(self.entity, self._collections, self._ids)

    def left(self) -> tuple[Failures, datetime | None]:
        return self._ledger.failures(self.entity, self._collections, self._ids)

    def rows(self) -> list[FailedRow]:
        """What to try, the first `_AT_ONCE`: all that is due now, and what an outage made wait, which may be over; or
        with `ids` or `waiting` all that has retries left."""
        everything = self._ids is not None or self._wanted.waiting
        due = _EVER if everything else self._ledger.now()
        place = (self.entity, self._collections)
        return self._ledger.failed_rows(*place, due=due, or_outage=not everything, ids=self._ids, limit=_AT_ONCE)


def _batches(rows: Sequence[FailedRow], size: int) -> Iterator[Sequence[FailedRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
