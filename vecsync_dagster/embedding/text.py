"""What every provider does to a text before a tokenizer sees it, and how prefixes name a space."""

from __future__ import annotations

import hashlib
import re

__all__ = ["clean", "prefix_tag"]

# A NUL ends a C string early; a lone surrogate cannot be encoded as UTF-8.
_UNSAFE = re.compile("[\0\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with NUL characters and lone surrogates replaced by U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)


def prefix_tag(query_prefix: str, document_prefix: str) -> str:
    """What prefixes that are not the model's own add to the model's name in a space: `+p<8 hex>`."""
    digest = hashlib.sha256(f"{query_prefix}\0{document_prefix}".encode()).hexdigest()[:8]
    return f"+p{digest}"
