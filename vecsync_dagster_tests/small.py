"""One entity in one collection: what a source's values become in the store, and what a run says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from vecsync_dagster.config import Config
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace

__all__ = ["NAME", "Small", "mongo_rows", "sqlite_source"]

NAME = "things"


def sqlite_source(path: Path) -> dict[str, Any]:
    return {"type": "sqlite", "path": str(path)}


@contextmanager
def mongo_rows(
    request: pytest.FixtureRequest, *, stream: str = "auto"
) -> Iterator[tuple[dict[str, Any], Collection[dict[str, Any]]]]:
    """Settings of a source in a new database, and the collection `things` in it. `stream`: its `change_stream`."""
    url, database = request.getfixturevalue("mongo_url"), request.getfixturevalue("mongo_database")
    request.getfixturevalue("monkeypatch").setenv("MONGO_URL", url)
    with MongoClient[dict[str, Any]](url) as client:
        source = {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": database, "change_stream": stream}
        yield source, client[database][NAME]


class Small:
    """`source`: its settings. `entity`: those of the entity `things`, of the table `things`, but for its collection;
    `text` and `payload` are the collection's."""

    def __init__(
        self,
        folder: Path,
        source: Mapping[str, Any],
        *,
        text: Any = "{name}",
        payload: tuple[str, ...] = (),
        **entity: Any,
    ) -> None:
        self.folder = folder
        self.data: dict[str, Any] = {
            "sources": {"db": dict(source)},
            "entities": {
                NAME: {
                    "source": "db",
                    "table": NAME,
                    **entity,
                    "collections": {NAME: {"text": text, "payload": payload}},
                }
            },
            "embedding": {"chain": [{"provider": "hash", "dimensions": 16}]},
            "stores": {"main": {"type": "qdrant", "path": "qdrant"}},
            "state": "state",
        }

    @property
    def config(self) -> Config:
        return Config.model_validate(self.data).with_folder(self.folder)

    def sync(self, **options: Any) -> PartitionResult:
        """A full run, unless `options` say otherwise."""
        with Workspace(self.config) as workspace:
            [result] = workspace.sync(Selection(NAME, GLOBAL, (NAME,)), SyncOptions(**({"mode": "full"} | options)))
        return result

    def stored(self) -> dict[str, dict[str, Any]]:
        """The payloads by `dbId`."""
        with Workspace(self.config) as workspace:
            points = [point for page in workspace.store_of(NAME, NAME).scan(NAME) for point in page]
        return {str(point.payload["dbId"]): dict(point.payload) for point in points}
