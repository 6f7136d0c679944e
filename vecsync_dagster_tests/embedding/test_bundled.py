"""The model carried by a package: multilingual, safe against every text, cut quickly."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.embedding.bundled import BundledProvider

_PROVIDER = """
from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.embedding.bundled import BundledProvider
provider = BundledProvider(BundledConfig(provider="bundled", threads=1))
"""

TRIPLETS = [  # query, the text that means the same, one that does not
    ("demontáž digestoře", "Демонтаж вытяжки, общие работы", "Покраска стен водоэмульсионной краской"),
    ("hrubá omítka na zeď", "Нанесение черновой штукатурки на стены", "Установка розеток и выключателей"),
    ("установка унитаза", "Montáž záchodové mísy", "Elektrický kabel CYKY 3x2,5"),
    ("electric cable", "Elektrický kabel CYKY 3x2,5", "Dřevěná lať střešní"),
    ("vrut do dřeva pozinkovaný", "Zinc-coated wood screw", "Interior wall paint, white"),
]


@pytest.fixture
def provider() -> BundledProvider:
    return BundledProvider(BundledConfig(provider="bundled", threads=1))


@pytest.mark.parametrize(("query", "near", "far"), TRIPLETS)
def test_meaning_goes_across_languages(provider: BundledProvider, query: str, near: str, far: str) -> None:
    """A query finds the text that means the same in another language, before one that does not."""
    vectors = provider.embed_documents([near, far]).vectors
    scores = vectors @ provider.embed_query(query)
    assert scores[0] > scores[1]


def test_queries_and_documents_have_their_own_prefix(provider: BundledProvider) -> None:
    """The engine itself prefixes queries and passages: the same text gives two vectors, and `prepare` adds nothing."""
    text = "wood screw"
    assert provider.prepare(text).text == text
    assert provider.embed_query(text) @ provider.embed_documents([text]).vectors[0] < 0.9999


@pytest.mark.parametrize("piece", ["x", "漢", "ﷺ", "🪚", "a\u0301"])
def test_texts_without_blanks_are_cut(provider: BundledProvider, piece: str) -> None:
    """A megabyte without a blank is cut to the model's 512 tokens."""
    prepared = provider.prepare(piece * 300_000)
    assert prepared.truncated
    assert 480 < prepared.tokens <= 512


def test_blanks_use_up_nothing(provider: BundledProvider) -> None:
    """A long text that is mostly blanks keeps its last words, as the engine reads a run of blanks as one."""
    prepared = provider.prepare("wood" + " \n" * 50_000 + "screw")
    assert prepared.text == "wood screw"
    assert not prepared.truncated


def test_a_batch_equals_its_texts(provider: BundledProvider) -> None:
    """More texts than a batch, of mixed lengths, come back in their order with the vector each has alone."""
    texts = [f"{number} screws " * (1 + number * 7 % 5) for number in range(9)]
    small = BundledProvider(BundledConfig(provider="bundled", threads=1, batch=4))
    together = small.embed_documents(texts).vectors
    alone = np.concatenate([provider.embed_documents([text]).vectors for text in texts])
    assert np.abs(together - alone).max() < 1e-5


def run_alone(script: str, **environment: str) -> list[str]:
    """What a process of its own prints: it may die, and it has loaded no model yet."""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), **environment}
    command = [sys.executable, "-c", _PROVIDER + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_ligature_that_overflows_the_engine() -> None:
    """A text full of U+FDFA, which kills an unguarded process, is counted, cut and embedded."""
    script = 'text = "\\ufdfa" * 3000; print(provider.prepare(text).tokens, provider.embed_query(text).size)'
    tokens, size = run_alone(script + "; provider.embed_documents([text[:100]])")
    assert 480 < int(tokens) <= 512
    assert int(size) == 384


@pytest.mark.parametrize("before", ["7", ""], ids=["set", "empty"])
def test_the_environment_is_left_alone(before: str) -> None:
    """The number of threads of this model is not passed on to child processes."""
    script = 'import os; provider.check(); print("variable", os.environ["OMP_NUM_THREADS"])'
    assert run_alone(script, OMP_NUM_THREADS=before) == ["variable", *before.split()]
