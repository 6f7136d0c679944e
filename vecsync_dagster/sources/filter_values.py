"""What the text of a filter's value may mean: YAML 1.2's numbers and flags, and PostgreSQL's other words for flags."""

from __future__ import annotations

import re
from decimal import Decimal

__all__ = ["FLAG_WORDS", "flag_of", "number_of", "whole_of"]

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_NO_DIGITS = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASES = {"0o": (8, re.compile("0o[0-7]{1,32}")), "0x": (16, re.compile("0x[0-9a-fA-F]{1,32}"))}
_TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "n", "no", "off"})
FLAG_WORDS = sorted(_TRUE | _FALSE)


def number_of(text: str) -> Decimal | None:
    """The number, exactly; 0777 is 777, and `.inf` and `.nan` are numbers. None where the text is none."""
    base, pattern = _BASES.get(text[:2], (0, None))
    if pattern is not None:
        return Decimal(int(text[2:], base)) if pattern.fullmatch(text) else None
    if without := _NO_DIGITS.fullmatch(text):
        return Decimal("NaN" if without[3] else f"{without[1]}Infinity")
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def whole_of(number: Decimal) -> int | None:
    """The number as a 64-bit integer; None where it is none."""
    if number.is_nan() or not -(2**63) <= number < 2**63 or number % 1:
        return None
    return int(number)


def flag_of(text: str, *, words: bool) -> bool | None:
    """true or false; with `words` also yes, off, 1 and the like. None where the text is neither."""
    lower = text.lower()
    if not words and lower not in ("true", "false"):
        return None
    return True if lower in _TRUE else False if lower in _FALSE else None
