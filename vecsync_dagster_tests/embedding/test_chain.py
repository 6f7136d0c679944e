"""Which provider a collection gets, and which it never gets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.config.models import EmbeddingConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.config.models import SentenceTransformersProvider as LocalConfig
from vecsync_dagster.embedding import Embedder, EmbeddingProvider, build_chain, choose
from vecsync_dagster.errors import EmbeddingMisconfigured, EmbeddingUnavailable, SpaceMismatch
from vecsync_dagster.space import Space
from vecsync_dagster_tests.embedding.conftest import MakeOpenAI
from vecsync_dagster_tests.embedding.local_models import with_torch
from vecsync_dagster_tests.embedding.memory_cache import MemoryCache

pytestmark = with_torch
PINNED = Space("openai", "text-embedding-3-small", 1536)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> OpenAIConfig:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return OpenAIConfig(provider="openai")


@pytest.fixture
def no_model(tmp_path: Path) -> LocalConfig:
    return LocalConfig(provider="sentence_transformers", model=str(tmp_path / "missing"))


def chain_of(*providers: OpenAIConfig | LocalConfig | BundledConfig | HashConfig) -> tuple[EmbeddingProvider, ...]:
    return build_chain(EmbeddingConfig(chain=providers))


def test_the_chain_is_the_configurations(no_key: OpenAIConfig, no_model: LocalConfig) -> None:
    """Every kind of provider is built, in the order of the configuration, without loading a model."""
    chain = chain_of(no_key, no_model, BundledConfig(provider="bundled"), HashConfig(provider="hash"))
    assert [provider.name for provider in chain] == ["openai", "sentence_transformers", "bundled", "hash"]


def test_the_first_available_is_taken(
    no_key: OpenAIConfig, no_model: LocalConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a pin the first provider that can be used is taken, and the log says why those before it were not."""
    chain = chain_of(no_key, no_model, BundledConfig(provider="bundled"), HashConfig(provider="hash"))
    with caplog.at_level(logging.WARNING):
        assert choose(chain, None, "materials") is chain[2]
    assert "OPENAI_API_KEY" in caplog.text
    assert str(chain[1].unavailable_because()) in caplog.text


def test_hash_vectors_are_announced(no_key: OpenAIConfig, caplog: pytest.LogCaptureFixture) -> None:
    """A collection that ends with hash vectors says loudly that they are not semantic."""
    chain = chain_of(no_key, HashConfig(provider="hash"))
    with caplog.at_level(logging.WARNING):
        assert choose(chain, None, "materials") is chain[1]
    assert "NOT semantic" in caplog.text


def test_nothing_is_available(no_key: OpenAIConfig, no_model: LocalConfig) -> None:
    """If no provider can be used the error names the collection and each one's reason."""
    chain = chain_of(no_key, no_model)
    with pytest.raises(EmbeddingMisconfigured) as caught:
        choose(chain, None, "materials")
    for part in ("materials", *(f"{provider.name}: {provider.unavailable_because()}" for provider in chain)):
        assert part in str(caught.value)


def test_a_plan_needs_no_key(no_key: OpenAIConfig, no_model: LocalConfig) -> None:
    """An estimate is made with the provider whose space and price are known; one that cannot say its space is none."""
    chain = chain_of(no_model, no_key)
    for pinned in (None, chain[1].space):
        assert choose(chain, pinned, "materials", planning=True) is chain[1]
    with pytest.raises(EmbeddingMisconfigured):
        choose(chain[:1], None, "materials", planning=True)


def test_a_pin_is_stronger_than_the_order(make_openai: MakeOpenAI) -> None:
    """A collection stays with its space although an earlier provider of the chain is available now."""
    openai = make_openai()
    bundled, hashed = chain_of(BundledConfig(provider="bundled"), HashConfig(provider="hash"))
    assert choose([bundled, openai, hashed], PINNED, "materials") is openai
    assert choose([openai, bundled, hashed], bundled.space, "materials") is bundled
    assert choose([openai, bundled, hashed], Space("hash", "words-1", 384), "materials") is hashed


def test_fault_12_a_fallback_never_writes_into_another_models_collection(no_key: OpenAIConfig) -> None:
    """A 384-dimensional fallback is not taken for a collection of 1536, even when the key is gone; it waits."""
    chain = chain_of(no_key, BundledConfig(provider="bundled"), HashConfig(provider="hash", dimensions=1536))
    with pytest.raises(EmbeddingUnavailable, match="OPENAI_API_KEY") as caught:
        choose(chain, PINNED, "materials")
    assert "materials" in str(caught.value)


def test_fault_12_the_cache_key_holds_the_space(make_openai: MakeOpenAI, cache: MemoryCache) -> None:
    """The same text embedded by two models is embedded twice, and neither ever gets the other's vector."""
    (hashed,) = chain_of(HashConfig(provider="hash", dimensions=1536))
    openai = make_openai()
    first = Embedder(openai, cache).embed(["text"])
    second = Embedder(hashed, cache).embed(["text"])
    assert (first.cache_misses, second.cache_misses) == (1, 1)
    assert {space for space, _ in cache.kept} == {openai.space, hashed.space}
    shortened = Embedder(make_openai(dimensions=384), cache).embed(["text"])
    assert shortened.cache_hits == 0


def test_a_pin_that_is_not_in_the_chain(no_model: LocalConfig) -> None:
    """Without the pinned provider the error names the collection, its space, the chain's and what to do."""
    chain = chain_of(no_model, BundledConfig(provider="bundled"))
    with pytest.raises(SpaceMismatch) as caught:
        choose(chain, PINNED, "materials")
    for part in ("materials", str(PINNED), str(chain[1].space), "put that provider back", "new collection name"):
        assert part in str(caught.value)


def test_other_settings_of_the_same_provider_are_a_mismatch(make_openai: MakeOpenAI) -> None:
    """The same provider with other dimensions is not the pinned one."""
    with pytest.raises(SpaceMismatch):
        choose([make_openai(dimensions=512)], PINNED, "materials")


def test_a_model_that_cannot_be_loaded_disturbs_nobody(no_model: LocalConfig) -> None:
    """Choosing another provider, pinned or not, works although a model of the chain cannot be loaded."""
    chain = chain_of(no_model, HashConfig(provider="hash"))
    assert choose(chain, None, "materials") is chain[1]
    assert choose(chain, Space("hash", "words-1", 384), "materials") is chain[1]


def test_a_pinned_model_that_cannot_be_loaded(no_model: LocalConfig) -> None:
    """A collection of a local model that cannot be loaded waits for it, and takes no other."""
    chain = chain_of(no_model, BundledConfig(provider="bundled"))
    pinned = Space("sentence_transformers", no_model.model, 384)
    with pytest.raises(EmbeddingUnavailable) as caught:
        choose(chain, pinned, "materials")
    assert str(chain[0].unavailable_because()) in str(caught.value)
