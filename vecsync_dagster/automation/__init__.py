"""What makes Dagster act by itself, and the partitions it acts on."""

from vecsync_dagster.automation.alerting import alert_sensors
from vecsync_dagster.automation.changes import change_sensor
from vecsync_dagster.automation.partitions import add_tenants, partition_key, partitions_of, selections, tenants_name
from vecsync_dagster.automation.retries import build_retry_sensor
from vecsync_dagster.automation.schedules import nightly_schedules, standing_schedules
from vecsync_dagster.automation.tenants import tenants_sensor

__all__ = [
    "add_tenants",
    "alert_sensors",
    "build_retry_sensor",
    "change_sensor",
    "nightly_schedules",
    "partition_key",
    "partitions_of",
    "selections",
    "standing_schedules",
    "tenants_name",
    "tenants_sensor",
]
