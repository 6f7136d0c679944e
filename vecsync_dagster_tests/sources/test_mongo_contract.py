"""The contract over MongoDB: by `_id` and dates, and by a field of its own and times as text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vecsync_dagster.sources import Read, Source
from vecsync_dagster_tests.sources.backends import Backend, ids, values
from vecsync_dagster_tests.sources.mongo_backend import VARIABLE, MongoBackend
from vecsync_dagster_tests.sources.source_contract import SourceContract


class OfMongo(SourceContract):
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch, mongo_url: str) -> None:
        monkeypatch.setenv(VARIABLE, mongo_url)

    def test_a_full_read_is_one_snapshot(self, backend: Backend) -> None:
        """MongoDB keeps no snapshot for as long as a read may take: what is there all the while comes once."""
        backend.create()
        backend.put(*({"id": number, "name": "old", "tenant_id": "a"} for number in range(6)))
        pages = backend.source().read(Read("a"), 2)
        first = next(pages)
        backend.drop(5)
        backend.change(4, name="new")
        backend.put({"id": 99, "name": "late", "tenant_id": "a"})
        every = [first, *pages]
        assert [key for key in ids(every) if key not in ("5", "99")] == ["0", "1", "2", "3", "4"]
        assert set(values(every, "name")) <= {"old", "new", "late"}


class TestById(OfMongo):
    @pytest.fixture
    def backend(self, mongo_url: str, mongo_database: str) -> Iterator[MongoBackend]:
        backend = MongoBackend(mongo_url, mongo_database)
        yield backend
        backend.close()


class TestByFieldWithTextTimes(OfMongo):
    @pytest.fixture
    def backend(self, mongo_url: str, mongo_database: str) -> Iterator[MongoBackend]:
        backend = MongoBackend(mongo_url, mongo_database, key="id", text_times=True)
        yield backend
        backend.close()


def test_a_source_of_mongodb_is_a_source(mongo_url: str, mongo_database: str) -> None:
    """The built object fulfils the protocol."""
    backend = MongoBackend(mongo_url, mongo_database)
    assert isinstance(backend.source(), Source)
    backend.close()
