"""What every ledger says of single records: their state in all collections of their entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from vecsync_dagster.identity import Key
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.record_states import FORMER, CollectionState, RecordState, Status
from vecsync_dagster_tests.ledger.samples import (
    ENTITY,
    MINUTE,
    NOON,
    SPACE,
    Clock,
    confirm,
    confirmed,
    failed,
    names,
    state,
)

LATER = NOON + MINUTE
FOUR = ("tools", "functionality", "usecases", "interface")


def where(collection: str, tenant: str = "global") -> tuple[str, str, str]:
    return (ENTITY, collection, tenant)


def fill(ledger: SqlLedger) -> None:
    """d1 is synced in all four, d2 failed in one, d3 is stale in one, d4 is in two of them only; t1 is a tenant's."""
    for collection in FOUR:
        confirm(ledger, where(collection), ["d1", "d2", "d3"])
    confirm(ledger, where("tools"), ["d4"])
    confirm(ledger, where("usecases"), ["d4"])
    confirm(ledger, where("tools", "t"), ["t1"])
    ledger.fail(*where("functionality"), SPACE, [failed("d2", next_attempt_at=LATER)], NOON)
    ledger.mark_stale(*where("usecases"), ["d3"], "VALIDATION_ERROR", "name is required", NOON)


def listed(records: Sequence[RecordState]) -> list[tuple[str, Status]]:
    return [(record.document_id, record.overall) for record in records]


class RecordsContract:
    def test_records_come_worst_first(self, ledger: SqlLedger) -> None:
        """Each record once with its worst status over all collections; a collection without it counts as pending."""
        fill(ledger)
        assert listed(ledger.records(ENTITY, FOUR)) == [
            ("d2", "failed"),
            ("d3", "stale"),
            ("d4", "pending"),
            ("t1", "pending"),
            ("d1", "synced"),
        ]
        assert ledger.records("works", FOUR) == []

    def test_pages_of_records(self, ledger: SqlLedger) -> None:
        """Limit and offset cut the list and nothing comes twice."""
        fill(ledger)
        pages = [ledger.records(ENTITY, FOUR, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        assert [record for page in pages for record in page] == ledger.records(ENTITY, FOUR)
        assert [len(page) for page in pages] == [2, 2, 1, 0]

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"status": "failed"}, ["d2"]),
            ({"status": "synced"}, ["d1"]),
            ({"status": "pending"}, ["d4", "t1"]),
            ({"status": "failed", "collection": "tools"}, []),
            ({"status": "failed", "collection": "functionality"}, ["d2"]),
            ({"status": "pending", "collection": "interface"}, ["d4", "t1"]),
            ({"status": "synced", "collection": "tools"}, ["d1", "d2", "d3", "d4", "t1"]),
            ({"tenant": "t"}, ["t1"]),
            ({"ids": ["d1", "d3", "nothing"]}, ["d3", "d1"]),
        ],
    )
    def test_filters(self, ledger: SqlLedger, filters: dict[str, str], expected: list[str]) -> None:
        """By overall status, by the status in one collection, by tenant, by id."""
        fill(ledger)
        found = ledger.records(ENTITY, FOUR, **filters)  # type: ignore[arg-type]
        assert [record.document_id for record in found] == expected

    def test_records_are_counted_by_status(self, ledger: SqlLedger) -> None:
        """The counts are those of the listed records, overall and in one collection."""
        fill(ledger)
        assert ledger.count_records(ENTITY, FOUR) == {"failed": 1, "stale": 1, "pending": 2, "synced": 1}
        assert ledger.count_records(ENTITY, FOUR, tenant="t") == {"pending": 1}
        assert ledger.count_records(ENTITY, FOUR, collection="functionality") == {
            "failed": 1,
            "synced": 2,
            "pending": 2,
        }

    def test_a_record_has_the_facts_of_each_collection(self, ledger: SqlLedger, clock: Clock) -> None:
        """Hash, version, times, error, retries and what changed: of each collection its own."""
        confirm(ledger, where("tools"), ["d1"])
        clock.now = LATER
        failure = replace(failed("d1", retry_count=2, next_attempt_at=LATER), modified_fields=("name", "цена"))
        ledger.fail(*where("tools"), SPACE, [failure], LATER)
        [record] = ledger.records(ENTITY, FOUR, ids=["d1"])
        assert (record.tenant, record.db_id, tuple(record.collections)) == ("global", "db-d1", FOUR)
        assert record.collections["tools"] == CollectionState(
            status="failed",
            vector_version=1,
            content_hash="c1",
            error_code="QDRANT_UNAVAILABLE",
            last_error="the service said 503",
            retry_count=2,
            next_attempt_at=LATER,
            last_synced_at=NOON,
            last_attempt_at=LATER,
            modified_fields=("name", "цена"),
        )
        assert record.collections["usecases"] == CollectionState()

    def test_modified_fields_stay_until_others_change(self, ledger: SqlLedger) -> None:
        """A write of which no change is known keeps the names of the last change; hashes are those confirmed last."""
        one = replace(confirmed("d1"), field_hashes="h1", modified_fields=("name",))
        ledger.confirm(*where("tools"), SPACE, [one], NOON)
        ledger.confirm(*where("tools"), SPACE, [replace(one, field_hashes="h2", modified_fields=None)], NOON)
        ledger.fail(*where("tools"), SPACE, [failed("d1"), failed("d2")], NOON)
        row = state(ledger, "d1", "tools")
        assert (row["field_hashes"], row["modified_fields"]) == ("h2", '["name"]')
        found = ledger.rows(ENTITY, "tools", ["d1", "d2"], NOON)
        assert {name: row.field_hashes for name, row in found.items()} == {"d1": "h2", "d2": None}

    def test_a_former_document_is_no_record_of_its_own(self, ledger: SqlLedger) -> None:
        """What is kept under a former id is part of its record, which lacks nothing where it is stored."""
        for collection in ("tools", "interface"):
            confirm(ledger, where(collection), ["old", "d5"])
        confirm(ledger, where("tools"), ["new"])
        ledger.forget(*where("tools"), ["old"])
        ledger.fail(*where("interface"), SPACE, [failed("new")], NOON)
        ledger.keep_former(*where("interface"), {"old": Key("db-new")}, "not replaced", NOON)
        names = ("tools", "interface")
        assert listed(ledger.records(ENTITY, names)) == [("new", "failed"), ("d5", "synced")]
        assert ledger.count_records(ENTITY, names) == {"failed": 1, "synced": 1}
        assert ledger.count_records(ENTITY, names, collection="interface") == {"failed": 1, "synced": 1}
        [record] = ledger.records(ENTITY, names, ids=["new"])
        assert record.collections["interface"].former == "old"
        assert record.collections["interface"].error_code == "QDRANT_UNAVAILABLE"
        assert ledger.absent(ENTITY, "tools", ["interface"], "global", 9) == (0, [])
        ledger.forget(*where("interface"), ["new"])
        [record] = ledger.records(ENTITY, names, ids=["new"])
        assert (record.overall, record.collections["interface"].error_code) == ("stale", FORMER)
        assert ledger.count_records(ENTITY, names) == {"stale": 1, "synced": 1}
        ledger.forget(*where("tools"), ["new"])
        assert listed(ledger.records(ENTITY, names)) == [("old", "stale"), ("d5", "synced")]

    def test_records_that_one_collection_lacks(self, ledger: SqlLedger) -> None:
        """Those that the store holds in another collection: with why not here, where the ledger knows."""
        fill(ledger)
        ledger.fail(*where("interface"), SPACE, [failed("d4")], NOON)
        others = {name: [other for other in FOUR if other != name] for name in FOUR}
        lacking = {name: ledger.absent(ENTITY, name, others[name], "global", 20) for name in FOUR}
        assert lacking == {
            "tools": (0, []),
            "functionality": (1, [("d4", None)]),
            "usecases": (0, []),
            "interface": (1, [("d4", "QDRANT_UNAVAILABLE")]),
        }
        assert ledger.absent(ENTITY, "usecases", ["tools"], "t", 20) == (1, [("t1", None)])
        confirm(ledger, where("tools"), names(30))
        assert ledger.absent(ENTITY, "usecases", ["tools"], "global", 3) == (30, [(n, None) for n in names(3)])
