"""Embeddings of OpenAI, or of any server that speaks its API.

The provider: its space, limits and prices, and which texts share a request. What happens to one request is in
`openai_remote.py`, which is imported, with the client, when the first text is embedded.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, as_completed
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.config.models import resolve
from vecsync_dagster.embedding.base import Embedded, Prepared, sound_part
from vecsync_dagster.embedding.text import clean, prefix_tag
from vecsync_dagster.embedding.tokens import TokenCounter
from vecsync_dagster.errors import (
    ConfigError,
    EmbeddingMisconfigured,
    EmbeddingRejected,
    EmbeddingUnavailable,
    VecsyncError,
)
from vecsync_dagster.http_url import DEFAULT_PORTS, split_http_url
from vecsync_dagster.space import Space

if TYPE_CHECKING:
    from vecsync_dagster.embedding.openai_remote import Remote

__all__ = ["OpenAIProvider"]

_BASE_URL = "https://api.openai.com/v1"


class _Known(NamedTuple):
    dimensions: int
    price: float  # US dollars for a million tokens, from OpenAI's price list


_KNOWN = {
    "text-embedding-3-small": _Known(1536, 0.02),
    "text-embedding-3-large": _Known(3072, 0.13),
    "text-embedding-ada-002": _Known(1536, 0.10),
}


class OpenAIProvider:
    """Callers from all threads share one client, one rate limit and `parallel_requests` slots.

    Raises ConfigError if the model's dimensions are neither known nor configured.
    """

    name = "openai"
    semantic = True

    def __init__(self, config: OpenAIConfig) -> None:
        known = _KNOWN.get(config.model)
        dimensions = config.dimensions or (known.dimensions if known else None)
        if dimensions is None:
            raise ConfigError(
                f"embedding.chain: openai: set `dimensions`: the size of model {config.model}'s vectors is not known",
                key="dimensions",
                model=config.model,
            )
        prefixed = config.query_prefix or config.document_prefix
        tag = prefix_tag(config.query_prefix, config.document_prefix) if prefixed else ""
        self.space = Space("openai", config.model + tag, dimensions, config.distance)
        self.max_tokens = config.max_tokens
        is_default = config.max_tokens == OpenAIConfig.model_fields["max_tokens"].default
        self.own_limit: int | None = None if is_default else config.max_tokens
        list_price = known.price if known and config.base_url is None else 0.0
        configured = config.price_per_million_tokens
        self.price_per_million_tokens: float = list_price if configured is None else configured
        self._config = config
        self._tokens = TokenCounter(config.model)
        self._lock = threading.Lock()
        self._remote: Remote | None = None

    def unavailable_because(self) -> str | None:
        try:
            self._key()
            self._base_url()
        except (ConfigError, EmbeddingMisconfigured) as error:
            return str(error)
        return None

    @property
    def origin(self) -> str:
        """Of the server's path a digest: a gateway may have a key in it."""
        parts = split_http_url(self._base_url(), key="base_url", example=_BASE_URL)
        path = hashlib.sha256(parts.path.rstrip("/").encode()).hexdigest()[:8]
        return f"{parts.hostname}:{parts.port or DEFAULT_PORTS[parts.scheme]} {path}"

    def since(self, before: str) -> str:
        was, now = before.partition(" ")[0], self.origin.partition(" ")[0]
        where = f"at {now}" if now != was else f"at another path of {now}"
        return f"came from {was}, and {where} the model of that name"

    @property
    def way_back(self) -> str:
        return "Set the former `base_url` again"

    def prepare(self, text: str) -> Prepared:
        return self._prepare(self._config.document_prefix, text)

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        vectors = np.empty((len(texts), self.space.dimensions), np.float32)
        tokens = api_calls = 0
        for positions, part in self.embed_parts(texts):
            vectors[positions] = part.vectors
            tokens += part.tokens
            api_calls += part.api_calls
        return Embedded(vectors, tokens, api_calls)

    def embed_parts(self, texts: Sequence[str], *, once: bool = False) -> Iterator[tuple[Sequence[int], Embedded]]:
        """One part a request, as the answers arrive. If several fail, an error that is not about single texts
        is raised rather than EmbeddingRejected."""
        if not texts:
            return
        remote = self._connected()
        sent = {
            remote.embed([texts[position] for position in positions], tokens, once=once): positions
            for positions, tokens in self._requests(texts, remote.most_texts)
        }
        errors: list[VecsyncError] = []
        try:
            for future in as_completed(sent):
                positions = sent[future]
                try:
                    part = future.result()
                except VecsyncError as error:
                    errors.append(error)
                    if isinstance(error, EmbeddingRejected | EmbeddingUnavailable) and error.answered:
                        yield [positions[row] for row in error.answered], sound_part(error)
                except CancelledError:
                    errors.append(EmbeddingUnavailable("openai: closed before the answer came", closed=True))
                else:
                    yield positions, part
        finally:
            # Only when the caller is interrupted is anything left to cancel.
            for future in sent:
                future.cancel()
        if errors:
            first = next((error for error in errors if not isinstance(error, EmbeddingRejected)), errors[0])
            first.api_calls = sum(error.api_calls for error in errors)
            raise first

    def embed_query(self, text: str) -> NDArray[np.float32]:
        prepared = self._prepare(self._config.query_prefix, text)
        vector: NDArray[np.float32] = self.embed_documents([prepared.text]).vectors[0]
        return vector

    def surely_fits(self, text: str) -> bool:
        # A token is a byte at least, and a character four bytes at most.
        return 4 * (len(self._config.document_prefix) + len(text)) <= self.max_tokens

    def check(self) -> str:
        self.embed_query("vecsync")
        return f"openai: {self._config.model}, {self.space.dimensions} dimensions"

    def close(self) -> None:
        with self._lock:
            remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()

    def _prepare(self, prefix: str, text: str) -> Prepared:
        text = prefix + clean(text)
        tokens = self._tokens.count(text)
        if tokens <= self.max_tokens:
            return Prepared(text, tokens, truncated=False)
        return Prepared(*self._tokens.cut(text, self.max_tokens), truncated=True)

    def _requests(self, texts: Sequence[str], most_texts: int) -> Iterator[tuple[list[int], int]]:
        """Positions and tokens of each request: full ones, within both limits. A text is never split."""
        positions: list[int] = []
        total = 0
        for position, text in enumerate(texts):
            tokens = self._tokens.count(text)
            full = len(positions) == most_texts
            if positions and (full or total + tokens > self._config.tokens_per_request):
                yield positions, total
                positions, total = [], 0
            positions.append(position)
            total += tokens
        yield positions, total

    def _connected(self) -> Remote:
        from vecsync_dagster.embedding.openai_remote import Remote

        with self._lock:
            if self._remote is None:
                self._remote = Remote(self._config, self._key(), self._base_url(), self.space.dimensions)
            return self._remote

    def _key(self) -> str:
        variable = self._config.api_key.env
        key = self._config.api_key.get()
        if not key:
            raise EmbeddingMisconfigured(f"the environment variable {variable} is not set or empty", env=variable)
        if not (key.isascii() and key.isprintable()):
            raise EmbeddingMisconfigured(f"the environment variable {variable} does not hold a key", env=variable)
        return key

    def _base_url(self) -> str:
        # Given explicitly: the client would otherwise follow OPENAI_BASE_URL, which our configuration does not name.
        if self._config.base_url is None:
            return _BASE_URL
        return split_http_url(resolve(self._config.base_url, "base_url"), key="base_url", example=_BASE_URL).geturl()
