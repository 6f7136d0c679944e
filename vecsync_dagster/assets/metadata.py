"""What people see of a materialization: figures, a table and a sparkline of the last runs."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from vecsync_dagster.ledger.base import Run
from vecsync_dagster.sync import PartitionResult, Stage

__all__ = ["materialization_metadata", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_RUN_COLUMNS = ("fetched", "new", "changed", "payload_only", "removed", "invalid", "embedded", "cache_hits")


def materialization_metadata(
    result: PartitionResult, stage: Stage, runs: Sequence[Run], snapshot: str
) -> dict[str, dg.MetadataValue]:
    """All figures of the run (P9), and what belongs to this stage alone. `runs`: newest first, this one included."""
    figures = result.figures.as_dict()
    numbers = {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(value)
        for name, value in figures.items()
        if name != "unidentified"
    }
    # A partition cannot be unmaterialized: what it says last must be that it holds nothing.
    emptied = {"state": dg.MetadataValue.text("removed, 0 points")} if result.emptied else {}
    return {
        **emptied,
        **_of_stage(result, stage, snapshot),
        **numbers,
        "mode": dg.MetadataValue.text(result.mode),
        **({"note": dg.MetadataValue.text(result.note)} if result.note else {}),
        "started_at": dg.MetadataValue.timestamp(result.started_at),
        "ended_at": dg.MetadataValue.timestamp(result.ended_at),
        "last_runs": _table(runs),
        "trend": dg.MetadataValue.md(_trend(runs)),
    }


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, oldest first; a constant series is flat at the bottom."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)


def _of_stage(result: PartitionResult, stage: Stage, snapshot: str) -> dict[str, dg.MetadataValue]:
    figures = result.figures
    if stage == "export":
        return {"dagster/row_count": dg.MetadataValue.int(figures.fetched), "snapshot": dg.MetadataValue.path(snapshot)}
    if stage == "documents":
        return {"dagster/row_count": dg.MetadataValue.int(figures.fetched - figures.invalid)}
    semantic = "yes" if result.semantic else "NO: hash vectors only find equal words"
    space: dict[str, dg.MetadataValue] = {
        "space": dg.MetadataValue.text(result.space),
        "semantic": dg.MetadataValue.text(semantic),
    }
    if stage == "vectors":
        counts = next((check.facts for check in result.checks if check.name == "counts"), {})
        return {**space, "dagster/row_count": dg.MetadataValue.int(int(counts.get("store", 0)))} if counts else space
    return space


def _table(runs: Sequence[Run]) -> dg.MetadataValue:
    columns = [
        dg.TableColumn("started", "string"),
        dg.TableColumn("mode", "string"),
        dg.TableColumn("outcome", "string"),
    ]
    columns += [dg.TableColumn(name, "int") for name in _RUN_COLUMNS]
    columns.append(dg.TableColumn("seconds", "float"))
    records = [
        dg.TableRecord(
            {
                "started": run.started_at.strftime("%Y-%m-%d %H:%M:%S"),
                "mode": run.mode,
                "outcome": run.outcome,
                **{name: int(run.figures.get(name, 0)) for name in _RUN_COLUMNS},
                "seconds": round(float(run.figures.get("seconds", 0.0)), 2),
            }
        )
        for run in runs
    ]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=columns))


def _trend(runs: Sequence[Run]) -> str:
    lines = ["| figure | last runs, oldest first | now |", "|---|---|---|"]
    for name in ("fetched", "upserted", "embedded", "removed", "seconds"):
        values = [float(run.figures.get(name, 0)) for run in reversed(runs)]
        lines.append(f"| {name} | {sparkline(values)} | {values[-1] if values else 0:g} |")
    return "\n".join(lines)
