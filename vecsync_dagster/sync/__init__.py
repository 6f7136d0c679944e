"""The algorithm, without Dagster: decide (`changes`), do (`apply`), stream (`pipeline`), verify (`reconcile`)."""

from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import STAGES, PartitionResult, Stage, SyncOptions, check_tenant
from vecsync_dagster.sync.pipeline import sync_tenant
from vecsync_dagster.sync.verify import CHECKS, CheckOutcome
from vecsync_dagster.sync.workspace import Selection, Workspace

__all__ = [
    "CHECKS",
    "STAGES",
    "CheckOutcome",
    "Figures",
    "PartitionResult",
    "Selection",
    "Stage",
    "SyncOptions",
    "Workspace",
    "check_tenant",
    "sync_tenant",
]
