"""`filter`: only records with an allowed value are there, over every kind of source."""

from __future__ import annotations

from typing import Any

import pytest

from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.errors import SourceRejected
from vecsync_dagster.sources import Cursor
from vecsync_dagster_tests.sources.backends import Backend, SqlBackend, entity_config, ids, read, time
from vecsync_dagster_tests.sources.mongo_backend import MongoBackend


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    found.create()
    return found


APPROVED = {"unit": "approved"}


def test_a_full_read_has_allowed_records_alone(backend: Backend) -> None:
    """Others are neither read, nor counted, nor do their tenants exist."""
    backend.put(
        {"id": 1, "tenant_id": "a", "unit": "approved"},
        {"id": 2, "tenant_id": "a", "unit": "rejected"},
        {"id": 3, "tenant_id": "a"},
        {"id": 4, "tenant_id": "b", "unit": "Approved"},
        {"id": 5, "unit": "pending"},
    )
    source = backend.source(filter=APPROVED)
    assert ids(read(source)) == ["1"]
    assert ids(read(source, ids=["1", "2", "3"])) == ["1"]
    assert (source.count("a"), source.tenants(), source.unassigned()) == (1, ["a"], 0)
    assert ids(read(backend.source(filter={"unit": ["approved", "rejected"]}))) == ["1", "2"]


def test_a_record_that_loses_approval_is_a_tombstone(backend: Backend) -> None:
    """An incremental read tells the ids of changed records that are not allowed any more, those without a value too."""
    backend.put(
        *({"id": key, "tenant_id": "a", "unit": "approved", "updated_at": time(key)} for key in range(1, 5)),
        {"id": 9, "tenant_id": "b", "unit": "approved", "updated_at": time(1)},
    )
    source = backend.source(filter=APPROVED)
    cursor = read(source)[-1].cursor
    assert cursor is not None
    backend.change(1, unit="rejected", updated_at=time(10))
    backend.change(2, unit=None, updated_at=time(11))
    backend.change(3, name="new", updated_at=time(12))
    backend.change(9, unit="rejected", updated_at=time(13))
    pages = read(source, since=cursor)
    assert [key for page in pages for key in page.tombstones] == ["1", "2"]
    assert ids(pages) == ["4", "3"]
    assert ids(read(source)) == ["3", "4"]


@pytest.mark.parametrize(("allowed", "wanted"), [(True, ["1"]), (False, ["2"]), ([True, False], ["1", "2"])])
def test_true_and_false_may_be_filtered(backend: Backend, allowed: Any, wanted: list[str]) -> None:
    """A flag is compared as a flag, and no value is neither."""
    backend.put(
        {"id": 1, "tenant_id": "a", "is_global": True},
        {"id": 2, "tenant_id": "a", "is_global": False},
        {"id": 3, "tenant_id": "a", "is_global": None},
    )
    source = backend.source(tenancy={"column": "tenant_id"}, filter={"is_global": allowed})
    assert ids(read(source)) == wanted
    gone = [key for page in read(source, since=Cursor(time(0), "")) for key in page.tombstones]
    assert sorted([*wanted, *gone]) == ["1", "2", "3"]


def test_an_array_of_values_is_allowed_by_one_of_them(mongo: MongoBackend) -> None:
    """As MongoDB itself compares: one allowed item will do; a number is not a flag."""
    mongo.create()
    mongo.put(
        {"id": 1, "tenant_id": "a", "unit": ["approved", "new"], "updated_at": time(1)},
        {"id": 2, "tenant_id": "a", "unit": ["new"], "updated_at": time(2)},
        {"id": 3, "tenant_id": "a", "unit": 1, "updated_at": time(3)},
    )
    source = mongo.source(filter={"unit": ["approved", True]})
    assert ids(read(source)) == ["1"]
    (page,) = read(source, since=Cursor(time(0), ""))
    assert (ids([page]), page.tombstones) == (["1"], ("2", "3"))


def test_a_filter_needs_its_column(sqlite: SqlBackend) -> None:
    """A wrong name is an error that names the key."""
    sqlite.create()
    with pytest.raises(SourceRejected, match=r"entities\.materials\.filter\.approved: .* has no column 'approved'"):
        sqlite.source(filter={"approved": True}).fields()


def test_another_filter_is_another_look_at_every_record() -> None:
    """A watermark that was made under another filter does not count."""
    plain: EntityConfig = entity_config()
    assert plain.fingerprint("materials") != entity_config(filter=APPROVED).fingerprint("materials")
    assert entity_config(filter=APPROVED).filter == {"unit": ("approved",)}
