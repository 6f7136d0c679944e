"""Text of a document: what is left out, and that the same values always give the same text."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.hashing import content_hasher
from vecsync_dagster.documents.render import Template, as_text, is_empty
from vecsync_dagster.documents.validation import clean_any
from vecsync_dagster_tests.properties import a_property

LETTERS = st.text(st.sampled_from("aAbBčČσςΣ\u0130ßẞ ,.:'"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | LETTERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=2),
    max_leaves=6,
).map(clean_any)
PARTS = ["{a} {b}", "B: {b}."]


def shuffled(value: Any, order: random.Random) -> Any:
    """The value with every array and object in it in another order."""
    if isinstance(value, list):
        return order.sample([shuffled(item, order) for item in value], len(value))
    if isinstance(value, dict):
        return {key: shuffled(value[key], order) for key in order.sample(list(value), len(value))}
    return value


def recased(value: Any, order: random.Random) -> Any:
    """The value with its texts in another letter case."""
    if isinstance(value, str):
        return order.choice([value, value.lower(), value.upper()])
    if isinstance(value, list):
        return [recased(item, order) for item in value]
    return value


@pytest.mark.parametrize(
    ("parts", "values", "text"),
    [
        (["{a} {b}"], {"a": "x", "b": "y"}, "x y"),
        (["{a} {b} {c}"], {"a": "x", "b": None, "c": "z"}, "x z"),
        (["{a}", "Features: {b}."], {"a": "x", "b": []}, "x"),
        (["{a}", "Features: {b}."], {"a": None, "b": ["q", "p"]}, "Features: p, q."),
        (["{a} costs {b}"], {"a": None, "b": 0}, "costs 0"),
        (["Tools.", "{a}"], {"a": "x"}, "Tools. x"),
        (["{{a}} {a}"], {"a": "{b}"}, "{a} {b}"),
        (["{a}\n\n{b}"], {"a": " x  y ", "b": "z"}, "x y z"),
        (["{a} {a}"], {"a": "x"}, "x x"),
    ],
)
def test_templates(parts: list[str], values: dict[str, Any], text: str) -> None:
    """A part all of whose fields are empty is left out, one of some is not; white space becomes one space."""
    assert Template(parts).render(values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (None, ""),
        (5, "5"),
        (0.5, "0.5"),
        (True, "yes"),
        (False, "no"),
        (["b", "A", "c"], "A, b, c"),
        (["", None, "a"], "a"),
        ([["b", "a"], "c"], "a, b, c"),
        ({"b": 1, "a": [2, 1]}, "a: 1, 2, b: 1"),
        ({"a": None, "b": "", "c": [""]}, ""),
    ],
)
def test_values(value: Any, text: str) -> None:
    """Arrays are sorted, objects by key; what is empty in them is left out."""
    assert as_text(value) == text


@a_property
@given(VALUES)
def test_empty_means_no_text(value: Any) -> None:
    """A value is empty just if it says nothing in a text."""
    assert is_empty(value) == (as_text(value) == "")


@a_property
@given(VALUES, VALUES, st.randoms())
def test_order_changes_nothing(a: Any, b: Any, order: random.Random) -> None:
    """Arrays in any order give the same text and the same content hash."""
    template, hasher = Template(PARTS), content_hasher(PARTS)
    again = [shuffled(a, order), shuffled(b, order)]
    assert template.render({"a": again[0], "b": again[1]}) == template.render({"a": a, "b": b})
    assert hasher(again) == hasher([a, b])


@a_property
@given(VALUES, VALUES, st.randoms())
def test_equal_hashes_mean_equal_texts(a: Any, b: Any, order: random.Random) -> None:
    """Two records of one content hash have one text but for letter case, so that one vector serves both."""
    template, hasher = Template(PARTS), content_hasher(PARTS)
    other_a, other_b = recased(shuffled(a, order), order), b
    same_hash = hasher([other_a, other_b]) == hasher([a, b])
    one, other = template.render({"a": a, "b": b}), template.render({"a": other_a, "b": other_b})
    assert not same_hash or one.casefold() == other.casefold()


@a_property
@given(VALUES, VALUES)
def test_other_texts_have_other_hashes(a: Any, b: Any) -> None:
    """Two values whose texts differ in more than letter case never share a content hash."""
    template, hasher = Template(["{a}"]), content_hasher(["{a}"])
    if template.render({"a": a}).casefold() != template.render({"a": b}).casefold():
        assert hasher([a]) != hasher([b])


def test_a_field_inside_another_one_has_a_dot() -> None:
    """`{vendor.name}` is a field of that very name; braces beside it stay braces."""
    template = Template(["{{{vendor.name}}} {size}", "{vendor.city}"])
    assert template.fields == ("vendor.name", "size", "vendor.city")
    assert template.render({"vendor.name": "Acme", "size": 5, "vendor.city": None}) == "{Acme} 5"
