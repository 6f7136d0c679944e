"""Whether a refused login is tried again: by what the server's code says, in whatever language its text is."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from vecsync_dagster import postgres_login
from vecsync_dagster.config.models import EnvRef, PostgresSource
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, SourceRejected, SourceUnavailable, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sources import build_source
from vecsync_dagster.sources.postgres_notify import execute
from vecsync_dagster_tests.automation.deployment import wait_for
from vecsync_dagster_tests.sources.backends import entity_config

SECRET = "hunter2"


@contextmanager
def refusing(code: str, *, tls: bytes = b"N", answers: bool = True) -> Iterator[str]:
    """URL of a server that refuses everybody with this code, in Russian."""
    text = "пользователь не прошёл проверку подлинности".encode()
    fields = b"".join((b"S\xd0\x92\xd0\x90\xd0\x96\xd0\x9d\xd0\x9e\0VFATAL\0C", code.encode(), b"\0M", text, b"\0\0"))
    error = b"E" + (len(fields) + 4).to_bytes(4) + fields

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                while (head := peer.recv(4)) and answers:
                    body = peer.recv(int.from_bytes(head) - 4)
                    if body[:4] == (80877103).to_bytes(4):
                        peer.sendall(tls)
                    else:
                        peer.sendall(error)
                        break

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"postgresql://u:{SECRET}@127.0.0.1:{listening.getsockname()[1]}/d"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def errors_at(url: str, monkeypatch: pytest.MonkeyPatch) -> list[VecsyncError]:
    """What a source, a statement of the triggers, and the ledger say of this server."""
    monkeypatch.setenv("TESTED_URL", url)
    config = PostgresSource(type="postgres", url=EnvRef(env="TESTED_URL"), connect_timeout_s=5)
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=Path)
    found = []
    for use in (source.tenants, lambda: execute(url, [], "triggers"), lambda: SqlLedger.open(url, auto_migrate=False)):
        with pytest.raises(VecsyncError) as caught:
            use()
        assert SECRET not in str(caught.value)
        found.append(caught.value)
    source.close()
    return found


@pytest.mark.parametrize("code", ["28P01", "28000", "3D000", "42501", "22023"])
def test_a_refusal_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A server that refuses the login for good is an error with its code, whatever the language of its text."""
    with refusing(code) as url:
        errors = errors_at(url, monkeypatch)
    assert [type(error) for error in errors] == [SourceRejected, SourceRejected, LedgerRejected]
    assert all(code in str(error) for error in errors)


@pytest.mark.parametrize("code", ["57P03", "53300", "57P01", "08006"])
def test_a_server_that_is_busy_is_tried_again(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A server that is starting, stopping or full is an outage."""
    with refusing(code) as url:
        errors = errors_at(url, monkeypatch)
    assert [type(error) for error in errors] == [SourceUnavailable, SourceUnavailable, LedgerUnavailable]


def test_a_server_that_hangs_up_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends without an answer is an outage."""
    with refusing("28P01", answers=False) as url:
        errors = errors_at(url, monkeypatch)
    assert [type(error) for error in errors] == [SourceUnavailable, SourceUnavailable, LedgerUnavailable]


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has no TLS for a URL that requires it is not waited for."""
    with refusing("28P01") as url:
        errors = errors_at(f"{url}?sslmode=require", monkeypatch)
    assert [type(error) for error in errors] == [SourceRejected, SourceRejected, LedgerRejected]
    assert all("no TLS" in str(error) for error in errors)


def test_a_refusal_without_a_code_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libpq cannot trace, it is not known whether the login is wrong: the message asks for both."""
    monkeypatch.setattr(postgres_login, "_traced", lambda _: None)
    with refusing("28P01") as url:
        errors = errors_at(url, monkeypatch)
    assert [type(error) for error in errors] == [SourceUnavailable, SourceUnavailable, LedgerUnavailable]
    assert all("is the server up, the login right?" in str(error) for error in errors)


@pytest.fixture
def logins(postgres_database: str) -> Iterator[dict[str, str]]:
    """URLs of a real server's database for roles that it refuses for one reason each, by the code of that."""
    role = f"r{uuid.uuid4().hex[:8]}"
    url = postgres_database.replace("postgres@", "{}:" + SECRET + "@")
    with psycopg.connect(postgres_database, autocommit=True) as admin:

        def rules(lines: str) -> None:
            """The server's list of who may log in how."""
            path = str(admin.execute("SHOW hba_file").fetchall()[0][0])
            admin.execute(sql.SQL("COPY (SELECT unnest({}::text[])) TO {}").format(lines.splitlines(), path))
            admin.execute("SELECT pg_reload_conf()")

        before = str(admin.execute("SELECT pg_read_file(current_setting('hba_file'))").fetchall()[0][0])
        rows = "\n".join(line for line in before.splitlines() if line and not line.startswith("#"))
        for statement in (
            f"CREATE ROLE {role}_a LOGIN PASSWORD 'right'",
            f"CREATE ROLE {role}_b LOGIN",
            f"CREATE ROLE {role}_c LOGIN CONNECTION LIMIT 0",
        ):
            admin.execute(statement.encode())
        rules(f"host all {role}_a all scram-sha-256\nhost all {role}_b all reject\n{rows}")
        try:
            wait_for("the new rules", lambda: _is_refused(url.format(f"{role}_b")))
            yield {
                "28P01": url.format(f"{role}_a"),
                "28000": url.format(f"{role}_b"),
                "53300": url.format(f"{role}_c"),
                "no password": url.format(f"{role}_a").replace(f":{SECRET}", ""),
            }
        finally:
            rules(rows)
            for letter in "abc":
                admin.execute(f"DROP ROLE {role}_{letter}".encode())


def _is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_real_server_that_refuses_a_role(logins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, none, and a role that may not log in are said at once; a role with too many connections is
    tried again."""
    for code, url in logins.items():
        transient = code == "53300"
        expected = (
            [SourceUnavailable] * 2 + [LedgerUnavailable] if transient else [SourceRejected] * 2 + [LedgerRejected]
        )
        errors = errors_at(url, monkeypatch)
        assert [type(error) for error in errors] == expected, code
        assert all(code in str(error) for error in errors)


def test_a_real_server(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server's refusals of role and database have their codes."""
    role = postgres_database.replace("postgres@", f"no_such_role:{SECRET}@")
    errors = errors_at(role, monkeypatch)
    assert all("28000" in str(error) and "the role does not exist" in str(error) for error in errors)
    with psycopg.connect(postgres_database) as connection:
        name = connection.info.dbname
    errors = errors_at(postgres_database.replace(name, "nowhere"), monkeypatch)
    assert all("3D000" in str(error) and "the database does not exist" in str(error) for error in errors)


def test_a_table_that_may_not_be_read(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role without the right to read a table learns which, and nothing of what is in it; of a table of
    names too."""
    role = f"r{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_database, autocommit=True) as admin:
        columns = "id int PRIMARY KEY, tenant_id text, is_global bool, updated_at timestamptz, deleted_at timestamptz"
        admin.execute(f"CREATE TABLE materials ({columns}, name text, unit text, code text, price text)".encode())
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            monkeypatch.setenv("TESTED_URL", postgres_database.replace("postgres@", f"{role}@"))
            config = PostgresSource(type="postgres", url=EnvRef(env="TESTED_URL"))
            tenancy = {"column": "tenant_id", "global_flag": "is_global", "name": {"table": "firms"}}
            entity = entity_config(tenancy=tenancy)
            source = build_source(config, entity, name="db", entity_name="materials", path_of=Path)
            with pytest.raises(
                SourceRejected, match=r"table materials: permission denied \(InsufficientPrivilege, 42501"
            ):
                source.tenants()
            admin.execute(f"CREATE TABLE firms (id text, name text); GRANT SELECT ON materials TO {role}".encode())
            with pytest.raises(SourceRejected, match=r"names of tenants, table firms: permission denied"):
                source.tenant_names(["a"])
            source.close()
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens is named as what it is, by the system's code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    errors = errors_at(f"postgresql://u:{SECRET}@127.0.0.1:{port}/d", monkeypatch)
    assert [type(error) for error in errors] == [SourceUnavailable, SourceUnavailable, LedgerUnavailable]
    assert all("connection refused" in str(error) for error in errors)
