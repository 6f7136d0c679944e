"""What happens by itself, and what must hold: sensors, schedules, checks. A module of settings, like its neighbours."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from vecsync_dagster.config.cron import is_cron
from vecsync_dagster.config.values import Duration, Model

__all__ = [
    "AutomationConfig",
    "ChangesConfig",
    "CheckName",
    "ChecksConfig",
    "FreshnessConfig",
    "Interval",
    "RequestBackoff",
    "ScheduleConfig",
    "TenantsConfig",
    "WatchConfig",
]

Interval = Annotated[timedelta, Field(ge=timedelta(seconds=1))]
Share = Annotated[float, Field(ge=0, le=1)]
CheckName = Literal[
    "validation",
    "counts",
    "identity",
    "isolation",
    "removal_guard",
    "statuses",
    "collections",
    "truncation",
    "freshness",
    "reconciliation",
    "isolation_of_all",
]
Severity = Literal["warn", "error"]


class TenantsConfig(Model):
    """The tenants sensor. A source that lacks more than `max_lost_share` of the tenants the ledger has documents
    of is taken for broken: nothing is removed. `missing_for`: how long a tenant must be missing, whoever looks, before
    anything of it is removed; two looks at least must have missed it."""

    enabled: bool = True
    interval: Interval = timedelta(minutes=1)
    max_lost_share: Share = 0.5
    missing_for: Duration = timedelta(minutes=15)


class RequestBackoff(Model):
    """How long a run that failed is waited for before it is asked for again: base x multiplier^n, capped."""

    base: Interval = timedelta(minutes=1)
    multiplier: Annotated[float, Field(ge=1, le=100)] = 2.0
    cap: Interval = timedelta(hours=1)


class ChangesConfig(Model):
    """The change sensor. Up to `single_runs` partitions get a run each; more of them share one. One tick asks for
    at most `max_partitions`. A source that cannot say what changed is synced every `due_after`."""

    enabled: bool = True
    interval: Interval = timedelta(seconds=10)
    single_runs: Annotated[int, Field(ge=0, le=100)] = 4
    max_partitions: Annotated[int, Field(ge=1, le=10_000)] = 1000
    due_after: Interval = timedelta(minutes=15)
    backoff: RequestBackoff = RequestBackoff()


class WatchConfig(Model):
    """`vecsync watch`: changes are gathered for `debounce`, and every `poll` all tenants are looked at anyway. What was
    synced well is shown in Dagster's UI every `record`; failures at once. `enabled`: `vecsync ui` runs it as well,
    where a source tells of changes."""

    enabled: bool = True
    debounce: Duration = timedelta(seconds=1)
    poll: Interval = timedelta(minutes=5)
    record: Duration = timedelta(seconds=30)


class AutomationConfig(Model):
    tenants: TenantsConfig = TenantsConfig()
    changes: ChangesConfig = ChangesConfig()
    watch: WatchConfig = WatchConfig()


class ScheduleConfig(Model):
    """`cron`: the nightly full run of each entity. `reconcile_cron`: every point of every collection compared.
    `freshness_cron`: whether each partition was synced in time. `purge_cron`: Dagster's old runs deleted."""

    cron: str = "0 3 * * *"
    reconcile_cron: str = "0 5 * * SUN"
    freshness_cron: str = "30 */6 * * *"
    purge_cron: str = "15 * * * *"
    timezone: str = "UTC"
    enabled: bool = True

    @field_validator("cron", "reconcile_cron", "freshness_cron", "purge_cron")
    @classmethod
    def _cron(cls, cron: str) -> str:
        if not is_cron(cron):
            raise ValueError("not a cron schedule of five fields, like 0 3 * * *")
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones
            raise ValueError("not a time zone; write one like Europe/Prague") from error
        return timezone


class FreshnessConfig(Model):
    """`max_age`: of a partition's last successful sync. `unseen`: how long ago each document was last seen."""

    max_age: Interval = timedelta(days=2)
    unseen: Interval = timedelta(days=7)


class ChecksConfig(Model):
    """`severity` of a check that fails, where it is not to be the check's own. A run that rejects more than
    `max_invalid_share` of a partition's records, and at least `min_invalid`, writes nothing of it. More texts of a
    partition than `max_truncated_share` should not be longer than the model takes."""

    severity: dict[CheckName, Severity] = Field(default_factory=dict)
    freshness: FreshnessConfig = FreshnessConfig()
    max_invalid_share: Share | None = None
    min_invalid: Annotated[int, Field(ge=1)] = 10
    max_truncated_share: Share = 0.1

    def severity_of(self, check: str) -> Severity | None:
        """The configured severity of a check; None where it is left to the check itself."""
        return next((severity for name, severity in self.severity.items() if name == check), None)
