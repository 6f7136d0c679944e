"""Texts to which the provider has no answer, though it answers others: an outage is told from a text's own failure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding import Embedder
from vecsync_dagster.embedding.base import Embedded
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.embedding.vectors import check_vectors
from vecsync_dagster.errors import EmbeddingRateLimited, EmbeddingUnavailable
from vecsync_dagster_tests.embedding.conftest import MakeOpenAI
from vecsync_dagster_tests.embedding.memory_cache import MemoryCache
from vecsync_dagster_tests.fakes.openai_server import Fault, OpenAIServer

FAULTS: list[Fault] = ["nan", "wrong_size", "server_error", "cut", "broken_json"]


def texts(*bad: int, count: int = 20) -> list[str]:
    return [f"text {number}" + " BAD" * (number in bad) for number in range(count)]


def failed(embedder: Embedder, some: Sequence[str]) -> list[int]:
    outcomes = embedder.embed(some).outcomes
    return [number for number, outcome in enumerate(outcomes) if isinstance(outcome, EmbeddingUnavailable)]


@pytest.mark.parametrize("bad", [(7,), (0, 13, 19)], ids=["one", "some"])
@pytest.mark.parametrize("fault", FAULTS)
def test_texts_without_an_answer_fail_alone(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache, fault: Fault, bad: tuple[int, ...]
) -> None:
    """All others have their vectors; the requests that it took are counted."""
    openai_server.spoils = ("BAD", fault)
    embedder = Embedder(make_openai(attempts=2, texts_per_request=8), cache)
    result = embedder.embed(texts(*bad))
    assert [isinstance(one, EmbeddingUnavailable) for one in result.outcomes] == [n in bad for n in range(20)]
    assert (result.embedded, len(cache.kept)) == (20 - len(bad), 20 - len(bad))
    assert result.api_calls == len(openai_server.requests)


def test_sound_vectors_beside_nonsense_are_not_paid_for_again(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """After the attempts only the text is asked for whose vector is not finite."""
    openai_server.spoils = ("BAD", "nan")
    assert failed(Embedder(make_openai(attempts=3), cache), texts(7)) == [7]
    assert [len(request.texts) for request in openai_server.requests][:2] == [20, 1]
    assert {len(request.texts) for request in openai_server.requests[1:]} == {1}


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_nobodys_failure(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache, fault: Fault, count: int
) -> None:
    """Where another text has no answer either the whole call fails, after one more request, and one for each form
    where a server that was never heard may fail over the form."""
    openai_server.fail(fault, times=1000)
    with pytest.raises(EmbeddingUnavailable):
        Embedder(make_openai(attempts=2), cache).embed(texts(count=count))
    not_again = fault == "nan" and count > 1  # all but one have their vectors
    assert len(openai_server.requests) == 3 + (3 if fault == "server_error" else 0) - not_again


def test_a_text_alone_that_is_answered_at_last_is_none_that_failed(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """One that the provider did not answer is asked for twice before it is to blame."""
    openai_server.fail("unavailable")
    assert failed(Embedder(make_openai(attempts=1), cache), ["text"]) == []


def test_a_limit_is_no_texts_failure(make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """A provider that wants to be asked more slowly is not asked for halves."""
    openai_server.fail("rate_limit", times=1000)
    with pytest.raises(EmbeddingRateLimited):
        Embedder(make_openai(attempts=2), cache).embed(texts())
    assert len(openai_server.requests) == 2


class _SpoiltModel(HashProvider):
    """A model of this machine that makes nonsense of one text; `broken`: of every text."""

    broken = False

    def embed_documents(self, some: Sequence[str]) -> Embedded:
        embedded = super().embed_documents(some)
        vectors = embedded.vectors.copy()
        vectors[[self.broken or "BAD" in text for text in some], 0] = np.nan
        check_vectors(vectors, len(some), self.space.dimensions, "model")
        return embedded


def test_a_local_model_that_makes_nonsense_of_one_text(cache: MemoryCache) -> None:
    """As of a server: that text fails alone, and where every one is nonsense the model does."""
    provider = _SpoiltModel(HashConfig(provider="hash"))
    assert failed(Embedder(provider, cache), texts(7)) == [7]
    assert len(cache.kept) == 19
    provider.broken = True
    with pytest.raises(EmbeddingUnavailable, match="20 of 20 vectors are not finite"):
        Embedder(provider, MemoryCache()).embed(texts())
