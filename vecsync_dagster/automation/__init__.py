"""What makes Dagster act by itself, and the partitions it acts on."""

from vecsync_dagster.automation.partitions import add_tenants, partition_key, partitions_of, selections, tenants_name
from vecsync_dagster.automation.retries import build_retry_sensor
from vecsync_dagster.automation.schedules import nightly_schedules

__all__ = [
    "add_tenants",
    "build_retry_sensor",
    "nightly_schedules",
    "partition_key",
    "partitions_of",
    "selections",
    "tenants_name",
]
