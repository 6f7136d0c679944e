"""Keys and their texts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.identity import Key, key_parts, key_text, native_of, number_text

PARTS = st.lists(st.none() | st.text(alphabet="ab~/01 ", max_size=6) | st.text(max_size=6), min_size=2, max_size=4)


@settings(max_examples=100, deadline=None)
@given(PARTS)
def test_the_text_of_a_key_gives_its_parts_back(parts: list[str | None]) -> None:
    """Text and parts of a key of several columns are one and the same."""
    assert key_parts(key_text(parts), len(parts)) == parts


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab~/01", max_size=12), st.integers(2, 4))
def test_what_is_no_text_of_a_key_has_no_parts(text: str, columns: int) -> None:
    """A text either is the one text of its parts, or there are none."""
    parts = key_parts(text, columns)
    assert parts is None or key_text(parts) == text


def test_the_text_of_one_column_is_as_it_is() -> None:
    """A key of one column has the value's own text, whatever is in it."""
    assert key_parts("a/b~", 1) == ["a/b~"]


def test_a_key_is_its_text() -> None:
    """A key can be used wherever its text can; its own notation goes with it."""
    key = Key("7", '"7"')
    assert key == "7"
    assert {"7": 1}[key] == 1
    assert (native_of(key), native_of("7")) == ('"7"', None)


@pytest.mark.parametrize(
    ("number", "text"),
    [("7.00", "7"), ("1.50", "1.5"), ("9007199254740993.1", "9007199254740993.1"), ("1E-7", "1e-07"), ("NaN", None)],
)
def test_a_number_has_one_text(number: str, text: str | None) -> None:
    """However many zeros a number is written with, its text as a key is the same, and exact."""
    assert number_text(Decimal(number)) == text


def _entity(key: object) -> EntityConfig:
    given = {"source": "db", "table": "t", "id": key, "collections": {"c": {"text": "{name}"}}}
    return EntityConfig.model_validate(given)


def test_one_name_in_a_list_is_the_name() -> None:
    """`id: [id]` is `id: id`, so that what was synced so stays."""
    assert _entity(["id"]) == _entity("id")
    assert _entity(["id"]).fingerprint("c") == _entity("id").fingerprint("c")
    assert _entity(["firm", "id"]).key == ("firm", "id")


@pytest.mark.parametrize("key", [[], ["id", "id"], [""]])
def test_a_key_names_different_fields(key: list[str]) -> None:
    """A list without a name, or with one twice, is refused."""
    with pytest.raises(ValueError, match="id"):
        _entity(key)
