"""What several tests of this room need: a fake OpenAI, a provider that talks to it, a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import stamina

from vecsync_dagster.config.models import EnvRef
from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.embedding.openai import OpenAIProvider
from vecsync_dagster.embedding.sentence_transformers import SentenceTransformersProvider
from vecsync_dagster_tests.embedding.local_models import local_config
from vecsync_dagster_tests.embedding.memory_cache import MemoryCache
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer

KEY_VARIABLE = "VECSYNC_TEST_OPENAI_KEY"
KEY = "sk-test-5ecr3t"

MakeOpenAI = Callable[..., OpenAIProvider]


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def make_openai(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeOpenAI]:
    """Providers that talk to the fake server, with settings as given; they retry without waiting."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with ExitStack() as stack, stamina.set_testing(True, attempts=10, cap=True):

        def make(**settings: object) -> OpenAIProvider:
            server = {"api_key": EnvRef(env=KEY_VARIABLE), "base_url": openai_server.base_url}
            provider = OpenAIProvider(OpenAIConfig.model_validate({"provider": "openai", **server, **settings}))
            stack.callback(provider.close)
            return provider

        yield make


@pytest.fixture
def openai(make_openai: MakeOpenAI) -> OpenAIProvider:
    return make_openai()


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


@pytest.fixture(scope="session")
def local_provider() -> Iterator[SentenceTransformersProvider]:
    """all-MiniLM-L6-v2 from its package's folder, loaded once; no network."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        provider = SentenceTransformersProvider(local_config(threads=1))
        yield provider
        provider.close()
