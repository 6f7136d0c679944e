"""A record that a full read did not meet although it is there: it is asked for by its key before its document goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, cast

import pytest

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.sources.base import Page, Read, Source
from vecsync_dagster.sync import PartitionResult, SyncOptions, sync_tenant
from vecsync_dagster_tests.sync.any_run_places import ENTITY, Place, mongo, sqlite

ENTITY_SETTINGS: dict[str, Any] = {
    "source": "db",
    "table": "works",
    "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
    "updated_at": "updated_at",
    "deleted_at": "deleted_at",
    "collections": {"works": {"text": "{name}"}},
}
ROWS = range(30)


@pytest.fixture(scope="module", params=["mongo", "sqlite"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield stack.enter_context(sqlite("memory"))
        else:
            yield stack.enter_context(mongo("memory", request.getfixturevalue("mongo_url"), "never"))


def put(place: Place, row_id: int, tenant: str = "acme", deleted_at: Any = None) -> None:
    row = {"id": row_id, "tenant_id": tenant, "is_global": False, "name": f"name {row_id}", "deleted_at": deleted_at}
    place.table.put({**row, "updated_at": place.moment()})


class Meanwhile:
    """The source, in which something happens at the end of a full read. `asked`: how many ids, each time."""

    def __init__(self, source: Source, happens: Callable[[], None]) -> None:
        self._source, self._happens = source, happens
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, what: Read, page: int = 500) -> Iterator[Page]:
        if what.ids is not None:
            self.asked.append(len(what.ids))
        yield from self._source.read(what, page)
        if what.complete:
            self._happens()


def sync(
    place: Place,
    source: Source,
    entity: EntityConfig,
    checks: ChecksConfig | None = None,
    missing_for: timedelta = timedelta(0),
) -> PartitionResult:
    [result] = sync_tenant(
        ENTITY,
        entity,
        "acme",
        source=source,
        store=place.stores["works"],
        provider=HashProvider(HashConfig(provider="hash", dimensions=8)),
        ledger=place.ledger,
        settings=SyncConfig(page=4, batch=7, parallel=2, delete_batch=5),
        checks=checks,
        options=SyncOptions(mode="full"),
        snapshots=place.snapshots,
        missing_for=missing_for,
    )
    return result


def held(place: Place) -> set[int]:
    return {int(point.payload["dbId"]) for some in place.stores["works"].scan("works") for point in some}


@pytest.mark.parametrize("checks", [{}, {"max_invalid_share": 0.5, "min_invalid": 1}], ids=["not gated", "gated"])
def test_who_comes_back_while_others_are_read_stays(place: Place, checks: dict[str, Any]) -> None:
    """A record that was another tenant's, or nowhere, when its turn came; and only what is about to go is asked for."""
    config, source = filled(place)
    place.table.drop(17)
    put(place, 18, "brick")
    for row_id in (gone := range(20, 30)):
        place.table.drop(row_id)
    meanwhile = Meanwhile(source, lambda: back(place, 17, 18))
    result = sync(place, cast(Source, meanwhile), config, ChecksConfig.model_validate(checks))
    assert result.error is None, result
    assert (held(place), result.figures.removed) == (set(ROWS) - set(gone), len(gone))
    assert (result.figures.spared, sum(meanwhile.asked), max(meanwhile.asked)) == (2, 2 + len(gone), 5)
    full = sync(place, source, config)
    assert (full.ok, full.figures.unchanged, full.figures.writes, full.figures.spared) == (True, 20, 0, 0)


def test_a_tenant_that_comes_back_at_the_last_moment_stays(place: Place) -> None:
    """However often it was missed before: it is not gone, and not missed any more."""
    config, source = filled(place)
    for row_id in ROWS:
        put(place, row_id, "brick")
    assert sync(place, source, config).figures.removals_waiting == len(ROWS)
    result = sync(place, cast(Source, Meanwhile(source, lambda: back(place, *ROWS))), config)
    assert (result.figures.removed, result.figures.spared, result.emptied) == (0, len(ROWS), False)
    assert (held(place), place.ledger.missing(ENTITY)) == (set(ROWS), {})


def test_all_that_a_tenant_has_goes_at_once_where_it_is_marked(place: Place) -> None:
    """Those that are marked as deleted, of any source; what vanished waits."""
    config, source = filled(place)
    for row_id in ROWS[1:]:
        put(place, row_id, deleted_at=place.moment())
    place.table.drop(0)
    figures = sync(place, source, config, missing_for=timedelta(days=1)).figures
    assert (held(place), figures.removed, figures.removals_waiting) == ({0}, len(ROWS) - 1, 1)


def filled(place: Place) -> tuple[EntityConfig, Source]:
    config = EntityConfig.model_validate(ENTITY_SETTINGS | {"id": place.table.id_field})
    place.clear()
    back(place, *ROWS)
    source = place.source(config)
    assert sync(place, source, config).figures.new == len(ROWS)
    return config, source


def back(place: Place, *ids: int) -> None:
    for row_id in ids:
        put(place, row_id)
