"""The checks of an entity's partitions, made on demand: what "Execute" does on the pages of `checks` and `health`."""

# Without `from __future__ import annotations`: Dagster reads the annotation of `context` as an object.

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from vecsync_dagster.automation.partitions import PARTITION_TAG, partitions_of
from vecsync_dagster.checks.evaluations import check_metadata, check_specs, evaluation, grid_key, health_key, severity
from vecsync_dagster.checks.headlines import (
    RUNS,
    failing_last,
    grid_evaluation,
    headline,
    headlines,
    over_in_grid,
    red_checks,
    runs_outcome,
)
from vecsync_dagster.config.models import Config
from vecsync_dagster.containment import contained
from vecsync_dagster.errors import LedgerUnavailable, PartitionBusy, Transient, VecsyncError
from vecsync_dagster.sync import CheckOutcome, Workspace, checks_of, is_tenant
from vecsync_dagster.sync.health import configured
from vecsync_dagster.sync.metrics import refresh_metrics
from vecsync_dagster.sync.standing import Place, bring_in_line, check_others
from vecsync_dagster.sync.verify import graded, kept
from vecsync_dagster.words import number_of

__all__ = ["build_check_assets", "build_partition_checks"]

_NAMED = 20
_OF_RUNS = {"validation", "removal_guard"}
"""What a run found that read the records, and what later ones go by: a look that failed knows nothing better."""


def build_check_assets(settings: Config, name: str) -> list[dg.AssetSpec]:
    """Where the checks are: nothing materializes these two, so nothing makes a result look outdated."""
    return [
        dg.AssetSpec(
            grid_key(name),
            deps=[dg.AssetKey([name, "vectors"])],
            description="Never materialized. Results by tenant and collection: Checks, a check, Partitions",
            group_name=name,
            partitions_def=partitions_of(name, settings.entities[name]),
        ),
        dg.AssetSpec(
            health_key(name),
            deps=[grid_key(name)],
            description="Never materialized. The worst result of each check over all partitions: see Checks",
            group_name=name,
        ),
    ]


def build_partition_checks(settings: Config, name: str, pool: str | None) -> dg.AssetChecksDefinition:
    """Verifies partitions as they are now, point by point; nothing is synced. `pool`: the embedded store's."""
    entity = settings.entities[name]
    of_partitions = check_specs(name, entity, partitions_of(name, entity))
    overall = [
        dg.AssetCheckSpec(check, asset=health_key(name), description=f"{text}. The worst result of all partitions")
        for check, (_, text) in checks_of(entity).items()
    ]
    overall.append(
        dg.AssetCheckSpec(
            RUNS, asset=health_key(name), description="The last run of each partition ended well, and its last full run"
        )
    )

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=[*of_partitions, *overall],
        can_subset=True,
        pool=pool,
    )
    def partition_checks(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        asked = context.run.tags.get(PARTITION_TAG)
        problems: dict[str, VecsyncError] = {}
        with Workspace(settings) as workspace:
            yield from failing_last(_checked(context, workspace, name, asked, problems), red_checks(workspace, name))
            for spec in of_partitions:
                if spec.key in context.selected_asset_check_keys:  # an evaluation is no output: its log would miss one
                    yield dg.Output(None, output_name=spec.get_python_identifier())
            results = configured(workspace.ledger.check_results(name), settings)
            for key in context.selected_asset_check_keys:
                if key.asset_key == health_key(name):
                    theirs = [one for one in results if one.collection and one.check == key.name]
                    names = workspace.ledger.tenant_names(name)
                    of_runs = key.name == RUNS
                    outcome = runs_outcome(workspace, name, names) if of_runs else headline(key.name, theirs, names)
                    yield dg.AssetCheckResult(
                        asset_key=key.asset_key,
                        check_name=key.name,
                        passed=outcome.passed,
                        metadata=check_metadata(outcome),
                        severity=severity(outcome),
                        description=outcome.message,
                    )
            yield from headlines(context.instance, workspace, name)
            refresh_metrics(settings, workspace.ledger)
        if problems:
            told = "; ".join(f"{place}: {error.code}: {error}" for place, error in list(problems.items())[:_NAMED])
            raise dg.Failure(
                f"{number_of(len(problems), 'partition')} could not be checked: {told}", allow_retries=False
            )

    return partition_checks


def _checked(
    context: dg.AssetCheckExecutionContext,
    workspace: Workspace,
    name: str,
    asked: str | None,
    problems: dict[str, VecsyncError],
) -> Iterator[dg.AssetCheckEvaluation]:
    """What `_verified` makes; then what depends on it is brought in line, and what is over by that is told."""
    began, made = datetime.now(UTC), list[Place]()
    yield from _verified(workspace, name, asked, problems, made)
    try:
        with contained("checks over all partitions"):
            check_others(workspace, name, made)
            bring_in_line(workspace, name)
    except VecsyncError as error:
        context.log.warning("checks over all partitions are as they were: %s: %s", error.code, error)
    own = {f"{collection}|{tenant}" for collection, tenant, _ in made}
    yield from over_in_grid(context.instance, workspace, name, began, own)


def _verified(
    workspace: Workspace, name: str, asked: str | None, problems: dict[str, VecsyncError], made: list[Place]
) -> Iterator[dg.AssetCheckEvaluation]:
    """`asked`: one partition alone, if it is not all of them. One that cannot be checked has its error in `problems`,
    and the others go on; where that may pass, its last results hold. What was made is added to `made`."""
    names, entity = workspace.ledger.tenant_names(name), workspace.entity(name)
    for selection in workspace.select([name]):
        if not is_tenant(selection.tenant):
            continue  # no partition, so there is nothing to verify: its failed run says so
        called = names.get((name, selection.tenant), "")
        for collection in selection.collections:
            place = f"{collection}|{selection.tenant}"
            if asked not in (None, place):
                continue
            began = datetime.now(UTC)
            try:
                with contained(f"{place}: checking"):
                    [(_, checks)] = workspace.verify(replace(selection, collections=(collection,)))
            except LedgerUnavailable:
                raise  # without its ledger no other partition can be checked either
            except VecsyncError as error:
                # The run that is syncing a partition makes its checks itself; anything else is for the run of these
                # checks to report.
                if not isinstance(error, PartitionBusy):
                    problems[place] = error
                message = f"could not be checked: {error.code}: {error}"
                unmade = set() if isinstance(error, Transient) else checks_of(entity).keys() - _OF_RUNS
                failed = [
                    graded(CheckOutcome(check, False, message), workspace.config.checks) for check in sorted(unmade)
                ]
                # Kept, so that `status` and the alerts say the same. The others are as they were.
                workspace.ledger.record_checks([kept(one, name, collection, selection.tenant, began) for one in failed])
                yield from (evaluation(name, collection, selection.tenant, one, called) for one in failed)
                last = configured(workspace.ledger.check_results(name, selection.tenant), workspace.config)
                yield from (
                    grid_evaluation(one, called)
                    for one in last
                    if one.collection == collection and one.check not in unmade
                )
            else:
                made.append((collection, selection.tenant, checks))
                yield from (evaluation(name, collection, selection.tenant, one, called) for one in checks)
