"""Text of a document from its record's fields."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Template", "as_text", "is_empty"]


class Template:
    """Parts such as "{name} {sku}" or "Features: {functionality}."; see `CollectionConfig.text`.

    A part all of whose fields are empty is left out; runs of white space become one space. The same
    values give the same text, arrays in any order too (they are rendered sorted), so that equal content
    hashes mean equal texts but for letter case.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        named = [[name for _, name, _, _ in string.Formatter().parse(part) if name is not None] for part in parts]
        self.fields = tuple(dict.fromkeys(name for names in named for name in names))
        self._keys = {name: _key(name) for name in self.fields}
        self._parts = [(_keyed(part), tuple(map(_key, names))) for part, names in zip(parts, named, strict=True)]

    def render(self, values: Mapping[str, Any]) -> str:
        texts = {key: as_text(values[name]) for name, key in self._keys.items()}
        rendered = [
            part.format_map(texts) for part, names in self._parts if not names or any(texts[name] for name in names)
        ]
        return " ".join(" ".join(rendered).split())


def _key(name: str) -> str:
    """A dot would be an attribute to str.format; nothing else about a name is special."""
    return name.replace(".", "\u2024")


def _keyed(part: str) -> str:
    """The part with keys in place of the names of its fields."""
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(part):
        pieces.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            pieces.append(f"{{{_key(name)}}}")
    return "".join(pieces)


def is_empty(value: Any) -> bool:
    """Whether the value says nothing: its text is "". False and 0 say something."""
    if value is None or value.__class__ is str:
        return not value
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return isinstance(value, list) and all(map(is_empty, value))


def as_text(value: Any) -> str:
    """Empty items of arrays and objects are left out."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        texts = [as_text(item) for item in value]
        # By letters first, so that letter case alone does not change the order.
        return ", ".join(sorted(filter(None, texts), key=lambda text: (text.lower(), text)))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(value[key])}" for key in sorted(value) if not is_empty(value[key]))
    return str(value)
