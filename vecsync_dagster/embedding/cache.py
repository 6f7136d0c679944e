"""The embedder of the sync: each distinct text is paid for once, across texts, threads and runs.

The cache learns of a vector before anybody else does, so that a failure later on costs nothing twice.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import stamina
from numpy.typing import NDArray

from vecsync_dagster.containment import contained, unforeseen
from vecsync_dagster.embedding.base import Embedded, EmbeddingProvider, EmbedsInParts, HasOrigin, Prepared, sound_part
from vecsync_dagster.errors import (
    EmbeddingRejected,
    EmbeddingTimeout,
    EmbeddingUnavailable,
    InternalError,
    LedgerUnavailable,
    SpaceMismatch,
    VecsyncError,
)
from vecsync_dagster.space import Space

__all__ = ["EmbeddedTexts", "Embedder", "Outcome", "Paid", "Plan", "TextUse", "VectorCache"]

_UNANSWERED = (EmbeddingTimeout, EmbeddingUnavailable)
_PROBE = "vecsync"
_PATIENCE_S = 15.0

Outcome = NDArray[np.float32] | VecsyncError
"""What became of a text: its vector, shape (dimensions,), or the error that is about this text alone."""


class VectorCache(Protocol):
    """Where vectors are kept between runs, by space and SHA-256 of the prepared text. The ledger is one."""

    def vectors(self, space: Space, hashes: Sequence[str], /) -> Mapping[str, NDArray[np.float32]]: ...

    def keep_vectors(self, space: Space, vectors: Mapping[str, NDArray[np.float32]], origin: str | None, /) -> None: ...

    def require_origin(self, space: Space, origin: str, /) -> None: ...

    def origin_of(self, space: Space, /) -> str | None: ...


class TextUse(NamedTuple):
    """Which vector of the cache a text has: SHA-256 of the prepared text, and whether that was cut."""

    text_hash: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """`outcomes` in the order of the texts. cache_hits + cache_misses = number of texts.

    `cache_misses`: distinct texts this call had to embed; `embedded`: those that got a vector (the others
    were rejected). `tokens` and `api_calls` are what this call paid for; `truncated`: texts that were cut.
    """

    outcomes: list[Outcome]
    cache_hits: int
    cache_misses: int
    embedded: int
    tokens: int
    api_calls: int
    truncated: int
    uses: list[TextUse | None]
    """Of each text the vector that it has in the cache; None for one that no request could be made of."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `embed` would do: `to_embed` distinct texts without a vector, their tokens, the price in US dollars."""

    texts: int
    to_embed: int
    tokens: int
    price: float


@dataclass(slots=True)
class Paid:
    """What one call of `embed` has spent so far: see `EmbeddedTexts`."""

    misses: int = 0
    embedded: int = 0
    tokens: int = 0
    api_calls: int = 0


@dataclass(slots=True)
class _Call:
    """The state of one call of `embed`; outcomes by the hash of the prepared text. `doubtful`: the error of a text that
    was blamed, and nothing was answered since."""

    space: Space
    paid: Paid
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    doubtful: VecsyncError | None = None


class Embedder:
    """Embeds texts in the space of one provider, through a cache. May be used by several threads at once."""

    def __init__(
        self, provider: EmbeddingProvider, cache: VectorCache, prove: Callable[[bool], Embedded | None] | None = None
    ) -> None:
        """`prove` is called once before the first query (False), and once before the first text whose vector is kept
        (True): it raises SpaceMismatch where the provider's vectors are not those of its space, which then holds for
        good, and returns what finding out took. With False it keeps nothing."""
        self.provider = provider
        self.cache = cache
        self._prove = prove
        self._proving = threading.Lock()
        self._confirmed = self._kept = False
        self._refused: SpaceMismatch | None = None
        self._origin: str | None = None
        self._lock = threading.Lock()
        self._in_flight: dict[str, threading.Event] = {}

    def embed(self, texts: Sequence[str], paid: Paid | None = None) -> EmbeddedTexts:
        """Vectors of raw texts. A text the provider refuses gets its EmbeddingRejected as outcome, one that alone is
        not answered its EmbeddingTimeout or EmbeddingUnavailable, one that alone raises what nobody foresaw an
        InternalError.

        Raises EmbeddingMisconfigured and Transient errors for the whole call, EmbeddingRejected where the provider
        refuses any text, and InternalError where any text raises what nobody foresaw; what was received before is kept.
        `paid` has what was spent then, too.
        """
        prepared = [self._prepared(text) for text in texts]
        unusable = [one for one in prepared if isinstance(one, InternalError)]
        if unusable and isinstance(self._prepared(_PROBE), InternalError):
            raise unusable[0]
        hashed = [(one, "" if isinstance(one, InternalError) else _hash(one)) for one in prepared]
        wanted = {key: one.text for one, key in hashed if isinstance(one, Prepared)}
        call = _Call(self.provider.space, Paid() if paid is None else paid)
        if self._origin is None and self._prove is not None and isinstance(self.provider, HasOrigin):
            self._origin = self.cache.origin_of(call.space)  # of the vectors that are kept, whoever made them
        call.paid.misses += len(unusable)
        while pending := [key for key in wanted if key not in call.outcomes]:
            with self._claim(pending) as (mine, others):
                call.outcomes.update(self.cache.vectors(call.space, mine) if mine else {})
                self._embed_missing({key: wanted[key] for key in mine if key not in call.outcomes}, call)
            # Our own claims are released before we wait: two calls that share texts never wait for each other.
            for other in others:
                other.wait()
        return EmbeddedTexts(
            outcomes=[one if isinstance(one, InternalError) else call.outcomes[key] for one, key in hashed],
            cache_hits=len(texts) - call.paid.misses,
            cache_misses=call.paid.misses,
            embedded=call.paid.embedded,
            tokens=call.paid.tokens,
            api_calls=call.paid.api_calls,
            truncated=sum(one.truncated for one in prepared if isinstance(one, Prepared)),
            uses=[TextUse(key, one.truncated) if isinstance(one, Prepared) else None for one, key in hashed],
        )

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a search text; raises what the provider raises, and SpaceMismatch."""
        self.confirm()
        return self.provider.embed_query(text)

    def confirm(self) -> None:
        """Raises SpaceMismatch where the provider's vectors are not, or may not be, those of its space. Keeps none."""
        self._be_proven(Paid(), keep=False)

    def require_origin(self) -> None:
        """Before vectors of this embedder are confirmed: whether they are still those of the space. Where another
        process has another origin since, that is proven again: the model may be the same one. Raises SpaceMismatch."""
        if self._origin is not None:
            try:
                self.cache.require_origin(self.provider.space, self._origin)
            except SpaceMismatch:
                self._prove_again(Paid())

    def _prove_again(self, paid: Paid) -> None:
        with self._proving:
            self._kept = False
        self._be_proven(paid, keep=True)

    def plan(self, texts: Sequence[str]) -> Plan:
        """What `embed` would pay for; the provider's model is not called."""
        usable = (one for one in map(self._prepared, texts) if isinstance(one, Prepared))
        prepared = {_hash(one): one for one in usable}
        cached = self.cache.vectors(self.provider.space, list(prepared)) if prepared else {}
        missing = [one for key, one in prepared.items() if key not in cached]
        tokens = sum(one.tokens for one in missing)
        price = tokens * self.provider.price_per_million_tokens / 1_000_000
        return Plan(texts=len(texts), to_embed=len(missing), tokens=tokens, price=price)

    def cached(self, texts: Sequence[str]) -> list[bool]:
        """Whether `embed` would have each text's vector without a call of the provider."""
        prepared = [self._prepared(text) for text in texts]
        hashes = [_hash(one) if isinstance(one, Prepared) else None for one in prepared]
        known = [key for key in dict.fromkeys(hashes) if key is not None]
        vectors = self.cache.vectors(self.provider.space, known) if known else {}
        return [key in vectors for key in hashes]

    def uses(self, texts: Sequence[str]) -> list[TextUse | None]:
        """Which vector of the cache each text has, or would have; the provider's model is not called."""
        return [_use(self._prepared(text)) for text in texts]

    def _prepared(self, text: str) -> Prepared | InternalError:
        try:
            return self.provider.prepare(text)
        except (VecsyncError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this text's)
            return unforeseen(error, "preparing a text")

    @contextmanager
    def _claim(self, keys: Sequence[str]) -> Iterator[tuple[list[str], set[threading.Event]]]:
        """The keys that are ours to embed now, and what to wait for before looking at the others again.

        The claim comes before the look into the cache: whoever held it before us has filled the cache already.
        """
        done = threading.Event()
        with self._lock:
            others = {self._in_flight[key] for key in keys if key in self._in_flight}
            mine = [key for key in keys if key not in self._in_flight]
            self._in_flight.update(dict.fromkeys(mine, done))
        try:
            yield mine, others
        finally:
            with self._lock:
                for key in mine:
                    del self._in_flight[key]
            done.set()

    def _embed_missing(self, texts: Mapping[str, str], call: _Call) -> None:
        """Embed and keep; a group that is refused or not answered, or raises what nobody foresaw, is halved until the
        texts that are to blame stand alone. One that is not answered is to blame where it was asked for twice; any
        other, where another text is answered."""
        call.paid.misses += len(texts)
        if texts:
            self._be_proven(call.paid, keep=True)
        groups = [list(texts)] if texts else []
        unanswered: set[str] = set()
        while groups:
            group = groups.pop()
            try:
                for positions, part in self._parts([texts[key] for key in group], once=bool(unanswered)):
                    self._keep([group[position] for position in positions], part, call)
                continue
            except Exception as error:  # whatever it is, it may be one text's
                call.paid.api_calls += getattr(error, "api_calls", 1)
                if not self._may_be_one_texts(error, call):
                    raise
                reason = error
            left = [key for key in group if key not in call.outcomes]
            first_time = isinstance(reason, _UNANSWERED) and unanswered.isdisjoint(left)
            if first_time:
                unanswered.update(left)
            if len(left) == 1 and not first_time:
                own = reason if isinstance(reason, VecsyncError) else unforeseen(reason, "embedding a text")
                self._doubt(own, call)
                call.outcomes[left[0]] = own
                continue
            middle = len(left) // 2
            groups += [half for half in (left[middle:], left[:middle]) if half]
        self._require_answer(call)

    def _be_proven(self, paid: Paid, *, keep: bool) -> None:
        with self._proving:
            if self._refused is not None:
                raise SpaceMismatch(str(self._refused), **self._refused.fields)
            if self._prove is None or (self._kept if keep else self._confirmed):
                return
            try:
                took = self._prove(keep)
            except SpaceMismatch as error:
                self._refused = error
                raise
            self._confirmed = True
            if keep and isinstance(self.provider, HasOrigin):
                self._origin = self.provider.origin
            self._kept = self._kept or keep
        if took is not None:
            paid.tokens += took.tokens
            paid.api_calls += took.api_calls

    def _may_be_one_texts(self, error: Exception, call: _Call) -> bool:
        """A refusal and what nobody foresaw may be; so may no answer, where the provider answers another, harmless
        text."""
        if isinstance(error, _UNANSWERED):
            return not error.fields.get("closed") and self._answers_another(call)
        return isinstance(error, EmbeddingRejected) or not isinstance(error, (VecsyncError, MemoryError))

    def _doubt(self, own: VecsyncError, call: _Call) -> None:
        """A refusal, or what nobody foresaw, is a text's own where another text is answered after it. A second one in a
        row has to be proven; not that of a provider which itself names the text."""
        if not isinstance(own, _UNANSWERED) and "index" not in own.fields:
            proven = call.doubtful is not None
            self._require_answer(call)
            call.doubtful = None if proven else own

    def _require_answer(self, call: _Call) -> None:
        """Raises an error that is in doubt where the provider has no answer to a harmless text either."""
        if call.doubtful is not None and not self._answers_another(call):
            raise call.doubtful
        call.doubtful = None

    def _answers_another(self, call: _Call) -> bool:
        """Whether the provider answers a harmless text."""
        try:
            for _, part in self._parts([self.provider.prepare(_PROBE).text], once=True):
                call.paid.tokens += part.tokens
                call.paid.api_calls += part.api_calls
        except MemoryError:
            raise
        except Exception as silent:  # noqa: BLE001 (whatever it is, it is no answer)
            call.paid.api_calls += getattr(silent, "api_calls", 1)
            return False
        return True

    def _parts(self, texts: Sequence[str], *, once: bool) -> Iterator[tuple[Sequence[int], Embedded]]:
        if isinstance(self.provider, EmbedsInParts):
            yield from self.provider.embed_parts(texts, once=once)
            return
        try:
            yield range(len(texts)), self.provider.embed_documents(texts)
        except (EmbeddingRejected, EmbeddingUnavailable) as error:
            if error.answered:
                yield list(error.answered), sound_part(error)
            raise

    def _keep(self, keys: Sequence[str], part: Embedded, call: _Call) -> None:
        call.paid.tokens += part.tokens
        call.paid.api_calls += part.api_calls
        vectors = dict(zip(keys, part.vectors, strict=True))
        with contained("keeping vectors"):  # what is raised here is no text's
            for attempt in stamina.retry_context(
                on=LedgerUnavailable, attempts=None, timeout=_PATIENCE_S, wait_initial=0.2, wait_max=2
            ):
                with attempt:  # they are paid for, and a database that restarts is back in seconds
                    try:
                        self.cache.keep_vectors(call.space, vectors, self._origin)
                    except SpaceMismatch:
                        self._prove_again(call.paid)
                        self.cache.keep_vectors(call.space, vectors, self._origin)
        call.outcomes.update(vectors)
        call.paid.embedded += len(vectors)
        call.doubtful = None


def _use(prepared: Prepared | InternalError) -> TextUse | None:
    return TextUse(_hash(prepared), prepared.truncated) if isinstance(prepared, Prepared) else None


def _hash(prepared: Prepared) -> str:
    return hashlib.sha256(prepared.text.encode()).hexdigest()
