"""Records to documents: ids, payloads, and which change touches which collection."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents import document_id, is_document_id
from vecsync_dagster.documents.hashing import payload_hash
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.stores.base import GLOBAL, RESERVED_KEYS
from vecsync_dagster_tests.documents.records import TOOL, TOOLS, build, document, json_batch
from vecsync_dagster_tests.properties import a_property

COLLECTIONS = ("tools", "functionality")


def hashes(**changes: Any) -> dict[str, tuple[str, str]]:
    """Content and payload hash of the changed example tool in each collection."""
    made = {name: document(collection=name, **changes) for name in COLLECTIONS}
    return {name: (d.content_hash, d.payload_hash) for name, d in made.items()}


BEFORE = hashes()


class TestChanges:
    def test_a_name_touches_one_collection(self) -> None:
        """A name change touches `tools` alone, and there the text alone."""
        after = hashes(name="Beta")
        assert after["functionality"] == BEFORE["functionality"]
        assert after["tools"][0] != BEFORE["tools"][0]
        assert after["tools"][1] == BEFORE["tools"][1]

    def test_a_price_touches_no_vector(self) -> None:
        """A price change touches the payloads of all collections and the text of none."""
        after = hashes(price=6)
        assert [after[name][0] for name in COLLECTIONS] == [BEFORE[name][0] for name in COLLECTIONS]
        assert all(after[name][1] != BEFORE[name][1] for name in COLLECTIONS)

    def test_nothing_touches_nothing(self) -> None:
        """An unchanged tool touches nothing."""
        assert hashes() == BEFORE

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "  ALPHA \n"},
            {"description": "writes TESTS"},
            {"functionality": ["chat", "search"]},
            {"functionality": ["Chat ", " SEARCH"]},
            {"price": 5.0},
            {"price": "5,00"},
        ],
    )
    def test_what_is_no_change(self, changes: dict[str, Any]) -> None:
        """Letter case, white space at the ends, the order of arrays and the way a number is written change nothing."""
        assert hashes(**changes) == BEFORE

    def test_a_template_is_a_part_of_the_text(self) -> None:
        """Another template is another text, although no field of the record changed."""
        collections = {"tools": {"text": "{description} {name}", "payload": ["price", "website"]}}
        after = build([TOOL], entity={**TOOLS, "collections": collections})["tools"].documents[0]
        assert after.content_hash != BEFORE["tools"][0]
        assert after.payload_hash == BEFORE["tools"][1]

    @pytest.mark.parametrize(("before", "after"), [("a b", "ab"), ("1", 1), (None, "x"), (["a", "b"], ["ab"])])
    def test_what_is_a_change(self, before: Any, after: Any) -> None:
        """White space inside, a value's type, its presence and an array's bounds are changes."""
        assert document(description=before).content_hash != document(description=after).content_hash

    def test_fields_do_not_run_into_each_other(self) -> None:
        """A word that moves from one field to the next changes the hash, though the text is the same."""
        before, after = document(name="a b", description="c"), document(name="a", description="b c")
        assert before.text == after.text
        assert before.content_hash != after.content_hash


class TestDocuments:
    def test_a_global_document(self) -> None:
        """Everything that is asked of a payload, as the store will have it."""
        made = document()
        assert made.payload == {
            "id": "global-tool-alpha-7",
            "entity": "tools",
            "type": "tool",
            "dbId": "alpha-7",
            "tenantId": None,
            "scope": "global",
            "isGlobal": True,
            "price": 5,
            "website": "https://alpha.example",
            "contentHash": made.content_hash,
            "payloadHash": made.payload_hash,
        }
        assert made.payload.keys() >= RESERVED_KEYS
        assert (made.document_id, made.db_id, made.entity) == ("global-tool-alpha-7", "alpha-7", "tools")
        assert made.text == "Alpha Writes tests"

    def test_a_tenants_document(self) -> None:
        """A tenant's document carries the tenant, in its payload but not in its id."""
        made = document(tenant="t1")
        assert made.document_id == "tenant-tool-alpha-7"
        assert (made.payload["tenantId"], made.payload["scope"], made.payload["isGlobal"]) == ("t1", "tenant", False)

    @pytest.mark.parametrize(
        ("identity", "tenant", "db_id", "is_its"),
        [
            ("tenant-work-5", "acme", "5", True),
            ("tenant-of-any-type-5", "acme", "5", True),
            ("tenant-work-a-5", "acme", "a-5", True),
            ("global-work-5", GLOBAL, "5", True),
            ("global-work-5", "acme", "5", False),
            ("tenant-work-5", GLOBAL, "5", False),
            ("tenant-work-5", "acme", "6", False),
            ("tenant-work-15", "acme", "5", False),
            ("tenant-5", "acme", "5", False),
            ("tenant--5", "acme", "5", False),
        ],
    )
    def test_an_id_of_another_type(self, identity: str, tenant: str, db_id: str, is_its: bool) -> None:
        """An id tells the scope and the key, whatever the entity's type was."""
        assert is_document_id(identity, tenant, db_id) is is_its

    def test_moving_to_another_tenant(self) -> None:
        """A record that moves keeps its point; its payload changes, its text does not."""
        here, there = document(tenant="t1"), document(tenant="t2")
        assert here.point_id == there.point_id
        assert here.content_hash == there.content_hash
        assert here.payload_hash != there.payload_hash

    def test_scopes_never_collide(self) -> None:
        """The same row as a global one and as a tenant's has two ids."""
        assert document_id("global", "work", "5") == "global-work-5"
        assert document_id("t1", "work", "5") == document_id("t2", "work", "5") == "tenant-work-5"

    def test_the_type_is_the_entitys_name_where_none_is_given(self) -> None:
        """Without `type` the entity's own name stands in the ids."""
        entity = {key: value for key, value in TOOLS.items() if key != "type"}
        assert build([TOOL], entity=entity)["tools"].documents[0].document_id == "global-tools-alpha-7"

    def test_hashes_are_of_the_payload_without_them(self) -> None:
        """The payload as the store returns it has the hash that stands in it."""
        made = document()
        assert payload_hash(made.payload) == made.payload["payloadHash"]

    def test_repr_shows_no_text(self) -> None:
        """A document that is printed by mistake shows its payload's fields, not the text's."""
        assert "Writes tests" not in repr(document())

    def test_payloads_are_not_shared(self) -> None:
        """Two documents of a batch, and of two collections, have payloads of their own."""
        batches = build([TOOL, {**TOOL, "id": "beta"}])
        payloads = [d.payload for batch in batches.values() for d in batch.documents]
        payloads[0]["mark"] = 1
        assert [("mark" in payload) for payload in payloads] == [True, False, False, False]

    def test_only_the_collections_asked_for(self) -> None:
        """Empty batches make empty results for just the collections that were asked for."""
        empty = json_batch([TOOL]).slice(0, 0)
        assert {name: (b.documents, b.rejections) for name, b in build(empty).items()} == {
            "tools": ([], []),
            "functionality": ([], []),
        }

    def test_tombstones_alone(self) -> None:
        """A page of tombstones alone has no columns, and that is no mistake in the configuration."""
        empty = pa.RecordBatch.from_arrays([], schema=pa.schema([]))
        assert build(empty)["tools"].documents == []

    def test_a_field_that_records_lack(self) -> None:
        """A template that names an unknown field is an error that lists the fields there are."""
        records = pa.RecordBatch.from_pylist([{"id": 1, "name": "a", "title": "b"}])
        collections = {"tools": {"text": "{name} {nmae} {titel}"}}
        entity = {**TOOLS, "types": {}, "collections": collections}
        with pytest.raises(ConfigError) as refused:
            build(records, entity=entity)
        assert str(refused.value) == (
            "entities.tools: the records have no field nmae, titel; they have: id, name, title"
        )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(TOOL, VALUES)), min_size=1, max_size=4)


@a_property
@given(ROWS)
def test_every_record_is_accounted_for(rows: list[dict[str, Any]]) -> None:
    """Whatever the records hold, each becomes a document or a rejection in each collection."""
    for batch in build(rows).values():
        assert len(batch.documents) + len(batch.rejections) == len(rows)
        assert all(d.text and payload_hash(d.payload) == d.payload_hash for d in batch.documents)
        assert all(r.error and r.field in TOOL for r in batch.rejections)
