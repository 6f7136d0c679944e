"""What a sync is asked for, and what it answers: options and results, plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from vecsync_dagster.errors import InvalidTenant, VecsyncError
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster.sync.partition import Depth
from vecsync_dagster.sync.verify import CheckOutcome
from vecsync_dagster.words import number_of

__all__ = ["STAGES", "Outcome", "PartitionResult", "Selection", "Stage", "SyncOptions", "check_tenant", "is_tenant"]

Stage = Literal["export", "documents", "embeddings", "vectors"]
STAGES: tuple[Stage, ...] = ("export", "documents", "embeddings", "vectors")
Outcome = Literal["success", "failed", "interrupted"]

# Dagster joins a partition's two keys with "|" and writes ranges with "..."; white space at the ends and
# control characters cannot be told apart by people.
_TENANT = re.compile(r"[^\s|\x00-\x1f\x7f]([^|\x00-\x1f\x7f]{0,126}[^\s|\x00-\x1f\x7f])?")


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How one sync is to be made. `mode` None: as the settings say. A run with a `limit` or `offset` never
    removes anything. `ids`: just these records, which are asked for at the source, whatever the stages; of them,
    those that the source does not have any more are removed, and nothing else is. `tenant_gone`: the source's list of
    tenants lacks this one for long enough, and is believed: where the read has no record either, the removal guard
    does not keep its documents. `retry`: they failed before and are due; otherwise somebody asks for them, and those
    that have used up their retries are tried too. `dry_run` decides and counts, and touches nothing."""

    mode: Literal["full", "incremental"] | None = None
    limit: int | None = None
    offset: int = 0
    ids: tuple[str, ...] | None = None
    retry: bool = False
    allow_removals: bool = False
    tenant_gone: bool = False
    dry_run: bool = False
    stages: tuple[Stage, ...] = STAGES

    @property
    def partial(self) -> bool:
        """Whether the run may not see all there is: it removes nothing unseen and moves no watermark."""
        return self.limit is not None or self.offset != 0 or self.ids is not None

    @property
    def special(self) -> str | None:
        """What a run is called that is neither a full nor an incremental one."""
        if self.ids is not None:
            return "retry" if self.retry else "ids"
        return "partial" if self.partial else None

    def mode_of(self, reads: str) -> str:
        """What a run of these options is called; `reads`: full or incremental, where they leave it open."""
        return self.special or self.mode or reads

    @property
    def finds_absent(self) -> bool:
        """Whether an id that was asked for and did not come is gone from the source."""
        return self.ids is not None and self.limit is None and self.offset == 0

    @property
    def depth(self) -> Depth:
        if self.dry_run or not {"embeddings", "vectors"} & set(self.stages):
            return "plan"
        return "apply" if "vectors" in self.stages else "embed"


@dataclass(frozen=True, slots=True)
class Selection:
    """One tenant of one entity, and those of its collections that are meant."""

    entity: str
    tenant: str
    collections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """What became of one partition (entity x collection x tenant) in one run."""

    run_id: str
    entity: str
    collection: str
    tenant: str
    mode: str
    outcome: Outcome
    started_at: datetime
    ended_at: datetime
    figures: Figures
    space: str
    semantic: bool
    stages: tuple[Stage, ...]
    checks: tuple[CheckOutcome, ...] = ()
    error: VecsyncError | None = None
    note: str = ""
    """What people should know of this run besides: that it was a full one because the change stream was lost."""
    left: Collection[str] = field(default=(), repr=False, compare=False)
    """Keys of records that the run removed from one of the entity's collections, or that are nobody's: for the
    write-back, where there is one."""

    @property
    def synced(self) -> bool:
        """Whether the partition as a whole was synced: not some of its records, nor some stages before the store."""
        whole = self.mode in ("full", "incremental") and "vectors" in self.stages
        return whole and self.outcome == "success"

    @property
    def emptied(self) -> bool:
        """Whether a complete export had no record of it, and nothing of it is left."""
        full = self.mode == "full" and self.outcome == "success" and {"export", "vectors"} <= set(self.stages)
        return full and self.figures.emptied

    @property
    def ok(self) -> bool:
        """Synced, no document failed, and no check found an error (warnings are shown, not counted)."""
        sound = all(check.passed or check.warning for check in self.checks)
        return self.outcome == "success" and not self.figures.failed and sound


def is_tenant(key: str) -> bool:
    """Whether the key can be a partition."""
    return _TENANT.fullmatch(key) is not None and "..." not in key and "\ufffd" not in key


def check_tenant(tenant: str, count: Callable[[str], int] | None = None) -> None:
    """Raises InvalidTenant for a key that cannot be a partition; `count` tells how many records have it."""
    if not is_tenant(tenant):
        rows = count(tenant) if count is not None else 0
        has = f", that of {number_of(rows, 'record')}," if rows else ""
        raise InvalidTenant(
            f"the tenant key {tenant!r}{has} cannot be a partition: 1 to 128 characters, without | and control "
            "characters, in UTF-8, without ... and without white space at its ends",
            tenant=tenant,
        )
