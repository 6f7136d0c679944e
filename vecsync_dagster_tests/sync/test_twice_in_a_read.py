"""A record that one read meets twice, deleted and live: it ends as what the read met last."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.sources import mongo as mongo_source
from vecsync_dagster.sync import PartitionResult, SyncOptions, sync_tenant
from vecsync_dagster_tests.sync.any_run_places import ENTITY, MongoTable, Place, mongo

CONFIG = EntityConfig.model_validate(
    {
        "source": "db",
        "table": "works",
        "id": "_id",
        "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
        "updated_at": "updated_at",
        "deleted_at": "deleted_at",
        "overlap": "PT0S",
        "collections": {"works": {"text": "{name}"}},
    }
)
ROWS = 30
GATE = {"gated": {"max_invalid_share": 0.5, "min_invalid": 1}, "not gated": {}}


@pytest.fixture(scope="module")
def place(mongo_url: str) -> Iterator[Place]:
    with mongo("memory", mongo_url, "never") as place:
        yield place


def put(place: Place, row_id: int, *, deleted: bool = False, name: str = "name") -> None:
    now = place.moment()
    row = {"id": row_id, "tenant_id": "acme", "is_global": False, "name": f"{name} {row_id}", "updated_at": now}
    place.table.put({**row, "deleted_at": now if deleted else None})


def sync(place: Place, mode: Any, page: int, checks: dict[str, Any]) -> PartitionResult:
    [result] = sync_tenant(
        ENTITY,
        CONFIG,
        "acme",
        source=place.source(CONFIG),
        store=place.stores["works"],
        provider=HashProvider(HashConfig(provider="hash", dimensions=8)),
        ledger=place.ledger,
        settings=SyncConfig(page=page, batch=7, parallel=2),
        checks=ChecksConfig.model_validate(checks),
        options=SyncOptions(mode=mode),
        snapshots=place.snapshots,
        missing_for=timedelta(0),
    )
    return result


def held(place: Place) -> set[str]:
    return {point.payload["dbId"] for some in place.stores["works"].scan("works") for point in some}


@pytest.mark.parametrize("checks", GATE.values(), ids=GATE)
@pytest.mark.parametrize("page", [4, 500])
@pytest.mark.parametrize("states", ["dead, then live", "changed, then dead", "new, then dead"])
def test_the_later_state_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch, states: str, page: int, checks: dict[str, Any]
) -> None:
    """Whether it is deleted first or last, in one page or in two, with the share of invalid records checked or not."""
    before, after = states.split(", then ")
    known = [0] if before == "new" else [0, 1]
    place.clear()
    for row_id in known:
        put(place, row_id)
    assert sync(place, "full", 500, {}).figures.new == len(known)
    put(place, 1, deleted=before == "dead", name="changed")
    for row_id in range(2, ROWS):
        put(place, row_id)
    modified = mongo_source._Reader.modified

    def meanwhile(*args: Any) -> Iterator[Any]:
        """A server that goes along an index meets a document once more where it was written behind its place."""
        yield from modified(*args)
        put(place, 1, deleted=after == "dead")
        assert isinstance(place.table, MongoTable)
        yield from place.table.documents.find({"_id": 1})

    monkeypatch.setattr(mongo_source._Reader, "modified", meanwhile)
    result = sync(place, "incremental", page, checks)
    assert result.error is None, result
    there = {str(row_id) for row_id in range(ROWS)} - ({"1"} if after == "dead" else set())
    assert held(place) == there
    full = sync(place, "full", 500, {})
    assert (full.ok, full.figures.writes, held(place)) == (True, 0, there)
