"""Cleaning of texts, and the other types that a field may be asked to have."""

from __future__ import annotations

import contextlib
import datetime as dt
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.validation import CONVERTERS, BadValue, clean, clean_any, identity
from vecsync_dagster_tests.properties import a_property

ANY_TEXT = st.text(st.characters(codec=None))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@a_property
@given(ANY_TEXT)
def test_clean(text: str) -> None:
    """A cleaned text is NFC, trimmed, without control characters and surrogates; cleaning it again changes nothing."""
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert cleaned == cleaned.strip()
    assert unicodedata.is_normalized("NFC", cleaned)
    assert all(unicodedata.category(c) not in {"Cc", "Cs"} or c in "\t\n\r" for c in cleaned)


@a_property
@given(ANY_TEXT.map(lambda text: unicodedata.normalize("NFC", text)))
def test_clean_keeps_what_is_clean(text: str) -> None:
    """Letters, signs and inner white space stay: only control characters, surrogates and the ends change."""
    kept = [c for c in text if unicodedata.category(c) not in {"Cc", "Cs"} and not c.isspace()]
    assert [c for c in clean(text) if not c.isspace() and c != "\ufffd"] == [c for c in kept if c != "\ufffd"]


@a_property
@given(VALUES)
def test_any_value_becomes_json(value: Any) -> None:
    """A value of no configured type becomes JSON that stays what it is, or is refused."""
    try:
        cleaned = clean_any(value)
    except BadValue:
        return
    assert orjson.loads(orjson.dumps(cleaned)) == cleaned
    assert clean_any(cleaned) == cleaned


@a_property
@given(ANY_TEXT | st.integers())
def test_ids_are_kept_or_refused(value: str | int) -> None:
    """An id is never changed: it stays the very text that the source has, or the record is refused."""
    with contextlib.suppress(BadValue):
        assert identity(value) == str(value)


class TestTypes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            *((value, True) for value in (True, 1, "1", "t", "True", " YES ", "y", "on")),
            *((value, False) for value in (False, 0, "0", "f", "false", "No", "n", "OFF")),
        ],
    )
    def test_booleans(self, value: object, expected: bool) -> None:
        """The usual words and numbers for true and false."""
        assert CONVERTERS["boolean"](value) is expected

    @pytest.mark.parametrize("value", [2, "maybe", "ano", [True]])
    def test_no_booleans(self, value: object) -> None:
        """Anything else is refused."""
        with pytest.raises(BadValue, match="is not a yes or no value"):
            CONVERTERS["boolean"](value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2026-03-01", "2026-03-01"),
            ("1.3.2026", "2026-03-01"),
            ("01.03.2026 14:30", "2026-03-01T14:30:00"),
            ("2026-03-01 14:30:00", "2026-03-01T14:30:00"),
            ("2026-03-01T14:30:00Z", "2026-03-01T14:30:00+00:00"),
            ("2026-03-01T14:30:00+02:00", "2026-03-01T12:30:00+00:00"),
            ("29.2.2024", "2024-02-29"),
            (dt.date(2026, 3, 1), "2026-03-01"),
            (dt.datetime(2026, 3, 1, 14, 30, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-03-01T12:30:00+00:00"),
        ],
    )
    def test_datetimes(self, value: object, expected: str) -> None:
        """ISO or dd.mm.yyyy become ISO; a time that knows its zone becomes UTC, another stays as it is."""
        assert CONVERTERS["datetime"](value) == expected

    @pytest.mark.parametrize(
        "value",
        ["", "soon", "2026-02-30", "29.2.2026", "13/01/2026", "1.3.26", 1772323200, True, [], "0001-01-01T00:00+05:00"],
    )
    def test_no_datetimes(self, value: object) -> None:
        """What is no date, or none that Python can count to, is refused."""
        with pytest.raises(BadValue, match="is not a date or time"):
            CONVERTERS["datetime"](value)

    @pytest.mark.parametrize(
        ("value", "expected"), [("a", "a"), (5, "5"), (5.0, "5"), (0.5, "0.5"), (2**62, str(2**62))]
    )
    def test_strings(self, value: object, expected: str) -> None:
        """Numbers become their text."""
        assert CONVERTERS["string"](value) == expected

    @pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a", float("nan")])
    def test_no_strings(self, value: object) -> None:
        """Arrays, objects and bytes are not text."""
        with pytest.raises(BadValue):
            CONVERTERS["string"](value)
