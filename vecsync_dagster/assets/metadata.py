"""What people see of a materialization: figures, a table and a sparkline of the last runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import dagster as dg

from vecsync_dagster.ledger.base import Run
from vecsync_dagster.sync import STAGES, PartitionResult, Stage

__all__ = ["materialization_metadata", "rows_of", "sparkline"]

_FIGURES: Mapping[Stage, Sequence[str]] = {
    "export": (),
    "documents": ("new", "changed", "payload_only", "unchanged", "retry", "invalid"),
    "embeddings": ("embedded", "cache_hits", "truncated", "tokens", "api_calls", "price_usd"),
    "vectors": (
        *("new", "changed", "upserted", "payload_only", "removed", "repaired", "failed"),
        *("removals_blocked", "removals_waiting", "seconds"),
    ),
}
"""What each stage tells of a run's figures. Each event is stored twice, and they are most of Dagster's history."""
_TEXTS: Sequence[Stage] = ("export", "documents")
_NOT_SEMANTIC = "NO: hash vectors only find equal words"
_BARS = "▁▂▃▄▅▆▇█"
_RUN_COLUMNS = ("fetched", "new", "changed", "payload_only", "removed", "invalid", "embedded", "cache_hits")


def materialization_metadata(
    result: PartitionResult,
    stage: Stage,
    runs: Sequence[Run],
    snapshot: str,
    rows: int | None,
    tenant_name: str = "",
    *,
    alone: bool = False,
) -> dict[str, dg.MetadataValue]:
    """What the run did in this stage; zeros are left out. The last stage of a full run has a table of the last runs and
    their trend, too. `runs`: newest first, this one included. `rows`: of the partition in this stage, None where nobody
    counted them. `tenant_name`: what people call the tenant. `alone`: no other stage is told of, so this one has the
    figures of all."""
    # A partition cannot be unmaterialized: what it says last must be that it holds nothing.
    emptied = {"state": dg.MetadataValue.text("removed, 0 points")} if result.emptied else {}
    looks_back = stage == STAGES[-1] and result.mode == "full"
    return {
        **({"tenant_name": dg.MetadataValue.text(tenant_name)} if tenant_name else {}),
        **emptied,
        **({"note": dg.MetadataValue.text(result.note)} if result.note else {}),
        **({"dagster/row_count": dg.MetadataValue.int(rows)} if rows is not None else {}),
        **_numbers(result.figures.as_dict(), chain.from_iterable(_FIGURES.values()) if alone else _FIGURES[stage]),
        **({"trend": dg.MetadataValue.md(_trend(runs)), "last_runs": _table(runs)} if looks_back else {}),
        **({} if alone else _of_stage(result, stage, snapshot)),
        **({} if result.semantic or stage in _TEXTS else {"semantic": dg.MetadataValue.text(_NOT_SEMANTIC)}),
        "mode": dg.MetadataValue.text(result.mode),
    }


def rows_of(result: PartitionResult, stage: Stage) -> int | None:
    """Rows of the partition, as the run's own checks counted them: not what the run read."""
    counts = next((check.facts for check in result.checks if check.name == "counts"), None)
    if counts is None:
        return None
    source, ledger, store = (int(counts.get(name, 0)) for name in ("source", "ledger", "store"))
    return {"export": source, "documents": ledger, "embeddings": ledger, "vectors": store}[stage]


def _numbers(figures: Mapping[str, int | float], names: Iterable[str]) -> dict[str, dg.MetadataValue]:
    return {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(value)
        for name in names
        if (value := figures[name])
    }


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, oldest first; a constant series is flat at the bottom."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)


def _of_stage(result: PartitionResult, stage: Stage, snapshot: str) -> dict[str, dg.MetadataValue]:
    if stage == "export":
        read = dg.MetadataValue.int(result.figures.fetched)
        return {"read_by_this_run": read, "snapshot": dg.MetadataValue.path(snapshot)}
    if stage == "documents":
        return {}
    return {"space": dg.MetadataValue.text(result.space)}


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
