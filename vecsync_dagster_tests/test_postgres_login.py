"""Whether a refused login is tried again: by what the server's code says, in whatever language its text is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from vecsync_dagster.config.models import EnvRef, PostgresSource
from vecsync_dagster.errors import LedgerRejected, LedgerUnavailable, SourceRejected, SourceUnavailable, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sources import build_source
from vecsync_dagster.sources.postgres_notify import execute
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


def test_a_real_server(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server's refusals of role and database have their codes."""
    role = postgres_database.replace("postgres@", f"no_such_role:{SECRET}@")
    assert all("28000" in str(error) for error in errors_at(role, monkeypatch))
    with psycopg.connect(postgres_database) as connection:
        name = connection.info.dbname
    assert all("3D000" in str(error) for error in errors_at(postgres_database.replace(name, "nowhere"), monkeypatch))
