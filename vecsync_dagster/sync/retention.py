"""Forgetting what only grows: once a day, at the end of a full run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from vecsync_dagster.config.models import Config
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync.listening import OLD_NEWS
from vecsync_dagster.sync.options import PartitionResult

__all__ = ["forget_old", "forget_old_after"]

_log = logging.getLogger(__name__)
_EVERY = timedelta(days=1)
_MARK = "last_pruned"


def forget_old_after(results: Sequence[PartitionResult], config: Config, ledger: SqlLedger) -> None:
    """At the end of a run that read partitions in full, unless it was done within the last day.

    Raises LedgerUnavailable, LedgerRejected, OutputUnwritable.
    """
    mark = config.state_folder / _MARK
    if not any(result.mode == "full" for result in results):
        return
    try:
        if mark.exists() and datetime.now(UTC) - datetime.fromtimestamp(mark.stat().st_mtime, UTC) < _EVERY:
            return
        forget_old(config, ledger)
        mark.touch(mode=0o600)
    except OSError as error:
        raise OutputUnwritable(f"{mark} cannot be written: {error.strerror}", path=str(mark)) from error


def forget_old(config: Config, ledger: SqlLedger) -> dict[str, int]:
    """How many runs, rejections, vectors and listeners were forgotten. Raises LedgerUnavailable, LedgerRejected."""
    now, limits = ledger.now(), config.retention
    done = {
        "runs": ledger.forget_runs(now - limits.runs),
        "rejected": ledger.forget_old_rejections(now - limits.rejected),
        "unused_vectors": ledger.forget_unused_vectors(now - limits.unused_vectors),
        "listeners": ledger.forget_listeners(now - OLD_NEWS),
    }
    if any(done.values()):
        _log.info("forgotten: %s", ", ".join(f"{count} {name}" for name, count in done.items()))
    return done
