"""sync_metrics.json: what the last run did, for people and monitoring (REQUIREMENTS P9)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import PartitionResult

__all__ = ["METRICS", "run_metrics", "total_figures", "write_metrics"]

METRICS: Final = "sync_metrics.json"


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
) -> dict[str, Any]:
    """Start, end, totals and each partition's figures, as plain values for JSON.

    `outcome` None: success, failed or interrupted, as the results are. `errors`: what kept partitions from
    having a result at all.
    """
    seconds = (ended_at - started_at).total_seconds()
    return {
        "started_at": started_at.isoformat(),
        "ended_at": ended_at.isoformat(),
        "outcome": outcome or _outcome(results, errors),
        "totals": total_figures(results, seconds).as_dict(),
        "partitions": [_partition(result) for result in results],
        "errors": [dict(error) for error in errors],
    }


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> Path:
    """Write `sync_metrics.json` into the state folder, whole or not at all. Raises OutputUnwritable."""
    path = folder / METRICS
    draft: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{METRICS}-", delete=False) as file:
            draft = file.name
            file.write(orjson.dumps(metrics, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        Path(draft).chmod(0o644)  # a temporary file is its owner's alone; monitoring reads this one
        os.replace(draft, path)
    except OSError as error:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise OutputUnwritable(f"{path}: cannot be written: {reason}", path=str(path)) from error
    return path


def _outcome(results: Sequence[PartitionResult], errors: Sequence[Mapping[str, Any]]) -> str:
    if any(result.outcome == "interrupted" for result in results):
        return "interrupted"
    return "failed" if errors or not all(result.ok for result in results) else "success"


def _partition(result: PartitionResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "entity": result.entity,
        "collection": result.collection,
        "tenant": result.tenant,
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
