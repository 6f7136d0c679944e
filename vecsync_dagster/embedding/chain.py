"""Which provider of the chain a collection uses: the first that can, or the one it is pinned to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vecsync_dagster.embedding.base import EmbeddingProvider
from vecsync_dagster.errors import EmbeddingMisconfigured, EmbeddingUnavailable, SpaceMismatch
from vecsync_dagster.space import Space

__all__ = ["choose", "space_of"]

_log = logging.getLogger(__name__)


def choose(
    chain: Sequence[EmbeddingProvider], pinned: Space | None, collection: str, *, planning: bool = False
) -> EmbeddingProvider:
    """The provider for `collection`. A collection that is pinned to a space never gets another one's vectors.

    Without a pin: the first provider that is available; EmbeddingMisconfigured, with each one's reason, if
    none is. With a pin: the provider of that space; SpaceMismatch if the chain has none, EmbeddingUnavailable
    if it cannot be used now (its package, key or model may come back). `planning`: nothing will be embedded, so that
    one whose space and price are known may lack its key.
    """
    try:
        provider = _first_available(chain, collection) if pinned is None else _of_space(chain, pinned, collection)
    except (EmbeddingMisconfigured, EmbeddingUnavailable) as error:
        able = (one for one in chain if (space := _space(one)) is not None and pinned in (None, space))
        known = next(able, None) if planning else None
        if known is None:
            raise
        _log.warning("estimated only: %s", error)
        provider = known
    if not provider.semantic:
        _log.warning(
            "collection %s: the vectors of provider %s are NOT semantic: they only find equal words",
            collection,
            provider.name,
        )
    return provider


def space_of(chain: Sequence[EmbeddingProvider], physical: str, collection: str) -> Space:
    """The space of the chain whose physical collection has this name. Raises SpaceMismatch if there is none."""
    for provider in chain:
        space = _space(provider)
        if space is not None and space.physical_name(collection) == physical:
            return space
    raise SpaceMismatch(
        f"collection {collection}: the store holds it as {physical}, and no provider of the embedding chain has that "
        f"space: {_spaces(chain)}; put the provider that wrote it back into the chain",
        collection=collection,
        physical=physical,
    )


def _first_available(chain: Sequence[EmbeddingProvider], collection: str) -> EmbeddingProvider:
    reasons: list[str] = []
    for provider in chain:
        reason = provider.unavailable_because()
        if reason is None:
            if reasons:
                _log.warning("collection %s: falls back to provider %s: %s", collection, provider.name, _join(reasons))
            return provider
        reasons.append(f"{provider.name}: {reason}")
    raise EmbeddingMisconfigured(
        f"collection {collection}: no provider of the embedding chain can be used: {_join(reasons)}",
        collection=collection,
        reasons=tuple(reasons),
    )


def _of_space(chain: Sequence[EmbeddingProvider], pinned: Space, collection: str) -> EmbeddingProvider:
    # Another provider's model is not loaded just to learn that its space is another one.
    for provider in chain:
        if provider.name == pinned.provider and _space(provider) == pinned:
            return _if_available(provider, pinned, collection)
    for provider in chain:
        # A model that cannot be loaded may be the one: its space is not known until it can be.
        if provider.name == pinned.provider and _space(provider) is None:
            return _if_available(provider, pinned, collection)
    raise SpaceMismatch(
        f"collection {collection} holds vectors of {pinned}, but the embedding chain has: {_spaces(chain)}; "
        "put that provider back into the chain, or use a new collection name",
        collection=collection,
        pinned=str(pinned),
    )


def _spaces(chain: Sequence[EmbeddingProvider]) -> str:
    return ", ".join(str(_space(provider) or f"{provider.name} (cannot be loaded)") for provider in chain)


def _space(provider: EmbeddingProvider) -> Space | None:
    """None where the space is not known because the model cannot be loaded; `unavailable_because` says why."""
    try:
        return provider.space
    except EmbeddingMisconfigured:
        return None


def _if_available(provider: EmbeddingProvider, pinned: Space, collection: str) -> EmbeddingProvider:
    reason = provider.unavailable_because()
    if reason is None:
        return provider
    raise EmbeddingUnavailable(
        f"collection {collection} holds vectors of {pinned}, whose provider cannot be used now: {reason}",
        collection=collection,
        pinned=str(pinned),
        reason=reason,
    )


def _join(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)
