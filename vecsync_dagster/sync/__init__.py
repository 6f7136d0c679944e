"""The algorithm, without Dagster: decide (`changes`), do (`apply`), stream (`pipeline`), verify (`reconcile`)."""

from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import STAGES, PartitionResult, Stage, SyncOptions, check_tenant, is_tenant
from vecsync_dagster.sync.pipeline import sync_tenant
from vecsync_dagster.sync.retry import due_rows, retry_rows
from vecsync_dagster.sync.verify import CHECKS, CheckOutcome, checks_of
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
    "checks_of",
    "due_rows",
    "is_tenant",
    "retry_rows",
    "sync_tenant",
]
