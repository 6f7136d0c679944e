"""The tenants sensor of an entity: who is new at the source becomes a partition and is synced at once; who is gone
is removed from the store, and then from the partitions.

Level-triggered, too: a tenant that vanished is found as long as the ledger or the partitions know it. One
look alone removes nothing: each tick is a look, and what it missed is remembered in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from vecsync_dagster.alerts import Seen
from vecsync_dagster.automation.outages import tick
from vecsync_dagster.automation.partitions import partition_key, tenants_name
from vecsync_dagster.automation.requests import Requests
from vecsync_dagster.automation.runs import run_over
from vecsync_dagster.automation.under_way import under_way
from vecsync_dagster.config.models import Config
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.words import number_of

__all__ = ["REMOVAL_TAG", "tenants_sensor"]

REMOVAL_TAG = "vecsync/removal"
_GONE = "gone"


def tenants_sensor(config: Config, entity: str, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    settings = config.automation.tenants
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=f"{entity}_tenants",
        job=job,
        minimum_interval_seconds=round(settings.interval.total_seconds()),
        default_status=running if settings.enabled else stopped,
        description=f"Makes partitions of new tenants of {entity} and syncs them; removes tenants that are gone",
    )
    def tenants(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = Seen()
        with tick(context.instance, config, entity, seen, all_checks=True) as workspace:
            look = _Tick(context, workspace, entity)
            seen.is_gone = look.is_gone
            return look.result()

    return tenants


class _Tick:
    def __init__(self, context: dg.SensorEvaluationContext, workspace: Workspace, entity: str) -> None:
        self._context = context
        self._workspace = workspace
        self._entity = entity
        self._collections = list(workspace.entity(entity).collections)
        self._definition = dg.DynamicPartitionsDefinition(name=tenants_name(entity))
        self._partitions = set(context.instance.get_dynamic_partitions(tenants_name(entity))) - {GLOBAL}
        self._busy = under_way(context.instance, entity)
        automation = workspace.config.automation
        self._single_runs = automation.changes.single_runs
        self._max_partitions = automation.changes.max_partitions
        self._requests = Requests(context.cursor, automation.changes.backoff, datetime.now(UTC))
        self._seen = workspace.ledger.seen(entity)
        # All of them go with a tenant's removal, and until then it is not done.
        self._traces = workspace.traces(entity) - {GLOBAL}
        with asking(workspace, entity):
            self._roll = workspace.call_the_roll(entity, self._partitions | self._traces)
        self._missing = workspace.look_for_missing(entity, self._roll, self._traces)

    def result(self) -> dg.SensorResult:
        new = [tenant for tenant in self._roll.listed if tenant not in self._partitions]
        vanished = [] if self._roll.lost is not None else list(self._roll.vanished)
        leaving = [tenant for tenant in vanished if tenant in self._partitions and self._is_clean(tenant)]
        now = self._workspace.ledger.now()
        doomed = [tenant for tenant, absence in self._missing.items() if absence.confirmed(now)]
        self._requests.keep(partition_key(c, tenant) for tenant in doomed for c in self._collections)
        runs = self._first_runs(new) + self._removals(doomed)
        changed: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
            *([self._definition.build_add_request(new)] if new else []),
            *([self._definition.build_delete_request(leaving)] if leaving else []),
        ]
        return dg.SensorResult(
            run_requests=runs,
            skip_reason=None if runs else self._why_nothing(new, leaving),
            cursor=self._requests.cursor(),
            dynamic_partitions_requests=changed,
        )

    def is_gone(self, tenant: str) -> bool:
        """Nothing is left of it here, not even what a first run would have written."""
        return self._roll.lost is None and tenant not in {*self._roll.listed, *self._traces, GLOBAL}

    def _is_clean(self, tenant: str) -> bool:
        return tenant not in self._traces and not any(partition_key(c, tenant) in self._busy for c in self._collections)

    def _first_runs(self, new: Sequence[str]) -> list[dg.RunRequest]:
        """What a tick leaves out, or a first run fails to do, the change sensor finds: those partitions are due. What
        was synced already, by whoever listens or before there was this Dagster, is new to Dagster alone."""
        at = self._requests.now.isoformat()
        places = [(collection, tenant) for tenant in new for collection in self._collections]
        keys = [partition_key(*place) for place in places if place not in self._seen]
        wanted = [key for key in keys if key not in self._busy][: self._max_partitions]
        if len(wanted) <= self._single_runs:
            return [run_over(self._entity, [key], [f"{key}@new#{at}"], single=True) for key in wanted]
        return [run_over(self._entity, wanted, [f"{key}@new#{at}" for key in wanted])]

    def _removals(self, doomed: Sequence[str]) -> list[dg.RunRequest]:
        keys = [partition_key(collection, tenant) for tenant in doomed for collection in self._collections]
        wanted = [key for key in keys if key not in self._busy and self._requests.may_ask(key, None)]
        wanted = wanted[: self._max_partitions]
        if not wanted:
            return []
        run_keys = [self._requests.ask(key, _GONE) for key in wanted]
        # The guard of a partition would stop the removal of all it has; here it is the share of tenants that guards.
        return [run_over(self._entity, wanted, run_keys, mode="full", tenant_gone=True, tags={REMOVAL_TAG: "tenants"})]

    def _why_nothing(self, new: Sequence[str], leaving: Sequence[str]) -> str:
        reasons = [str(self._roll.lost)] if self._roll.lost is not None else []
        if self._roll.invalid:
            keys = ", ".join(map(repr, self._roll.invalid[:5]))
            reasons.append(f"{number_of(len(self._roll.invalid), 'tenant key')} cannot be a partition: {keys}")
        now = self._workspace.ledger.now()
        waiting = [absence for absence in self._missing.values() if not absence.confirmed(now)]
        names = self._workspace.ledger.tenant_names(self._entity) if waiting else {}
        reasons += [absence.text(now, names.get((self._entity, absence.tenant), "")) for absence in waiting]
        if new or leaving:
            reasons.append(f"{number_of(len(new), 'partition')} added, {len(leaving)} taken away")
        return "; ".join(reasons) or "no tenant came or went"
