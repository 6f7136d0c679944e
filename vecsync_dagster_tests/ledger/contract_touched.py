"""What every ledger says of records that changed since a moment."""

from __future__ import annotations

from datetime import datetime

from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.ledger.samples import ENTITY, MINUTE, NOON, SPACE, A, B, Clock, confirm, failed, names


def touched(ledger: SqlLedger, since: datetime | None, tenant: str = "tenant-a", chunk: int = 500) -> list[list[str]]:
    return list(ledger.touched(ENTITY, tenant, since, chunk))


class TouchedContract:
    def test_touched_records_come_once_whatever_the_collection(self, ledger: SqlLedger, clock: Clock) -> None:
        """A row that changed at the moment or later, in any collection, names its record; being seen is no change."""
        other = (ENTITY, "other", "tenant-a")
        confirm(ledger, A, ["d1", "d2", "d3", "d4"])
        confirm(ledger, other, ["d1", "d2"])
        confirm(ledger, B, ["e1"])
        clock.now += MINUTE
        confirm(ledger, other, ["d2"], clock.now, content="c2")
        ledger.fail(*A, SPACE, [failed("d3")], clock.now)
        ledger.touch(*A, {"d4": None}, clock.now)
        assert touched(ledger, None) == [["d1", "d2", "d3", "d4"]]
        assert touched(ledger, NOON + MINUTE) == [["d2", "d3"]]
        assert touched(ledger, NOON + 2 * MINUTE) == []
        assert touched(ledger, None, "tenant-b") == [["e1"]]

    def test_touched_records_come_in_chunks(self, ledger: SqlLedger) -> None:
        """In the order of their ids, however many there are."""
        confirm(ledger, A, names(7))
        assert touched(ledger, None, chunk=3) == [names(7)[:3], names(7)[3:6], names(7)[6:]]
