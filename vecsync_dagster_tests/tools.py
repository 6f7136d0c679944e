"""A small world of tools: a MongoDB collection that feeds four collections, and what they should hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
import yaml
from bson import json_util
from pymongo import MongoClient
from pymongo.collection import Collection

from vecsync_dagster.config import Config
from vecsync_dagster.documents import DocumentBuilder
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster.sources.mongo_values import record_batch
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace

__all__ = ["ENTITY", "FOUR", "Tools", "sample", "tools_config"]

ENTITY = "tools"
FOUR = ("tools", "functionality", "usecases", "interface")
START = datetime(2024, 6, 1, tzinfo=UTC)
Document = dict[str, Any]


def sample() -> list[Document]:
    """The documents of demo/tools.jsonl."""
    lines = files("vecsync_dagster.demo").joinpath("tools.jsonl").read_text(encoding="utf-8").splitlines()
    return [json_util.loads(line) for line in lines]


def tools_config(folder: Path, database: str, *, entity: Mapping[str, Any] | None = None, **more: Any) -> Config:
    """demo/tools.yaml with hash vectors; `entity` and `more` replace or add keys of the entity and of the file."""
    data = yaml.safe_load(files("vecsync_dagster.demo").joinpath("tools.yaml").read_text(encoding="utf-8"))
    data["sources"]["directory"] |= {"database": database}
    data["entities"][ENTITY] |= dict(entity or {})
    data |= {"embedding": {"chain": [{"provider": "hash", "dimensions": 32}]}, **more}
    return Config.model_validate(data).with_folder(folder)


@dataclass
class Tools:
    """`database`: its name at `url`, which `config` finds in MONGO_URL."""

    url: str
    database: str
    config: Config
    now: datetime = START
    results: list[PartitionResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client: MongoClient[Document] = MongoClient(self.url, tz_aware=True)
        self.documents: Collection[Document] = self.client[self.database][ENTITY]
        if self.config.entities[ENTITY].id == "id":
            self.documents.create_index("id", unique=True)
        self._workspace: Workspace | None = None

    def close(self) -> None:
        self.leave()
        self.client.close()

    @property
    def workspace(self) -> Workspace:
        """One for the whole test: opening four collections on disk costs more than all else."""
        if self._workspace is None:
            self._workspace = Workspace(self.config)
        return self._workspace

    def leave(self) -> None:
        """Let others have the store."""
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None

    # -- the source --------------------------------------------------------------------------------
    def insert(self, documents: Iterable[Document]) -> None:
        self.documents.insert_many([{**document, "lastUpdated": self._moment()} for document in documents])

    def change(self, *ids: str, **values: Any) -> None:
        self.documents.update_many({"id": {"$in": ids}}, {"$set": {**values, "lastUpdated": self._moment()}})

    def delete(self, *ids: str) -> None:
        self.documents.delete_many({"id": {"$in": ids}})

    def _moment(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    # -- the sync ----------------------------------------------------------------------------------
    def sync(self, collections: Sequence[str] = FOUR, **options: Any) -> dict[str, PartitionResult]:
        """Sync these collections; the results by collection, which are kept as well."""
        wanted = Selection(ENTITY, GLOBAL, tuple(collections))
        results = self.workspace.sync(wanted, SyncOptions(**options))
        self.results += results
        return {result.collection: result for result in results}

    # -- what should be there ----------------------------------------------------------------------
    def expected(self, collection: str) -> dict[str, dict[str, Any]]:
        """Point id -> payload of every approved tool."""
        config = self.config.entities[ENTITY]
        approved = list(self.documents.find({"approvalStatus": "approved"}))
        if not approved:
            return {}
        batch: pa.RecordBatch = record_batch(config.fields, approved)
        built = DocumentBuilder(ENTITY, config, GLOBAL, [collection]).build(batch)[collection]
        return {document.point_id: dict(document.payload) for document in built.documents}

    def stored(self, collection: str) -> dict[str, dict[str, Any]]:
        store = self.workspace.store_of(ENTITY, collection)
        return {p.point_id: dict(p.payload) for page in store.scan(collection) for p in page}

    def versions(self, document: str) -> dict[str, int]:
        """vector_version of one tool in each collection that has it."""
        rows = self._rows(index_state.c.db_id == document)
        return {row.collection: row.vector_version for row in rows}

    def statuses(self) -> set[str]:
        return {row.status for row in self._rows(sa.true())}

    def _rows(self, where: sa.ColumnElement[bool]) -> list[Any]:
        engine = sa.create_engine(f"sqlite:///{self.config.state_folder / 'ledger.sqlite'}", poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(sa.select(index_state).where(where)))

    def assert_exact(self) -> None:
        """Each of the four collections holds the approved tools, payloads and hashes, and nothing else."""
        for collection in FOUR:
            assert self.stored(collection) == self.expected(collection)
        assert self.statuses() <= {"synced"}
