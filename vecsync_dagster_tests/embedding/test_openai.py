"""OpenAI's embeddings through a real server on loopback: spaces, limits, batches, prices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.config.models import EnvRef
from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.errors import ConfigError, EmbeddingMisconfigured, EmbeddingUnavailable
from vecsync_dagster_tests.embedding.conftest import KEY, KEY_VARIABLE, MakeOpenAI
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer, vector_of
from vecsync_dagster_tests.properties import a_property


def configured(**settings: object) -> OpenAIProvider:
    return OpenAIProvider(OpenAIConfig.model_validate({"provider": "openai", **settings}))


@pytest.mark.parametrize("always_float", [False, True], ids=["base64", "float"])
def test_vectors_are_the_servers(always_float: bool, openai: OpenAIProvider, openai_server: OpenAIServer) -> None:
    """Each text gets the vector the server made of it, whichever of its two formats it answers in."""
    openai_server.always_float = always_float
    vectors = openai.embed_documents(["one", "two"]).vectors
    assert np.allclose(vectors, [vector_of("one", 1536), vector_of("two", 1536)])


@pytest.mark.parametrize(
    ("model", "dimensions", "price"),
    [
        ("text-embedding-3-small", 1536, 0.02),
        ("text-embedding-3-large", 3072, 0.13),
        ("text-embedding-ada-002", 1536, 0.10),
    ],
)
def test_openais_models_are_known(model: str, dimensions: int, price: float) -> None:
    """Size and list price of OpenAI's models need no setting."""
    provider = configured(model=model)
    assert str(provider.space) == f"openai/{model}/{dimensions}/cosine"
    assert provider.price_per_million_tokens == price


def test_prices_of_other_servers_are_the_users() -> None:
    """Another server costs nothing unless its price is configured; a configured price always holds."""
    assert configured(base_url="http://127.0.0.1:1/v1").price_per_million_tokens == 0
    assert configured(price_per_million_tokens=0).price_per_million_tokens == 0
    assert configured(model="m", dimensions=8, price_per_million_tokens=1.5).price_per_million_tokens == 1.5


def test_an_unknown_model_needs_dimensions() -> None:
    """A model whose size nobody knows is refused with the name of the setting, unless it is given."""
    with pytest.raises(ConfigError, match="dimensions"):
        configured(model="another-model")
    assert configured(model="another-model", dimensions=8).space.dimensions == 8


def test_dimensions_are_asked_for(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Configured dimensions are sent to the API and are the space's; without them nothing is sent."""
    shortened = make_openai(dimensions=256)
    assert shortened.embed_query("text").shape == (256,)
    assert shortened.space != make_openai().space
    make_openai().embed_query("text")
    assert [request.dimensions for request in openai_server.requests] == [256, None]


def test_prefixes_make_a_space(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """Prefixes go in front of documents and queries, each with its own, and make another space of the model."""
    provider = make_openai(query_prefix="query: ", document_prefix="passage: ")
    assert provider.prepare("text").text == "passage: text"
    provider.embed_query("text")
    assert openai_server.asked == ["query: text"]
    assert provider.space.model.startswith("text-embedding-3-small+p")
    assert provider.space != make_openai(query_prefix="query: ").space != make_openai().space


@pytest.mark.parametrize("text", ["a<|endoftext|>b " * 9, "漢字🪚" * 9, "word      \n\n  " * 9, "x" * 400])
@pytest.mark.parametrize("limit", range(1, 12))
def test_texts_are_cut_by_tokens(text: str, limit: int) -> None:
    """At any limit a cut text is a beginning of the text, has no broken character and fits; special tokens
    that it spells out are ordinary text."""
    provider = configured(max_tokens=limit)
    prepared = provider.prepare(text)
    assert prepared.truncated
    assert text.startswith(prepared.text)
    assert prepared.tokens <= limit
    assert provider.prepare(prepared.text) == type(prepared)(prepared.text, prepared.tokens, truncated=False)


@a_property
@given(st.text(st.sampled_from("a \0\ud800\n漢🪚﷽"), max_size=12), st.integers(1, 60))
def test_what_surely_fits_is_not_cut(text: str, limit: int) -> None:
    """Told without counting, and never of a text that is cut, its prefix included."""
    provider = configured(max_tokens=limit, document_prefix="p: ")
    assert not (provider.surely_fits(text) and provider.prepare(text).truncated)
    assert configured(max_tokens=60).surely_fits("漢" * 15)


def test_special_tokens_are_counted_as_text() -> None:
    """A text that spells a special token out is as long as its characters, not one token."""
    assert configured().prepare("<|endoftext|>").tokens == 7


def test_requests_stay_within_both_limits(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """No request has more texts or more tokens than configured; all texts arrive once, in their order."""
    provider = make_openai(texts_per_request=4, tokens_per_request=30, parallel_requests=1)
    texts = [f"{number} " + "word " * (number % 12) for number in range(40)]
    vectors = provider.embed_documents(texts).vectors
    sizes = [
        (len(request.texts), sum(provider.prepare(text).tokens for text in request.texts))
        for request in openai_server.requests
    ]
    assert max(texts for texts, _ in sizes) == 4
    assert max(tokens for _, tokens in sizes) <= 30
    assert openai_server.asked == texts
    assert np.allclose(vectors, [vector_of(text, 1536) for text in texts])


def test_a_text_larger_than_a_request_goes_alone(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """A text that alone exceeds the tokens of a request is still sent, with no other."""
    make_openai(tokens_per_request=5).embed_documents(["one", "word " * 50, "two"])
    assert sorted(len(request.texts) for request in openai_server.requests) == [1, 1, 1]


def test_requests_run_at_once_up_to_the_limit(make_openai: MakeOpenAI, openai_server: OpenAIServer) -> None:
    """`parallel_requests` are under way together (they wait for each other here), and never more."""
    openai_server.meet = threading.Barrier(3, timeout=30)
    provider = make_openai(texts_per_request=1, parallel_requests=3)
    provider.embed_documents([f"text {number}" for number in range(9)])
    assert openai_server.most_at_once == 3


def test_tokens_are_those_billed(openai: OpenAIProvider) -> None:
    """Tokens are what the server says it bills (here: words), and each request is an API call."""
    embedded = openai.embed_documents(["extraordinarily multisyllabic", "words"])
    assert (embedded.tokens, embedded.api_calls) == (3, 1)


def test_the_key_is_sent_and_comes_from_the_environment(openai: OpenAIProvider, openai_server: OpenAIServer) -> None:
    """The key in the environment goes to the server, and is read when it is used."""
    openai.embed_query("text")
    assert [request.key for request in openai_server.requests] == [KEY]


@pytest.mark.parametrize("key", [None, "", "  ", "ключ", "two\nlines"])
def test_without_a_key(make_openai: MakeOpenAI, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    """Without a usable key the provider says which variable is missing, and refuses to embed."""
    provider = make_openai()
    if key is None:
        monkeypatch.delenv(KEY_VARIABLE)
    else:
        monkeypatch.setenv(KEY_VARIABLE, key)
    assert KEY_VARIABLE in (provider.unavailable_because() or "")
    with pytest.raises(EmbeddingMisconfigured, match=KEY_VARIABLE):
        provider.embed_documents(["text"])


def test_without_a_base_url(make_openai: MakeOpenAI) -> None:
    """A base_url that stands in an unset variable makes the provider unavailable, not the program."""
    provider = make_openai(base_url=EnvRef(env="VECSYNC_TEST_UNSET"))
    assert "VECSYNC_TEST_UNSET" in (provider.unavailable_because() or "")


@pytest.mark.parametrize(("part", "named"), [("?key=sesame", "a query"), ("#sesame", "a fragment")])
def test_a_part_of_the_base_url_that_is_not_sent(make_openai: MakeOpenAI, part: str, named: str) -> None:
    """It is refused by its name, with the place where a key belongs."""
    told = make_openai(base_url=f"http://127.0.0.1:1/v1{part}").unavailable_because() or ""
    assert told.startswith(f"base_url: the URL has {named}")
    assert told.endswith("api_key")
    assert "sesame" not in told


def test_the_clients_own_variable_is_ignored(monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer) -> None:
    """Texts go where the configuration says, not where OPENAI_BASE_URL says."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    provider = configured(api_key={"env": KEY_VARIABLE}, base_url="http://127.0.0.1:1/v1", attempts=1)
    with pytest.raises(EmbeddingUnavailable):
        provider.embed_query("text")
    provider.close()
    assert openai_server.requests == []


def test_the_rate_is_limited(make_openai: MakeOpenAI) -> None:
    """Each request takes from the minute's allowance."""
    provider = make_openai(requests_per_minute=2)
    for text in ("one", "two"):
        provider.embed_query(text)
    remote = provider._connected()
    assert not remote._portal.call(remote._rate.has_capacity)


def test_it_can_be_used_again_after_closing(openai: OpenAIProvider) -> None:
    """Closing gives the connections back; a later call opens new ones; closing twice is fine."""
    openai.embed_query("text")
    openai.close()
    openai.close()
    assert openai.embed_query("text").shape == (1536,)


_NEVER_CLOSED = """
import os
from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
os.environ["OPENAI_API_KEY"] = "sk-test"
with OpenAIServer() as server:
    provider = OpenAIProvider(OpenAIConfig(provider="openai", base_url=server.base_url))
    print(provider.embed_query("text").size)
"""


def test_a_process_that_forgets_to_close_ends() -> None:
    """A provider nobody closed does not keep its process from ending."""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", _NEVER_CLOSED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("1536", "")
