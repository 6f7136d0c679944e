"""What tenants look like from afar: equal while nothing changed, another one as soon as something did."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vecsync_dagster.sources import Fingerprint, Fingerprinting
from vecsync_dagster_tests.sources.backends import SqlBackend, time


def put(database: SqlBackend) -> None:
    database.create()
    database.put(
        {"id": 1, "name": "a", "tenant_id": "acme", "updated_at": time(1)},
        {"id": 2, "name": "b", "tenant_id": "acme", "updated_at": time(2)},
        {"id": 3, "name": "c", "tenant_id": "brick", "updated_at": time(3)},
        {"id": 4, "name": "d", "tenant_id": "brick", "is_global": True, "updated_at": time(4)},
        {"id": 5, "name": "e", "updated_at": time(5)},
        {"id": 6, "name": "f", "tenant_id": "gone", "updated_at": time(6), "deleted_at": time(7)},
    )


def test_tenants_as_the_source_lists_them(database: SqlBackend) -> None:
    """Every tenant with live rows and `global`: its number of rows and newest time; nobody's rows are left out."""
    put(database)
    source = database.source()
    assert isinstance(source, Fingerprinting)
    found = source.fingerprints()
    assert sorted(found) == ["acme", "brick", "global"]
    assert {tenant: one.rows for tenant, one in found.items()} == {"acme": 2, "brick": 1, "global": 1}
    assert all(one.rows == source.count(tenant) for tenant, one in found.items())
    minute = 60_000_000
    assert (found["brick"].latest or 0) - (found["acme"].latest or 0) == minute
    assert {one.checksum for one in found.values()} == {""}


@pytest.mark.parametrize("checksum", [False, True])
def test_one_tenant_alone_looks_as_it_does_among_all(database: SqlBackend, checksum: bool) -> None:
    """Asked for one tenant, the source says the same of it; of one without rows, nothing."""
    put(database)
    source = database.source(checksum=checksum)
    everybody = source.fingerprints()
    assert {tenant: source.fingerprints(tenant) for tenant in everybody} == {
        tenant: {tenant: one} for tenant, one in everybody.items()
    }
    assert source.fingerprints("gone") == source.fingerprints("nobody") == {}


def test_a_tenant_called_global_is_not_the_global_partition(database: SqlBackend) -> None:
    """Rows of a tenant that is called `global` do not count as everybody's."""
    put(database)
    database.put({"id": 9, "tenant_id": "global", "updated_at": time(9)})
    assert database.source().fingerprints()["global"].rows == 1


def test_without_tenancy_all_is_global(database: SqlBackend) -> None:
    """An entity without tenancy has one fingerprint; without a modification column it has the count alone."""
    put(database)
    source = database.source(tenancy=None, updated_at=None, deleted_at=None)
    assert source.fingerprints() == {"global": Fingerprint(6)}


def swap(database: SqlBackend) -> None:
    database.change(1, name="b")
    database.change(2, name="a")


def replace_row(database: SqlBackend) -> None:
    database.drop(1)
    database.put({"id": 7, "tenant_id": "acme", "updated_at": time(1)})


Change = Callable[[SqlBackend], None]
CHANGES: dict[str, Change] = {
    "insert": lambda db: db.put({"id": 7, "tenant_id": "acme", "updated_at": time(1)}),
    "update": lambda db: db.change(1, name="x", updated_at=time(8)),
    "delete": lambda db: db.drop(1),
    "tombstone": lambda db: db.change(1, deleted_at=time(8)),
    "moved away": lambda db: db.change(1, tenant_id="brick"),
    "made global": lambda db: db.change(1, is_global=True),
}
UNSEEN: dict[str, Change] = {
    "one went, one came": replace_row,
    "dated back": lambda db: db.change(1, name="x", updated_at=time(0)),
    "not dated": lambda db: db.change(1, name="x"),
    "empty for null": lambda db: db.change(1, unit=""),
    "values swapped": swap,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(database: SqlBackend, change: Change) -> None:
    """Rows that come, go or are dated anew make another fingerprint of their tenant, and of no third one."""
    put(database)
    source = database.source()
    before = source.fingerprints()
    change(database)
    after = source.fingerprints()
    assert after["acme"] != before["acme"]
    assert (after["brick"] == before["brick"]) == (after["brick"].rows == 1)


FAR, FARTHER = "2124-05-01 10:00:00+00:00", "2125-05-01 10:00:00+00:00"
AHEAD: dict[str, Change] = {
    "another one": lambda db: db.put({"id": 10, "tenant_id": "acme", "updated_at": FAR}),
    "another one for one that is dated": lambda db: db.change(1, updated_at=FAR),
    "not the newest, dated anew": lambda db: db.change(8, name="x", updated_at="2124-05-02 10:00:00+00:00"),
    "it is past now": lambda db: db.change(8, updated_at=time(9)),
    "it went": lambda db: db.drop(8),
    "it is deleted, some day": lambda db: db.change(8, deleted_at=FARTHER),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("change", [*CHANGES.values(), *AHEAD.values()], ids=[*CHANGES, *AHEAD])
@pytest.mark.parametrize("kind", ["as it is", "date"])
def test_a_row_dated_in_the_future_hides_no_change(database: SqlBackend, change: Change, kind: str) -> None:
    """What is dated after the clock is counted apart: each change of it, and beside it, makes another look."""
    ahead = [{"id": n, "tenant_id": "acme", "updated_at": at} for n, at in ((8, FAR), (9, FARTHER))]
    if kind == "date":
        database.create(updated_at="date")
        database.put(*({**row, "updated_at": str(row["updated_at"])[:10]} for row in ahead))
        database.put({"id": 1, "tenant_id": "acme", "updated_at": "2024-04-30"})
    else:
        put(database)
        database.put(*ahead)
    source = database.source()
    before = source.fingerprints("acme")["acme"]
    assert source.fingerprints()["acme"] == before
    assert (before.latest or 0) < 4_000_000_000_000_000 < 10**16
    assert before.ahead.startswith("2.")
    change(database)
    assert source.fingerprints().get("acme") != before


def test_times_that_are_none_are_not_ahead(database: SqlBackend) -> None:
    """What lies before all time, and text that is no time, have no moment: neither before the clock nor after it."""
    put(database)
    before = database.source().fingerprints()["acme"]
    odd = "-infinity" if database.engine.dialect.name == "postgresql" else "some day"
    database.put({"id": 8, "tenant_id": "acme", "updated_at": odd})
    after = database.source().fingerprints()["acme"]
    assert (after.rows, after.latest, after.ahead) == (before.rows + 1, before.latest, "")


@pytest.mark.parametrize("far", ["infinity", "12026-01-01"])
def test_a_time_that_python_cannot_count_to_is_ahead(postgres: SqlBackend, far: str) -> None:
    """A row that gets one is a change that is seen, and the row's next real time another one."""
    put(postgres)
    postgres.put({"id": 8, "tenant_id": "acme", "updated_at": "2024-01-01"})
    source = postgres.source()
    looks = [source.fingerprints("acme")["acme"]]
    for at in (far, "2024-01-02"):
        postgres.change(8, updated_at=at)
        looks.append(source.fingerprints("acme")["acme"])
        assert source.fingerprints()["acme"] == looks[-1]
    assert [look.ahead.partition(".")[0] for look in looks] == ["", "1", ""]
    assert {(look.rows, look.latest) for look in looks} == {(looks[0].rows, looks[0].latest)}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN.keys())
def test_a_checksum_sees_what_count_and_time_do_not(database: SqlBackend, change: Change) -> None:
    """A row deleted as another came, dated back or not dated at all is seen where a checksum is configured."""
    put(database)
    source, with_checksum = database.source(), database.source(checksum=True)
    before, summed = source.fingerprints(), with_checksum.fingerprints()
    assert with_checksum.fingerprints() == summed
    change(database)
    assert source.fingerprints() == before
    after = with_checksum.fingerprints()
    assert {tenant for tenant in after if after[tenant] != summed[tenant]} == {"acme"}


def test_text_and_back() -> None:
    """A fingerprint is kept as text and comes back the same."""
    for one in (Fingerprint(), Fingerprint(3, -7), Fingerprint(3, 5, "12/3"), Fingerprint(3, -5, "1", "2.17")):
        assert Fingerprint.parse(str(one)) == one
    assert Fingerprint.parse(str(Fingerprint(3, None, "", "1.5"))) == Fingerprint(3, None, "", "1.5")
    # As the version before wrote them: without anything after the clock nothing looks different now.
    assert str(Fingerprint(3, 5, "12")) == "3/5/12"
    for dead in (None, 0, 2):
        assert Fingerprint.parse(str(Fingerprint(3, 5, dead=dead))).dead == dead
    for ahead in ("", "2.17"):
        for recent in ((), ((-5, 0), (7, 12))):
            for still in (True, False):
                one = Fingerprint(3, -5, "12/3", ahead, recent=recent, open=still)
                assert Fingerprint.parse(str(one)) == one


def test_rows_that_are_there_and_not_live_are_counted_apart(database: SqlBackend) -> None:
    """Marked as deleted or kept out by the filter: they tell a mark from a row that is gone, and are no change."""
    put(database)
    database.put({"id": 7, "name": "g", "tenant_id": "acme", "unit": "kg", "updated_at": time(1)})
    source = database.source(filter={"unit": [None]})
    before = source.fingerprints()["acme"]
    assert (before.rows, before.dead) == (2, 1)
    database.change(1, deleted_at=time(8))
    marked = source.fingerprints()["acme"]
    assert (marked.rows, marked.dead) == (1, 2)
    database.drop(7)
    purged = source.fingerprints()["acme"]
    assert ((purged.rows, purged.dead), purged == marked) == ((1, 1), True)
