"""What a second process does while a test syncs the same thing. Each function runs in a process of its own."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vecsync_dagster.config import load_config
from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace

PATIENCE_S = 60.0


def code_of(result: PartitionResult) -> str | None:
    return None if result.error is None else result.error.code


def sync_slowly(pipe: Connection, config: str, tenant: str) -> None:
    """Sync one tenant; stop before the first write until the test says so. Sends the results' codes at the end."""
    with Workspace(load_config(Path(config))) as workspace:
        store: Any = workspace.store("main")
        real = store.upsert

        def upsert(*args: Any) -> None:
            store.upsert = real
            pipe.send("about to write")
            pipe.recv()
            real(*args)

        store.upsert = upsert
        results = []
        for selection in workspace.select(workspace.config.entities, [tenant]):
            results += workspace.sync(selection, SyncOptions(mode="full"))
    pipe.send([code_of(result) for result in results])


def sync_on_demand(pipe: Connection, config: str) -> None:
    """Sync the tenants the test says (none: all there are) until it says None; send (tenant, code) of each result."""
    pipe.send("ready")
    while (tenants := pipe.recv()) is not None:
        results: list[PartitionResult] = []
        with Workspace(load_config(Path(config))) as workspace:
            for selection in workspace.select(workspace.config.entities, tenants or None):
                results += workspace.sync(selection, SyncOptions(mode="full", allow_removals=True))
        pipe.send([(result.tenant, code_of(result)) for result in results])
