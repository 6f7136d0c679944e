"""Vectors from hashes of words: NOT semantic. They find texts that share words, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.base import Embedded, Prepared
from vecsync_dagster.embedding.text import clean
from vecsync_dagster.space import Space

__all__ = ["HashProvider"]

_WORD = re.compile(r"\w+")
_MAX_WORDS = 8192
_CHUNK = 2048  # texts a pass: bounds the memory of the sums
_SLOTS = 4  # positions of the vector that one word adds to


class HashProvider:
    """A hashed bag of words. The same text gives the same vector in every process and on every machine."""

    name = "hash"
    semantic = False
    max_tokens = _MAX_WORDS
    price_per_million_tokens = 0.0

    def __init__(self, config: HashConfig) -> None:
        # "words-1": whoever changes how vectors are made has to change this name.
        self.space = Space("hash", "words-1", config.dimensions)

    def unavailable_because(self) -> None:
        return None

    def prepare(self, text: str) -> Prepared:
        text = clean(text)
        words = len(_WORD.findall(text))
        if words <= _MAX_WORDS:
            return Prepared(text, words, truncated=False)
        last = next(islice(_WORD.finditer(text), _MAX_WORDS - 1, None))
        return Prepared(text[: last.end()], _MAX_WORDS, truncated=True)

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        vectors = [self._embed(chunk) for chunk in chunks]
        empty = np.empty((0, self.space.dimensions), np.float32)
        tokens = sum(len(_WORD.findall(text)) for text in texts)
        return Embedded(np.concatenate([empty, *vectors]), tokens, api_calls=0)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self._embed([self.prepare(text).text])[0]
        return vector

    def check(self) -> str:
        return f"hash: {self.space.dimensions} dimensions, NOT semantic: it only finds equal words"

    def close(self) -> None:
        pass

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (texts, dimensions): each word adds +1 or -1 at four positions, and the whole
        text +0.5 or -0.5: halves and wholes cannot cancel out, so that no vector is zero."""
        folded = [text.casefold() for text in texts]
        words = [_WORD.findall(text) for text in folded]
        counts = [len(of_text) for of_text in words]
        rows = np.repeat(np.arange(len(texts)), counts)
        sums = self._sums(rows, [_digest(word) for of_text in words for word in of_text], len(texts))
        sums += self._sums(np.arange(len(texts)), [_digest_of(text)[:4] for text in folded], len(texts)) / 2
        vectors: NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def _sums(self, rows: NDArray[np.intp], digests: Sequence[bytes], texts: int) -> NDArray[np.float64]:
        """One row a text; `digests` (4 bytes a position) add to the row of the same index in `rows`."""
        dimensions = self.space.dimensions
        hashes = np.frombuffer(b"".join(digests), "<u4").astype(np.int64)
        signs = 1.0 - 2.0 * (hashes & 1)
        positions = np.repeat(rows, len(hashes) // max(len(rows), 1)) * dimensions + (hashes >> 1) % dimensions
        sums = np.bincount(positions, weights=signs, minlength=texts * dimensions)
        return np.asarray(sums, np.float64).reshape(texts, dimensions)


def _digest_of(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=4 * _SLOTS).digest()


_digest = lru_cache(maxsize=1 << 16)(_digest_of)
