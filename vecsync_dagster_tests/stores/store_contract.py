"""The contract of `VectorStore`: one body of tests, run over every implementation.

A test asks for `store` (open, with the collection `materials` in `SPACE`) or for `engine` to open stores itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vecsync_dagster.errors import SpaceMismatch, StoreRejected
from vecsync_dagster.space import Distance, Space
from vecsync_dagster.stores.base import GLOBAL, Point, StoredPoint, VectorStore
from vecsync_dagster_tests.stores.engines import SPACE, Engine, Memory, payload, point, uid

__all__ = ["StoreContract"]

NAME = "materials"


def ids(store: VectorStore, tenant: str | None = None, batch: int = 1000) -> list[str]:
    return [p.point_id for page in store.scan(NAME, tenant, batch) for p in page]


def found(store: VectorStore, tenant: str, limit: int = 10) -> set[str]:
    return {hit.point_id for hit in store.search(NAME, np.ones(4, np.float32), tenant, limit)}


def one(store: VectorStore, point_id: str) -> StoredPoint:
    (got,) = store.retrieve(NAME, [point_id])
    return got


class StoreContract:
    # -- collections

    def test_ensured_collection_is_pinned_to_its_space(self, engine: Engine) -> None:
        """An alias leads to the physical collection of its space, and to none before it is ensured."""
        store = engine.open()
        assert store.pinned_space(NAME) is None
        store.ensure_collection(NAME, SPACE)
        assert store.pinned_space(NAME) == SPACE.physical_name(NAME)
        assert store.pinned_space("works") is None
        store.close()

    def test_ensuring_again_changes_nothing(self, store: VectorStore) -> None:
        """A second ensure_collection leaves alias and points as they are."""
        store.upsert(NAME, [point(1, "A")])
        store.ensure_collection(NAME, SPACE)
        assert (store.count(NAME), store.pinned_space(NAME)) == (1, SPACE.physical_name(NAME))

    @pytest.mark.parametrize(
        "other", [Space("hash", "words", 8), Space("hash", "other", 4), Space("hash", "words", 4, "dot")]
    )
    def test_another_space_is_refused(self, store: VectorStore, other: Space) -> None:
        """A collection holds one space: another model, size or distance ends in SpaceMismatch and changes nothing."""
        store.upsert(NAME, [point(1, "A")])
        with pytest.raises(SpaceMismatch) as caught:
            store.ensure_collection(NAME, other)
        assert SPACE.physical_name(NAME) in str(caught.value)
        assert other.physical_name(NAME) in str(caught.value)
        assert (store.count(NAME), store.pinned_space(NAME)) == (1, SPACE.physical_name(NAME))

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            (Space("hash", "words", 8), "of 8 dimensions with distance cosine, but .* makes 4 dimensions"),
            (Space("hash", "words", 4, "dot"), "of 4 dimensions with distance dot, but .* makes 4 .* cosine"),
        ],
        ids=["size", "distance"],
    )
    def test_a_collection_made_anew_for_other_vectors_is_refused(self, engine: Engine, other: Space, says: str) -> None:
        """Its name says one thing and it is another: that is the collection's fault, not a document's."""
        store = engine.open()
        store.ensure_collection(NAME, SPACE)
        store.close()
        engine.make_anew(SPACE.physical_name(NAME), NAME, other)
        with pytest.raises(SpaceMismatch, match=f"collection {NAME} takes vectors {says}"):
            store.ensure_collection(NAME, SPACE)
        store.close()

    def test_unknown_collection_is_empty_to_readers(self, store: VectorStore) -> None:
        """count is 0, scan and retrieve are empty where there is no such collection."""
        assert store.count("works") == 0
        assert store.count("works", "A") == 0
        assert list(store.scan("works")) == []
        assert store.retrieve("works", [uid(1)]) == []

    def test_unknown_collection_refuses_writes_and_searches(self, store: VectorStore) -> None:
        """A write to, or a search in, a collection that does not exist is StoreRejected and creates nothing."""
        calls: list[Callable[[], object]] = [
            lambda: store.upsert("works", [point(1, "A")]),
            lambda: store.set_payload("works", [point(1, "A")]),
            lambda: store.delete("works", "A", [uid(1)]),
            lambda: store.delete_foreign("works", [uid(1)]),
            lambda: store.search("works", np.ones(4, np.float32), "A"),
        ]
        for call in calls:
            with pytest.raises(StoreRejected, match="works"):
                call()
        assert store.pinned_space("works") is None

    def test_prefixes_keep_environments_apart(self, engine: Engine) -> None:
        """Two prefixes over one engine share no collection and no point."""
        dev = engine.open("dev-")
        dev.ensure_collection(NAME, SPACE)
        dev.upsert(NAME, [point(1, "A")])
        assert dev.pinned_space(NAME) == SPACE.physical_name(NAME)
        dev.close()
        live = engine.open("live-")
        assert live.pinned_space(NAME) is None
        assert live.count(NAME) == 0
        live.ensure_collection(NAME, Space("hash", "other", 8))
        assert live.count(NAME) == 0
        live.close()
        dev = engine.open("dev-")
        assert dev.count(NAME) == 1
        dev.close()

    # -- writing and reading back

    def test_written_points_are_read_back_whole(self, store: VectorStore) -> None:
        """Ids stay lower-case UUIDs, payloads stay the JSON they were."""
        fields: dict[str, Any] = {
            "price": 12.5,
            "stock": 2**53,
            "tags": ["a", None, {"x": [True]}],
            "none": None,
            "empty": "",
        }
        store.upsert(NAME, [point(1, "A", **fields)])
        got = one(store, uid(1))
        assert (got.point_id, got.tenant) == (uid(1), "A")
        assert got.payload == payload(1, "A", **fields)
        assert str(uuid.UUID(got.point_id)) == got.point_id

    @pytest.mark.parametrize(
        "text",
        ["🧱 кирпич 🏗️👷🏽‍♀️", "לבנה \u202eאדומה\u202c طوب", "řeřicha\u0000\n\t\"'\\", "я" * 500_000],
        ids=["emoji", "right-to-left", "control", "megabyte"],
    )
    def test_any_text_survives(self, store: VectorStore, text: str) -> None:
        """Emoji, right-to-left text, control characters and a megabyte come back as they went in."""
        store.upsert(NAME, [point(1, "A", name=text)])
        store.set_payload(NAME, [point(1, "A", name=text, more=1)])
        got = one(store, uid(1))
        assert got.payload["name"] == text
        assert got.payload["more"] == 1

    def test_write_is_visible_when_it_returns(self, store: VectorStore) -> None:
        """Every write waits until it can be read and searched."""
        for number in range(20):
            store.upsert(NAME, [point(number, "A")])
            assert store.count(NAME, "A") == 1
            assert found(store, "A") == {uid(number)}
            store.set_payload(NAME, [point(number, "B")])
            assert (store.count(NAME, "A"), store.count(NAME, "B")) == (0, 1)
            store.delete(NAME, "B", [uid(number)])
            assert store.count(NAME) == 0

    def test_writing_again_changes_nothing(self, store: VectorStore) -> None:
        """The same upsert twice leaves the same points."""
        points = [point(n, "A") for n in range(5)]
        store.upsert(NAME, points)
        before = list(store.scan(NAME))
        store.upsert(NAME, points)
        assert list(store.scan(NAME)) == before

    def test_upsert_replaces_vector_and_payload(self, store: VectorStore) -> None:
        """An upsert leaves nothing of the payload and vector that were there."""
        store.upsert(NAME, [point(1, "A", (1, 0, 0, 0), old=1), point(2, "A", (0.5, 0.5, 0, 0))])
        store.upsert(NAME, [point(1, "A", (0, 1, 0, 0), new=1)])
        assert one(store, uid(1)).payload == payload(1, "A", new=1)
        first, second = store.search(NAME, np.array([1, 0, 0, 0], np.float32), "A")
        assert (first.point_id, second.point_id) == (uid(2), uid(1))

    def test_set_payload_replaces_the_payload_and_keeps_the_vector(self, store: VectorStore) -> None:
        """A payload-only write drops old keys, leaves the vector alone and names the points that are missing."""
        store.upsert(NAME, [point(1, "A", (0, 1, 0, 0), old=1), point(2, "A", (1, 0, 0, 0), old=1)])
        changed = [Point(uid(n), payload(n, "A", new=n)) for n in (1, 8, 2, 9)]
        assert store.set_payload(NAME, changed) == [uid(8), uid(9)]
        assert one(store, uid(1)).payload == payload(1, "A", new=1)
        assert one(store, uid(2)).payload == payload(2, "A", new=2)
        assert store.count(NAME) == 2
        nearest = store.search(NAME, np.array([0, 1, 0, 0], np.float32), "A", limit=1)
        assert [hit.point_id for hit in nearest] == [uid(1)]

    def test_set_payload_of_missing_points_only(self, store: VectorStore) -> None:
        """Where none of the points exists, all are named and nothing is created."""
        assert store.set_payload(NAME, [Point(uid(n), payload(n, "A")) for n in (1, 2)]) == [uid(1), uid(2)]
        assert store.count(NAME) == 0

    def test_nothing_to_write(self, store: VectorStore) -> None:
        """Empty batches are no calls at all, even to a collection that does not exist."""
        store.upsert("works", [])
        assert store.set_payload("works", []) == []
        store.delete("works", "A", [])
        store.delete_foreign("works", [])
        assert store.retrieve(NAME, []) == []

    def test_a_large_batch_is_written_whole(self, store: VectorStore) -> None:
        """2,000 points in one call all arrive."""
        rng = np.random.default_rng(1)
        store.upsert(NAME, [point(n, "A", rng.standard_normal(4, dtype=np.float32)) for n in range(2000)])
        assert store.count(NAME, "A") == 2000
        store.delete(NAME, "A", [uid(n) for n in range(2000)])
        assert store.count(NAME) == 0

    @pytest.mark.parametrize(
        ("vector", "says"),
        [
            ([1, float("nan"), 0, 0], "finite"),
            ([1, float("inf"), 0, 0], "finite"),
            ([1, 0, 0], r"\(3,\)"),
            ([1, 0, 0, 0, 0], r"\(5,\)"),
            ([[1, 0, 0, 0]], r"\(1, 4\)"),
            ([], r"\(0,\)"),
        ],
    )
    def test_unusable_vector_is_refused_before_anything_is_written(
        self, store: VectorStore, vector: list[float], says: str
    ) -> None:
        """A vector of the wrong size or with NaN is StoreRejected, names its point, and its neighbours wait."""
        good, bad = point(1, "A"), point(2, "A", vector)
        with pytest.raises(StoreRejected, match=says) as caught:
            store.upsert(NAME, [good, bad, point(3, "A")])
        assert uid(2) in str(caught.value)
        assert caught.value.code == "QDRANT_REJECTED"
        assert store.count(NAME) == 0
        with pytest.raises(StoreRejected, match=says):
            store.search(NAME, np.asarray(vector, np.float32), "A")

    def test_point_without_vector_is_refused(self, store: VectorStore) -> None:
        """An upsert needs a vector for every point."""
        with pytest.raises(StoreRejected, match=uid(2)):
            store.upsert(NAME, [point(1, "A"), Point(uid(2), payload(2, "A"))])
        assert store.count(NAME) == 0

    def test_wrong_size_is_refused_by_a_store_that_never_ensured(self, engine: Engine, store: VectorStore) -> None:
        """A store opened on an existing collection knows its size without ensure_collection."""
        store.close()
        again = engine.open()
        with pytest.raises(StoreRejected, match=r"\(3,\)"):
            again.upsert(NAME, [point(1, "A", [1, 0, 0])])
        again.upsert(NAME, [point(1, "A")])
        assert again.count(NAME) == 1
        again.close()

    # -- tenants

    def test_partitions_do_not_overlap(self, store: VectorStore) -> None:
        """count and scan of a tenant are its own points that are not global; GLOBAL is the global ones."""
        store.upsert(NAME, [point("a1", "A"), point("a2", "A"), point("b1", "B"), point("g1", GLOBAL)])
        # A global row that still names a tenant belongs to GLOBAL alone.
        store.upsert(NAME, [Point(uid("g2"), {**payload("g2", GLOBAL), "tenantId": "A"}, np.ones(4, np.float32))])
        expected = {"A": {"a1", "a2"}, "B": {"b1"}, GLOBAL: {"g1", "g2"}, "C": set()}
        for tenant, names in expected.items():
            assert store.count(NAME, tenant) == len(names)
            assert set(ids(store, tenant)) == {uid(name) for name in names}
            assert {p.tenant for page in store.scan(NAME, tenant) for p in page} <= {tenant}
        assert store.count(NAME) == 5
        assert len(ids(store)) == 5

    def test_points_of_one_entity_are_counted(self, store: VectorStore) -> None:
        """Those whose payload names it, in one partition or in all; what names none is nobody's."""
        others = [Point(uid("x"), payload("x", "A", entity="tools"), np.ones(4, np.float32))]
        others.append(Point(uid("y"), {"tenantId": "A"}, np.ones(4, np.float32)))
        store.upsert(NAME, [point("a1", "A"), point("b1", "B"), point("g1", GLOBAL), *others])
        counts = {(tenant, "materials"): 1 for tenant in ("A", "B", GLOBAL)} | {("A", "tools"): 1, ("B", "tools"): 0}
        assert {place: store.count(NAME, *place) for place in counts} == counts
        assert (store.count(NAME, entity="materials"), store.count(NAME, "A")) == (3, 3)
        assert store.count("works", entity="materials") == 0

    def test_search_sees_own_and_global_points_only(self, store: VectorStore) -> None:
        """No tenant ever finds another's documents; global documents are everybody's."""
        store.upsert(NAME, [point("a", "A"), point("b", "B"), point("g", GLOBAL)])
        assert found(store, "A") == {uid("a"), uid("g")}
        assert found(store, "B") == {uid("b"), uid("g")}
        assert found(store, "nobody") == {uid("g")}
        assert found(store, GLOBAL) == {uid("g")}

    def test_global_is_the_scope_not_a_tenant(self, store: VectorStore) -> None:
        """A point of tenant scope that calls its tenant "global" is no global document for anybody."""
        false = {**payload("f", GLOBAL), "tenantId": GLOBAL, "scope": "tenant"}
        store.upsert(NAME, [Point(uid("f"), false, np.ones(4, np.float32)), point("g", GLOBAL)])
        assert (ids(store, GLOBAL), found(store, GLOBAL), found(store, "A")) == ([uid("g")], {uid("g")}, {uid("g")})

    def test_delete_stays_in_its_partition(self, store: VectorStore) -> None:
        """A delete with the ids of everybody removes the tenant's own points alone."""
        store.upsert(NAME, [point("a", "A"), point("b", "B"), point("g", GLOBAL)])
        everybody = [uid("a"), uid("b"), uid("g"), uid("never written")]
        store.delete(NAME, "C", everybody)
        assert store.count(NAME) == 3
        store.delete(NAME, "A", everybody)
        assert set(ids(store)) == {uid("b"), uid("g")}
        store.delete(NAME, GLOBAL, everybody)
        assert ids(store) == [uid("b")]
        store.delete(NAME, "A", everybody)
        assert ids(store) == [uid("b")]

    def test_delete_removes_the_named_points_alone(self, store: VectorStore) -> None:
        """Other points of the same tenant stay."""
        store.upsert(NAME, [point(n, "A") for n in range(4)])
        store.delete(NAME, "A", [uid(1), uid(3)])
        assert set(ids(store, "A")) == {uid(0), uid(2)}

    @pytest.mark.parametrize(("before", "after"), [("A", "B"), ("A", GLOBAL), (GLOBAL, "A")])
    @pytest.mark.parametrize("how", ["upsert", "set_payload"])
    def test_a_point_moves_with_its_payload(self, store: VectorStore, before: str, after: str, how: str) -> None:
        """A record that moves keeps its id and lies in the new partition, once; the old one cannot delete it."""
        store.upsert(NAME, [point(1, before)])
        if how == "upsert":
            store.upsert(NAME, [point(1, after)])
        else:
            assert store.set_payload(NAME, [point(1, after)]) == []
        assert (store.count(NAME, before), store.count(NAME, after), store.count(NAME)) == (0, 1, 1)
        store.delete(NAME, before, [uid(1)])
        assert one(store, uid(1)).tenant == after
        store.delete(NAME, after, [uid(1)])
        assert store.count(NAME) == 0

    def test_tenant_ids_are_compared_whole(self, store: VectorStore) -> None:
        """A tenant's id is a keyword: no part, no other case, no other script matches it."""
        names = ["A", "a", "A ", "A-1", "1", "true", "Ä", "А"]  # the last one is Cyrillic
        store.upsert(NAME, [point(n, name) for n, name in enumerate(names)])
        for number, name in enumerate(names):
            assert ids(store, name) == [uid(number)]
            assert found(store, name) == {uid(number)}

    # -- foreign points

    def test_foreign_points_are_seen_and_deleted_by_id(self, engine: Engine, store: VectorStore) -> None:
        """A stranger's points lie in no partition; a scan of the collection shows them, delete_foreign removes them."""
        store.upsert(NAME, [point(1, "A")])
        store.close()
        engine.write_as_stranger(
            SPACE.physical_name(NAME), {7: {}, 2**63: {"tenantId": None}, 3: {"tenantId": 5, "isGlobal": True}}
        )
        store = engine.open()
        assert ids(store) == ["3", "7", str(2**63), uid(1)]
        assert [p.tenant for page in store.scan(NAME) for p in page] == [None, None, None, "A"]
        assert (ids(store, "A"), ids(store, GLOBAL), ids(store, "5")) == ([uid(1)], [], [])
        assert found(store, "A") == {uid(1)}
        assert {p.point_id for p in store.retrieve(NAME, ["7", uid(1), "8"])} == {"7", uid(1)}
        store.delete_foreign(NAME, ["7", str(2**63), "8"])
        assert ids(store) == ["3", uid(1)]
        store.delete_foreign(NAME, ["3", uid(1)])
        assert store.count(NAME) == 0
        store.close()

    # -- scan

    @pytest.mark.parametrize("batch", [1, 7, 50, 1000])
    def test_scan_is_ordered_across_batches(self, engine: Engine, store: VectorStore, batch: int) -> None:
        """Numeric ids first, then UUIDs ascending, each once, whatever the size of a batch."""
        store.upsert(NAME, [point(n, "A" if n % 2 else "B") for n in range(50)])
        store.close()
        engine.write_as_stranger(SPACE.physical_name(NAME), {number: {} for number in (100, 9, 20)})
        store = engine.open()
        assert ids(store, batch=batch) == ["9", "20", "100", *sorted(uid(n) for n in range(50))]
        assert ids(store, "A", batch) == sorted(uid(n) for n in range(1, 50, 2))
        assert all(0 < len(page) <= batch for page in store.scan(NAME, batch=batch))
        store.close()

    def test_scan_goes_on_while_points_are_deleted(self, store: VectorStore) -> None:
        """Deleting what a page showed neither repeats nor skips the points after it."""
        names = sorted(uid(n) for n in range(30))
        store.upsert(NAME, [point(n, "A") for n in range(30)])
        seen: list[str] = []
        for page in store.scan(NAME, "A", batch=4):
            store.delete(NAME, "A", [p.point_id for p in page])
            seen += [p.point_id for p in page]
        assert seen == names
        assert store.count(NAME) == 0

    # -- search

    @pytest.mark.parametrize("distance", ["cosine", "dot", "euclid"])
    def test_nearest_comes_first_with_the_largest_score(self, engine: Engine, distance: Distance) -> None:
        """Whatever the distance, a larger score is nearer, results are sorted, and `limit` holds."""
        store = engine.open()
        store.ensure_collection("angles", Space("hash", "words", 2, distance))
        angles = np.linspace(0, np.pi, 7)
        store.upsert("angles", [point(n, "A", (np.cos(a), np.sin(a)), n=n) for n, a in enumerate(angles)])
        hits = store.search("angles", np.array([1, 0], np.float32), "A", limit=5)
        assert [hit.payload["n"] for hit in hits] == [0, 1, 2, 3, 4]
        assert all(first.score > second.score for first, second in pairwise(hits))
        store.close()

    # -- life

    def test_closed_store_opens_again(self, store: VectorStore) -> None:
        """After close the next call works and finds everything; closing twice is fine."""
        store.upsert(NAME, [point(1, "A")])
        store.close()
        store.close()
        assert store.count(NAME) == 1
        store.upsert(NAME, [point(2, "A")])
        assert found(store, "A") == {uid(1), uid(2)}

    def test_data_outlives_the_store(self, engine: Engine, store: VectorStore) -> None:
        """Another store over the same data sees collections, spaces, payloads and tenants."""
        store.upsert(NAME, [point(1, "A", name="brick"), point(2, GLOBAL)])
        store.close()
        again = engine.open()
        assert again.pinned_space(NAME) == SPACE.physical_name(NAME)
        assert one(again, uid(1)).payload == payload(1, "A", name="brick")
        assert found(again, "A") == {uid(1), uid(2)}
        again.ensure_collection(NAME, SPACE)
        assert again.count(NAME) == 2
        again.close()

    def test_check_answers_one_line(self, store: VectorStore) -> None:
        """`check` says what answered and how many collections are ours."""
        line = store.check()
        assert "Qdrant" in line
        assert "1 collection" in line
        assert "\n" not in line

    def test_several_threads_may_write_and_read(self, engine: Engine, store: VectorStore) -> None:
        """Writes and reads of several threads at once all count."""
        if isinstance(engine, Memory):
            pytest.skip("the client's in-memory engine knows no threads; users never get it")

        def work(number: int) -> int:
            store.upsert(NAME, [point(f"{number}-{n}", "A") for n in range(20)])
            store.set_payload(NAME, [point(f"{number}-{n}", "A", done=True) for n in range(20)])
            return len(found(store, "A"))

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(work, range(12))) == [10] * 12
        assert store.count(NAME, "A") == 240
        assert all(p.payload["done"] for page in store.scan(NAME) for p in page)
