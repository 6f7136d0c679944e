"""A sentence-transformers model, loaded: its size, its prompts, and its tokenizer for counting and cutting."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vecsync_dagster.config.models import SentenceTransformersProvider as LocalConfig
from vecsync_dagster.embedding.base import Prepared
from vecsync_dagster.errors import EmbeddingMisconfigured

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

__all__ = ["LocalModel", "load"]

_UNLIMITED = 1 << 30
# Longer texts are cut by characters before they are tokenised, which takes a second for a megabyte. WordPiece
# makes one unknown token of a word of more than 100 characters; other tokenizers' pieces are shorter.
_CHARACTERS_PER_TOKEN = 100
_SOME_WEIGHTS = 256
_ERRORS_OF_LOADING = (ImportError, OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """`tokenizer` is a copy of the model's that neither cuts nor pads: it only reads, so threads may share it."""

    model: SentenceTransformer
    tokenizer: Tokenizer
    dimensions: int
    max_tokens: int
    query_prefix: str
    document_prefix: str
    own_prefixes: bool
    """Whether the prefixes are those the model itself defines."""
    digest: str
    """Of its modules, as they describe themselves, and of some of each of its weights: the same on any machine
    with the same library and dtype, and another one costs a comparison."""

    def count(self, text: str) -> int:
        """Tokens, specials included."""
        return len(self.tokenizer.encode(text).ids)

    def prepare(self, text: str) -> Prepared:
        """The text (prefix in front), cut to the model's limit at the end of a token."""
        cut = text[: self.max_tokens * _CHARACTERS_PER_TOKEN]
        tokens = self.count(cut)
        if tokens > self.max_tokens:
            ends = [end for _, end in self.tokenizer.encode(cut, add_special_tokens=False).offsets]
            keep = self.max_tokens - (tokens - len(ends))
            # Cut in the middle of a word, its first half may become more tokens than it was: then cut again.
            while tokens > self.max_tokens and keep > 0:
                cut = cut[: ends[keep - 1]]
                tokens = self.count(cut)
                keep -= 1
        return Prepared(cut, tokens, truncated=len(cut) < len(text))


def load(config: LocalConfig) -> LocalModel:
    """Raises EmbeddingMisconfigured if the package is missing or the model cannot be loaded or used."""
    if find_spec("sentence_transformers") is None:
        raise EmbeddingMisconfigured(
            "the package sentence-transformers is not installed; install vecsync-dagster[sentence-transformers]",
            model=config.model,
        )
    try:
        model = _load(config)
        tokenizer = _reading_tokenizer(model)
    except _ERRORS_OF_LOADING as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EmbeddingMisconfigured(
            f"the model {config.model} cannot be loaded ({type(error).__name__}: {reason})", model=config.model
        ) from error
    dimensions = model.get_embedding_dimension()
    if dimensions is None:
        raise EmbeddingMisconfigured(f"the model {config.model} does not tell its dimensions", model=config.model)
    own = _own_prefixes(model)
    query = own[0] if config.query_prefix is None else config.query_prefix
    document = own[1] if config.document_prefix is None else config.document_prefix
    limit = int(min(model.max_seq_length or _UNLIMITED, _UNLIMITED))
    return LocalModel(model, tokenizer, dimensions, limit, query, document, (query, document) == own, _digest(model))


def _load(config: LocalConfig) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return SentenceTransformer(config.model, device=config.device, model_kwargs={"dtype": getattr(torch, config.dtype)})


def _digest(model: SentenceTransformer) -> str:
    found = hashlib.sha256(repr(model).encode())
    for name, weights in model.state_dict().items():
        some = weights.flatten()[:: max(weights.numel() // _SOME_WEIGHTS, 1)]
        found.update(name.encode() + some.cpu().float().numpy().tobytes())
    return found.hexdigest()[:12]


def _reading_tokenizer(model: SentenceTransformer) -> Tokenizer:
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    if not isinstance(backend, Tokenizer):
        raise TypeError(f"its tokenizer, a {type(backend).__name__}, cannot be used for counting")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _own_prefixes(model: SentenceTransformer) -> tuple[str, str]:
    """The query and document prompts the model defines, under the names the library knows."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "") or ""
    # The library adds an empty "document" to models that call it "passage" (e5), and then uses the empty one.
    document = next(filter(None, (prompts.get(name) for name in ("document", "passage", "corpus"))), default)
    return prompts.get("query") or default, document
