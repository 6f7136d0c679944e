"""The protocol of an embedding provider: text -> vector, in one space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable
from vecsync_dagster.space import Space

__all__ = ["Embedded", "EmbeddingProvider", "EmbedsInParts", "HasOrigin", "Limited", "Prepared", "sound_part"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text as the model will get it: its prefix in front, cut to the model's limit.

    `tokens` is what the provider will count (an exact count where its tokenizer is at hand, else an
    estimate); `truncated` says that something was cut off. The same input gives the same output in
    every process: the embedding cache is keyed by `text`.
    """

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors`: float32, shape (number of texts, dimensions), in the order of the texts.

    `tokens`: as billed where the provider says so, else the sum of the prepared tokens.
    """

    vectors: NDArray[np.float32]
    tokens: int
    api_calls: int


@runtime_checkable
class EmbeddingProvider(Protocol):
    """Contract (vecsync_dagster_tests/embedding/provider_contract.py runs it over every implementation):

    - `space` is known without embedding anything, and does not change.
    - The same text gives the same vector in every process and every batch (within 1e-3 cosine for
      models whose arithmetic depends on the batch).
    - Vectors are finite and of the space's size, one for each text; anything else that a remote
      answers is an EmbeddingUnavailable (nonsense once may be sense the next time), never written.
    - `embed_documents` does its own batching, rate limiting and retries, and raises Embedding* errors.
      An error about one text is `EmbeddingRejected`; the caller then isolates the text by halving, as it does
      where texts have no answer and another text has one.
    - Methods may be called from several threads.
    """

    name: str
    """The `provider:` of the configuration."""

    semantic: bool
    """False for hash vectors, which only find equal texts."""

    price_per_million_tokens: float
    """US dollars; 0.0 for local models."""

    @property
    def max_tokens(self) -> int:
        """The model's limit for one text, prefix included."""
        ...

    @property
    def space(self) -> Space:
        """`space.provider` is the provider's `name`. A model that has to be loaded before its size is known
        is loaded here; EmbeddingMisconfigured where that fails."""
        ...

    def unavailable_because(self) -> str | None:
        """None if this provider can be used now, else the reason: a missing key or package, a model that
        cannot be loaded. Cheap: no network call."""
        ...

    def prepare(self, text: str) -> Prepared:
        """The document text as the model will get it (deterministic truncation, prefix)."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Embed texts that `prepare` returned (they carry their prefix already)."""
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one raw search text (the query prefix is added here); shape (dimensions,)."""
        ...

    def check(self) -> str:
        """Try it for real with one short text. Returns one line for people; raises an Embedding* error."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Limited(Protocol):
    """What a provider offers besides if the limit for one text can be set."""

    own_limit: int | None
    """`max_tokens` where the configuration sets it to another value than it has by itself."""

    def surely_fits(self, text: str) -> bool:
        """Whether a text is too short to be cut, decided without counting tokens."""
        ...


@runtime_checkable
class HasOrigin(Protocol):
    """What a provider offers besides if its space does not say for sure which model it is."""

    @property
    def origin(self) -> str:
        """Where the vectors come from: the same text as long as that is the same. It names no secret."""
        ...

    def since(self, before: str) -> str:
        """For a message: what it means that the origin was this one `before`; the model is its last word."""
        ...

    @property
    def way_back(self) -> str:
        """For a message: what makes the origin the former one again."""
        ...


@runtime_checkable
class EmbedsInParts(Protocol):
    """What a provider offers besides if it answers one call with several paid requests."""

    def embed_parts(self, texts: Sequence[str], *, once: bool = False) -> Iterator[tuple[Sequence[int], Embedded]]:
        """As `embed_documents`, but each part (the positions of its texts, their vectors) comes as soon as it
        is received, so that the caller keeps what was paid for although another part fails. All parts are
        tried before the error of a failed one is raised. `once`: what the provider does not answer is not asked
        again, unless it wants to be asked more slowly."""
        ...


def sound_part(error: EmbeddingRejected | EmbeddingUnavailable) -> Embedded:
    """What is sound of an answer: at least one vector. How many requests it took, the error says."""
    return Embedded(np.stack(list(error.answered.values())), error.tokens, api_calls=0)
