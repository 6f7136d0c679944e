"""One partition and everything that is needed to bring it up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.embedding import Embedder
from vecsync_dagster.errors import VecsyncError
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.sources.base import Keyed, Source
from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import VectorStore

__all__ = ["Target", "keyed"]


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


def keyed(entity: EntityConfig, source: Source) -> EntityConfig:
    """The entity by the key that its records really have: where none is named that may be the table's own, and to name
    another one later is a change of the settings. A source that does not answer tells its reader the same."""
    if "id" in entity.model_fields_set or not isinstance(source, Keyed):
        return entity
    with suppress(VecsyncError):
        if (key := tuple(source.key())) != entity.key:
            return entity.model_copy(update={"id": key})
    return entity
