"""Checks over all partitions of an entity, each entity's as two ops: unpartitioned, run by jobs of their own."""

# Without `from __future__ import annotations`: Dagster reads the annotation of `context` as an object.

from collections.abc import Iterable, Iterator, Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from vecsync_dagster.checks.evaluations import check_metadata, health_key, severity
from vecsync_dagster.checks.headlines import Event, headlines
from vecsync_dagster.config.models import Config
from vecsync_dagster.sync import CheckOutcome, Workspace
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.standing import FRESHNESS, RECONCILIATION, check_everything, check_freshness

__all__ = ["build_standing_checks", "build_standing_jobs"]

_FRESHNESS = {FRESHNESS: "Every partition was synced, and every document seen, within its limit"}


def build_standing_checks(settings: Config, name: str, pool: str | None) -> list[dg.AssetChecksDefinition]:
    """`pool`: the embedded store's, for the check that reads it; freshness asks the ledger and the source alone."""

    @dg.multi_asset_check(name=f"{name}_reconciliation", specs=_specs(name, RECONCILIATION), can_subset=True, pool=pool)
    def reconciliation(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult | Event]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        with Workspace(settings) as workspace:
            for outcome in check_everything(workspace, name):
                if outcome.name in wanted:
                    yield _result(name, outcome)
            yield from headlines(context.instance, workspace, name)  # it has found which partitions differ
            refresh_metrics(settings, workspace.ledger)

    @dg.multi_asset_check(name=f"{name}_freshness", specs=_specs(name, _FRESHNESS), can_subset=True)
    def freshness(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with Workspace(settings) as workspace:
            yield _result(name, check_freshness(workspace, name))
            refresh_metrics(settings, workspace.ledger)

    return [reconciliation, freshness]


def build_standing_jobs(config: Config) -> tuple[UnresolvedAssetJobDefinition, UnresolvedAssetJobDefinition]:
    """The job that reconciles everything, and the one that looks whether everything is fresh."""
    reconciled = [key for entity in config.entities for key in _keys(entity, RECONCILIATION)]
    fresh = [key for entity in config.entities for key in _keys(entity, _FRESHNESS)]
    return (
        dg.define_asset_job(
            "reconcile_job",
            selection=dg.AssetSelection.checks(*reconciled),
            description="Compare every point of every collection with the ledger, over all partitions",
        ),
        dg.define_asset_job(
            "freshness_job",
            selection=dg.AssetSelection.checks(*fresh),
            description="Look whether every partition was synced, and every document seen, in time",
        ),
    )


def _keys(entity: str, checks: Iterable[str]) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(health_key(entity), name) for name in checks]


def _specs(entity: str, checks: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(name, asset=health_key(entity), description=text) for name, text in checks.items()]


def _result(entity: str, outcome: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=health_key(entity),
        check_name=outcome.name,
        passed=outcome.passed,
        metadata=check_metadata(outcome),
        severity=severity(outcome),
        description=outcome.message,
    )
