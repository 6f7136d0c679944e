"""Records that become no document: the reason names the field, never its value, and nobody else is affected."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from vecsync_dagster.documents import DocumentBatch
from vecsync_dagster_tests.documents.records import TOOL, TOOLS, build, document, json_batch, rejection


@pytest.mark.parametrize(
    ("changes", "field", "error"),
    [
        ({"name": None}, "name", "name is required and is empty"),
        ({"name": ""}, "name", "name is required and is empty"),
        ({"name": " \t\n\u00a0"}, "name", "name is required and is empty"),
        ({"name": "\0"}, "name", "name is required and is empty"),
        ({"name": []}, "name", "name is required and is empty"),
        ({"name": ["", None]}, "name", "name is required and is empty"),
        ({"price": "on request"}, "price", "price is not a number"),
        ({"price": True}, "price", "price is not a number"),
        ({"price": [5]}, "price", "price is not a number"),
        ({"price": float("nan")}, "price", "price is not a finite number"),
        ({"website": float("inf")}, "website", "website is not a finite number"),
        ({"description": [float("nan")]}, "description", "description is not a finite number"),
        ({"id": None}, "id", "the id is missing"),
        ({"id": ""}, "id", "the id is missing"),
        ({"id": "  "}, "id", "the id is missing"),
        ({"id": True}, "id", "the id is neither text nor a number"),
        ({"id": ["a"]}, "id", "the id is neither text nor a number"),
        ({"id": {"a": 1}}, "id", "the id is neither text nor a number"),
        ({"id": float("nan")}, "id", "the id is not a finite number"),
        ({"id": "x" * 401}, "id", "the id is longer than 400 characters"),
        ({"id": "a\0b"}, "id", "the id has control characters"),
        ({"id": "a\nb"}, "id", "the id has control characters"),
        ({"id": "a\ud800b"}, "id", "the id has control characters"),
    ],
)
def test_reasons(changes: dict[str, Any], field: str, error: str) -> None:
    """The first thing that is wrong, by its field; an id is None where it is the id that is wrong."""
    rejected = rejection(**changes)
    assert (rejected.field, rejected.error, rejected.code) == (field, error, "VALIDATION_ERROR")
    expected = (None, None) if field == "id" else ("alpha-7", "global-tool-alpha-7")
    assert (rejected.db_id, rejected.document_id) == expected


def test_the_record_is_kept() -> None:
    """The rejected record itself goes along, as the source gave it, JSON as what it means."""
    rejected = rejection(name=" ", functionality=["b", "a"])
    assert rejected.record == {**TOOL, "name": " ", "functionality": ["b", "a"]}
    assert "alpha.example" not in repr(rejected)


def test_one_record_for_all_collections() -> None:
    """A record that is rejected in several collections is one object, by which it is kept once."""
    batches = build([{**TOOL, "name": None}])
    first, second = (batch.rejections[0].record for batch in batches.values())
    assert first is second


def test_no_value_in_the_reason() -> None:
    """A value that is refused is not repeated: reasons go to logs."""
    for name in TOOL:
        for value in ("hunter2 ", ["hunter2"], {"hunter2": float("nan")}, "hunter2\0", "hunter2" * 100):
            for batch in build([{**TOOL, name: value}]).values():
                assert all("hunter2" not in rejected.error for rejected in batch.rejections)


def test_an_empty_text_is_rejected_where_it_is_empty() -> None:
    """A tool without functions and categories still goes into the other collections."""
    batches = build([{**TOOL, "functionality": [" "], "categories": None}])
    assert [d.db_id for d in batches["tools"].documents] == ["alpha-7"]
    rejected = batches["functionality"].rejections[0]
    assert (rejected.field, rejected.error) == (
        "functionality",
        "the text is empty: none of functionality, categories has a value",
    )


def test_valid_records_around_it() -> None:
    """Bad records do not touch those around them, which keep their order."""
    rows = [{**TOOL, "id": n, "price": "x" if n % 3 == 0 else n} for n in range(9)]
    batch = build(rows)["tools"]
    assert [d.db_id for d in batch.documents] == ["1", "2", "4", "5", "7", "8"]
    assert [d.payload["price"] for d in batch.documents] == [1, 2, 4, 5, 7, 8]
    assert [r.db_id for r in batch.rejections] == ["0", "3", "6"]


def test_zero_and_no_are_values() -> None:
    """0 and false are not empty: a required field may have them."""
    entity = {**TOOLS, "required": ["name", "price", "website"]}
    batch = build([{**TOOL, "price": 0, "website": False}], entity=entity)["tools"]
    assert (batch.documents[0].payload["price"], batch.documents[0].payload["website"]) == (0, False)


class TestIds:
    @pytest.mark.parametrize(
        ("given", "db_id"),
        [(7, "7"), (7.0, "7"), (-1, "-1"), ("007", "007"), ("x" * 400, "x" * 400), ("a b", "a b"), (" a ", " a ")],
    )
    def test_ids_are_text(self, given: Any, db_id: str) -> None:
        """Whatever their type, ids become text; a whole number has one text."""
        assert document(id=given).db_id == db_id

    def test_ids_are_exact(self) -> None:
        """An id is not normalised: the source is asked for records by its very text."""
        composed, decomposed = "caf\u00e9", "cafe\u0301"
        assert document(id=decomposed).db_id == decomposed
        assert document(id=decomposed).point_id != document(id=composed).point_id

    def test_uuids(self) -> None:
        """A UUID column gives the UUID's usual text."""
        text = "263e32b1-64d7-5b21-86e5-f6843ac5e632"
        assert document(id=text).document_id == f"global-tool-{text}"


class TestJsonColumns:
    def raw(self, text: str) -> DocumentBatch:
        records = json_batch([TOOL, {**TOOL, "id": "other"}])
        place = records.schema.get_field_index("website")
        field = records.schema.field(place)
        return build(records.set_column(place, field, pa.array([text, '"fine"'], pa.string())))["tools"]

    @pytest.mark.parametrize("text", ["", "{", "nope", "[1,]", "[" * 5000])
    def test_what_is_no_json(self, text: str) -> None:
        """A value that is not JSON, though its column says so, is that record's problem alone."""
        batch = self.raw(text)
        assert [(r.field, r.error) for r in batch.rejections] == [("website", "website is not valid JSON")]
        assert batch.rejections[0].record["website"] == text
        assert [d.db_id for d in batch.documents] == ["other"]

    def test_deep_nesting(self) -> None:
        """What is nested deeper than stores and JSON libraries can hold is refused, not a crash."""
        assert self.raw("[" * 64 + "]" * 64).rejections == []
        for depth in (65, 200, 900):
            refused = self.raw("[" * depth + "]" * depth).rejections[0]
            assert refused.error == "website has more than 64 levels of lists and objects"

    def test_lone_surrogates(self) -> None:
        """Half an emoji, as JavaScript leaves it when it cuts text, becomes the replacement character."""
        assert self.raw('"cut \\ud83d"').documents[0].payload["website"] == "cut \ufffd"

    def test_numbers_keep_their_value(self) -> None:
        """Whole floats are integers; the largest integers stay exact."""
        values = [1.0, 2.5, 2**63 - 1, -(2**63), 9007199254740993]
        assert document(website=values).payload["website"] == [1, 2.5, 2**63 - 1, -(2**63), 9007199254740993]
