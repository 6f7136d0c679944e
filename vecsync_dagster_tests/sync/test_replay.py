"""A real year of a catalogue, month by month: nothing is embedded that was not really new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymongo import DeleteOne, ReplaceOne

from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.replay import DATA, PAYLOAD, TEXTS, Catalogue, Delta, Expected, deltas, snapshot
from vecsync_dagster_tests.tools import Tools, tools_config

pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/software beside the repository"),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("replay"),  # the year is replayed once, not by each worker
]
MODES = ("incremental", "full")
MONTHS = ["2023-09", *(f"2023-{month}" for month in (10, 11, 12)), *(f"2024-{month:02}" for month in range(1, 9))]


@dataclass
class Month:
    """One month: what should happen, what each mode did, and in which collections it left something else."""

    month: str
    expected: dict[str, Expected]
    texts: int
    results: dict[str, dict[str, PartitionResult]] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)


class Year(dict[str, Month]):
    """Months, in their order, as they are asked for."""

    def __init__(self, months: Iterator[Month]) -> None:
        self._months = months

    def __missing__(self, wanted: str) -> Month:
        for month in self._months:
            self[month.month] = month
            if month.month == wanted:
                return month
        raise KeyError(wanted)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, mongo_url: str) -> Iterator[Year]:
    """One catalogue in MongoDB, followed by two stores: incrementally in the one, by full runs in the other; up to the
    month that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGO_URL", mongo_url)
        worlds = {mode: world(tmp_path_factory.mktemp(mode), mongo_url) for mode in MODES}
        try:
            yield Year(replay(worlds))
        finally:
            documents = worlds["full"].client
            documents.drop_database(worlds["full"].database)
            for one in worlds.values():
                one.close()


def world(folder: Path, url: str) -> Tools:
    """`_id` is the id: then the change stream names what is deleted."""
    entity: dict[str, Any] = {
        "id": "_id",
        "filter": {},
        "collections": {name: {"text": text, "payload": PAYLOAD} for name, text in TEXTS.items()},
    }
    return Tools(url, "vecsync_test_replay", tools_config(folder, "vecsync_test_replay", entity=entity))


def replay(worlds: dict[str, Tools]) -> Iterator[Month]:
    catalogue = Catalogue()
    first = snapshot()
    yield follow(worlds, catalogue, Delta(MONTHS[0], first, set()))
    for delta in deltas():
        yield follow(worlds, catalogue, delta)


def follow(worlds: dict[str, Tools], catalogue: Catalogue, delta: Delta) -> Month:
    apply(worlds["full"], delta)
    records = {key: record for key, record in catalogue.records.items() if key not in delta.deletes} | delta.upserts
    month = Month(delta.month, *catalogue.step(records))
    points = {name: catalogue.points(name) for name in TEXTS}
    for mode, one in worlds.items():
        month.results[mode] = one.sync(mode=mode)
        month.wrong[mode] = [name for name in TEXTS if one.stored(name) != points[name]]
    return month


def apply(tools: Tools, delta: Delta) -> None:
    writes: list[Any] = [DeleteOne({"_id": key}) for key in delta.deletes]
    for key, record in delta.upserts.items():
        document = {name: value for name, value in record.items() if name != "id"}
        writes.append(ReplaceOne({"_id": key}, document, upsert=True))
    tools.documents.bulk_write(writes, ordered=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("month", [*MONTHS[:5], *(pytest.param(one, marks=pytest.mark.many) for one in MONTHS[5:])])
def test_after_each_month_the_store_is_the_catalogue(year: Year, month: str, mode: str) -> None:
    """Ids, hashes and payloads of all four collections; no document failed, and every check passed."""
    results = year[month].results[mode]
    assert year[month].wrong[mode] == []
    first = month == MONTHS[0]
    assert {result.mode for result in results.values()} == {"full" if first else mode}
    assert all(result.ok and all(check.passed for check in result.checks) for result in results.values())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("month", [*MONTHS[:5], *(pytest.param(one, marks=pytest.mark.many) for one in MONTHS[5:])])
def test_each_month_writes_and_embeds_what_really_changed(year: Year, month: str, mode: str) -> None:
    """Vectors written are the documents whose text changed; texts embedded are those that nobody had seen."""
    told = year[month]
    for collection, expected in told.expected.items():
        figures = told.results[mode][collection].figures
        done = (figures.new, figures.changed, figures.payload_only, figures.removed, figures.upserted)
        wanted = (expected.new, expected.changed, expected.payload_only, expected.removed, expected.written)
        assert done == wanted, collection
    assert sum(result.figures.embedded for result in told.results[mode].values()) == told.texts


def test_january_has_thirteen_new_tools_and_only_stars_beside(year: Year) -> None:
    """2024-01: 13 tools are new, more than 900 have other stars alone, and not one of these makes a vector."""
    for expected in year["2024-01"].expected.values():
        assert (expected.new, expected.changed, expected.written) == (13, 0, 13)
        assert expected.payload_only > 900
