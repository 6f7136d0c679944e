"""The databases under the sources: a fresh one for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from vecsync_dagster.config.models import EnvRef, PostgresSource, SqliteSource
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.sources.backends import SqlBackend
from vecsync_dagster_tests.sources.mongo_backend import VARIABLE, MongoBackend

pytest.register_assert_rewrite("vecsync_dagster_tests.sources.source_contract")


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqlBackend]:
    """An SQLite file in WAL mode, so that tests can write while a source reads."""
    engine = create_engine(f"sqlite+pysqlite:///{tmp_path}/data.db", poolclass=NullPool)
    config = SqliteSource(type="sqlite", path="data.db")
    backend = SqlBackend(engine, config, tmp_path, "?", {"time": "text"})
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def postgres_of_module(postgres_url: str) -> Iterator[str]:
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def postgres(postgres_of_module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlBackend]:
    """An empty database of PostgreSQL; emptied after the test, which is ten times quicker than a new one."""
    monkeypatch.setenv("TEST_DATABASE", postgres_of_module)
    engine = create_engine(postgres_of_module.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    config = PostgresSource(type="postgres", url=EnvRef(env="TEST_DATABASE"))
    backend = SqlBackend(engine, config, tmp_path, "%s")
    yield backend
    backend.close()
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS shop CASCADE")
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA public TO PUBLIC")
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} RESET ALL")


@pytest.fixture
def mongo(mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoBackend]:
    """An empty database of MongoDB; without change streams unless a source asks for them."""
    monkeypatch.setenv(VARIABLE, mongo_url)
    backend = MongoBackend(mongo_url, mongo_database)
    yield backend
    backend.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> SqlBackend:
    """Both products of SQL, one after the other."""
    backend: SqlBackend = request.getfixturevalue(request.param)
    return backend
