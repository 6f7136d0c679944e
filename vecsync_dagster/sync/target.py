"""One partition and everything that is needed to bring it up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.embedding import Embedder
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import VectorStore

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """Entity + collection + tenant: the bounds of every query, write and removal. `left` is told the keys of records
    that are in the collection no more, or are nobody's."""

    entity: str
    config: EntityConfig
    collection: str
    tenant: str
    store: VectorStore
    ledger: Ledger
    embedder: Embedder
    settings: SyncConfig = field(default_factory=SyncConfig)
    max_truncated_share: float = ChecksConfig().max_truncated_share
    left: Callable[[Iterable[str]], None] = lambda _: None

    @property
    def space(self) -> Space:
        return self.embedder.provider.space

    def __str__(self) -> str:
        return f"{self.collection} of {self.tenant}"
