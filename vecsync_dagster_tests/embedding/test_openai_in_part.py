"""Servers that speak OpenAI's API in part: found out once, then asked for what they take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vecsync_dagster.embedding import openai_dialect
from vecsync_dagster.embedding.cache import Embedder
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.errors import EmbeddingMisconfigured, EmbeddingRejected, EmbeddingUnavailable
from vecsync_dagster_tests.embedding.conftest import KEY, KEY_VARIABLE, MakeOpenAI
from vecsync_dagster_tests.embedding.memory_cache import MemoryCache
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer, Partial, vector_of

TEXTS = [f"confidential {number}" for number in range(6)]
BODIES = {
    "openai": '{"error": {"message": "bad", "type": "invalid_request_error", "param": null, "code": null}}',
    "text": '{"error": "unknown field"}',
    "detail": '{"detail": [{"loc": ["body", "encoding_format"], "msg": "confidential 0"}]}',
    "code": '{"error": {"code": 400, "message": "bad", "param": ["input"], "type": {"a": 1}}, "object": "error"}',
    "plain": "bad request",
    "empty": "",
}
ODD_TOKENS: list[object] = [5.5, "five", None, [], {}, -1, 10**30]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """What one test found out is not another's: ports are used again."""
    openai_dialect._dialects.clear()
    yield
    openai_dialect._dialects.clear()


def right(vectors: object, dimensions: int = 1536) -> bool:
    return np.allclose(np.asarray(vectors), [vector_of(text, dimensions) for text in TEXTS], atol=1e-6)


@pytest.mark.in_turn
@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("formats", [("float", None), (None,), ("float",)])
def test_a_server_without_base64(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, formats: tuple[str | None, ...], status: int, body: str
) -> None:
    """It is asked for floats instead, and another provider of the same process does not try base64 again."""
    openai_server.partial = Partial(formats=formats, status=status, body=body)
    assert right(make_openai().embed_documents(TEXTS).vectors)
    before = len(openai_server.requests)
    assert right(make_openai().embed_documents(TEXTS).vectors)
    assert len(openai_server.requests) == before + 1


@pytest.mark.parametrize("takes_dimensions", [True, False])
def test_a_server_that_fails_over_a_form(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, takes_dimensions: bool
) -> None:
    """As many do where nobody foresaw it: it is asked for what it takes, and no text is blamed."""
    partial = Partial(formats=("float", None), takes_dimensions=takes_dimensions, status=500, body="unsupported")
    openai_server.partial = partial
    assert right(make_openai(dimensions=1536, attempts=1).embed_documents(TEXTS).vectors)


def test_a_server_that_always_fails_is_an_outage(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """The forms are tried once, not for every request, and nobody is told to change a setting."""
    openai_server.partial = Partial(takes_nothing=True, status=500, body="broken")
    for _ in range(2):
        with pytest.raises(EmbeddingUnavailable, match="status 500"):
            make_openai(dimensions=512, attempts=1).embed_documents(TEXTS)
    assert len(openai_server.requests) == 1 + 6 + 1


def test_a_server_without_dimensions(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Where its own vectors have the configured size they are used; base64 stays."""
    openai_server.partial = Partial(takes_dimensions=False)
    assert right(make_openai(dimensions=1536).embed_documents(TEXTS).vectors)
    assert openai_server.requests[-1].dimensions is None


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_server_without_dimensions_whose_vectors_have_others(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, attempts: int
) -> None:
    """One error names the setting and the size to set; it is not tried again and no text is blamed."""
    openai_server.partial = Partial(takes_dimensions=False, formats=("float",))
    with pytest.raises(EmbeddingMisconfigured, match="dimensions: 1536"):
        make_openai(dimensions=512, attempts=attempts).embed_documents(TEXTS)


@pytest.mark.parametrize("dimensions", [512, 2048])
def test_a_server_that_does_not_heed_dimensions(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, dimensions: int
) -> None:
    """It is the setting's fault and no outage, as where the server refuses it: nothing is tried again for ever."""
    openai_server.partial = Partial(heeds_dimensions=False)
    with pytest.raises(EmbeddingMisconfigured, match="`dimensions: 1536`"):
        Embedder(make_openai(dimensions=dimensions), MemoryCache()).embed(TEXTS)
    assert len(openai_server.requests) == 2


def test_one_text_whose_vector_has_another_size_is_no_setting(
    make_openai: MakeOpenAI, openai_server: OpenAIServer
) -> None:
    """Nor is a wrong size that comes after a right one: both may be another the next time."""
    openai_server.spoils = ("secret", "wrong_size")
    provider = make_openai(dimensions=1536, attempts=1)
    for _ in range(2):
        with pytest.raises(EmbeddingUnavailable):
            provider.embed_documents(["secret"])
    openai_server.spoils = None
    assert right(provider.embed_documents(TEXTS).vectors)


@pytest.mark.in_turn
@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("status", [400, 404, 406, 413, 418, 422])
def test_a_server_that_takes_a_few_texts(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int, body: str
) -> None:
    """Requests are halved until it takes them, no text is refused, and later requests have that size at once."""
    formats = ("float", None) if status in (400, 413, 422) else ("base64",)
    openai_server.partial = Partial(most_texts=2, status=status, body=body, formats=formats)
    provider = make_openai()
    outcomes = Embedder(provider, MemoryCache()).embed(TEXTS).outcomes
    assert right(outcomes)
    before = len(openai_server.requests)
    assert right(make_openai().embed_documents(TEXTS).vectors)
    sizes = [len(request.texts) for request in openai_server.requests[before:]]
    assert sum(sizes) == len(TEXTS)
    assert max(sizes) <= 2


@pytest.mark.in_turn
@pytest.mark.parametrize("body", [BODIES[name] for name in ("openai", "text", "detail", "code")])
@pytest.mark.parametrize("proven", [True, False])
def test_too_many_texts_with_status_200(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, body: str, proven: bool
) -> None:
    """An error in place of an answer is like any other: it is about the texts where a short one is answered."""
    openai_server.partial = Partial(most_texts=2, status=200, body=body)
    embedder = Embedder(make_openai(), MemoryCache())
    if proven:
        embedder.embed(["before"])
    assert right(embedder.embed(TEXTS).outcomes)
    before = len(openai_server.requests)
    assert right(make_openai().embed_documents(TEXTS).vectors)
    assert max(len(request.texts) for request in openai_server.requests[before:]) <= 2


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_code_names_the_model_as_a_parameter_does(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int
) -> None:
    """Nothing is halved for it, and one request says so."""
    body = '{"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": "model_not_found"}}'
    openai_server.partial = Partial(takes_nothing=True, status=status, body=body)
    with pytest.raises(EmbeddingMisconfigured, match="check `model`"):
        make_openai().embed_documents(TEXTS)
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize("status", [404, 406])
def test_the_reason_of_a_refused_text_blames_no_setting(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int
) -> None:
    openai_server.partial = Partial(most_texts=1, status=status)
    with pytest.raises(EmbeddingRejected, match=f"status {status}, while others are answered$"):
        make_openai().embed_documents(TEXTS)


@pytest.mark.parametrize("status", [424, 500])
def test_a_server_that_fails_over_many_texts(make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int) -> None:
    """Each is embedded in a smaller request, and none is refused."""
    openai_server.partial = Partial(most_texts=2, status=status)
    assert right(Embedder(make_openai(attempts=1), MemoryCache()).embed(TEXTS).outcomes)


@pytest.mark.in_turn
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_a_request_that_is_refused_whatever_its_texts(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int, body: str
) -> None:
    """One error, which names the settings to look at: no text is refused, and neither text nor key is shown."""
    openai_server.partial = Partial(takes_nothing=True, status=status, body=body)
    with pytest.raises(EmbeddingMisconfigured, match=r"`base_url`.*`dimensions`") as caught:
        Embedder(make_openai(dimensions=512), MemoryCache()).embed(TEXTS)
    assert "confidential" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(openai_server.requests) <= 8


@pytest.mark.in_turn
@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("first", [True, False])
def test_one_text_that_is_refused_is_that_text_alone(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, body: str, first: bool
) -> None:
    """Also where it is in the first request of all, and the server does not say what it is about."""
    openai_server.rejects = "secret"
    openai_server.partial = Partial(body=body, formats=("float",))
    embedder = Embedder(make_openai(), MemoryCache())
    if not first:
        embedder.embed(["before"])
    outcomes = embedder.embed([*TEXTS, "secret"]).outcomes
    assert right(outcomes[:-1])
    assert isinstance(outcomes[-1], EmbeddingRejected)
    openai_server.rejects = None
    before = len(openai_server.requests)
    assert right(make_openai().embed_documents(TEXTS).vectors)
    assert len(openai_server.requests) == before + 1  # no limit was learned from it


@pytest.mark.parametrize("leaves_out", [("usage",), ("prompt_tokens",), ("index",), ("index", "usage", "object")])
def test_an_answer_without_what_is_not_needed(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, leaves_out: tuple[str, ...]
) -> None:
    """Without usage the tokens are ours; without any index the order is that of the texts; the model may have
    another name."""
    openai_server.partial = Partial(leaves_out=leaves_out, model="another/name")
    embedded = make_openai().embed_documents(TEXTS)
    assert right(embedded.vectors)
    assert embedded.tokens > 0


@pytest.mark.parametrize("usage", [None, "5", [5], 5, {}, *({"prompt_tokens": odd} for odd in ODD_TOKENS)])
def test_a_usage_that_cannot_be_read_is_unknown(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, usage: object
) -> None:
    """It is for the bill alone: the vectors are used, paid for once, and the tokens are ours."""
    openai_server.partial = Partial(replaces={"usage": usage})
    provider = make_openai()
    embedded = provider.embed_documents(TEXTS)
    assert right(embedded.vectors)
    assert embedded.tokens == sum(provider.prepare(text).tokens for text in TEXTS)
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize("dimensions", [1535, 1537])
def test_base64_without_padding(make_openai: MakeOpenAI, openai_server: OpenAIServer, dimensions: int) -> None:
    """It is read all the same."""
    openai_server.partial = Partial(base64_end="")
    assert right(make_openai(dimensions=dimensions).embed_documents(TEXTS).vectors, dimensions)
    assert len(openai_server.requests) == 1


def test_base64_that_cannot_be_read(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Floats are asked for instead, from then on; where they are no better it is an outage."""
    openai_server.partial = Partial(base64_end="?")
    assert right(make_openai(dimensions=1535, attempts=1).embed_documents(TEXTS).vectors, 1535)
    assert [len(request.texts) for request in openai_server.requests] == [6, 1, 1, 6]
    openai_dialect._dialects.clear()
    openai_server.partial = Partial(replaces={"data": [{"index": 0, "embedding": "????"}]})
    with pytest.raises(EmbeddingUnavailable, match="decoded"):
        make_openai(attempts=1).embed_documents(["text"])


@pytest.mark.parametrize("status", [404, 501])
@pytest.mark.parametrize("dimensions", [None, 1536])
@pytest.mark.parametrize("takes_dimensions", [True, False])
def test_a_form_that_is_refused_as_if_nothing_were_there(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int, dimensions: int | None, takes_dimensions: bool
) -> None:
    """The address is not blamed before a request that names no more than it has to."""
    openai_server.partial = Partial(formats=("float", None), takes_dimensions=takes_dimensions, status=status)
    assert right(make_openai(dimensions=dimensions).embed_documents(TEXTS).vectors)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("status", "said"),
    [(401, KEY_VARIABLE), (402, "credit"), (404, "`base_url`"), (405, "`base_url`"), (501, "`base_url`")],
)
@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_what_no_text_can_change_says_what_to_look_at(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, status: int, said: str, body: str
) -> None:
    """A wrong key, model or address is one error after one request (two more where it could be about the texts or the
    form after all), and names the setting."""
    openai_server.partial = Partial(takes_nothing=True, status=status, body=body)
    with pytest.raises(EmbeddingMisconfigured, match=said):
        Embedder(make_openai(), MemoryCache()).embed(TEXTS)
    assert len(openai_server.requests) == (3 if status in (404, 501) else 1)
    with pytest.raises(EmbeddingMisconfigured, match=said):
        Embedder(make_openai(), MemoryCache()).embed(TEXTS)
    assert len(openai_server.requests) == (4 if status in (404, 501) else 2)


def test_a_model_that_is_gone_is_no_question_of_the_form(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """A server that names the model is asked nothing else."""
    openai_server.partial = Partial(takes_nothing=True, status=404, body='{"error": {"code": "model_not_found"}}')
    with pytest.raises(EmbeddingMisconfigured, match="`model`"):
        make_openai(dimensions=512).embed_documents(TEXTS)
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize("name", ["error", "detail", "message"])
@pytest.mark.parametrize("proven", [True, False])
def test_an_error_with_status_200(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, name: str, proven: bool
) -> None:
    """It is no outage that passes: the address is wrong."""
    if proven:
        make_openai().embed_documents(["before"])
    openai_server.partial = Partial(takes_nothing=True, status=200, body=f'{{"{name}": "unexpected endpoint"}}')
    with pytest.raises(EmbeddingMisconfigured, match="base_url"):
        make_openai().embed_documents(TEXTS)


def test_what_it_took_to_find_out_is_counted(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """The refused request, the short texts that were tried and their tokens are a part of the run's figures."""
    openai_server.partial = Partial(formats=(None,), takes_dimensions=False)
    embedded = Embedder(make_openai(dimensions=1536), MemoryCache()).embed(TEXTS)
    assert embedded.api_calls == len(openai_server.requests) == 8
    assert embedded.tokens == 2 * len(TEXTS) + 1
    again = Embedder(make_openai(dimensions=1536), MemoryCache()).embed(TEXTS)
    assert (again.api_calls, again.tokens) == (1, 2 * len(TEXTS))


def test_refusals_are_counted(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Each request that a refused text was in, and those that found out that it was no question of the form."""
    openai_server.rejects = "secret"
    embedded = Embedder(make_openai(texts_per_request=2), MemoryCache()).embed([*TEXTS, "secret"])
    assert isinstance(embedded.outcomes[-1], EmbeddingRejected)
    assert embedded.api_calls == len(openai_server.requests)


def test_many_threads_find_out_once(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Partitions that begin at once, each with a provider of its own, ask for short texts one time."""
    openai_server.partial = Partial(formats=(None,))

    def go_on() -> None:
        openai_server.meet = None

    openai_server.meet = threading.Barrier(4, action=go_on)  # none is refused before all have asked
    providers = [make_openai() for _ in range(4)]

    def embed(provider: OpenAIProvider) -> int:
        return provider.embed_documents(TEXTS).api_calls

    with ThreadPoolExecutor(4) as pool:
        calls = list(pool.map(embed, providers))
    probes = [request for request in openai_server.requests if request.texts != TEXTS]
    assert len(probes) == 3  # base64, float, none
    assert sum(calls) == len(openai_server.requests) == 4 + 3 + 4


def test_a_hopeless_server_is_not_asked_for_every_form_again(
    make_openai: MakeOpenAI, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next partition's request is refused, and that is the same error; later all forms are tried again."""
    openai_server.partial = Partial(takes_nothing=True)
    provider = make_openai(dimensions=1536)
    messages = []
    for expected in (7, 1):
        before = len(openai_server.requests)
        with pytest.raises(EmbeddingMisconfigured) as caught:
            provider.embed_documents(TEXTS)
        messages.append(str(caught.value))
        assert len(openai_server.requests) == before + expected
    assert messages[0] == messages[1]
    monkeypatch.setattr(openai_dialect, "_HOPELESS_S", 0.0)
    [dialect] = openai_dialect._dialects.values()
    dialect.gave_up(400)
    openai_server.partial = Partial(formats=(None,))
    assert right(provider.embed_documents(TEXTS).vectors)


def test_a_server_that_is_back_from_an_outage_is_asked_again(
    make_openai: MakeOpenAI, openai_server: OpenAIServer
) -> None:
    """Whatever it refuses a moment later, the settings are not blamed before it was asked in each form."""
    openai_server.partial = Partial(takes_nothing=True, status=500)
    provider = make_openai(attempts=1)
    with pytest.raises(EmbeddingUnavailable):
        provider.embed_documents(TEXTS)
    openai_server.partial = Partial(formats=(None,))
    assert right(provider.embed_documents(TEXTS).vectors)
