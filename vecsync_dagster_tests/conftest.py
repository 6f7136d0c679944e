"""Fixtures that every room's tests may ask for. Nothing is started before a test asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vecsync_dagster_tests.servers.mongo import mongo_server, new_mongo_database
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


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """URL of a server of MongoDB's protocol that is a replica set: mongodb://127.0.0.1:port/."""
    with mongo_server() as url:
        yield url


@pytest.fixture
def mongo_database(mongo_url: str) -> Iterator[str]:
    """Name of a new, empty database on that server, dropped after the test."""
    with new_mongo_database(mongo_url) as name:
        yield name
