"""Fixtures that every room's tests may ask for. Nothing is started before a test asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vecsync_dagster_tests.servers.postgres import new_database, postgres_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a throw-away PostgreSQL's superuser: postgresql://user@127.0.0.1:port/database."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a new, empty PostgreSQL database, dropped after the test."""
    with new_database(postgres_url) as url:
        yield url
