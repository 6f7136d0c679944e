"""Settings of a role or database that a ledger on PostgreSQL has to live with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import psycopg
import pytest
from psycopg import sql

from vecsync_dagster.errors import LedgerRejected
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster_tests.ledger.samples import ENTITY, NOON, PLACE, SPACE, A, confirm

Open = Callable[[str, str], SqlLedger]
VECTOR = np.array([0.1, -1e-30, 3.0, 92.0], dtype=np.float32)


@pytest.fixture
def opened(postgres_database: str) -> Iterator[Open]:
    """Opens the ledger of a database with one setting of its own."""
    ledgers: list[SqlLedger] = []

    def open_(setting: str, value: str) -> SqlLedger:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            change = sql.SQL("ALTER DATABASE {} SET {} TO {}")
            connection.execute(change.format(name, sql.Identifier(setting), sql.Literal(value)))
        ledgers.append(SqlLedger.open(postgres_database))
        return ledgers[-1]

    yield open_
    for ledger in ledgers:
        ledger.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("datestyle", "German"),
        ("datestyle", "SQL, DMY"),
        ("timezone", "Asia/Tokyo"),
        ("bytea_output", "escape"),
        ("client_encoding", "latin1"),
        ("default_transaction_isolation", "serializable"),
        ("standard_conforming_strings", "off"),
    ],
)
def test_what_was_written_is_read(opened: Open, setting: str, value: str) -> None:
    """Times, text and bytes come back as they were, whatever the database makes of them by itself."""
    ledger = opened(setting, value)
    confirm(ledger, A, ["čaj ☃"])
    assert ledger.rows(*PLACE, ["čaj ☃"], NOON).keys() == {"čaj ☃"}
    [totals] = ledger.totals(NOON)
    assert totals.last_seen_at == NOON
    ledger.keep_vectors(SPACE, {"h1": VECTOR})
    assert ledger.vectors(SPACE, ["h1"])["h1"].tobytes() == VECTOR.tobytes()


def test_options_of_the_url_stay(postgres_database: str) -> None:
    """The URL's own options count, but for those that decide how values look."""
    SqlLedger.open(postgres_database).close()
    ledger = SqlLedger.open(f"{postgres_database}?options=-cdatestyle%3DGerman%20-clock_timeout%3D50")
    with ledger.database.read() as connection:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("datestyle", "lock_timeout")]
    ledger.close()
    assert shown == ["ISO, YMD", "50ms"]


def test_transactions_see_what_others_commit(opened: Open) -> None:
    """Written at READ COMMITTED, the level that the ledger's statements are made for: no run fails for another's."""
    ledger = opened("default_transaction_isolation", "serializable")
    for begin in (ledger.database.read, ledger.database.write):
        for _ in range(2):
            with begin() as connection:
                assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"


def test_a_hold_outlasts_a_limit_on_idle_sessions(opened: Open) -> None:
    """The session of a tenant's lock is idle as long as its sync takes."""
    ledger = opened("idle_session_timeout", "100")
    with ledger.hold(ENTITY, "tenant-a"):
        time.sleep(0.3)


def test_a_search_path_without_a_schema_is_named(opened: Open) -> None:
    """No migration helps there, so none is asked for."""
    with pytest.raises(LedgerRejected, match=r"a schema does not exist \(InvalidSchemaName 3F000\)$"):
        opened("search_path", "nowhere")
