"""What goes wrong with a ledger's database, and as which error it comes out."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, OutputUnwritable, PartitionBusy
from vecsync_dagster.ledger import SqlLedger, migrate, version
from vecsync_dagster.sources.base import Cursor
from vecsync_dagster_tests.ledger.samples import ENTITY, NOON, PLACE, SPACE, A, B, confirm, confirmed, failed

SECRET = "s3cret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    SqlLedger.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def opened() -> Iterator[Callable[[str], SqlLedger]]:
    """Opens ledgers, and closes them after the test."""
    ledgers: list[SqlLedger] = []

    def open_(url: str) -> SqlLedger:
        ledgers.append(SqlLedger.open(url))
        return ledgers[-1]

    yield open_
    for ledger in ledgers:
        ledger.close()


Open = Callable[[str], SqlLedger]


def with_settings(url: str, settings: str) -> str:
    return f"{url}?options={settings}"


def terminate_all(url: str) -> None:
    """End every other connection to the database, as a restart of the server does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_file_locked_by_another_writer_is_unavailable(file: Path, opened: Open) -> None:
    """Another writer's lock is waited for, then transient; reading goes on; afterwards writing does too."""
    ledger = opened(f"sqlite:///{file}?timeout=0.05")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match=r"another process is writing it \(SQLITE_BUSY"):
        confirm(ledger, A, ["d1"])
    assert ledger.tally(*A).held == 0
    other.execute("ROLLBACK")
    other.close()
    confirm(ledger, A, ["d1"])
    assert ledger.tally(*A).held == 1


def test_a_full_disk_names_the_file(file: Path, opened: Open) -> None:
    """A file that cannot grow is an unwritable output, and what was written before stays readable."""
    ledger = opened(f"sqlite:///{file}")
    confirm(ledger, A, ["d1"])
    with ledger.database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # no smaller than it is: the file is full now
    with pytest.raises(OutputUnwritable) as caught:
        confirm(ledger, A, [f"d{number}" for number in range(5000)])
    assert str(file) in str(caught.value)
    assert "SQLITE_FULL" in str(caught.value)
    assert ledger.tally(*A).held == 1


def test_a_read_only_file_names_the_file(file: Path, opened: Open) -> None:
    """A file opened read-only can be read, and a write to it is an unwritable output."""
    ledger = opened(f"sqlite:///file:{file}?mode=ro&uri=true")
    assert ledger.tally(*A).held == 0
    with pytest.raises(OutputUnwritable, match="SQLITE_READONLY"):
        confirm(ledger, A, ["d1"])


@pytest.mark.parametrize("attempt", [SqlLedger.open, migrate.upgrade, version.current])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, attempt: Callable[[str], object]) -> None:
    """A path whose folder cannot be is an unwritable output that names the path."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "ledger.sqlite"
    with pytest.raises(OutputUnwritable) as caught:
        attempt(f"sqlite:///{path}")
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_database_is_rejected(tmp_path: Path) -> None:
    """Some other file is refused, and left as it is."""
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database, but somebody's notes" * 100)
    with pytest.raises(LedgerRejected, match="SQLITE_NOTADB"):
        SqlLedger.open(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


def test_missing_tables_say_what_to_do_on_sqlite(file: Path, opened: Open) -> None:
    """A ledger whose tables are gone says that they may be missing, and how to make them."""
    ledger = opened(f"sqlite:///{file}")
    with ledger.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE index_state")
    with pytest.raises(LedgerRejected, match="run `vecsync migrate`"):
        ledger.tally(*A)


def test_missing_tables_say_what_to_do_on_postgresql(postgres_database: str, opened: Open) -> None:
    """The same on PostgreSQL, where the code is exact."""
    ledger = opened(postgres_database)
    migrate.downgrade(postgres_database, "base")
    with pytest.raises(LedgerRejected, match=r"UndefinedTable 42P01.*run `vecsync migrate`"):
        ledger.tally(*A)


def test_a_server_that_went_away_and_came_back(postgres_database: str, opened: Open) -> None:
    """After all connections broke, the next call works: no connection of the pool is used unchecked."""
    ledger = opened(postgres_database)
    confirm(ledger, A, ["d1"])
    terminate_all(postgres_database)
    assert ledger.tally(*A).held == 1
    terminate_all(postgres_database)
    confirm(ledger, A, ["d2"])
    assert ledger.tally(*A).held == 2


def test_a_connection_lost_in_a_transaction_leaves_nothing(postgres_database: str, opened: Open) -> None:
    """A server that ends a connection in a transaction is unavailable; nothing of it stays; then it works again."""
    ledger = opened(postgres_database)

    def cut_off() -> None:
        with ledger.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO collection_space VALUES ('c', 'e', 's', now())")
            terminate_all(postgres_database)
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(LedgerUnavailable):
        cut_off()
    assert ledger.space_of("c") is None


def test_a_hold_that_was_lost_is_told(postgres_database: str, opened: Open) -> None:
    """A run whose lock broke on the way must not look as if it had been alone; an error of its own comes first."""
    ledger = opened(postgres_database)

    def lose(error: BaseException | None = None) -> None:
        with ledger.hold(ENTITY, "tenant-a"):
            terminate_all(postgres_database)
            if error is not None:
                raise error

    with pytest.raises(LedgerUnavailable):
        lose()
    with pytest.raises(KeyError, match="its own"):
        lose(KeyError("its own"))
    with ledger.hold(ENTITY, "tenant-a"):
        assert ledger.tally(*A).held == 0


def test_nothing_is_confirmed_after_a_hold_was_lost(postgres_database: str, opened: Open) -> None:
    """Another run may have the tenant by now, and what it wrote is newer."""
    ledger = opened(postgres_database)
    hold = ledger.hold(ENTITY, "tenant-a")
    hold.__enter__()
    confirm(ledger, A, ["before"])
    terminate_all(postgres_database)
    with pytest.raises(LedgerUnavailable, match="was cut"):
        confirm(ledger, A, ["after"])
    with pytest.raises(LedgerUnavailable, match="was cut"):
        ledger.forget(*A, ["before"])
    with pytest.raises(LedgerUnavailable, match="was cut"):
        ledger.fail(*A, SPACE, [failed("before")], NOON)
    confirm(ledger, B, ["of a tenant that is not held"])
    with pytest.raises(LedgerUnavailable, match="was cut"):
        hold.__exit__(None, None, None)
    assert (ledger.tally(*A).held, ledger.tally(*B).held) == (1, 1)


def test_links_to_one_ledger_share_its_holds(tmp_path: Path) -> None:
    """As where each release of a deployment has its own folder, and the ledger is linked into it."""
    file, link = tmp_path / "ledger.sqlite", tmp_path / "release" / "ledger.sqlite"
    link.parent.mkdir()
    link.symlink_to(file)
    ledger, other = SqlLedger.open(f"sqlite:///{file}"), SqlLedger.open(f"sqlite:///{link}")
    with ledger.hold(ENTITY, "tenant-a"), pytest.raises(PartitionBusy):
        other.hold(ENTITY, "tenant-a").__enter__()
    ledger.close()
    other.close()


def test_no_server_is_unavailable() -> None:
    """Nobody at the address is transient; the message names the server but not the password."""
    with pytest.raises(LedgerUnavailable) as caught:
        SqlLedger.open(f"postgresql://user:{SECRET}@127.0.0.1:1/ledger?connect_timeout=2")
    assert "127.0.0.1:1/ledger" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_lock_that_is_not_given_in_time_is_unavailable(postgres_database: str, opened: Open) -> None:
    """A time limit on locks or statements, set in the URL, ends in a transient error."""
    ledger = opened(with_settings(postgres_database, "-clock_timeout=50"))
    with psycopg.connect(postgres_database) as other:
        other.execute("LOCK TABLE index_state")
        with pytest.raises(LedgerUnavailable, match="LockNotAvailable 55P03"):
            confirm(ledger, A, ["d1"])
    confirm(ledger, A, ["d1"])


def test_a_read_only_server_is_unavailable(postgres_database: str, opened: Open) -> None:
    """A server that takes no writes (another one has taken over) is transient."""
    opened(postgres_database)
    ledger = opened(with_settings(postgres_database, "-cdefault_transaction_read_only=on"))
    with pytest.raises(LedgerUnavailable, match="ReadOnlySqlTransaction 25006"):
        confirm(ledger, A, ["d1"])


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_messages_carry_no_values(url: str, opened: Open) -> None:
    """A value no database takes is rejected, and neither the message nor its causes repeat any value."""
    ledger = opened(url)
    bad = f"{SECRET}\ud800"
    for attempt in (
        lambda: ledger.confirm(*A, SPACE, [confirmed("d1", content=bad)], NOON),
        lambda: ledger.fail(*A, SPACE, [failed("d1", attempt=bad)], NOON),
        lambda: ledger.set_watermark(*A, Cursor(bad, "1")),
        lambda: ledger.mark_stale(*A, ["d1"], bad, SECRET, NOON),
    ):
        with pytest.raises(LedgerRejected, match="cannot be stored") as caught:
            attempt()
        assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))
    assert ledger.tally(*A).rows == 0


def test_a_refused_statement_carries_no_values(postgres_database: str, opened: Open) -> None:
    """What the server refuses is named by the error's code alone."""
    ledger = opened(postgres_database)
    with pytest.raises(LedgerRejected) as caught:
        ledger.confirm(*A, SPACE, [confirmed(f"{SECRET}\0")], NOON)
    assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))
    assert ledger.rows(*PLACE, ["d1"], NOON) == {}
