"""A sync in a process of its own that kills itself with SIGKILL at a chosen moment.

    python -m vecsync_dagster_tests.sync.killed_process CONFIG OBJECT METHOD WHEN NTH

OBJECT is `store` or `ledger`; WHEN is `before` or `after` the NTH call of METHOD. The methods are real: only
the moment of death is ours.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from vecsync_dagster.config import load_config
from vecsync_dagster.sync import SyncOptions, Workspace


def die_at(owner: Any, method: str, when: str, nth: int) -> None:
    """Replace a method of the object so that its process dies at the nth call."""
    real = getattr(owner, method)
    calls = 0
    lock = threading.Lock()

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            mine = calls
        if mine == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*args, **kwargs)
        if mine == nth and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, method, deadly)


def main() -> None:
    config, owner, method, when, nth = sys.argv[1:]
    with Workspace(load_config(Path(config))) as workspace:
        die_at(workspace.store("main") if owner == "store" else workspace.ledger, method, when, int(nth))
        for selection in workspace.select(workspace.config.entities):
            workspace.sync(selection, SyncOptions(mode="full", allow_removals=True))


if __name__ == "__main__":
    main()
