"""A local sentence-transformers model: its prompts, its limit, and what happens without it."""

from __future__ import annotations

import importlib.machinery
import shutil
from pathlib import Path

import numpy as np
import pytest

from vecsync_dagster.embedding import local_model
from vecsync_dagster.embedding.sentence_transformers import SentenceTransformersProvider
from vecsync_dagster.errors import EmbeddingMisconfigured
from vecsync_dagster_tests.embedding.local_models import local_config, needs_sentence_transformers, with_torch

pytestmark = [needs_sentence_transformers, with_torch]


@pytest.fixture
def prompted(tmp_path: Path) -> Path:
    """The model with prompts of its own, as e5 models have them."""
    source = Path(local_config().model)
    model = tmp_path / "prompted"
    shutil.copytree(source, model)
    (model / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "query: ", "passage": "passage: "}}'
    )
    return model


def test_the_space_is_the_models(local_provider: SentenceTransformersProvider) -> None:
    """Name and dimensions are those of the model that was loaded."""
    space = local_provider.space
    assert (space.model, space.dimensions) == (local_config().model, 384)
    assert local_provider.max_tokens == 256


def test_the_models_own_prompts_are_prefixed(prompted: Path) -> None:
    """A model's own prompts go in front of documents and queries, and the space keeps the model's name."""
    provider = SentenceTransformersProvider(local_config(model=str(prompted), threads=1))
    assert provider.prepare("text").text == "passage: text"
    assert provider.space.model == str(prompted)
    document = provider.embed_documents(["passage: text"]).vectors[0]
    assert document @ provider.embed_query("text") < 0.999


def test_the_vector_is_the_librarys(prompted: Path) -> None:
    """Prefixing the text ourselves gives the vector that the library gives with its prompt, and adds it once."""
    from sentence_transformers import SentenceTransformer

    provider = SentenceTransformersProvider(local_config(model=str(prompted), threads=1))
    ours = [provider.embed_documents([provider.prepare("text").text]).vectors[0], provider.embed_query("text")]
    library = SentenceTransformer(str(prompted), device="cpu")
    theirs = [library.encode(["text"], prompt_name="passage")[0], library.encode_query(["text"])[0]]
    assert np.abs(np.stack(ours) - np.stack(theirs)).max() < 1e-5


def test_other_prefixes_are_another_space(prompted: Path) -> None:
    """Prefixes that are not the model's own change the space; the same ones written out do not."""
    settings = {"model": str(prompted), "threads": 1}
    other = SentenceTransformersProvider(local_config(**settings, query_prefix="q: ", document_prefix="d: "))
    same = SentenceTransformersProvider(local_config(**settings, query_prefix="query: ", document_prefix="passage: "))
    assert other.prepare("text").text == "d: text"
    assert other.space.model.startswith(f"{prompted}+p")
    assert same.space.model == str(prompted)


def test_a_shorter_float_is_another_space() -> None:
    """bfloat16 gives nearly the same vectors, in a space of their own."""
    provider = SentenceTransformersProvider(local_config(dtype="bfloat16", threads=1))
    assert provider.space.model.endswith("+bfloat16")
    assert np.isfinite(provider.embed_query("text")).all()


@pytest.mark.parametrize("text", ["x" * 400_000, "漢" * 400_000, "wort " * 300, "🪚 " * 300])
def test_no_text_exceeds_the_limit(local_provider: SentenceTransformersProvider, text: str) -> None:
    """A text is cut where the model's own tokenizer would stop reading: what is left has the same vector."""
    prepared = local_provider.prepare(text)
    assert prepared.truncated
    assert prepared.tokens <= 256
    short, long = local_provider.embed_documents([prepared.text, text]).vectors
    assert short @ long > 0.9999


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """A model that cannot be loaded is a reason, remembered; asking for its space or a vector is an error."""
    missing = tmp_path / "no-model"
    provider = SentenceTransformersProvider(local_config(model=str(missing)))
    reason = provider.unavailable_because()
    assert reason is not None
    assert "no-model" in reason
    shutil.copytree(local_config().model, missing)
    assert provider.unavailable_because() == reason
    with pytest.raises(EmbeddingMisconfigured):
        _ = provider.space
    with pytest.raises(EmbeddingMisconfigured):
        provider.embed_query("text")


def test_a_device_that_is_not_there() -> None:
    """A device this machine does not have is a reason, not a crash."""
    provider = SentenceTransformersProvider(local_config(device="no-such-device"))
    assert "no-such-device" in (provider.unavailable_because() or "")


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the reason says how to install it."""

    def find_nothing(name: str) -> importlib.machinery.ModuleSpec | None:
        return None

    monkeypatch.setattr(local_model, "find_spec", find_nothing)
    provider = SentenceTransformersProvider(local_config())
    assert "vecsync-dagster[sentence-transformers]" in (provider.unavailable_because() or "")
