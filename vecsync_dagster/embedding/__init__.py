"""Text -> vector. Importing this room loads no model and no client; a provider does so when it is used."""

from __future__ import annotations

from typing import assert_never

from vecsync_dagster.config.models import (
    BundledProvider,
    EmbeddingConfig,
    HashProvider,
    OpenAIProvider,
    ProviderConfig,
    SentenceTransformersProvider,
)
from vecsync_dagster.embedding.base import Embedded, EmbeddingProvider, Prepared
from vecsync_dagster.embedding.cache import EmbeddedTexts, Embedder, Outcome, Plan, VectorCache
from vecsync_dagster.embedding.chain import choose, space_of

__all__ = [
    "Embedded",
    "EmbeddedTexts",
    "Embedder",
    "EmbeddingProvider",
    "Outcome",
    "Plan",
    "Prepared",
    "VectorCache",
    "build_chain",
    "choose",
    "space_of",
]


def build_chain(config: EmbeddingConfig) -> tuple[EmbeddingProvider, ...]:
    """The providers of the configuration, in its order. Raises ConfigError for settings that cannot work."""
    return tuple(_build(provider) for provider in config.chain)


def _build(config: ProviderConfig) -> EmbeddingProvider:
    match config:
        case OpenAIProvider():
            from vecsync_dagster.embedding.openai import OpenAIProvider as OpenAI

            return OpenAI(config)
        case SentenceTransformersProvider():
            from vecsync_dagster.embedding.sentence_transformers import SentenceTransformersProvider as Local

            return Local(config)
        case BundledProvider():
            from vecsync_dagster.embedding.bundled import BundledProvider as Bundled

            return Bundled(config)
        case HashProvider():
            from vecsync_dagster.embedding.hashing import HashProvider as Hash

            return Hash(config)
        case _:
            assert_never(config)
