"""One phase in a process of its own: `python -m benchmarks.child TASK`, TASK as JSON. Prints what it measured.

The clock runs from the opening of source and ledger to their closing; starting Python and importing is `start_s`.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

__all__ = ["AUTOMATION", "Measured", "Task", "main"]

Runner = Callable[[Path, Path, Any, Any], dict[str, Any]]
"""Source, ledger's file, store and provider to the figures that only the runner knows."""


AUTOMATION = ("definitions", "tenants_tick", "first_sync", "changes_tick", "unchanged_run")


@dataclass(frozen=True, slots=True)
class Task:
    """`runner` is floor, floor_read_back, floor_keep, vecsync, repair, partitions, model, model_sync, replay_floor,
    replay_vecsync or one of automation.py. `state` holds its ledger and its store."""

    runner: str
    source: str
    state: str
    mode: Literal["full", "incremental"] = "full"
    verify: Literal["auto", "identity", "counts"] = "counts"
    die_after: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds and MiB. `idle_mib`: resident before the pass, all imported; `peak_mib`: the most until its end."""

    wall_s: float
    cpu_s: float
    start_s: float
    idle_mib: float
    peak_mib: float
    fetched: int
    embedded: int
    written: int
    payloads: int
    deleted: int
    failed_checks: list[str] = field(default_factory=list)
    """Of those of automation.py: what was found."""
    named: list[str] = field(default_factory=list)
    """Ids of the points that a check of vecsync's names."""


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    from benchmarks.sink import CountingProvider, DroppingStore

    runner = _runner(task)
    state = Path(task.state)
    log = state / "embedded.log"
    store = DroppingStore(state / "store.sqlite", die_after=task.die_after, tenants=task.runner == "partitions")
    provider, before = CountingProvider(log), CountingProvider.total(log)
    gc.collect()
    gc.freeze()  # what the imports left is theirs: none of it is collected or looked through within the clock
    idle, start = _status_mib("VmRSS"), time.clock_gettime(time.CLOCK_MONOTONIC) - float(sys.argv[2])
    wall, cpu = time.perf_counter(), time.process_time()
    found = runner(Path(task.source), state / "ledger.sqlite", store, provider)
    measured = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "start_s": start,
        "idle_mib": idle,
        "peak_mib": _status_mib("VmHWM"),
        "embedded": CountingProvider.total(log) - before,
        "written": store.written,
        "payloads": store.payloads,
        "deleted": store.deleted,
        **found,
    }
    store.close()
    print(json.dumps(asdict(Measured(**measured))))


def _runner(task: Task) -> Runner:
    """Imported here, so that no runner pays for another's imports."""
    if task.runner.startswith("floor"):
        from benchmarks import floor

        return {"floor": floor.run, "floor_read_back": floor.run_and_read_back, "floor_keep": floor.run_and_keep}[
            task.runner
        ]
    if task.runner in ("model", "model_sync"):
        from benchmarks import local_model

        return local_model.alone if task.runner == "model" else local_model.synced
    if task.runner.startswith("replay"):
        from benchmarks import replay_pass

        if task.runner == "replay_floor":
            return replay_pass.floor
        return partial(replay_pass.vecsync, mode=task.mode, verify=task.verify)
    if task.runner in AUTOMATION:
        from benchmarks import automation

        found: Runner = getattr(automation, task.runner)
        return found
    from benchmarks import vecsync_pass

    if task.runner == "repair":
        return vecsync_pass.repair
    run = vecsync_pass.partitions if task.runner == "partitions" else vecsync_pass.run
    return partial(run, mode=task.mode, verify=task.verify)


def _status_mib(key: str) -> float:
    """From Linux, of this process alone; getrusage also counts what the parent had when it forked."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
