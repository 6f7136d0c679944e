"""What a server takes of OpenAI's API: many take a part of it (Ollama, vLLM, LiteLLM, TEI ...).

Found out once and remembered for the process: which form a request may have, and how many texts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from vecsync_dagster.errors import EmbeddingUnavailable, VecsyncError

__all__ = ["NOT_THERE", "Dialect", "Form", "dialect_of", "may_be_the_request"]


NOT_THERE: Final = frozenset({404, 501})
"""What an address without embeddings answers, and some servers to an option that they do not know."""

_HOPELESS_S: Final = 60.0
_NEVER: Final = frozenset({None, 401, 402, 403, 405, 407, 429})
_FAILED_OVER: Final = frozenset({200, 424, 500})
_Encoding = Literal["base64", "float"] | None


@dataclass(frozen=True, slots=True)
class Form:
    """A request's options. `encoding` None: not named, and the server answers what it answers."""

    encoding: _Encoding = "base64"
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
        self._hopeless_over: object = None
        self._lock = threading.Lock()
        # A few: what is not explained by then never is.
        self._refused: deque[_Refused] = deque(maxlen=32)

    def candidates(self, status: object) -> list[Form]:
        """What to try in turn after that status: what is used now first, and last without a setting that the server
        may not know. Few where nothing may be there at all, and one where the form is known to be right."""
        if self.proven:
            return [self.form]
        encodings: tuple[_Encoding, ...] = (None,) if status in NOT_THERE else ("base64", "float", None)
        settings = (True, False) if self.form.dimensions else (False,)
        forms = [Form(encoding, dimensions) for dimensions in settings for encoding in encodings]
        return [self.form, *(form for form in forms if form != self.form)]

    def hopeless(self, status: object) -> bool:
        """Whether no form was answered a moment ago: each partition of a run would ask for all of them again. What a
        server did not answer while it failed inside it may answer to one whose request is refused now."""
        return not self.proven and status == self._hopeless_over and time.monotonic() < self._hopeless_until

    def gave_up(self, status: object) -> None:
        self._hopeless_until = time.monotonic() + _HOPELESS_S
        self._hopeless_over = status

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


def may_be_the_request(error: VecsyncError, form: Form) -> bool:
    """Whether another form of the same request, or a short text, might be answered. A server that names the texts means
    those; one that fails inside may do so over a form that it does not know. What is wrong with a key, credit or an
    address any other request is told as well."""
    status, param = error.fields.get("status"), error.fields.get("param")
    if param in ("input", "model") or (param == "dimensions" and not form.dimensions):
        return False
    return status in _FAILED_OVER if isinstance(error, EmbeddingUnavailable) else status not in _NEVER
