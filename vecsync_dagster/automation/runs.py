"""Runs as sensors ask for them: for one partition, or for any set of them in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import dagster as dg

__all__ = ["run_over"]


def run_over(
    entity: str,
    keys: Sequence[str],
    run_keys: Sequence[str],
    *,
    mode: str = "configured",
    allow_removals: bool = False,
    tenant_gone: bool = False,
    single: bool = False,
    tags: dict[str, str] | None = None,
) -> dg.RunRequest:
    """`keys`: partition keys, in the order of `run_keys`. `single`: the run has a partition of Dagster's own, so that
    it counts against the tenant's limit and is found in the partition's history."""
    config: dict[str, Any] = {"mode": mode, "allow_removals": allow_removals}
    if tenant_gone:
        config["tenant_gone"] = True
    if not single:
        config["partitions"] = list(keys)
    together = hashlib.sha256("\n".join(sorted(run_keys)).encode()).hexdigest()
    return dg.RunRequest(
        run_key=run_keys[0] if len(run_keys) == 1 else f"{len(keys)}@{together}",
        run_config={"ops": {f"{entity}_sync": {"config": config}}},
        partition_key=keys[0] if single else None,
        tags=tags or {},
    )
