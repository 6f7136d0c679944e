"""Counting and cutting by the tokens of OpenAI's encodings, offline."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicktok import Tokenizer

__all__ = ["TokenCounter"]


class TokenCounter:
    """Exact for the models whose encoding is known; others are estimated by that of OpenAI's embedding models.

    Special tokens that a text spells out ("<|endoftext|>") are ordinary text here, as they are for the API.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    @cached_property
    def _encoding(self) -> Tokenizer:
        import quicktok

        try:
            return quicktok.encoding_for_model(self._model)
        except KeyError:
            return quicktok.get_encoding("cl100k_base")

    def count(self, text: str) -> int:
        # `count` reads special tokens as ordinary text, as `encode_ordinary` does.
        return int(self._encoding.count(text))

    def cut(self, text: str, limit: int) -> tuple[str, int]:
        """The longest beginning of `text` with at most `limit` tokens, and its tokens."""
        tokens = self._encoding.encode_ordinary(text)
        keep = limit
        while len(tokens) > limit:
            # A token may hold a part of a character only; what is left of one at the end is dropped.
            text = self._encoding.decode_bytes(tokens[:keep]).decode("utf-8", errors="ignore")
            # The shorter text may be split into other tokens, and more of them, at its new end.
            tokens = self._encoding.encode_ordinary(text)
            keep -= 1
        return text, len(tokens)
