"""Which fields of a document changed, told from short hashes alone."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster.documents.fields import field_hashes, modified_fields
from vecsync_dagster_tests.documents.records import document

NOW = document()

# The fields' names, then each one's value: name, description, price, website; functionality, categories, price.
KNOWN = {
    "tools": "84a51bd1de59907ee78b559b84b12baef57201ea",
    "functionality": "a3b689beff410cf53fb165b184b12bae",
}


def changed(**fields: Any) -> tuple[str, ...] | None:
    after = document(**fields)
    return modified_fields(after, field_hashes(NOW), field_hashes(after))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"name": "Beta"}, ("name",)),
        ({"price": 6}, ("price",)),
        ({"price": None, "description": ""}, ("description", "price")),
        ({"website": "https://other.example", "name": "Beta"}, ("name", "website")),
        ({"name": " ALPHA "}, None),
        ({"price": 5.0}, None),
        ({"functionality": ["another collection's"]}, None),
        ({}, None),
    ],
)
def test_the_names_of_what_changed(fields: dict[str, Any], names: tuple[str, ...] | None) -> None:
    """Fields of text and payload by their names, in order; what changes no hash is no change."""
    assert changed(**fields) == names


def test_lists_in_any_order_are_equal() -> None:
    """Reordering a list that is in the text alone changes nothing."""
    before, after = (
        document(collection="functionality", functionality=functionality)
        for functionality in (["search", "chat"], ["CHAT", "search"])
    )
    assert modified_fields(after, field_hashes(before), field_hashes(after)) is None
    other = document(collection="functionality", functionality=["chat"])
    assert modified_fields(other, field_hashes(before), field_hashes(other)) == ("functionality",)


def test_nothing_is_said_about_other_fields() -> None:
    """Where the settings name other fields than before, nobody knows what changed in the record."""
    other = document(collection="functionality")
    assert modified_fields(other, field_hashes(NOW), field_hashes(other)) is None
    assert modified_fields(NOW, None, field_hashes(NOW)) is None
    assert modified_fields(NOW, "", field_hashes(NOW)) is None


def test_the_hashes_are_what_they_were() -> None:
    """The hashes of the example tool are those that ledgers hold from before, so that they still tell what changed."""
    assert {collection: field_hashes(document(collection=collection)) for collection in KNOWN} == KNOWN
