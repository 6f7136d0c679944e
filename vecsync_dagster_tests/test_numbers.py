"""Numbers beyond a float keep every digit."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.numbers import exact, exact_fraction, exact_whole, fits_a_float, steady
from vecsync_dagster_tests.properties import a_property

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False) | st.decimals(-(10**6), 10**6, places=2)


@pytest.mark.parametrize(
    ("written", "held"),
    [
        ("1.50", 1.5),
        ("5.000", 5),
        ("-0", 0),
        ("9007199254740993", 2**53 + 1),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("123456789012345678901", "123456789012345678901"),
        ("100000000000000000000", 1e20),
        ("9007199254740993.5", "9007199254740993.5"),
        ("0.12345678901234567890", "0.1234567890123456789"),
        ("0.1", 0.1),
        ("1e999", "1E+999"),
        ("1e-400", "1E-400"),
    ],
)
def test_what_holds_a_number(written: str, held: float | str) -> None:
    """An int, a float of this very value, or all digits; zeros at the end say nothing."""
    found = exact(Decimal(written))
    assert (found, type(found)) == (held, type(held))


@a_property
@given(DECIMALS)
def test_nothing_is_lost(number: Decimal) -> None:
    """The number comes back from what holds it; equal numbers are held alike, unequal ones are not."""
    held = exact(number)
    assert Decimal(repr(held) if isinstance(held, float) else held) == number
    assert exact(Decimal(f"{number:f}")) == held


@a_property
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_steady(number: float) -> None:
    """It is near, and steady itself; a number that a decimal of 15 digits means is."""
    near = steady(number)
    assert steady(near) == near
    if 1e-22 < abs(number) < 1e22:
        assert abs(near - number) <= math.ulp(number)
    written = float(f"{number:.14e}")
    if 1e-7 < abs(written) < 1e15:
        assert steady(written) == written


def test_a_decimal_that_no_store_keeps_is_text() -> None:
    assert exact(Decimal("121.48886955472557")) == "121.48886955472557"


@a_property
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_json_numbers_are_what_the_fast_parser_makes_of_them(number: float) -> None:
    """What the fast parser gets right, the exact one makes the same of."""
    text = orjson.dumps(number).decode()
    assert json.loads(text, parse_int=exact_whole, parse_float=exact_fraction) == orjson.loads(text) == number


@a_property
@given(DECIMALS)
def test_a_column_of_floats_loses_nothing(number: Decimal) -> None:
    """Digits that are said to fit are the same number as a float."""
    text = f"{number:f}"
    if fits_a_float(text):
        held, short = exact(number), float(text)
        assert (int(short) if short.is_integer() and abs(short) < 2**53 else short) == held
