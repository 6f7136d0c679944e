"""Numbers of any size and precision as a payload can hold them, exactly."""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

__all__ = ["all_digits", "exact", "exact_fraction", "exact_whole", "fits_a_float"]

_UNROUNDED = Context(prec=200_000, Emax=MAX_EMAX, Emin=MIN_EMIN)  # PostgreSQL's have up to 147,455 digits
_PLAIN = 400  # digits before or behind the point; beyond that with an exponent
_WHOLE = 2**53
"""Below it a float has all whole numbers."""


def exact(number: Decimal) -> int | float | str:
    """A whole number of 64 bits as int; else a float, if its shortest text says the same number; else all digits as
    text. The number is finite."""
    if -(2**63) <= number < 2**63 and number == number.to_integral_value():
        return int(number)
    short = float(number)
    return short if math.isfinite(short) and Decimal(repr(short)) == number else all_digits(number)


def all_digits(number: Decimal) -> str:
    """One text for each number: 1.50 is 1.5."""
    plain = number.normalize(_UNROUNDED)
    return format(plain, "f") if abs(plain.adjusted()) < _PLAIN else str(plain)


def exact_whole(text: str) -> int | float | str:
    """What JSON's digits mean."""
    return int(text) if len(text) < 19 else exact(Decimal(text))


def exact_fraction(text: str) -> int | float | str:
    """What JSON's number with a point or an exponent means. With an exponent it is a float's, where it can be."""
    short = float(text)
    if repr(short) == text or ("e" in text.lower() and Decimal(repr(short)) == Decimal(text)):
        return short
    return exact(Decimal(text))


def fits_a_float(text: str) -> bool:
    """Whether nothing is lost where the digits become a float, and a whole number can be told from it."""
    if len(text) <= 15:
        return True
    number = Decimal(text)
    if not number.is_finite():
        return True
    held = exact(number)
    return held.__class__ is float or (isinstance(held, int) and -_WHOLE < held < _WHOLE)
