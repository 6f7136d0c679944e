"""Hash vectors: the same everywhere, never zero."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.hashing import HashProvider

_PRINT_DIGEST = """
import hashlib
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.hashing import HashProvider
provider = HashProvider(HashConfig(provider="hash"))
print(hashlib.sha256(provider.embed_documents(["Demontáž digestoře", "Šroub 4 × 40", ""]).vectors).hexdigest())
"""


@pytest.fixture
def provider() -> HashProvider:
    return HashProvider(HashConfig(provider="hash"))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_vector_is_the_same_in_every_process(provider: HashProvider, seed: str) -> None:
    """Another process, with other hash seeds, makes the same vectors to the last bit."""
    here = provider.embed_documents(["Demontáž digestoře", "Šroub 4 × 40", ""]).vectors
    command = [sys.executable, "-c", _PRINT_DIGEST]
    path = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
    there = subprocess.run(command, env=path, capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(here.tobytes()).hexdigest()


@pytest.mark.parametrize("text", ["", " ", ".", "\0", "\ud800", "a", "a a", "???"])
def test_a_text_without_words_has_a_unit_vector(provider: HashProvider, text: str) -> None:
    """No text, however empty, gives a zero vector, which a cosine store could not hold."""
    assert np.linalg.norm(provider.embed_query(text)) == pytest.approx(1)


def test_no_two_words_cancel_out() -> None:
    """Words whose hashes are opposite in a very small space still leave a vector of length one."""
    provider = HashProvider(HashConfig(provider="hash", dimensions=1))
    vectors = provider.embed_documents([f"{first} {second}" for first in range(40) for second in range(40)]).vectors
    assert np.abs(vectors) == pytest.approx(1)


def test_many_texts_are_embedded_in_chunks(provider: HashProvider) -> None:
    """More texts than one pass takes come back complete and in their order."""
    texts = [f"text number {number}" for number in range(5000)]
    vectors = provider.embed_documents(texts).vectors
    assert vectors.shape == (5000, 384)
    assert (vectors[4321] == provider.embed_query(texts[4321])).all()


def test_it_says_that_it_is_not_semantic(provider: HashProvider) -> None:
    """Nobody can take hash vectors for semantic ones."""
    assert not provider.semantic
    assert "NOT semantic" in provider.check()


def test_equal_words_are_near(provider: HashProvider) -> None:
    """Case and punctuation do not matter; a text with shared words is nearer than one without any."""
    query = provider.embed_query("ŠROUB, pozinkovaný")
    vectors = provider.embed_documents(["pozinkovaný šroub 4 × 40", "interiérová barva"]).vectors
    near, far = vectors @ query
    assert near > far
