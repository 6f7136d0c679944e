"""A real year of a software catalogue, month by month, from MongoDB into four collections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pymongo import DeleteOne, MongoClient, ReplaceOne
from pymongo.collection import Collection

from benchmarks.child import Measured, Task
from benchmarks.processes import Wrong, measure
from benchmarks.replay_pass import URL, stores_in
from benchmarks.scenarios import Pair
from vecsync_dagster_tests.replay import Catalogue, Delta, Expected, deltas, snapshot
from vecsync_dagster_tests.servers.mongo import mongo_server, new_mongo_database

__all__ = ["replay"]

_PEAKS = ("start_s", "idle_mib", "peak_mib")


def replay(folder: Path, seed: int, *, months: int = 11) -> Iterator[Pair]:
    """The first load, the months after it, and a month in which every count of stars changes and nothing else."""
    with mongo_server() as url, new_mongo_database(url) as database, MongoClient[dict[str, Any]](url) as client:
        os.environ[URL] = url
        year = _Year(folder, client[database].tools, floor_first=seed % 2 == 0)
        yield year.month("a first sync", Delta("2023-09", snapshot(), set()), target=1.3)
        pairs = [year.month(delta.month, delta) for delta in list(deltas())[:months]]
        yield _together(f"{len(pairs)} months, full", pairs)
        stars = {key: {**record, "stars": (record["stars"] or 0) + 1} for key, record in year.catalogue.records.items()}
        yield year.month("a month of payloads alone, full", Delta("stars", stars, set()), target=1.5)
        again = {key: {**record, "stars": record["stars"] + 1} for key, record in stars.items()}
        yield year.month("the same, incremental", Delta("stars", again, set()), target=1.5, mode="incremental")
        yield year.month("nothing changed, incremental", Delta("", {}, set()), target=1.5, mode="incremental")


class _Year:
    """The catalogue in MongoDB, followed by vecsync and by the floor, each with a state of its own."""

    def __init__(self, folder: Path, documents: Collection[dict[str, Any]], *, floor_first: bool) -> None:
        self.catalogue = Catalogue()
        self._documents = documents
        self._states = {"floor": folder / "floor", "vecsync": folder / "vecsync"}
        self._order = ("floor", "vecsync") if floor_first else ("vecsync", "floor")
        for state in self._states.values():
            state.mkdir()

    def month(self, phase: str, delta: Delta, *, target: float | None = None, mode: str = "full") -> Pair:
        """Raises Wrong unless vecsync wrote and embedded exactly what the data says, and left the catalogue."""
        self._apply(delta)
        kept = {key: record for key, record in self.catalogue.records.items() if key not in delta.deletes}
        expected, texts = self.catalogue.step(kept | delta.upserts)
        found = {runner: measure(self._task(runner, mode)) for runner in self._order}
        self._assert_right(phase, found["vecsync"], list(expected.values()), texts)
        return Pair(phase, found["floor"], found["vecsync"], target, "right")

    def _task(self, runner: str, mode: Any) -> Task:
        return Task(f"replay_{runner}", self._documents.database.name, str(self._states[runner]), mode=mode)

    def _apply(self, delta: Delta) -> None:
        writes: list[Any] = [DeleteOne({"_id": key}) for key in delta.deletes]
        for key, record in delta.upserts.items():
            document = {name: value for name, value in record.items() if name != "id"}
            writes.append(ReplaceOne({"_id": key}, document, upsert=True))
        if writes:
            self._documents.bulk_write(writes, ordered=False)

    def _assert_right(self, phase: str, told: Measured, expected: Sequence[Expected], texts: int) -> None:
        wanted = {
            "written": sum(one.written for one in expected),
            "payloads": sum(one.payload_only for one in expected),
            "deleted": sum(one.removed for one in expected),
            "embedded": texts,
        }
        if (found := {name: getattr(told, name) for name in wanted}) != wanted:
            raise Wrong(f"{phase}: vecsync did {found}, the data says {wanted}")
        if told.failed_checks:
            raise Wrong(f"{phase}: {told.failed_checks}")
        for name, store in stores_in(self._states["vecsync"]).items():
            stored = {p.point_id: p.payload for page in store.scan(name) for p in page}
            store.close()
            if stored != self.catalogue.points(name):
                raise Wrong(f"{phase}: {name} is not the catalogue")


def _together(phase: str, pairs: Sequence[Pair]) -> Pair:
    """All months as one; each was found to be right on its own."""
    floors = [pair.floor for pair in pairs if pair.floor is not None]
    ratios = "texts embedded / new = 1.00, vectors written / texts changed = 1.00"
    return Pair(phase, _sum(floors), _sum([pair.vecsync for pair in pairs]), None, f"right; {ratios} each month")


def _sum(some: Sequence[Measured]) -> Measured:
    numbers = [field.name for field in fields(Measured) if not isinstance(getattr(some[0], field.name), list)]
    values = {name: (max if name in _PEAKS else sum)(getattr(one, name) for one in some) for name in numbers}
    return replace(some[0], **values)
