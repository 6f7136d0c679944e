"""What every provider promises (embedding/base.py), as one body of tests.

A subclass gives the fixture `provider`, and is collected by pytest.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vecsync_dagster.embedding.base import EmbeddingProvider
from vecsync_dagster.space import Space

TEXTS = [
    "Демонтаж вытяжки, общие работы, шт",
    "Demontáž digestoře",
    "x",
    "Removal of a cooker hood, general works. " * 12,
    "<|endoftext|> is ordinary text here",
    "a\0b \ud800 c",
    "ﷺ" * 40,
    "🪚" * 5,
    "line\nbreak\tand   blanks",
]


class ProviderContract:
    @pytest.fixture
    def provider(self) -> EmbeddingProvider:
        raise NotImplementedError

    def test_it_can_be_used(self, provider: EmbeddingProvider) -> None:
        """A provider that says it is available embeds a text when it is checked."""
        assert provider.unavailable_because() is None
        assert provider.name in provider.check()

    def test_its_space_is_its_own_and_stays(self, provider: EmbeddingProvider) -> None:
        """The space carries the provider's name, survives writing and reading, and embedding does not change it."""
        before = provider.space
        provider.embed_query("text")
        assert provider.space == before
        assert before.provider == provider.name
        assert Space.parse(str(before)) == before

    def test_one_finite_vector_for_each_text(self, provider: EmbeddingProvider) -> None:
        """Whatever the texts are, each gets one finite float32 vector of the space's size."""
        prepared = [provider.prepare(text) for text in TEXTS]
        embedded = provider.embed_documents([one.text for one in prepared])
        assert embedded.vectors.shape == (len(TEXTS), provider.space.dimensions)
        assert embedded.vectors.dtype == np.float32
        assert np.isfinite(embedded.vectors).all()
        assert np.linalg.norm(embedded.vectors, axis=1).min() > 0
        assert embedded.tokens > 0

    def test_no_texts(self, provider: EmbeddingProvider) -> None:
        """No texts give no vectors and cost nothing."""
        embedded = provider.embed_documents([])
        assert embedded.vectors.shape == (0, provider.space.dimensions)
        assert (embedded.tokens, embedded.api_calls) == (0, 0)

    def test_the_batch_does_not_matter(self, provider: EmbeddingProvider) -> None:
        """A text has the same vector alone, among others, and in any order."""
        texts = [provider.prepare(text).text for text in TEXTS]
        together = provider.embed_documents(texts).vectors
        backwards = provider.embed_documents(texts[::-1]).vectors[::-1]
        alone = np.concatenate([provider.embed_documents([text]).vectors for text in texts])
        for others in (backwards, alone):
            cosines = (
                (together * others).sum(axis=1) / np.linalg.norm(together, axis=1) / np.linalg.norm(others, axis=1)
            )
            assert cosines.min() > 0.999

    def test_different_texts_have_different_vectors(self, provider: EmbeddingProvider) -> None:
        """Texts of different words do not share a vector."""
        texts = ["wood screw", "wood glue", "screw", "Demontáž digestoře", "Демонтаж вытяжки", "4 × 40 mm"]
        vectors = provider.embed_documents([provider.prepare(text).text for text in texts]).vectors
        assert len(np.unique(vectors.round(5), axis=0)) == len(texts)

    def test_preparing_is_deterministic_and_final(self, provider: EmbeddingProvider) -> None:
        """The same text is prepared alike each time, within the limit, and says that nothing was cut."""
        for text in TEXTS:
            prepared = provider.prepare(text)
            assert prepared == provider.prepare(text)
            assert prepared.tokens <= provider.max_tokens
            assert not prepared.truncated

    @pytest.mark.parametrize("piece", ["slovo ", "сложносочинённое слово, "])
    def test_a_text_beyond_the_limit_is_cut(self, provider: EmbeddingProvider, piece: str) -> None:
        """A far too long text is cut to the model's limit, always at the same place, and says so."""
        text = piece * (400_000 // len(piece))
        prepared = provider.prepare(text)
        assert prepared == provider.prepare(text)
        assert prepared.truncated
        assert provider.max_tokens * 0.9 < prepared.tokens <= provider.max_tokens
        assert prepared.text.encode()
        again = provider.prepare(text + " and what nobody reads")
        assert again.text == prepared.text

    def test_queries_find_their_document(self, provider: EmbeddingProvider) -> None:
        """A query with a document's words is nearer to that document than to the others."""
        texts = ["zinc coated wood screw", "interior wall paint", "electric cable drum"]
        vectors = provider.embed_documents([provider.prepare(text).text for text in texts]).vectors
        found = [int((vectors @ provider.embed_query(text)).argmax()) for text in texts]
        assert found == [0, 1, 2]

    def test_threads_may_share_it(self, provider: EmbeddingProvider) -> None:
        """Several threads that prepare and embed at once get what one would get."""
        texts = [f"{text} {number}" for number in range(4) for text in TEXTS[:4]]
        expected = provider.embed_documents([provider.prepare(text).text for text in texts]).vectors
        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(lambda text: provider.embed_documents([provider.prepare(text).text]), texts))
        vectors = np.concatenate([embedded.vectors for embedded in got])
        assert ((vectors * expected).sum(axis=1) > 0.999).all()
