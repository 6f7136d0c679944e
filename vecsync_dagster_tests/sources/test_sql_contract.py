"""The contract over both products of SQL."""

from __future__ import annotations

import pytest

from vecsync_dagster.sources import Source
from vecsync_dagster_tests.sources.backends import SqlBackend
from vecsync_dagster_tests.sources.source_contract import SourceContract


class TestSqlite(SourceContract):
    @pytest.fixture
    def backend(self, sqlite: SqlBackend) -> SqlBackend:
        return sqlite


class TestPostgres(SourceContract):
    @pytest.fixture
    def backend(self, postgres: SqlBackend) -> SqlBackend:
        return postgres


def test_a_source_of_sql_is_a_source(sqlite: SqlBackend) -> None:
    """The built object fulfils the protocol."""
    assert isinstance(sqlite.source(), Source)
