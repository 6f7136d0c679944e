"""What a server takes of OpenAI's API: many take a part of it (Ollama, vLLM, LiteLLM, TEI ...).

Found out once and remembered for the process: which form a request may have, and how many texts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from vecsync_dagster.errors import EmbeddingMisconfigured, VecsyncError

__all__ = ["Dialect", "Form", "dialect_of", "may_be_the_form", "may_be_the_texts"]


_HOPELESS_S: Final = 60.0
_NEVER_TEXTS: Final = frozenset({401, 402, 403, 405, 407, 429, 501})


@dataclass(frozen=True, slots=True)
class Form:
    """A request's options. `encoding` None: not named, and the server answers what it answers."""

    encoding: Literal["base64", "float"] | None = "base64"
    dimensions: bool = True


@dataclass(slots=True)
class _Refused:
    """A request that was refused: its texts (their hashes) that no other request was answered for, and how many
    texts such a request had at most."""

    left: set[int]
    answered: int = 0


class Dialect:
    """`form` is the one to use; `proven`: the server answered a request of this form. `most_texts` of a request, or
    None where no limit was met. `finding` is held by the one request that tries the forms, of all threads."""

    def __init__(self, sends_dimensions: bool) -> None:
        self.form = Form(dimensions=sends_dimensions)
        self.proven = False
        self.most_texts: int | None = None
        self.finding = threading.Lock()
        self._hopeless_until = 0.0
        self._over_an_outage = False
        self._lock = threading.Lock()
        # A few: what is not explained by then never is.
        self._refused: deque[_Refused] = deque(maxlen=32)

    def candidates(self) -> Iterator[Form]:
        """What to try in turn: what is used now first, and last without a setting that the server may not know."""
        for dimensions in (True, False) if self.form.dimensions else (False,):
            for encoding in ("base64", "float", None):
                yield Form(encoding, dimensions)

    def hopeless(self, *, outage: bool) -> bool:
        """Whether no form was answered a moment ago: each partition of a run would ask for all of them again. What a
        server did not answer while it failed inside it may answer to one whose request is refused now."""
        return time.monotonic() < self._hopeless_until and (outage or not self._over_an_outage)

    def gave_up(self, *, outage: bool) -> None:
        self._hopeless_until = time.monotonic() + _HOPELESS_S
        self._over_an_outage = outage

    def accepted(self, form: Form, texts: Sequence[str]) -> None:
        """A request was answered. Where all texts of a refused one were answered in smaller ones, it had too many."""
        with self._lock:
            self.form, self.proven, self._hopeless_until = form, True, 0.0
            if not self._refused:
                return
            hashes = {hash(text) for text in texts}
            for one in list(self._refused):
                if one.left.isdisjoint(hashes):
                    continue
                one.left -= hashes
                one.answered = max(one.answered, len(texts))
                if not one.left:
                    self._refused.remove(one)
                    self.most_texts = min(self.most_texts or one.answered, one.answered)

    def refused(self, texts: Sequence[str]) -> None:
        """A request was refused whose form is right: one text by itself explains all refusals of others with it."""
        with self._lock:
            if len(texts) > 1:
                self._refused.append(_Refused({hash(text) for text in texts}))
                return
            for one in [one for one in self._refused if hash(texts[0]) in one.left]:
                self._refused.remove(one)


_dialects: dict[tuple[str, str, int | None], Dialect] = {}
_lock = threading.Lock()


def dialect_of(base_url: str, model: str, dimensions: int | None) -> Dialect:
    """The one that all requests of this process to that server and model share; `dimensions` as configured."""
    with _lock:
        return _dialects.setdefault((base_url, model, dimensions), Dialect(dimensions is not None))


def may_be_the_form(error: VecsyncError, form: Form) -> bool:
    """Whether another form of the same request might be answered. A server that names the texts means those; one that
    fails inside may do so over a form that it does not know."""
    param = error.fields.get("param")
    if error.fields.get("status") not in (400, 413, 415, 422, 424, 500) or param in ("input", "model"):
        return False
    return param != "dimensions" or form.dimensions


def may_be_the_texts(error: VecsyncError) -> bool:
    """Whether a status that says nothing of texts may be about them all the same, such as 404 for too many. What
    else it is (a key, credit, an address without embeddings) another request is told as well."""
    if not isinstance(error, EmbeddingMisconfigured) or "param" in error.fields:
        return False
    return error.fields.get("status", 401) not in _NEVER_TEXTS
