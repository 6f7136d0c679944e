"""Vector spaces: their text, and the names of the physical collections that hold them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.space import Distance, Space
from vecsync_dagster_tests.properties import a_property

DISTANCES: list[Distance] = ["cosine", "dot", "euclid"]
SPACES = st.builds(
    Space,
    provider=st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1),
    model=st.text(min_size=1),
    dimensions=st.integers(1, 10**5),
    distance=st.sampled_from(DISTANCES),
)
OPENAI = Space("openai", "text-embedding-3-small", 1536)


@a_property
@given(SPACES)
def test_text_and_back(space: Space) -> None:
    """The text of a space gives the space again, whatever the model is called."""
    assert Space.parse(str(space)) == space


@a_property
@given(SPACES, SPACES)
def test_other_spaces_have_other_names(one: Space, other: Space) -> None:
    """Two spaces share a physical collection only if they are equal."""
    assert (one.physical_name("works") == other.physical_name("works")) == (one == other)


@a_property
@given(SPACES)
def test_names_are_safe(space: Space) -> None:
    """A physical collection's name is short and safe as a folder's name, and begins with the collection."""
    name = space.physical_name("works")
    assert re.fullmatch(r"works__[A-Za-z0-9.-]*-[0-9a-f]{8}", name)
    assert len(name) < 80
    assert Space.is_physical_name(name, "works")
    assert not Space.is_physical_name(name, "work")


@pytest.mark.parametrize("name", ["works__backup-20261129", "works__wiki-deadbeef", "works__copy", "works", "works__"])
def test_what_is_merely_called_alike(name: str) -> None:
    """Neither a copy with a date nor anything else is taken for a collection of ours."""
    assert not Space.is_physical_name(name, "works")


def test_known_answers() -> None:
    """These names stand in stores and ledgers: another one would be another, empty collection."""
    assert str(OPENAI) == "openai/text-embedding-3-small/1536/cosine"
    assert OPENAI.physical_name("works") == "works__openai-text-embedding-3-small-1536-2761dabf"
    assert str(Space("sentence_transformers", "org/model", 384, "dot")) == "sentence_transformers/org/model/384/dot"


@pytest.mark.parametrize("text", ["", "openai", "a/b", "a/b/c", "a/b/c/cosine", "a/b/8/manhattan", "a/b/8"])
def test_what_is_no_space(text: str) -> None:
    """A text that is no space is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Space.parse(text)
