"""Numbers as people and databases write them."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.validation import CONVERTERS, BadValue, parse_number
from vecsync_dagster.numbers import steady
from vecsync_dagster_tests.properties import a_property

NBSP, THIN, NARROW = "\u00a0", "\u2009", "\u202f"


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("12", 12),
        ("12,5", 12.5),
        ("12.5", 12.5),
        (" 12,50 ", 12.5),
        ("1 234", 1234),
        ("1 234,50", 1234.5),
        ("1 234.50", 1234.5),
        (f"1{NBSP}234,50", 1234.5),
        (f"1{THIN}234{THIN}567", 1234567),
        (f"1{NARROW}234", 1234),
        ("1'234.50", 1234.5),
        ("1.234,50", 1234.5),
        ("1,234.50", 1234.5),
        ("1.234.567", 1234567),
        ("1,234,567", 1234567),
        ("1.234.567,5", 1234567.5),
        ("1,234,567.5", 1234567.5),
        # One separator alone is a decimal one: Czech and Russian usage.
        ("1,234", 1.234),
        ("1.234", 1.234),
        ("-12,5", -12.5),
        ("- 12", -12),
        ("+12", 12),
        (",5", 0.5),
        ("12,", 12),
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("1e3", 1000),
        ("1.5E-2", 0.015),
        ("12.0", 12),
        ("9007199254740993", 9007199254740993),
        (str(2**63 - 1), 2**63 - 1),
        ("1" * 25, "1" * 25),
        ("12 345 678 901 234 567 890,50", "12345678901234567890.5"),
        ("1e999", "1E+999"),
        (2**63, str(2**63)),
        (Decimal("9007199254740993"), 2**53 + 1),
        (Decimal("0.12345678901234567890"), "0.1234567890123456789"),
        (5, 5),
        (5.0, 5),
        (-0.0, 0),
        (2.0**60, 2.0**60),
        (Decimal("12.50"), 12.5),
        (Decimal(12), 12),
    ],
)
def test_what_is_a_number(written: object, number: float | str) -> None:
    """The value, whole numbers as int, so that 5 and 5.0 are one, and all digits of what no number holds."""
    assert parse_number(written) == number
    assert type(parse_number(written)) is type(number)


@pytest.mark.parametrize(
    "written",
    [
        *("abc", "", " ", "-", ",", ".", "12 Kč", "$5", "1-2", "5%", "0x10", "1_000", "½", "NaN", "inf", "1e", "e5"),
        # Separators that group nothing: dates, versions, telephone numbers, lists.
        *("1.2.3", "12.05.2026", "1,2,3", "12 34", "1 2345", "12,34,567", "1.23,4", "1.234.5", "420 60 12 34"),
        *("1,234.567,8", "1e3,4,5"),
        *(
            None,
            True,
            False,
            [5],
            {"a": 5},
            b"5",
            float("nan"),
            float("inf"),
            -math.inf,
            Decimal("NaN"),
            Decimal("sNaN"),
        ),
    ],
)
def test_what_is_no_number(written: object) -> None:
    """Refused, without repeating it."""
    with pytest.raises(BadValue) as refused:
        parse_number(written)
    assert str(refused.value) in {
        "is not a number",
        "is not a finite number",
    }


@a_property
@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_exact(number: int) -> None:
    """Whether an integer comes as one, as text, or as text in groups, it keeps its last digit."""
    assert parse_number(number) == parse_number(str(number)) == number
    assert parse_number(f"{number:,}".replace(",", " ")) == number


@a_property
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_exact(number: float) -> None:
    """A float keeps its value, from text too: as its digits where no store keeps the float."""
    assert parse_number(number) == number
    read = parse_number(repr(number))
    assert float(read) == number
    if "e" not in repr(number) and not number.is_integer():  # a whole one of 64 bits is an int
        assert isinstance(read, str) is (steady(number) != number)


@a_property
@given(st.text(max_size=12) | st.text(st.sampled_from("0123456789., +-eE'\u00a0"), max_size=12))
def test_any_text_is_a_finite_number_or_none(text: str) -> None:
    """Whatever the text: a finite number that fits, or BadValue."""
    try:
        number = parse_number(text)
    except BadValue:
        return
    assert isinstance(number, str) or math.isfinite(number)
    assert not isinstance(number, int) or -(2**63) <= number < 2**63


@pytest.mark.parametrize(
    ("value", "number"), [("12", 12), ("12,0", 12), (12.0, 12), ("9007199254740993", 2**53 + 1), ("1" * 25, "1" * 25)]
)
def test_integers(value: object, number: int | str) -> None:
    """A whole number, however it is written."""
    assert CONVERTERS["integer"](value) == number


@pytest.mark.parametrize("value", ["12,5", 0.5, "abc", 1e300, "9007199254740993.5"])
def test_no_integers(value: object) -> None:
    """A fraction, or a number that no integer field holds, is not a whole number."""
    with pytest.raises(BadValue):
        CONVERTERS["integer"](value)
