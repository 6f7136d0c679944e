"""Which embedder writes into a collection: the one of the space it is pinned to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vecsync_dagster.embedding import Embedded, Embedder, EmbeddingProvider, choose, space_of
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster.space import Space
from vecsync_dagster.sync.origins import prove_origin

__all__ = ["Embedders"]


class Embedders:
    """One embedder for each provider of a chain, shared by all collections, tenants and threads of a process,
    so that a model is loaded once and a text in flight is paid for once."""

    def __init__(
        self,
        chain: Sequence[EmbeddingProvider],
        ledger: Ledger,
        written: Callable[[Space], Iterable[Sequence[str]]] | None = None,
    ) -> None:
        """`written` gives texts whose vectors may be kept: a provider that comes from elsewhere than before must make
        the same ones. Without it that is not asked."""
        self._chain = tuple(chain)
        self._ledger = ledger
        self._written = written
        self._made: dict[int, Embedder] = {}

    def of(self, entity: str, collection: str, *, pin: bool, planning: bool = False) -> Embedder:
        """The embedder of a collection's space; with `pin` the space of a new collection is fixed for good.
        `planning`: nothing will be embedded.

        Raises SpaceMismatch, EmbeddingUnavailable or EmbeddingMisconfigured.
        """
        pinned = self._ledger.space_of(collection)
        provider = choose(self._chain, pinned, collection, planning=planning)
        if pinned is None and pin:
            pinned = self._ledger.pin_space(entity, collection, provider.space)
            provider = choose(self._chain, pinned, collection)
        return self._made.setdefault(id(provider), Embedder(provider, self._ledger, self._proof(provider)))

    def _proof(self, provider: EmbeddingProvider) -> Callable[[bool], Embedded | None] | None:
        written = self._written
        if written is None:
            return None
        return lambda keep: prove_origin(provider, self._ledger, written, keep=keep)

    def space_of(self, physical: str, collection: str) -> Space:
        """The chain's space of a physical collection, by its name alone. Raises SpaceMismatch."""
        return space_of(self._chain, physical, collection)

    def close(self) -> None:
        for provider in self._chain:
            provider.close()
