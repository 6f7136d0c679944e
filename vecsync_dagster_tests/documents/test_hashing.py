"""Hashes and ids: known answers, and the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents.hashing import attempt_hash, content_hasher, is_payload_hash, payload_hash, point_id
from vecsync_dagster.documents.validation import BadValue, clean_any
from vecsync_dagster_tests.documents.records import document
from vecsync_dagster_tests.properties import a_property

# A change in one of these writes every document of every installation anew.
CONTENT = {"tools": "36273b2416fcd343", "functionality": "6911c733d6da8777"}
PAYLOAD = {"tools": "3a894eebdcbd7413", "functionality": "1785c975950090a9"}
POINT = "25c579e9-e33a-5e4f-8af1-e888230c05bf"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PAYLOADS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)


@pytest.mark.parametrize("collection", ["tools", "functionality"])
def test_known_answers(collection: str) -> None:
    """The hashes of the example tool, and its point's id, are what they were in every version."""
    made = document(collection=collection)
    assert (made.content_hash, made.payload_hash, made.point_id) == (CONTENT[collection], PAYLOAD[collection], POINT)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None], "60274c4de397a053"),
        (["Démontáž vytáčky"], "8e31c0f2828f5feb"),
        ([5, 0.5, True], "fb71ebd0a0e65538"),
        ([["b", "a", ["d", "c"]]], "a26b3e0e6d14e964"),
        ([{"tier": "Pro", "price": 5}], "08b07ee81245d664"),
    ],
)
def test_known_answers_of_values(values: list[Any], expected: str) -> None:
    """Values of every kind hash to what they did in every version."""
    assert content_hasher(["{a}"])(values) == expected


def test_fault_10_ids_and_hashes_are_the_same_in_every_process() -> None:
    """Another process, with another seed of Python's own hashes, makes the same point ids and hashes."""
    code = (
        "from vecsync_dagster_tests.documents.records import document\n"
        "d = document()\n"
        "print(hash('x'), d.point_id, d.content_hash, d.payload_hash)"
    )
    seen = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        own_hash, *rest = done.stdout.split()
        assert rest == [POINT, CONTENT["tools"], PAYLOAD["tools"]]
        seen.add(own_hash)
    assert len(seen) == 2


def test_point_ids_are_of_entity_and_document() -> None:
    """Every entity has points of its own, even where document ids are the same."""
    assert point_id("materials", "global-5") != point_id("works", "global-5")
    assert point_id("materials", "global-5") == point_id("materials", "global-5")
    assert point_id("materials", "global-5")[14] == "5"  # UUIDv5


def test_an_attempt_is_text_and_payload() -> None:
    """Another text, or another payload, is another attempt."""
    assert attempt_hash("a" * 16, "b" * 16) != attempt_hash("a" * 16, "c" * 16) != attempt_hash("b" * 16, "c" * 16)


class TestPayloadHash:
    def test_array_order(self) -> None:
        """Coordinates that are swapped are another payload, at any depth."""
        assert payload_hash({"a": [50.1, 14.4]}) != payload_hash({"a": [14.4, 50.1]})
        assert payload_hash({"a": {"b": [1, 2]}}) != payload_hash({"a": {"b": [2, 1]}})

    def test_hashes_of_earlier_versions(self) -> None:
        """The hash that an earlier version took of sorted lists is one of the payload with them in any order."""
        earlier = "6341c33b8e888c17"
        assert payload_hash({"a": ["x", "y"], "b": 1}) == earlier
        for values in (["x", "y"], ["y", "x"]):
            assert is_payload_hash({"a": values, "b": 1, "contentHash": "c"}, earlier)
        assert not is_payload_hash({"a": ["x", "z"], "b": 1}, earlier)
        assert not is_payload_hash({"b": 1}, earlier)

    def test_letter_case(self) -> None:
        """Unlike a text's, a payload's letter case counts: the store shows it."""
        assert payload_hash({"a": "x"}) != payload_hash({"a": "X"})

    def test_its_own_place(self) -> None:
        """The two hashes in a payload are not a part of what is hashed."""
        assert payload_hash({"a": 1, "contentHash": "c", "payloadHash": "p"}) == payload_hash({"a": 1})
        assert payload_hash({"a": 1, "contentHash": "c"}) == payload_hash({"a": 1})

    def test_the_payload_is_left_as_it_is(self) -> None:
        """Hashing takes nothing out of the payload and sorts nothing in it."""
        payload = {"b": ["y", "x"], "a": 1, "contentHash": "c"}
        before = json.dumps(payload)
        payload_hash(payload)
        assert json.dumps(payload) == before

    @a_property
    @given(PAYLOADS, st.randoms())
    def test_through_a_store(self, payload: dict[str, Any], order: Any) -> None:
        """A payload that comes back from a store as JSON, its keys in any order, has the same hash."""
        try:
            payload = clean_any(payload)
        except BadValue:
            return
        expected = payload_hash(payload)
        for encoded in (orjson.dumps(payload), json.dumps(payload)):
            back = json.loads(encoded)
            assert payload_hash({key: back[key] for key in order.sample(list(back), len(back))}) == expected
