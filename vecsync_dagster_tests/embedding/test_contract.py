"""The contract of a provider, run over each of them."""

from __future__ import annotations

import pytest

from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.base import EmbeddingProvider
from vecsync_dagster.embedding.bundled import BundledProvider
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.embedding.sentence_transformers import SentenceTransformersProvider
from vecsync_dagster_tests.embedding.local_models import needs_sentence_transformers, with_torch
from vecsync_dagster_tests.embedding.provider_contract import ProviderContract


class TestHash(ProviderContract):
    @pytest.fixture(params=[384, 7])
    def provider(self, request: pytest.FixtureRequest) -> EmbeddingProvider:
        return HashProvider(HashConfig(provider="hash", dimensions=request.param))


class TestBundled(ProviderContract):
    @pytest.fixture
    def provider(self) -> EmbeddingProvider:
        return BundledProvider(BundledConfig(provider="bundled", threads=1))


class TestOpenAI(ProviderContract):
    @pytest.fixture
    def provider(self, openai: OpenAIProvider) -> EmbeddingProvider:
        return openai


@needs_sentence_transformers
@with_torch
class TestSentenceTransformers(ProviderContract):
    @pytest.fixture
    def provider(self, local_provider: SentenceTransformersProvider) -> EmbeddingProvider:
        return local_provider
