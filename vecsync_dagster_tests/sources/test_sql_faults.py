"""Databases that break, refuse, or are too large for the memory."""

from __future__ import annotations

import re
import socket
import tracemalloc
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from vecsync_dagster.config.models import EnvRef, PostgresSource
from vecsync_dagster.errors import SourceRejected, SourceUnavailable
from vecsync_dagster.sources import Read, SqlSource, build_source, sql_sqlite
from vecsync_dagster_tests.sources.backends import SqlBackend, entity_config, ids, read, told

ROWS = 1000


def filled(backend: SqlBackend, name: str = "x") -> SqlBackend:
    backend.create()
    backend.put(*({"id": number, "name": name, "tenant_id": "a"} for number in range(ROWS)))
    return backend


def view(name: str) -> str:
    """A view of the materials whose names are this expression."""
    rest = "unit, price, tenant_id, is_global, updated_at, deleted_at"
    return f"CREATE VIEW v AS SELECT id, {name} AS name, {rest} FROM materials"


def url_of(backend: SqlBackend) -> str:
    return str(backend.engine.url).replace("+psycopg", "")


def at(url: str, monkeypatch: pytest.MonkeyPatch, **settings: float) -> SqlSource:
    """A source of the database at another URL."""
    monkeypatch.setenv("OTHER_DATABASE", url)
    config = PostgresSource(type="postgres", url=EnvRef(env="OTHER_DATABASE"), **settings)
    return build_source(config, entity_config(), name="db", entity_name="materials", path_of=Path)


# -- the middle of a read ------------------------------------------------------------------------------
def test_fault_11_a_lost_connection_is_not_the_end(postgres: SqlBackend) -> None:
    """A server that ends the connection in the middle of a read makes the read fail, not finish."""
    source = filled(postgres).source()
    pages = source.read(Read("a"), 10)
    assert len(ids([next(pages), next(pages)])) == 20
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vecsync'")
    with pytest.raises(SourceUnavailable, match="entity materials, source db: reading table materials"):
        list(pages)
    assert len(ids(read(source))) == ROWS


def test_fault_11_a_failing_row_is_not_the_end(database: SqlBackend) -> None:
    """A row that the database fails to compute in the middle makes the read fail; its value is not told."""
    filled(database, name="secret text")
    database.run("CREATE UNIQUE INDEX by_id ON materials (id)")
    failing = "json(name)"
    if database.placeholder == "%s":
        failing = "CAST(CAST(name AS integer) AS text)"
        # A sort would compute all rows before the first one.
        database.run(f"ALTER DATABASE {database.engine.url.database} SET enable_sort = off")
    database.run(view(f"CASE id WHEN 500 THEN {failing} ELSE 'fine' END"))
    pages = database.source(table="v").read(Read("a"), 10)
    assert ids([next(pages)]) == [str(number) for number in range(10)]
    with pytest.raises(SourceRejected, match="entity materials, source db: reading table v") as caught:
        list(pages)
    assert "secret" not in told(caught.value)


def test_a_statement_that_takes_too_long_ends(postgres: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configured time limit ends a statement, as something that may work later."""
    postgres.create()
    postgres.put({"id": 1, "tenant_id": "a"})
    postgres.run("ALTER TABLE materials RENAME TO slow")
    postgres.run("CREATE VIEW materials AS SELECT slow.* FROM slow, pg_sleep(60)")
    source = at(url_of(postgres), monkeypatch, statement_timeout_s=0.2)
    with pytest.raises(SourceUnavailable, match="57014"):
        source.count("a")
    source.close()


# -- memory --------------------------------------------------------------------------------------------
def test_memory_is_bounded_by_a_page(database: SqlBackend) -> None:
    """Reading many rows holds a few pages of them at a time, not all."""
    source = filled(database, name="x" * 10_000).source()
    source.check()
    tracemalloc.start()
    try:
        count = sum(page.records.num_rows for page in source.read(Read("a"), 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == ROWS
    assert peak < ROWS * 10_000 / 4


def test_postgres_keeps_the_rows_on_its_side(postgres: SqlBackend) -> None:
    """A read fetches from a cursor of the server, page by page."""
    pages = filled(postgres).source().read(Read("a"), 25)
    next(pages)
    with psycopg.connect(url_of(postgres)) as connection:
        asked = connection.execute("SELECT query FROM pg_stat_activity WHERE application_name = 'vecsync'").fetchall()
    assert [re.sub(r"\d+", "n", query.partition(" FROM ")[0]) for (query,) in asked] == ["FETCH FORWARD n"]
    assert len(ids(list(pages))) == ROWS - 25


# -- reading only --------------------------------------------------------------------------------------
def test_a_source_cannot_write(postgres: SqlBackend) -> None:
    """Even a view whose function writes is stopped by the read-only transaction."""
    postgres.create()
    postgres.put({"id": 1, "tenant_id": "a"})
    postgres.run("CREATE TABLE log (at timestamptz)")
    body = "INSERT INTO log VALUES (now()) RETURNING at::text"
    postgres.run(f"CREATE FUNCTION noted() RETURNS text LANGUAGE sql AS '{body}'")
    postgres.run(view("noted()"))
    with pytest.raises(SourceRejected, match="25006"):
        read(postgres.source(table="v"))


def test_a_file_is_opened_for_reading_only(sqlite: SqlBackend, tmp_path: Path) -> None:
    """No statement on a source's own connection can change a file of SQLite."""
    filled(sqlite)
    engine = sql_sqlite.Sqlite(tmp_path / "data.db", name="db").engine()
    with engine.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM materials")
    assert sqlite.source().count("a") == ROWS


# -- who may read --------------------------------------------------------------------------------------
def test_a_table_that_may_not_be_read_is_refused(postgres: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` tries to read: a missing right is found there, and no retry would help."""
    postgres.create()
    with psycopg.connect(url_of(postgres), autocommit=True) as connection:
        connection.execute("CREATE ROLE vecsync_nobody LOGIN PASSWORD 'hunter2'")
        try:
            source = at(url_of(postgres).replace("postgres@", "vecsync_nobody:hunter2@"), monkeypatch)
            with pytest.raises(SourceRejected, match="InsufficientPrivilege, 42501") as caught:
                source.check()
            source.close()
        finally:
            connection.execute("DROP ROLE vecsync_nobody")
    assert "hunter2" not in told(caught.value)


@pytest.mark.parametrize("replaced", [("postgres@", "no_such_role:hunter2@"), ("/vecsync_test", "/no_such")])
def test_a_database_that_refuses_us_is_an_error_for_people(
    postgres: SqlBackend, monkeypatch: pytest.MonkeyPatch, replaced: tuple[str, str]
) -> None:
    """A wrong role or database is not retried; the message says where, and keeps the password."""
    source = at(url_of(postgres).replace(*replaced), monkeypatch)
    with pytest.raises(SourceRejected, match=r"PostgreSQL at 127\.0\.0\.1:\d+/.*(28000|3D000)") as caught:
        source.check()
    assert "hunter2" not in told(caught.value)


def test_a_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another attempt."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        source = at(f"postgresql://u:hunter2@127.0.0.1:{port}/d", monkeypatch)
        with pytest.raises(SourceUnavailable, match=rf"PostgreSQL at 127\.0\.0\.1:{port}/d") as caught:
            source.tenants()
    assert "hunter2" not in told(caught.value)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that accepts and stays silent is left after the configured time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = at(f"postgresql://u@127.0.0.1:{port}/d", monkeypatch, connect_timeout_s=1)
        with pytest.raises(SourceUnavailable):
            source.count("a")


def test_a_locked_file_may_be_free_later(sqlite: SqlBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of SQLite that a writer holds is worth another attempt."""
    monkeypatch.setattr(sql_sqlite, "BUSY_TIMEOUT_S", 0.05)
    sqlite.run("PRAGMA journal_mode = delete")
    sqlite.create()
    with sqlite.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailable, match="SQLITE_BUSY"):
            sqlite.source().count("a")
