"""Numbers of any size and precision as a payload can hold them, exactly."""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

__all__ = ["all_digits", "exact", "exact_fraction", "exact_whole", "fits_a_float", "steady"]

_UNROUNDED = Context(prec=200_000, Emax=MAX_EMAX, Emin=MIN_EMIN)  # PostgreSQL's have up to 147,455 digits
_PLAIN = 400  # digits before or behind the point; beyond that with an exponent
_WHOLE = 2**53
"""Below it a float has all whole numbers."""
_POWERS = [float(f"1e{exponent}") for exponent in range(309)]
_NEAREST = 64


def exact(number: Decimal) -> int | float | str:
    """A whole number of 64 bits as int; else a float, if its shortest text says the same number and a store keeps it
    (`steady`); else all digits as text. The number is finite."""
    if -(2**63) <= number < 2**63 and number == number.to_integral_value():
        return int(number)
    short = float(number)
    is_same = math.isfinite(short) and Decimal(repr(short)) == number and steady(short) == short
    return short if is_same else all_digits(number)


def steady(number: float) -> float:
    """The nearest float that a store gives back as it is. Qdrant keeps payloads as JSON and reads their numbers with
    serde_json, which is off by one in the last place for an eighth of those with 17 digits (its feature
    `float_roundtrip` is not on): what such a number becomes would look altered for ever. All with up to 15 digits are
    steady. At most 1 unit in the last place away from 1e-22 to 1e22, beyond that a few."""
    text = repr(number)
    if ("e" not in text and len(text) <= 16) or not math.isfinite(number) or _as_read(number) == number:
        return number
    above = below = number
    for _ in range(_NEAREST):
        above, below = math.nextafter(above, math.inf), math.nextafter(below, -math.inf)
        for near in (above, below):
            if math.isfinite(near) and _as_read(near) == near:
                return near
    return number


def _as_read(number: float) -> float:
    """What serde_json makes of the number's shortest text: `f64_from_parts` in its de.rs."""
    mantissa, _, power = repr(number).partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int(power or 0) - len(fraction)
    read = float(int(whole + fraction))
    if exponent < -308:
        read, exponent = read / _POWERS[308], exponent + 308
    return read * _POWERS[exponent] if exponent >= 0 else read / _POWERS[-exponent]


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
