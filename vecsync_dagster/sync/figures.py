"""What a run did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

__all__ = ["Figures"]


_WORK = (
    *("removed", "upserted", "repaired", "taken_in", "lost", "lost_elsewhere", "embedded", "cache_misses"),
    *("tokens", "api_calls", "truncated", "price_usd", "seconds"),
)


@dataclass(slots=True)
class Figures:
    """Figures of one partition in one run.

    They add up: fetched = new + changed + payload_only + unchanged + retry + invalid. `failed` are those
    of the changes that did not reach the store. `embedded` counts texts sent to the provider, `cache_hits`
    texts that were not; `price_usd` is an estimate from the provider's list price. `seconds` is wall time.
    """

    fetched: int = 0
    new: int = 0
    changed: int = 0
    payload_only: int = 0
    unchanged: int = 0
    retry: int = 0
    invalid: int = 0
    removed: int = 0
    failed: int = 0
    upserted: int = 0
    embedded: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    tokens: int = 0
    api_calls: int = 0
    truncated: int = 0
    price_usd: float = 0.0
    unidentified: int = 0
    """Of the invalid ones: records without a usable id of their own, which the ledger cannot keep."""
    removals_blocked: int = 0
    removals_waiting: int = 0
    """Documents of which the source has none left, as far as one look can tell: they go when a second look agrees."""
    spared: int = 0
    """Documents that the read did not have, and that stay, as the source has them when it is asked for them."""
    repaired: int = 0
    """Points that were not as the ledger says, and that the run put right: written again, or removed."""
    taken_in: int = 0
    """Documents that the store held and the ledger did not know."""
    lost: int = 0
    """Documents that cannot be written, as their records are rejected, and of which the store lost the last good
    version."""
    lost_elsewhere: int = 0
    """Of these: those that were under a wrong tenant, as another version."""
    altered: int = 0
    """The same, where the store has another payload than was written: it stays until the record is valid."""
    seconds: float = 0.0

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Self:
        """What `as_dict` made these numbers of, also in a version that had other figures."""
        return cls(**{f.name: numbers[f.name] for f in fields(cls) if f.name in numbers})

    def add(self, other: Figures) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    def add_work(self, earlier: Figures) -> None:
        """What an earlier attempt at the same records did and cost; which changes there were is the last one's."""
        for name in _WORK:
            setattr(self, name, getattr(self, name) + getattr(earlier, name))

    @property
    def writes(self) -> int:
        """Documents of which the store was told something."""
        return self.upserted + self.payload_only + self.removed + self.repaired

    @property
    def emptied(self) -> bool:
        """Of a complete read that ended well: whether it had no record, and nothing of the partition is left."""
        return not (self.fetched or self.removals_blocked or self.removals_waiting or self.spared)

    @property
    def touched(self) -> bool:
        """Whether anything at all happened that people should see."""
        held_back = self.removals_blocked or self.removals_waiting
        return bool(self.writes or self.lost or self.new or self.changed or self.retry or self.failed or held_back)

    def as_dict(self) -> dict[str, Any]:
        """All figures and records per second, as plain numbers."""
        rate = self.fetched / self.seconds if self.seconds else 0.0
        numbers = {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return {**numbers, "records_per_second": round(rate, 1)}
