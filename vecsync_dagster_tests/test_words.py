"""Words for people."""

from __future__ import annotations

from vecsync_dagster.words import by_reason, number_of


def test_each_reason_is_told_once() -> None:
    """With all its places, in their order; a place without a reason and a reason without a place stand alone."""
    places = [("acme", "away"), ("brick", "full"), ("cord", "away"), ("dune", ""), ("", "unlisted")]
    assert by_reason(places) == ["acme, cord: away", "brick: full", "dune", "unlisted"]
    assert by_reason([]) == []


def test_a_number_goes_with_its_noun() -> None:
    assert [number_of(n, "row") for n in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    assert number_of(2, "entity", "entities") == "2 entities"
