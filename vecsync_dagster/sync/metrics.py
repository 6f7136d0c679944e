"""sync_metrics.json: what the last run did and how all partitions are, for people and monitoring."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from filelock import FileLock

from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import OutputUnwritable, VecsyncError
from vecsync_dagster.ledger.base import Ledger, Run
from vecsync_dagster.private import private_file, private_folder
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.health import health, known_tenants
from vecsync_dagster.sync.options import PartitionResult

__all__ = ["METRICS", "end_dead_runs", "refresh_metrics", "run_metrics", "total_figures", "write_metrics"]

_log = logging.getLogger(__name__)

METRICS: Final = "sync_metrics.json"
_OF_A_RUN: Final = ("started_at", "ended_at", "outcome")


def total_figures(results: Sequence[PartitionResult], seconds: float) -> Figures:
    """The sums. `seconds` is the run's wall time: collections that share a read spend the same seconds."""
    total = Figures()
    for result in results:
        total.add(result.figures)
    total.seconds = seconds
    return total


def run_metrics(
    results: Sequence[PartitionResult],
    *,
    started_at: datetime,
    ended_at: datetime,
    outcome: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    names: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, Any]:
    """Start, end, totals and each partition's figures, as plain values for JSON.

    `outcome` None: success, failed or interrupted, as the results are. `errors`: what kept partitions from
    having a result at all. `names`: what people call the tenants, by entity and tenant.
    """
    names = names or {}
    seconds = (ended_at - started_at).total_seconds()
    return {
        "started_at": started_at.isoformat(),
        "ended_at": ended_at.isoformat(),
        "outcome": outcome or _outcome(results, errors),
        "totals": total_figures(results, seconds).as_dict(),
        "partitions": [_partition(result, names.get((result.entity, result.tenant), "")) for result in results],
        "errors": [dict(error) for error in errors],
    }


def write_metrics(config: Config, ledger: Ledger, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Write a run's metrics into `sync_metrics.json`, with the `health` of all partitions; returns what was written.

    Whole or not at all; of several processes one after the other. Raises OutputUnwritable.
    """
    folder = config.state_folder
    with _locked(folder):
        written = {**metrics, "health": _health(config, ledger)}
        _write(folder, written)
    return written


def refresh_metrics(config: Config, ledger: Ledger) -> None:
    """Bring `health` up to date where the ledger learned something outside a sync. Raises OutputUnwritable."""
    folder, now = config.state_folder, datetime.now(UTC)
    with _locked(folder):
        # Where nothing ran yet there is no run, and no outcome.
        no_run = {**run_metrics([], started_at=now, ended_at=now), **dict.fromkeys(_OF_A_RUN)}
        last = _last(folder) or no_run
        _write(folder, {**last, "health": _health(config, ledger)})


def end_dead_runs(config: Config, ledger: Ledger, entity: str | None = None) -> list[Run]:
    """`Ledger.end_dead_runs`; where there were any, sync_metrics.json has them, too, if it can be written."""
    died = ledger.end_dead_runs(entity)
    if died:
        try:
            refresh_metrics(config, ledger)
        except OutputUnwritable as error:  # whoever looks is to see them all the same
            _log.warning("%s: %s", error.code, error)
    return died


def _health(config: Config, ledger: Ledger) -> dict[str, Any]:
    """Without its ledger nothing is known, which is no health at all: `failing` is not 0 then."""
    try:
        ledger.end_dead_runs()
        failed, tenants = ledger.check_results(failed=True), known_tenants(config, ledger)
        return health(config, ledger.last_runs(), datetime.now(UTC), failed, tenants)
    except VecsyncError as error:
        return {"failing": None, "error": {"code": error.code, "message": str(error)}}


def _last(folder: Path) -> dict[str, Any] | None:
    with _writable(folder / METRICS):
        try:
            found = orjson.loads((folder / METRICS).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
    return found if isinstance(found, dict) else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / f"{METRICS}.lock", mode=0o600)
    with _writable(folder / METRICS):
        private_folder(folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"{path}: cannot be written: {reason}", path=str(path)) from error


def _write(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Under the lock, so that one name does for all drafts: what a killed process left of one is overwritten."""
    path, draft = folder / METRICS, folder / f".{METRICS}-new"
    with _writable(path):
        try:
            private_file(draft)
            draft.write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise


def _outcome(results: Sequence[PartitionResult], errors: Sequence[Mapping[str, Any]]) -> str:
    if any(result.outcome == "interrupted" for result in results):
        return "interrupted"
    return "failed" if errors or not all(result.ok for result in results) else "success"


def _partition(result: PartitionResult, tenant_name: str) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "entity": result.entity,
        "collection": result.collection,
        "tenant": result.tenant,
        "tenant_name": tenant_name,
        "mode": result.mode,
        "note": result.note,
        "outcome": result.outcome,
        "ok": result.ok,
        "started_at": result.started_at.isoformat(),
        "ended_at": result.ended_at.isoformat(),
        "space": result.space,
        "semantic": result.semantic,
        "stages": list(result.stages),
        "figures": result.figures.as_dict(),
        "checks": [
            {
                "name": check.name,
                "passed": check.passed,
                "warning": check.warning,
                "message": check.message,
                "facts": dict(check.facts),
                "differences": [asdict(difference) for difference in check.differences],
            }
            for check in result.checks
        ],
        "error": None if result.error is None else {"code": result.error.code, "message": str(result.error)},
    }
