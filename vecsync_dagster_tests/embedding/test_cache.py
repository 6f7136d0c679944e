"""The embedder: each distinct text is paid for once; one bad text stops no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import stamina
from numpy.typing import NDArray

from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding import EmbeddedTexts, Embedder
from vecsync_dagster.embedding.cache import Paid
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.errors import EmbeddingMisconfigured, EmbeddingRejected, EmbeddingUnavailable, LedgerUnavailable
from vecsync_dagster.space import Space
from vecsync_dagster_tests.embedding.conftest import MakeOpenAI
from vecsync_dagster_tests.embedding.memory_cache import MemoryCache
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer, vector_of


def figures(result: EmbeddedTexts) -> tuple[int, int, int, int]:
    return result.cache_hits, result.cache_misses, result.embedded, result.api_calls


def test_a_text_is_paid_for_once(openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """Repeated texts, in one call, in the next and in another embedder on the same cache, are asked for once."""
    embedder = Embedder(openai, cache)
    first = embedder.embed(["a", "b", "a", "a"])
    second = embedder.embed(["c", "a"])
    third = Embedder(openai, cache).embed(["a", "b", "c"])
    assert [figures(result) for result in (first, second, third)] == [(2, 2, 2, 1), (1, 1, 1, 1), (3, 0, 0, 0)]
    assert openai_server.asked == ["a", "b", "c"]
    assert third.tokens == 0


def test_results_keep_the_order(openai: OpenAIProvider, cache: MemoryCache) -> None:
    """Each text has its own vector at its place, whether it came from the cache or not."""
    embedder = Embedder(openai, cache)
    embedder.embed(["b", "d"])
    texts = ["d", "a", "b", "c", "a"]
    assert np.allclose(np.stack(vectors_of(embedder.embed(texts))), [vector_of(text, 1536) for text in texts])


def test_no_texts(openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """An empty call asks nobody."""
    result = Embedder(openai, cache).embed([])
    assert (result.outcomes, figures(result)) == ([], (0, 0, 0, 0))
    assert openai_server.requests == []


def test_rejected_texts_are_isolated(openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """Three texts of a hundred are refused: the other 97 get their vectors, and are paid for once. After the last one
    nothing is left that could be answered, so a harmless text is asked for."""
    openai_server.rejects = "poison"
    texts = [f"text {number}" + " poison" * (number in (0, 41, 99)) for number in range(100)]
    result = Embedder(openai, cache).embed(texts)
    refused = [number for number, outcome in enumerate(result.outcomes) if isinstance(outcome, EmbeddingRejected)]
    assert refused == [0, 41, 99]
    assert sorted(openai_server.answered) == sorted(["vecsync", *(text for text in texts if "poison" not in text)])
    assert (result.embedded, result.cache_misses, result.api_calls) == (97, 100, len(openai_server.requests))
    assert Embedder(openai, cache).embed(texts).cache_hits == 97


def test_a_call_that_fails_says_what_it_spent(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """Requests that were answered, refused and tried again are counted although the whole call fails."""
    openai_server.fail(None)
    openai_server.fail("server_error", times=9)
    paid = Paid()
    provider = make_openai(texts_per_request=1, attempts=2, parallel_requests=1)
    with pytest.raises(EmbeddingUnavailable), stamina.set_testing(True, attempts=2, cap=True):
        Embedder(provider, cache).embed(["a", "b", "c"], paid)
    assert (paid.misses, paid.embedded, paid.tokens > 0) == (3, 1, True)
    assert paid.api_calls == len(openai_server.requests) == 6


def test_isolation_across_requests(make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """Where a call is several requests, only those with a refused text are asked again."""
    openai_server.rejects = "poison"
    texts = [f"text {number}" + " poison" * (number in (3, 27)) for number in range(40)]
    result = Embedder(make_openai(texts_per_request=10), cache).embed(texts)
    assert sum(isinstance(outcome, EmbeddingRejected) for outcome in result.outcomes) == 2
    assert sorted(openai_server.answered) == sorted(text for text in texts if "poison" not in text)


def test_what_was_paid_is_kept_once_the_ledger_is_back(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """A database that restarts is away for seconds, and the vectors wait for it."""

    class Restarting(MemoryCache):
        answers = iter((LedgerUnavailable("away"), LedgerUnavailable("away"), None))

        def keep_vectors(
            self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None = None, /
        ) -> None:
            if (error := next(self.answers, None)) is not None:
                raise error
            super().keep_vectors(space, vectors, origin)

    cache = Restarting()
    with stamina.set_testing(True, attempts=3, cap=True):
        assert Embedder(make_openai(), cache, lambda keep: None).embed(["a", "b"]).embedded == 2
    assert Embedder(make_openai(), cache).embed(["a", "b"]).cache_hits == 2


def test_what_was_paid_is_kept_before_a_failure(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """The second of three requests fails, and the server is down: the call fails after one more request, and the next
    call pays for the missing texts alone."""
    for fault in (None, "unavailable", None, "unavailable"):
        openai_server.fail(fault)
    embedder = Embedder(make_openai(texts_per_request=10, parallel_requests=1, attempts=1), cache)
    texts = [f"text {number}" for number in range(30)]
    with pytest.raises(EmbeddingUnavailable):
        embedder.embed(texts)
    assert (len(cache.kept), len(openai_server.requests)) == (20, 4)
    assert embedder.embed(texts).embedded == 10
    assert sorted(openai_server.answered) == sorted(texts)


def test_a_failure_while_isolating_keeps_what_was_paid(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """The key is revoked while a group is being halved: the first half's vectors are in the cache already."""
    openai_server.fail("rejected")
    openai_server.fail(None)
    openai_server.fail("unauthorized")
    with pytest.raises(EmbeddingMisconfigured):
        Embedder(make_openai(), cache).embed(["a", "b", "c", "d"])
    assert openai_server.answered == ["a", "b"]
    assert len(cache.kept) == 2


def test_vectors_are_kept_before_they_are_returned(openai: OpenAIProvider) -> None:
    """If the cache cannot keep a vector nobody gets it."""

    class Broken(MemoryCache):
        def keep_vectors(
            self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None = None, /
        ) -> None:
            raise LedgerUnavailable("the database is gone")

    with pytest.raises(LedgerUnavailable):
        Embedder(openai, Broken()).embed(["a"])


def vectors_of(result: EmbeddedTexts) -> list[NDArray[np.float32]]:
    return [outcome for outcome in result.outcomes if isinstance(outcome, np.ndarray)]


def two_calls_at_once(embedder: Embedder, server: OpenAIServer) -> tuple[Future[EmbeddedTexts], Future[EmbeddedTexts]]:
    """A second call wants the first one's text, and one more, while the first one's request is under way.

    The server holds the first request until the second call's own request arrives.
    """
    server.meet = threading.Barrier(2, action=lambda: setattr(server, "meet", None), timeout=30)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(embedder.embed, ["shared"])
        while not server.requests:
            time.sleep(0.001)
        second = threads.submit(embedder.embed, ["shared", "own"])
    return first, second


def test_two_threads_pay_once(openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """A text that another thread is embedding right now is waited for, not paid twice."""
    first, second = two_calls_at_once(Embedder(openai, cache), openai_server)
    assert sorted(openai_server.asked) == ["own", "shared"]
    assert figures(first.result()) == (0, 1, 1, 1)
    assert figures(second.result()) == (1, 1, 1, 1)
    assert np.allclose(vectors_of(second.result())[0], vector_of("shared", 1536))


def test_a_waiting_thread_tries_itself(openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """If the thread that was embedding a text fails, the one that waited for it embeds it."""
    openai_server.fail("unauthorized")
    first, second = two_calls_at_once(Embedder(openai, cache), openai_server)
    with pytest.raises(EmbeddingMisconfigured):
        first.result()
    assert len(vectors_of(second.result())) == 2
    assert sorted(openai_server.answered) == ["own", "shared"]


def test_many_threads_many_shared_texts(
    openai: OpenAIProvider, openai_server: OpenAIServer, cache: MemoryCache
) -> None:
    """Eight threads with overlapping texts in different orders all end, and every text is paid for once."""
    embedder = Embedder(openai, cache)
    batches = [[f"text {(start * 5 + step * 3) % 50}" for step in range(30)] for start in range(8)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(embedder.embed, batches))
    assert all(len(vectors_of(result)) == 30 for result in results)
    assert sorted(openai_server.asked) == sorted({text for batch in batches for text in batch})
    assert sum(result.embedded for result in results) == len(cache.kept) == len(openai_server.asked)


def test_texts_that_become_equal_are_one(openai: OpenAIProvider, cache: MemoryCache) -> None:
    """The key is the prepared text: texts that are equal once they are cut are embedded once."""
    hashed = HashProvider(HashConfig(provider="hash"))
    long = "word " * 9000
    result = Embedder(hashed, cache).embed([long + "a", long + "b", "short"])
    assert (result.cache_hits, result.cache_misses, result.truncated) == (1, 2, 2)


def test_a_plan_costs_nothing(make_openai: MakeOpenAI, openai_server: OpenAIServer, cache: MemoryCache) -> None:
    """A dry run counts distinct texts without a vector, their tokens and price, and asks no server."""
    embedder = Embedder(make_openai(price_per_million_tokens=2.0), cache)
    embedder.embed(["known"])
    plan = embedder.plan(["known", "two words", "two words", "three more words"])
    assert (plan.texts, plan.to_embed, plan.tokens) == (4, 2, 5)
    assert plan.price == pytest.approx(10 / 1_000_000)
    assert openai_server.asked == ["known"]
    assert embedder.plan([]).to_embed == 0
