"""The change sensor of an entity: asks the source which tenants differ from what the ledger has seen, and the ledger
which partitions failed.

Level-triggered: it looks at what is, not at what happened, so that whatever it missed (it was off, a run failed, a
change came between tick and run) it finds with its next look.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from vecsync_dagster.automation.outages import tick
from vecsync_dagster.automation.partitions import partition_key, tenants_name
from vecsync_dagster.automation.requests import Requests
from vecsync_dagster.automation.runs import run_over
from vecsync_dagster.automation.under_way import under_way
from vecsync_dagster.config.models import Config
from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.sources import Fingerprinting
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.due import Due, due_partitions, undone_partitions
from vecsync_dagster.sync.listening import said
from vecsync_dagster.sync.listing import asking
from vecsync_dagster.words import number_of

__all__ = ["change_sensor"]

_LISTENING: Final = timedelta(minutes=2)
_PATIENCE: Final = timedelta(seconds=25)
"""So long who listens may take with a change: a few ticks."""


def change_sensor(config: Config, entity: str, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    settings = config.automation.changes
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=f"{entity}_changes",
        job=job,
        minimum_interval_seconds=round(settings.interval.total_seconds()),
        default_status=running if settings.enabled else stopped,
        description=f"Asks for a sync of those tenants of {entity} whose rows have changed, or whose last sync failed",
    )
    def changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with tick(context.instance, config, entity) as workspace:
            return _Tick(context, workspace, entity).result()

    return changes


class _Tick:
    def __init__(self, context: dg.SensorEvaluationContext, workspace: Workspace, entity: str) -> None:
        self._instance = context.instance
        self._workspace = workspace
        self._entity = entity
        self._settings = workspace.config.automation.changes
        self._now = datetime.now(UTC)
        self._requests = Requests(context.cursor, self._settings.backoff, self._now)
        self._partitions = set(self._instance.get_dynamic_partitions(tenants_name(entity)))
        self._shared = workspace.has_global(entity)

    def result(self) -> dg.SensorResult:
        # Before the ledger and the source are asked: a run that ends meanwhile is then known by what it did.
        busy = under_way(self._instance, self._entity)
        seen = self._workspace.seen(self._entity)
        with asking(self._workspace, self._entity):
            due = self._due(seen)
        self._requests.keep(_request_key(one) for one in due)
        listener = self._workspace.ledger.listeners().get(self._entity)
        told = None if listener is None else said(listener, self._workspace.ledger.now())
        # What came before it listened nobody told it.
        listened = listener is not None and told is not None and told[1] and self._now - listener.since > _LISTENING
        free: dict[str, Due] = {}
        # What reads all last: it takes the place of what reads the changed rows.
        for one in sorted(due, key=lambda one: one.full):
            key = partition_key(one.collection, one.tenant)
            may = key not in busy and self._requests.may_ask(_request_key(one), _done_at(seen, one))
            # Who listens has most likely begun with it; what it lost is still there some ticks later.
            theirs = listened and not one.failed
            if may and (not theirs or self._requests.wanted_for(_request_key(one), _PATIENCE)):
                free[key] = one
        # Those that failed wait behind the others: they must not take the places of a tick for ever.
        ordered = sorted(free.values(), key=lambda one: self._requests.attempts(_request_key(one)))
        wanted = ordered[: self._settings.max_partitions]
        keys = {partition_key(one.collection, one.tenant) for one in due}
        runs = self._runs(wanted)
        return dg.SensorResult(
            run_requests=runs,
            skip_reason=None if runs else self._why_nothing(len(keys), sum(key in busy for key in keys), told),
            cursor=self._requests.cursor(),
            dynamic_partitions_requests=self._global_partition(),
        )

    def _due(self, seen: dict[tuple[str, str], Seen]) -> list[Due]:
        """Of the tenants that are partitions: new ones, and those that vanished, are the tenants sensor's."""
        source = self._workspace.source(self._entity)
        looks = source.fingerprints() if isinstance(source, Fingerprinting) else None
        there = set(source.tenants() if looks is None else looks) - {GLOBAL}
        tenants = sorted(there & self._partitions) + ([GLOBAL] if self._shared else [])
        entity = self._workspace.entity(self._entity)
        changed = due_partitions(entity, tenants, looks, seen, self._now, self._settings.due_after)
        undone = undone_partitions(entity, {*tenants}, self._workspace.ledger.last_runs_of_undone(self._entity))
        # The same read is asked for once, whatever it is for.
        return list({_request_key(one): one for one in [*changed, *undone]}.values())

    def _runs(self, wanted: Sequence[Due]) -> list[dg.RunRequest]:
        """A run for each partition while they are few; else one for all that need no more than their changed rows,
        and one for those that must be read in full."""
        if len(wanted) <= self._settings.single_runs:
            return [self._run([one], single=True) for one in wanted]
        groups = ([one for one in wanted if one.full is full] for full in (False, True))
        return [self._run(group, single=False) for group in groups if group]

    def _run(self, group: Sequence[Due], *, single: bool) -> dg.RunRequest:
        keys = [partition_key(one.collection, one.tenant) for one in group]
        run_keys = [self._requests.ask(_request_key(one), one.state) for one in group]
        return run_over(self._entity, keys, run_keys, mode="full" if group[0].full else "configured", single=single)

    def _global_partition(self) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
        if not self._shared or GLOBAL in self._partitions:
            return []
        return [dg.DynamicPartitionsDefinition(name=tenants_name(self._entity)).build_add_request([GLOBAL])]

    def _why_nothing(self, due: int, busy_with: int, told: tuple[str, bool] | None) -> str:
        """What people read on the sensor's page: also whether somebody else syncs what changes (`told`: see `said`)."""
        if told is None:
            return self._why(due, busy_with)
        heard = f"{number_of(due, 'partition')} to sync" if due and told[1] else self._why(due, busy_with)
        return f"{heard}; {told[0]}"

    def _why(self, due: int, busy_with: int) -> str:
        if not due and not isinstance(self._workspace.source(self._entity), Fingerprinting):
            after = round(self._settings.due_after.total_seconds() / 60, 1)
            return (
                f"nothing is due: this source cannot be asked what changed, and a partition is due {after:g} minutes "
                "after its last sync (automation.changes.due_after); `vecsync watch` follows its change streams"
            )
        if not due:
            return "nothing has changed"
        waiting = f", {due - busy_with} waiting after a failed run" if busy_with < due else ""
        running = f", {busy_with} in a running or queued run" if busy_with else ""
        return f"{number_of(due, 'partition')} to sync{running}{waiting}"


def _request_key(one: Due) -> str:
    """What reads all has delays of its own: while it fails, what changes is synced all the same."""
    key = partition_key(one.collection, one.tenant)
    return f"{key}|full" if one.full else str(key)


def _done_at(seen: dict[tuple[str, str], Seen], one: Due) -> datetime | None:
    if one.failed:
        return None  # as long as it is there it is not done
    last = seen.get((one.collection, one.tenant))
    return None if last is None else last.at
