"""Any sentence-transformers model, by name or path, on this machine (extra `sentence-transformers`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.config.models import SentenceTransformersProvider as LocalConfig
from vecsync_dagster.embedding.base import Embedded, Prepared
from vecsync_dagster.embedding.local_model import LocalModel, load
from vecsync_dagster.embedding.text import clean, prefix_tag
from vecsync_dagster.embedding.vectors import check_vectors
from vecsync_dagster.errors import EmbeddingMisconfigured, EmbeddingUnavailable
from vecsync_dagster.space import Space
from vecsync_dagster.words import number_of

__all__ = ["SentenceTransformersProvider"]


class SentenceTransformersProvider:
    """The model is loaded once, when its availability, space or a vector is first asked for: only then are its
    size and prompts known. A name that is no path and not in the local cache is fetched from the model hub
    then, unless HF_HUB_OFFLINE is set. A model that could not be loaded is not tried again.
    """

    name = "sentence_transformers"
    semantic = True
    price_per_million_tokens = 0.0

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self._loading = threading.Lock()
        self._encoding = threading.Lock()
        self._loaded: LocalModel | None = None
        self._reason: str | None = None

    @property
    def max_tokens(self) -> int:
        return self._model().max_tokens

    @property
    def space(self) -> Space:
        """The model's own prompts belong to its name; other prefixes, or a shorter float, are another space."""
        model = self._model()
        tag = "" if model.own_prefixes else prefix_tag(model.query_prefix, model.document_prefix)
        dtype = "" if self._config.dtype == "float32" else f"+{self._config.dtype}"
        return Space(self.name, self._config.model + dtype + tag, model.dimensions, self._config.distance)

    def unavailable_because(self) -> str | None:
        try:
            self._model()
        except EmbeddingMisconfigured as error:
            return str(error)
        return None

    @property
    def origin(self) -> str:
        """A digest of the model as it is loaded: under one name, or in one folder, its weights may be replaced."""
        return f"{self._config.model} {self._model().digest}"

    def since(self, before: str) -> str:
        return "came from a model with other weights, and as it is now the model of that name"

    @property
    def way_back(self) -> str:
        return "Put the former weights back"

    def prepare(self, text: str) -> Prepared:
        model = self._model()
        return model.prepare(model.document_prefix + clean(text))

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        tokens = sum(map(self._model().count, texts))
        return Embedded(self._encode(texts, is_query=False), tokens, api_calls=0)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        model = self._model()
        prepared = model.prepare(model.query_prefix + clean(text))
        vector: NDArray[np.float32] = self._encode([prepared.text], is_query=True)[0]
        return vector

    def check(self) -> str:
        self.embed_query("vecsync")
        return f"sentence_transformers: {self._config.model}, {self._model().dimensions} dimensions"

    def close(self) -> None:
        """Gives the model's memory back; it would be loaded again."""
        with self._loading:
            self._loaded = None

    def _encode(self, texts: Sequence[str], *, is_query: bool) -> NDArray[np.float32]:
        loaded = self._model()
        if not texts:
            return np.empty((0, loaded.dimensions), np.float32)
        encode = loaded.model.encode_query if is_query else loaded.model.encode_document
        try:
            # One at a time: the model's own tokenizer is not made for threads, and torch uses the cores already.
            with self._encoding:
                # The texts carry their prefix; without this one the model would add its own prompt again.
                # The library itself puts texts of similar length into a batch.
                vectors = encode(list(texts), prompt="", batch_size=self._config.batch, show_progress_bar=False)
        except RuntimeError as error:
            count = number_of(len(texts), "text")
            raise EmbeddingUnavailable(
                f"sentence_transformers: {self._config.model} failed with {count} ({type(error).__name__})",
                model=self._config.model,
            ) from error
        return check_vectors(np.asarray(vectors, np.float32), len(texts), loaded.dimensions, self._config.model)

    def _model(self) -> LocalModel:
        """Raises EmbeddingMisconfigured if the package is missing or the model cannot be loaded."""
        with self._loading:
            if self._reason is not None:
                raise EmbeddingMisconfigured(self._reason, model=self._config.model)
            if self._loaded is None:
                try:
                    self._loaded = load(self._config)
                except EmbeddingMisconfigured as error:
                    self._reason = str(error)
                    raise
            return self._loaded
