"""Whether every partition is as it should be, by its last runs: what monitoring reads in sync_metrics.json."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from vecsync_dagster.config.models import Config, EntityConfig
from vecsync_dagster.ledger.base import LISTING, LOST, LastRuns, Ledger, Partition, Run
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster.stores.base import GLOBAL
from vecsync_dagster.sync.absence import is_ruled_out
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.options import is_tenant
from vecsync_dagster.sync.verify import CHECKS, checks_of
from vecsync_dagster.words import place_of

__all__ = [
    "EMPTY",
    "LISTED",
    "RED_PARTITIONS",
    "Trouble",
    "configured",
    "counting",
    "failing_tenants",
    "health",
    "is_configured",
    "is_gone",
    "known_tenants",
    "never_synced",
    "troubles",
    "unsynced",
]

RED_PARTITIONS: Final = "red_partitions"
"""A fact of a check over all partitions that fails because of theirs: of how many. They tell it all themselves."""
LISTED: Final = 500
"""Partitions that are named, however many there are: the failing ones first, then those synced longest ago."""
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]+")
_Kind = Literal["partition", "source", "check", "never"]


EMPTY: Final = "found"
"""A figure of a run that asked a source for its tenants: 0, where there were none and nothing is to be synced."""


def health(
    config: Config,
    runs: Mapping[Partition, LastRuns],
    now: datetime,
    results: Iterable[CheckResult] = (),
    tenants: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Counts over all configured partitions, and the last runs of those that need a look, as plain values for JSON.
    `results`: of the checks that fail now. One that is made over all partitions of an entity is in `failed_checks`, and
    counts as failing as a partition does. `tenants`: see `known_tenants`; what was never synced is overdue.

    `overdue_at`: when the first partition will not have been synced for `checks.freshness.max_age`. It holds without
    anybody writing the file again, so that monitoring can compare it with its own clock.
    """
    max_age = config.checks.freshness.max_age
    there = counting(config, runs, now)
    errors = _errors(config, results)
    broken = {Partition(one.entity, one.collection, one.tenant) for one in errors}
    over_all = [{"entity": one.entity, "check": one.check} for one in errors if not one.collection]
    failing = {key for key, last in there.items() if key in broken or not _ended_well(last)}
    # Of a partition that was never synced a comparison may have found a point.
    failing |= {key for key in broken if key.collection}
    due, never = _due(config, there), never_synced(config, runs, tenants)
    needs = {*there, *failing, *never}
    order = sorted(needs, key=lambda key: (key not in failing, key not in never, due.get(key, now), key))
    return {
        "at": _moment(now),
        "partitions": len(due),
        "failing": len(failing) + len(over_all),
        "failed_checks": over_all,
        "never_synced": len(never),
        "overdue": sum(at < now for at in due.values()) + len(never),
        "overdue_at": _moment(min([*due.values(), *([now] if never else [])], default=now + max_age)),
        "last_runs": [_entry(key, there.get(key), key in failing) for key in order[:LISTED]],
    }


@dataclass(frozen=True, slots=True)
class Trouble:
    """What `health` counts, for people: without a collection it is an entity's source, or a check over all its
    partitions; without a tenant alone, all of a collection. `what` has a sentence for each thing that is wrong, and
    `details` what there is to add to each; `overdue`: whether that is one of them."""

    entity: str
    collection: str
    tenant: str
    kind: _Kind
    failing: bool
    overdue: bool
    what: tuple[str, ...]
    details: tuple[str, ...]

    @property
    def in_full(self) -> str:
        return "; ".join(": ".join(filter(None, some)) for some in zip(self.what, self.details, strict=True))

    def where(self, name: str = "") -> str:
        """For people; `name`: what they call the tenant."""
        if self.kind == "never":
            return unsynced(Partition(self.entity, self.collection, self.tenant), name)
        return place_of(self.entity, self.collection, self.tenant, name)


def troubles(
    config: Config,
    runs: Mapping[Partition, LastRuns],
    now: datetime,
    results: Iterable[CheckResult] = (),
    tenants: Iterable[tuple[str, str]] = (),
) -> list[Trouble]:
    """What is wrong, by the same facts as `health` counts it: what fails first, then what is overdue."""
    there = counting(config, runs, now)
    due = _due(config, there)
    failed: dict[Partition, list[tuple[str, str]]] = {}
    found: list[Trouble] = []
    for one in _errors(config, results):
        said = (f"check {one.check} failed", one.message)
        if one.collection:
            failed.setdefault(Partition(one.entity, one.collection, one.tenant), []).append(said)
        else:
            found.append(_trouble(Partition(one.entity, "", ""), "check", [said]))
    found += (_trouble(key, "partition", failed[key]) for key in failed.keys() - there.keys())
    never = never_synced(config, runs, tenants)
    found += (_trouble(key, "never", [], "never synced") for key in never)
    for key, last in there.items():
        wrong = [*_ended(last), *failed.get(key, ())]
        late = key in due and due[key] < now
        if wrong or late:
            since = f"not synced since {_moment(_synced_at(last))}" if last.success else "never synced"
            kind: _Kind = "source" if last.last.mode == LISTING else "partition"
            found.append(_trouble(key, kind, wrong, f"overdue: {since}" if late else ""))
    order = {"source": 0, "check": 1, "partition": 2, "never": 3}
    return sorted(found, key=lambda one: (not one.failing, order[one.kind], one.entity, one.collection, one.tenant))


def known_tenants(config: Config, ledger: Ledger) -> set[tuple[str, str]]:
    """By entity, the tenants (and `global`) that the ledger knows beside those of runs: some run, or somebody who asked
    the source, has met them."""
    rows = {
        (entity, tenant)
        for entity, settings in config.entities.items()
        for collection in settings.collections
        for tenant in ledger.with_rows_or_marks(entity, collection)
    }
    return rows | ledger.tenant_names().keys()


def never_synced(
    config: Config, runs: Mapping[Partition, LastRuns], tenants: Iterable[tuple[str, str]]
) -> set[Partition]:
    """Partitions that no sync was of: of `global`, and of each tenant that has another collection of the entity, or is
    one of `tenants` (`known_tenants`). Where no tenant is known, the collection (tenant ""). Nobody can say by the
    ledger alone which tenants the source has besides."""
    there, gone = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for key, last in runs.items():
        if last.last.mode != LISTING and is_configured(config, key.entity, key.collection) and is_tenant(key.tenant):
            (gone if is_gone(config.entities[key.entity], key, last) else there)[key.entity].add(key.tenant)
    for owner, tenant in tenants:
        if tenant not in gone[owner]:
            there[owner].add(tenant)
    found = set()
    for name, entity in config.entities.items():
        wanted = {tenant for tenant in {GLOBAL, *there[name]} if not is_ruled_out(entity, tenant)}
        asked = runs.get(Partition(name, "", ""))
        if not wanted and not gone[name] and not (asked and asked.last.ok and asked.last.figures.get(EMPTY) == 0):
            wanted = {""}
        found |= {Partition(name, collection, tenant) for collection in entity.collections for tenant in wanted}
    return found - runs.keys()


def unsynced(key: Partition, name: str = "") -> str:
    """One of `never_synced` for people; `name`: what they call the tenant."""
    if key.tenant:
        return place_of(*key, name)
    return key.entity if key.collection == key.entity else f"{key.entity}, {key.collection}"


def _trouble(key: Partition, kind: _Kind, failed: list[tuple[str, str]], overdue: str = "") -> Trouble:
    what, details = zip(*failed, *([(overdue, "")] if overdue else []), strict=True)
    return Trouble(*key, kind, failing=bool(failed), overdue=bool(overdue), what=what, details=details)


def _ended(last: LastRuns) -> Iterator[tuple[str, str]]:
    """How a partition's runs ended where they are to be done again; or why a source did not list its tenants."""
    run = last.undone
    if run is None:
        return
    error = run.error or ""
    if run.mode != LISTING:
        what = f"last {'full ' * (run is not last.last)}run {run.outcome}"
    elif error.startswith(LOST):
        what = "the source lacks tenants"
    else:
        what = "the source failed"
    code, colon, message = error.partition(": ")
    yield (f"{what}: {code}", message) if colon and _CODE.fullmatch(code) else (what, error)


def _errors(config: Config, results: Iterable[CheckResult]) -> list[CheckResult]:
    """One over all partitions that fails because of theirs is not counted beside them."""
    found = configured(results, config)
    return [one for one in found if one.severity == "error" and RED_PARTITIONS not in one.facts]


def _due(config: Config, there: Mapping[Partition, LastRuns]) -> dict[Partition, datetime]:
    """When each partition will not have been synced for too long."""
    max_age = config.checks.freshness.max_age
    return {key: _synced_at(last) + max_age for key, last in there.items() if last.last.mode != LISTING}


def counting(config: Config, runs: Mapping[Partition, LastRuns], now: datetime) -> dict[Partition, LastRuns]:
    """Today's partitions, and the entities whose source could not be asked for its tenants."""
    return {key: last for key, last in runs.items() if _counts(config, key, last, now)}


def is_configured(config: Config, entity: str, collection: str) -> bool:
    """Whether the configuration has it; an empty `collection` is all of the entity. What it does not have any more is
    a leftover, which `check` and `status` name and `drop` removes: it says nothing of the health of what there is."""
    there = config.entities.get(entity)
    return there is not None and (not collection or collection in there.collections)


def configured(results: Iterable[CheckResult], config: Config) -> list[CheckResult]:
    """Those of these results that are about what is configured, by checks that are still made there."""
    return [
        one
        for one in results
        if is_configured(config, one.entity, one.collection)
        and (one.check not in CHECKS or one.check in checks_of(config.entities[one.entity]))
    ]


def _ended_well(last: LastRuns) -> bool:
    """What the checks of the runs found may be repaired by now."""
    return last.undone is None


def failing_tenants(entity: EntityConfig, runs: Mapping[Partition, LastRuns]) -> set[str]:
    """Also those of which nothing is left but a run that failed: it stays the last one until they are synced again.
    Into a collection that left the configuration none is."""
    failed = (key for key, last in runs.items() if not _ended_well(last))
    return {key.tenant for key in failed if is_tenant(key.tenant) and key.collection in entity.collections}


def is_gone(entity: EntityConfig, key: Partition, last: LastRuns) -> bool:
    """A tenant, or a `global` that is no more, whose last full run found nothing, and removed what there was."""
    run = last.last
    may_go = key.tenant != GLOBAL or is_ruled_out(entity, key.tenant)
    return may_go and run.mode == "full" and run.ok and Figures.of(run.figures).emptied


def _counts(config: Config, key: Partition, last: LastRuns, now: datetime) -> bool:
    """Whether the partition is one of today's: configured, and not gone from the source."""
    if not is_configured(config, key.entity, key.collection):
        return False
    if last.last.mode == LISTING:
        return not last.last.ok
    if is_gone(config.entities[key.entity], key, last):
        return False
    # A key that cannot be a partition fails in every run as long as it is there, and is never synced away.
    return is_tenant(key.tenant) or last.last.ended_at > now - config.checks.freshness.max_age


def _synced_at(last: LastRuns) -> datetime:
    return last.success.started_at if last.success else min(run.started_at for run in _runs(last))


def _runs(last: LastRuns) -> Iterator[Run]:
    return (run for run in (last.last, last.success, last.full, last.full_success) if run is not None)


def _entry(key: Partition, last: LastRuns | None, failing: bool) -> dict[str, Any]:
    return {
        "entity": key.entity,
        "collection": key.collection or None,
        "tenant": key.tenant or None,
        "failing": failing,
        **_run(last.last if last else None),
        "last_success_at": _moment(last.success.ended_at) if last and last.success else None,
        "last_full": _run(last.full) if last and last.full else None,
    }


def _run(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {**dict.fromkeys(("run_id", "mode", "outcome", "started_at", "ended_at", "error")), "failed_checks": []}
    return {
        "run_id": run.run_id,
        "mode": run.mode,
        "outcome": run.outcome,
        "started_at": _moment(run.started_at),
        "ended_at": _moment(run.ended_at),
        "error": run.error,
        "failed_checks": list(run.failed_checks),
    }


def _moment(at: datetime) -> str:
    """As jq's `todate` writes it, so that texts can be compared."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
