"""What a record is known by: the key that its source gives it, and the key's text.

The text of a key of one column is the value's text, as it is. That of several is their texts joined by "/", in which
"~" is written "~0" and "/" is written "~1" (as in RFC 6901); a lone "~" stands for a column without a value. So no two
keys have one text, and the text tells the parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from vecsync_dagster.numbers import all_digits

__all__ = [
    "KEY_NATIVE",
    "KEY_TEXT",
    "OF_MANY",
    "Key",
    "as_storable",
    "differ",
    "key_parts",
    "key_text",
    "key_without",
    "native_of",
    "number_text",
    "storable",
]

KEY_TEXT = "vecsync:key"
"""The column of a source's records that holds the text of the key, where that is not the text of one field."""

KEY_NATIVE = "vecsync:native"
"""The column that holds the key in the source's own notation (`Key.native`), where the text does not tell the type."""

OF_MANY = "is a list or an object, not one tenant"
"""Ends the reason why a record of many tenants, which is nobody's, is rejected."""

_NULL = "~"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_DIGITS = 4000
"""From about here on Python makes no text of an int."""
_PART = re.compile(r"(?:[^~]|~[01])*")


class Key(str):
    """The text of a record's key, which is all that most sources need. `native`: the key in the source's own notation,
    where that tells more (7 from "7"); None where nothing but the text is known."""

    __slots__ = ("native",)
    native: str | None

    def __new__(cls, text: str, native: str | None = None) -> Key:
        key = super().__new__(cls, text)
        key.native = native
        return key


def native_of(key: str) -> str | None:
    """The key in the source's own notation, where that is known."""
    return key.native if isinstance(key, Key) else None


def differ(one: str, other: str) -> bool:
    """Whether two keys of one text are known to be different ones."""
    return None not in (natives := (native_of(one), native_of(other))) and natives[0] != natives[1]


def storable(text: str) -> bool:
    """Whether a text column could hold this text at all: PostgreSQL refuses NUL, UTF-8 lone surrogates. No document has
    an id that it could not."""
    return _UNSTORABLE.search(text) is None


def as_storable(text: str) -> str:
    """The text, with U+FFFD for what no text column holds."""
    return _UNSTORABLE.sub("\ufffd", text)


def key_text(parts: Iterable[str | None]) -> str:
    """The text of a key of several columns."""
    return "/".join(_NULL if part is None else part.replace("~", "~0").replace("/", "~1") for part in parts)


def key_parts(text: str, columns: int) -> Sequence[str | None] | None:
    """The texts of the columns: the inverse of `key_text`, and of the plain text where there is one column. None where
    it is no text of such a key."""
    if columns == 1:
        return [text]
    parts = text.split("/")
    if len(parts) != columns or not all(part == _NULL or _PART.fullmatch(part) for part in parts):
        return None
    return [None if part == _NULL else part.replace("~1", "/").replace("~0", "~") for part in parts]


def key_without(text: str, part: str | None) -> str | None:
    """The text of a key of several columns without the first one that says `part`; None where there is none such."""
    parts, own = text.split("/"), key_text([part])
    if len(parts) < 2 or own not in parts:
        return None
    parts.remove(own)
    return "/".join(parts)


def number_text(number: Decimal) -> str | None:
    """The text of a number with decimals as a key, however many zeros it is written with: as a float's where that has
    just this value, else all digits. None for NaN and the infinities."""
    if not number.is_finite():
        return None
    if number == number.to_integral_value():
        return str(int(number)) if number.adjusted() < _DIGITS else f"{number:f}".partition(".")[0]
    short = float(number)
    return repr(short) if math.isfinite(short) and Decimal(repr(short)) == number else all_digits(number)
