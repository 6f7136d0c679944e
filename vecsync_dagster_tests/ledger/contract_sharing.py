"""What every ledger does when several threads use it at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vecsync_dagster.errors import PartitionBusy
from vecsync_dagster.ledger import SqlLedger, version
from vecsync_dagster.ledger.base import Ledger
from vecsync_dagster_tests.ledger.samples import ENTITY, MINUTE, NOON, PLACE, A, confirm, names


class SharingContract:
    def test_it_is_a_ledger(self, ledger: SqlLedger) -> None:
        """The implementation has every method of the protocol."""
        assert isinstance(ledger, Ledger)

    def test_check_names_the_ledger_and_its_version(self, ledger: SqlLedger) -> None:
        """A working ledger answers with one line that says which version of which ledger it is."""
        line = ledger.check()
        assert ledger.database.name in line
        assert line.endswith(f"version {version.HEAD}")

    def test_threads_write_and_read_at_once(self, ledger: SqlLedger) -> None:
        """Threads that write different partitions, and read in between, lose nothing."""

        def work(tenant: str) -> int:
            where = (*PLACE, tenant)
            for start in range(0, 100, 20):
                ids = names(100, prefix=tenant)[start : start + 20]
                confirm(ledger, where, ids)
                ledger.touch(*where, dict.fromkeys(ids), NOON + MINUTE)
            return len(ledger.rows(*PLACE, names(100, prefix=tenant), NOON))

        tenants = [f"tenant-{number}" for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(work, tenants)) == [100] * 6
        assert [(row.documents, row.unseen_since) for row in ledger.totals(NOON + MINUTE)] == [(100, 0)] * 6

    def test_a_reader_does_not_disturb_a_writer(self, ledger: SqlLedger) -> None:
        """A thread that reads in the middle of another one's transaction neither ends it nor sees half of it."""
        counts: list[int] = []
        reader = threading.Thread(target=lambda: counts.append(ledger.tally(*A).rows))
        confirm(ledger, A, ["d1", "d2"])
        with ledger.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM index_state WHERE document_id = 'd1'")
            reader.start()
            reader.join(0.2)  # in memory it waits for its turn
            connection.exec_driver_sql("DELETE FROM index_state WHERE document_id = 'd2'")
        reader.join()
        assert ledger.tally(*A).rows == 0
        assert counts in ([0], [2])

    def test_threads_write_the_same_documents(self, ledger: SqlLedger) -> None:
        """Threads that confirm the same documents in different orders wait for each other; each write counts."""
        ids = names(200)

        def work(number: int) -> None:
            confirm(ledger, A, ids if number % 2 else ids[::-1])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        with ledger.database.read() as connection:
            versions = connection.exec_driver_sql("SELECT DISTINCT vector_version FROM index_state").scalars().all()
        assert versions == [6]

    def test_a_held_tenant_is_busy(self, ledger: SqlLedger) -> None:
        """While a run holds a tenant of an entity, another one is refused at once; all others are free."""
        with ledger.hold(ENTITY, "tenant-a"):
            with pytest.raises(PartitionBusy, match="materials, tenant tenant-a: another run"):
                ledger.hold(ENTITY, "tenant-a").__enter__()
            with ledger.hold(ENTITY, "tenant-b"), ledger.hold("works", "tenant-a"):
                confirm(ledger, A, ["d1"])
        with ledger.hold(ENTITY, "tenant-a"):
            assert ledger.tally(*A).held == 1

    def test_all_tenants_are_held_at_once(self, ledger: SqlLedger) -> None:
        """Also new ones: none can be held meanwhile, and it is refused where one is. Other entities are free."""
        for _ in range(2):
            with ledger.hold_all(ENTITY), ledger.hold("works", "tenant-a"), ledger.hold_all("tools"):
                for hold in (ledger.hold(ENTITY, "tenant-a"), ledger.hold(ENTITY, "new"), ledger.hold_all(ENTITY)):
                    with pytest.raises(PartitionBusy):
                        hold.__enter__()
            with ledger.hold(ENTITY, "tenant-a"), pytest.raises(PartitionBusy, match="materials"):
                ledger.hold_all(ENTITY).__enter__()
            with pytest.raises(UnicodeError), ledger.hold_all(ENTITY):
                raise UnicodeError("of the block")

    def test_a_hold_ends_with_its_block(self, ledger: SqlLedger) -> None:
        """An error in the block comes out as it is, and the tenant is free again, from any thread."""
        error = UnicodeError("of the block")
        with pytest.raises(UnicodeError) as caught, ledger.hold(ENTITY, "tenant-a"):
            raise error
        assert caught.value is error
        entered = threading.Event()

        def other() -> None:
            with ledger.hold(ENTITY, "tenant-a"):
                entered.set()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert entered.is_set()

    def test_a_closed_ledger_can_be_closed_again(self, ledger: SqlLedger) -> None:
        """Closing twice is no error."""
        ledger.close()
        ledger.close()
