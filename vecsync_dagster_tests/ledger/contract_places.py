"""What every ledger knows of the places in which collections lie."""

from __future__ import annotations

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.base import Seen
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster_tests.ledger.samples import ENTITY, NOON, A, B

COLLECTION = A[1]


class PlacesContract:
    def test_the_first_place_is_taken_as_it_is(self, ledger: SqlLedger) -> None:
        """Also where the partitions are known already: an earlier version noted no place."""
        ledger.set_watermark(*A, Cursor("1", "2"))
        assert ledger.place_of(COLLECTION) is None
        assert not ledger.come_to(COLLECTION, "here")
        assert not ledger.come_to(COLLECTION, "here")
        assert ledger.place_of(COLLECTION) == "here"
        assert ledger.unfinished(*A) == []
        assert ledger.watermark(*A) == Cursor("1", "2")

    def test_at_another_place_every_partition_is_marked_until_it_was_compared(self, ledger: SqlLedger) -> None:
        """Each by itself; how far it was read counts again once the mark is gone. Other collections stay as they
        are, and a mark is no run that died."""
        other = (ENTITY, "others", "tenant-a")
        for place in (A, B, other):
            ledger.set_watermark(*place, Cursor("1", "2"))
            ledger.set_seen(*place, Seen(NOON, "settings"))
        ledger.come_to(COLLECTION, "here")
        assert ledger.come_to(COLLECTION, "there")
        assert not ledger.come_to(COLLECTION, "there")
        assert [ledger.is_moved(*place) for place in (A, B, other)] == [True, True, False]
        assert [ledger.watermark(*place) for place in (A, B, other)] == [None, None, Cursor("1", "2")]
        assert {key: seen.settings for key, seen in ledger.seen(ENTITY).items()} == {
            A[1:]: "",
            B[1:]: "",
            other[1:]: "settings",
        }
        assert ledger.end_dead_runs() == []
        ledger.set_watermark(*A, Cursor("3", "4"))
        assert ledger.watermark(*A) is None
        ledger.finish_writing(*A, ledger.unfinished(*A))
        assert (ledger.is_moved(*A), ledger.watermark(*A)) == (False, Cursor("3", "4"))
        assert ledger.is_moved(*B)

    def test_the_way_back_is_another_place_too(self, ledger: SqlLedger) -> None:
        ledger.set_watermark(*A, Cursor("1", "2"))
        for place in ("here", "there", "here"):
            ledger.come_to(COLLECTION, place)
        assert len(ledger.unfinished(*A)) == 2

    def test_a_collection_that_is_dropped_lies_nowhere(self, ledger: SqlLedger) -> None:
        """One that another entity has by now stays where it is."""
        ledger.come_to(COLLECTION, "here")
        ledger.forget_collection(ENTITY, COLLECTION, "heir")
        assert ledger.place_of(COLLECTION) == "here"
        ledger.forget_collection(ENTITY, COLLECTION)
        assert ledger.place_of(COLLECTION) is None
