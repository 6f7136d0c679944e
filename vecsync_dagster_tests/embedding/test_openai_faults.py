"""Each way in which OpenAI, or a server in between, can fail: the right error, and nothing that must not be seen."""

from __future__ import annotations

import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.embedding.openai_errors import retry_after, retry_wait
from vecsync_dagster.errors import (
    EmbeddingMisconfigured,
    EmbeddingRateLimited,
    EmbeddingRejected,
    EmbeddingTimeout,
    EmbeddingUnavailable,
    Transient,
    VecsyncError,
)
from vecsync_dagster_tests.embedding.conftest import KEY, MakeOpenAI
from vecsync_dagster_tests.fakes.openai_server import Fault, OpenAIServer, vector_of

SECRET_TEXT = "confidential-tender-price"
FAULTS: list[tuple[Fault, type[VecsyncError]]] = [
    ("rate_limit", EmbeddingRateLimited),
    ("quota", EmbeddingMisconfigured),
    ("unauthorized", EmbeddingMisconfigured),
    ("forbidden", EmbeddingMisconfigured),
    ("model_not_found", EmbeddingMisconfigured),
    ("wrong_dimensions", EmbeddingMisconfigured),
    ("rejected", EmbeddingRejected),
    ("server_error", EmbeddingUnavailable),
    ("unavailable", EmbeddingUnavailable),
    ("hang", EmbeddingTimeout),
    ("cut", EmbeddingUnavailable),
    ("html", EmbeddingUnavailable),
    ("broken_json", EmbeddingUnavailable),
    ("empty", EmbeddingUnavailable),
    ("too_few", EmbeddingUnavailable),
    ("nan", EmbeddingUnavailable),
    ("wrong_size", EmbeddingUnavailable),
]
NAMES = [fault for fault, _ in FAULTS]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=NAMES)
def test_the_error_is_the_right_one(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, fault: Fault, expected: type[VecsyncError]
) -> None:
    """A request that fails in this way raises this error, whose text and traceback hold neither text nor key."""
    openai_server.fail(fault)
    provider = make_openai(attempts=1, timeout_s=0.3 if fault == "hang" else 30)
    with pytest.raises(VecsyncError) as caught:
        provider.embed_documents([SECRET_TEXT, "another"])
    assert type(caught.value) is expected
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.fields)
    assert SECRET_TEXT not in shown
    assert KEY not in shown


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=NAMES)
def test_only_transient_faults_are_tried_again(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, fault: Fault, expected: type[VecsyncError]
) -> None:
    """What may pass is tried again and then succeeds; what cannot is asked once, without retries. Of several texts
    those that have a vector are not asked again, so that here is but one whose vector is not finite."""
    openai_server.fail(fault)
    provider = make_openai(attempts=3, timeout_s=3 if fault == "hang" else 30)
    if issubclass(expected, Transient):
        embedded = provider.embed_documents(["text"] if fault == "nan" else ["text", "another"])
        assert np.allclose(embedded.vectors[0], vector_of("text", 1536))
        assert embedded.api_calls == len(openai_server.requests) == 2
    else:
        with pytest.raises(expected):
            provider.embed_documents(["text", "another"])
        assert len(openai_server.requests) == 1


def test_attempts_are_counted(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """The client's own retries are off: a service that stays down is asked exactly `attempts` times."""
    openai_server.fail("unavailable", times=9)
    with pytest.raises(EmbeddingUnavailable):
        make_openai(attempts=4).embed_query("text")
    assert len(openai_server.requests) == 4


def test_out_of_order(openai: OpenAIProvider, openai_server: OpenAIServer) -> None:
    """Results that come in another order are put back to their texts by their index."""
    openai_server.fail("out_of_order")
    texts = [f"text {number}" for number in range(5)]
    assert np.allclose(openai.embed_documents(texts).vectors, [vector_of(text, 1536) for text in texts])
    assert len(openai_server.requests) == 1


def test_nothing_listens(make_openai: MakeOpenAI) -> None:
    """A server that is not there is unavailable."""
    provider = make_openai(base_url="http://127.0.0.1:1/v1", attempts=2)
    with pytest.raises(EmbeddingUnavailable):
        provider.embed_query("text")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7.0), ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5), ({}, None)],
    ids=["seconds", "milliseconds", "none"],
)
def test_retry_after_is_kept(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, headers: dict[str, str], seconds: float | None
) -> None:
    """A rate limit carries how long the server asked us to wait."""
    openai_server.fail("rate_limit", headers=headers)
    with pytest.raises(EmbeddingRateLimited) as caught:
        make_openai(attempts=1).embed_query("text")
    assert caught.value.retry_after_s == seconds


def test_retry_after_is_honoured(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """The wait before the next attempt is the server's, not the back-off's."""
    waits: list[float] = []

    def note(details: RetryDetails) -> None:
        waits.append(details.wait_for)

    openai_server.fail("rate_limit", headers={"retry-after-ms": "2"})
    openai_server.fail("unavailable", headers={"retry-after-ms": "1"})
    set_on_retry_hooks([note])
    try:
        with stamina.set_testing(False):
            make_openai().embed_query("text")
    finally:
        set_on_retry_hooks(None)
    assert waits == pytest.approx([0.002, 0.001])


def test_a_wait_that_is_too_long_is_not_waited_for() -> None:
    """More than a minute is left to the ledger's retry; terminal errors are never waited for."""
    assert retry_wait(EmbeddingRateLimited("", retry_after_s=30)) == 30
    assert retry_wait(EmbeddingRateLimited("", retry_after_s=3600)) is False
    assert retry_wait(EmbeddingUnavailable("")) is True
    assert retry_wait(EmbeddingMisconfigured("")) is False


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
    ],
)
def test_a_strange_retry_after(value: str, seconds: float | None) -> None:
    """A date is a wait until then; what is no time at all is ignored."""
    assert retry_after(httpx2.Headers({"Retry-After": value})) == seconds


def test_the_other_requests_are_received_first(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """One request of several fails: the parts of all others are handed over before its error is raised."""
    openai_server.fail("unavailable")
    provider = make_openai(texts_per_request=2, parallel_requests=1, attempts=1)
    received: list[int] = []
    parts = provider.embed_parts(["a", "b", "c", "d", "e"])
    with pytest.raises(EmbeddingUnavailable):  # noqa: PT012 - the error comes after the parts
        for positions, _ in parts:
            received += positions
    assert sorted(received) == [2, 3, 4]
    assert openai_server.answered == ["c", "d", "e"]


def test_an_outage_outranks_a_rejection(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """With one part rejected and another one failing for the time being, the whole call is for another time."""
    openai_server.fail("rejected")
    openai_server.fail("unavailable")
    provider = make_openai(texts_per_request=1, parallel_requests=1, attempts=1)
    with pytest.raises(EmbeddingUnavailable):
        provider.embed_documents(["a", "b", "c"])


def test_closing_ends_what_is_under_way(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """A provider that is closed while it waits for an answer raises in the waiting thread, and does not hang."""
    openai_server.fail("hang", times=10)
    provider = make_openai(timeout_s=60)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(provider.embed_query, "text")
        while not openai_server.requests:
            time.sleep(0.001)
        provider.close()
        with pytest.raises(EmbeddingUnavailable):
            waiting.result(timeout=30)
