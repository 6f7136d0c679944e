"""The ledger compared with the store: two ordered streams, merged."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.documents import Document
from vecsync_dagster.identity import Key
from vecsync_dagster.ledger.base import LedgerPoint
from vecsync_dagster.stores.base import StoredPoint
from vecsync_dagster.sync.compare import Difference, compare
from vecsync_dagster_tests.documents.records import document
from vecsync_dagster_tests.properties import a_property

DOCUMENTS = [document(tenant="t1", id=n) for n in range(12)]
DAMAGES: dict[str, dict[str, Any]] = {
    "none": {},
    "text": {"contentHash": "0" * 16},
    "payload": {"price": 999},
    "claim": {"payloadHash": "0" * 16},
    "extra": {"added": "by hand"},
}


def row_of(made: Document, tenant: str = "t1") -> LedgerPoint:
    return LedgerPoint(made.point_id, made.document_id, Key(made.db_id), tenant, made.content_hash, made.payload_hash)


def point_of(made: Document, tenant: str | None = "t1", damage: str = "none") -> StoredPoint:
    return StoredPoint(made.point_id, tenant, {**made.payload, **DAMAGES[damage]})


def ordered_rows(rows: list[LedgerPoint]) -> list[LedgerPoint]:
    return sorted(rows, key=lambda row: row.point_id)


def ordered_points(points: list[StoredPoint]) -> list[StoredPoint]:
    """As a store scans: numeric ids first, as numbers, then UUIDs."""
    numeric = sorted((p for p in points if p.point_id.isdigit()), key=lambda p: int(p.point_id))
    return numeric + sorted((p for p in points if not p.point_id.isdigit()), key=lambda p: p.point_id)


def differences(rows: list[LedgerPoint], points: list[StoredPoint]) -> list[Difference]:
    return list(compare(ordered_rows(rows), ordered_points(points)))


class TestKinds:
    A, B = DOCUMENTS[:2]

    def test_equal(self) -> None:
        """What is in both, as it was confirmed, is no difference."""
        assert differences([row_of(self.A), row_of(self.B)], [point_of(self.B), point_of(self.A)]) == []

    def test_missing(self) -> None:
        """A row without a point says which document must be written again."""
        assert differences([row_of(self.A)], []) == [
            Difference("missing", self.A.point_id, self.A.document_id, self.A.db_id, "t1", None)
        ]

    def test_orphan(self) -> None:
        """A point without a row says what it claims to be, and where it lies."""
        assert differences([], [point_of(self.A)]) == [
            Difference("orphan", self.A.point_id, self.A.document_id, self.A.db_id, None, "t1")
        ]

    def test_foreign_points(self) -> None:
        """A point that somebody else wrote has no id of ours, maybe a number for an id, maybe no tenant."""
        foreign = [StoredPoint("7", None, {}), StoredPoint("10", None, {"id": 5})]
        assert differences([row_of(self.A)], [*foreign, point_of(self.A)]) == [
            Difference("orphan", "7", None, None, None, None),
            Difference("orphan", "10", None, None, None, None),
        ]

    def test_wrong_tenant(self) -> None:
        """A point under another tenant than its row is told as that, whatever else is wrong with it."""
        for there in ("t2", "global", None):
            [found] = differences([row_of(self.A)], [point_of(self.A, there, "text")])
            assert (found.kind, found.tenant, found.stored_tenant) == ("wrong_tenant", "t1", there)

    def test_stale_text(self) -> None:
        """A point with another content hash needs its vector anew."""
        [found] = differences([row_of(self.A)], [point_of(self.A, damage="text")])
        assert (found.kind, found.payload_only) == ("stale_hash", False)

    def test_stale_payload(self) -> None:
        """A payload that was changed, or whose hash was, or that has more in it, is written again without a vector."""
        for damage in ("payload", "claim", "extra"):
            [found] = differences([row_of(self.A)], [point_of(self.A, damage=damage)])
            assert (found.kind, found.payload_only) == ("stale_hash", True)

    def test_a_forged_payload(self) -> None:
        """A payload whose own hash was made to fit it is found out by the ledger's."""
        forged = document(tenant="t1", id=0, price=999)
        assert forged.point_id == self.A.point_id
        [found] = differences([row_of(self.A)], [point_of(forged)])
        assert (found.kind, found.payload_only) == ("stale_hash", True)


PLACES = st.fixed_dictionaries(
    {
        "row": st.sampled_from([None, "t1", "t2"]),
        "point": st.sampled_from([None, "t1", "t2"]),
        "damage": st.sampled_from(sorted(DAMAGES)),
    }
)


@a_property
@given(st.lists(PLACES, max_size=len(DOCUMENTS)), st.sets(st.integers(0, 2**64 - 1)), st.sets(st.uuids()))
def test_exactly_the_differences(places: list[dict[str, str | None]], numbers: set[int], uuids: set[uuid.UUID]) -> None:
    """For any two sets of points, the differences are just those of the sets, each once; each stream is read once."""
    rows, points, expected = [], [], {}
    for made, place in zip(DOCUMENTS, places, strict=False):
        row, point, damage = place["row"], place["point"], str(place["damage"])
        if row:
            rows.append(row_of(made, row))
        if point:
            points.append(point_of(made, point, damage))
        kind = kind_of(row, point, damage)
        if kind:
            expected[made.point_id] = kind
    for foreign in [str(number) for number in numbers] + [str(one) for one in uuids]:
        points.append(StoredPoint(foreign, None, {}))
        expected[foreign] = "orphan"
    found = list(compare(iter(ordered_rows(rows)), iter(ordered_points(points))))
    assert {d.point_id: d.kind for d in found} == expected
    assert len(found) == len(expected)


def kind_of(row: str | None, point: str | None, damage: str) -> str | None:
    if row is None or point is None:
        return "missing" if row else "orphan" if point else None
    if row != point:
        return "wrong_tenant"
    return None if damage == "none" else "stale_hash"


def test_the_streams_are_read_as_needed() -> None:
    """Memory stays flat: no more than one item of each side is read ahead of the difference that is told."""
    read: list[str] = []

    def rows() -> Iterator[LedgerPoint]:
        for number in range(100):
            read.append("row")
            yield replace(row_of(DOCUMENTS[0]), point_id=f"{number:08}-0000")

    found = compare(rows(), iter(()))
    for told in range(1, 51):
        next(found)
        assert len(read) <= told + 1
