"""Which partitions are due: a pure decision over what the source looks like now and what was seen last."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.ledger.base import LastRuns, Partition, Seen
from vecsync_dagster.sources.base import Fingerprint
from vecsync_dagster.sources.sql_types import EPOCH

__all__ = ["Due", "due_partitions", "undone_partitions"]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Due:
    """A partition that differs from what was seen, or one whose run `failed`. `state` names the difference, or the run;
    `full`: changed rows alone would not repair it."""

    collection: str
    tenant: str
    state: str
    full: bool = False
    failed: bool = False


def due_partitions(
    entity: EntityConfig,
    tenants: Iterable[str],
    looks: Mapping[str, Fingerprint] | None,
    seen: Mapping[tuple[str, str], Seen],
    now: datetime,
    due_after: timedelta,
) -> list[Due]:
    """The partitions of `tenants` that are due. `looks` None: the source cannot say what changed; then they are due
    when their last sync is `due_after` ago."""
    settings = {name: entity.synced_as(name) for name in entity.collections}
    found = []
    for tenant in tenants:
        look = None if looks is None else looks.get(tenant, Fingerprint())
        for collection in entity.collections:
            last = seen.get((collection, tenant))
            if last is not None and last.doubted_at is not None:
                found.append(Due(collection, tenant, f"doubted since {last.doubted_at.isoformat()}", full=True))
            elif last is None or last.settings != settings[collection]:
                found.append(Due(collection, tenant, f"{look} {settings[collection]}"))
            elif look is None:
                if now - last.at >= due_after:
                    found.append(Due(collection, tenant, f"after {last.at.isoformat()}"))
            elif last.fingerprint is None or look.differs_from(last.fingerprint):
                full = last.fingerprint is not None and not _dated(last.fingerprint, look, entity, now)
                found.append(Due(collection, tenant, look.state(last.fingerprint), full))
    return found


def undone_partitions(
    entity: EntityConfig, tenants: Container[str], runs: Mapping[Partition, LastRuns]
) -> Iterator[Due]:
    """The partitions of `tenants` that failed, whatever has changed since: nobody else would run them before the night.
    In full where a full run failed and none has succeeded since. What was interrupted is left alone: somebody may have
    meant it."""
    for key, last in runs.items():
        if key.collection not in entity.collections or key.tenant not in tenants:
            continue
        failed, done = last.full_failure, last.full_success
        if failed is not None and (done is None or done.started_at < failed.started_at):
            yield Due(key.collection, key.tenant, f"after {failed.run_id}", full=True, failed=True)
        elif last.last.outcome == "failed":
            yield Due(key.collection, key.tenant, f"after {last.last.run_id}", failed=True)


def _all_there(before: Fingerprint, after: Fingerprint) -> bool:
    """Whether the rows that are live no more may have stayed in the table, marked as deleted or kept out."""
    if before.dead is None or after.dead is None:
        return False
    return after.rows + after.dead >= before.rows + before.dead


def _dated(before: Fingerprint, after: Fingerprint, entity: EntityConfig, now: datetime) -> bool:
    """Whether rows that were dated later, or within the overlap, explain the difference, so that reading those will do.
    Rows dated after the clock are among them: every incremental read has those."""
    if after.outline == before.outline:
        return True
    if entity.checksum or (after.rows < before.rows and not _all_there(before, after)):
        return False
    latest = before.latest
    if latest is not None and not before.ahead and latest > (now - EPOCH) // _MICROSECOND:
        return True  # of a look that did not yet count the times after the clock apart
    if latest is not None and (after.latest is None or after.latest < latest):
        return False
    return (after.latest, after.ahead) != (latest, before.ahead)
