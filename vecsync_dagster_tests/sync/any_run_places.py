"""Where sequences of runs happen: a source that tests write to, stores and a ledger, one set for many sequences.

Servers, tables and collections stay; what is in them goes between two sequences.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import sqlalchemy as sa
from pymongo import MongoClient

from vecsync_dagster.config.models import (
    EntityConfig,
    MongoSource,
    PostgresSource,
    QdrantStore,
    SourceConfig,
    SqliteSource,
)
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.tables import collection_space, metadata
from vecsync_dagster.sources import Source, build_source
from vecsync_dagster.stores import VectorStore, build_store
from vecsync_dagster.sync.snapshots import Snapshots
from vecsync_dagster_tests.fakes.memory_store import MemoryStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.mongo import new_mongo_database
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.world import START, WORKS

__all__ = ["COLLECTIONS", "ENTITY", "URL", "MongoTable", "Place", "SqlTable", "mongo", "play", "postgres", "sqlite"]

ENTITY = "works"
COLLECTIONS = ("works", "codes", "units", "prices")
URL = "ANY_RUN_URL"


class Table(ABC):
    """The rows of the source. `id_field`: what the key is called there."""

    id_field = "id"

    def __init__(self, config: SourceConfig) -> None:
        self.config = config

    def source(self, entity: EntityConfig) -> Source:
        return build_source(self.config, entity, name="db", entity_name=ENTITY, path_of=Path)

    @abstractmethod
    def put(self, row: Mapping[str, Any]) -> None:
        """The row as it is from now on; times are aware datetimes."""

    @abstractmethod
    def drop(self, row_id: int) -> None: ...

    @abstractmethod
    def clear(self) -> None: ...


class SqlTable(Table):
    def __init__(self, config: SourceConfig, url: str) -> None:
        super().__init__(config)
        self._engine = sa.create_engine(url)
        WORKS.create(self._engine)
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # rows may change while others read them

    def put(self, row: Mapping[str, Any]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORKS).where(WORKS.c.id == row["id"]))
            connection.execute(sa.insert(WORKS), {name: self._value(value) for name, value in row.items()})

    def _value(self, value: Any) -> Any:
        text = isinstance(value, datetime) and self._engine.dialect.name == "sqlite"
        return value.isoformat() if text else value

    def drop(self, row_id: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORKS).where(WORKS.c.id == row_id))

    def clear(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORKS))

    def close(self) -> None:
        self._engine.dispose()


class MongoTable(Table):
    id_field = "_id"

    def __init__(self, config: SourceConfig, url: str, database: str) -> None:
        super().__init__(config)
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)
        self.documents = self._client[database][WORKS.name]

    def put(self, row: Mapping[str, Any]) -> None:
        document = {"_id" if name == "id" else name: value for name, value in row.items()}
        self.documents.replace_one({"_id": row["id"]}, document, upsert=True)

    def drop(self, row_id: int) -> None:
        self.documents.delete_one({"_id": row_id})

    def clear(self) -> None:
        self.documents.delete_many({})

    def close(self) -> None:
        self._client.close()


@dataclass
class Place:
    """`rows`: the ledger's database; `now`: the modification time of the last change."""

    table: SqlTable | MongoTable
    stores: dict[str, VectorStore]
    ledger: SqlLedger
    rows: sa.Engine
    folder: Path
    now: datetime = START
    _opened: list[Source] = field(default_factory=list)

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.folder / "snapshots")

    def moment(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def source(self, entity: EntityConfig) -> Source:
        source = self.table.source(entity)
        self._opened.append(source)
        return source

    def close(self) -> None:
        for source in self._opened:
            source.close()
        self._opened.clear()
        self.rows.dispose()

    def clear(self) -> None:
        self.close()
        self.table.clear()
        for collection, store in self.stores.items():
            if store.pinned_space(collection) is not None:
                store.delete_foreign(collection, [p.point_id for page in store.scan(collection) for p in page])
        with self.rows.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not collection_space:
                    connection.execute(sa.delete(table))
        shutil.rmtree(self.folder / "snapshots", ignore_errors=True)
        self.now = START


def _in_memory() -> dict[str, VectorStore]:
    """A store that is fast enough for many sequences; each has one collection."""
    return {name: MemoryStore() for name in COLLECTIONS}


@contextmanager
def _qdrant(folder: Path, url: str | None = None) -> Iterator[dict[str, VectorStore]]:
    config = QdrantStore(type="qdrant", url=url, timeout_s=30) if url else QdrantStore(type="qdrant", path="qdrant")
    with closing(build_store(config, key="store", path_of=lambda path: folder / path)) as store:
        yield dict.fromkeys(COLLECTIONS, store)


def _place(stack: ExitStack, table: SqlTable | MongoTable, folder: Path, ledger: str, engine: str) -> Place:
    stack.enter_context(closing(table))
    match engine:
        case "memory":
            stores = _in_memory()
        case "embedded":
            stores = stack.enter_context(_qdrant(folder))
        case _:
            stores = stack.enter_context(_qdrant(folder, stack.enter_context(QdrantRest()).url))
    opened = stack.enter_context(closing(SqlLedger.open(ledger, auto_migrate=True)))
    return stack.enter_context(closing(Place(table, stores, opened, sa.create_engine(_driver(ledger)), folder)))


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vecsync-any-run-")))


@contextmanager
def sqlite(engine: str, kind: type[SqlTable] = SqlTable) -> Iterator[Place]:
    with ExitStack() as stack:
        folder = _folder(stack)
        table = kind(SqliteSource(type="sqlite", path=str(folder / "s.db")), f"sqlite:///{folder}/s.db")
        yield _place(stack, table, folder, f"sqlite:///{folder}/ledger.sqlite", engine)


@contextmanager
def postgres(engine: str, server: str, kind: type[SqlTable] = SqlTable) -> Iterator[Place]:
    """The ledger is in the same database."""
    with ExitStack() as stack:
        folder = _folder(stack)
        url = stack.enter_context(new_database(server))
        stack.enter_context(patch.dict("os.environ", {URL: url}))
        config = PostgresSource.model_validate({"type": "postgres", "url": {"env": URL}})
        table = kind(config, _driver(url))
        yield _place(stack, table, folder, url, engine)


@contextmanager
def mongo(engine: str, server: str, change_stream: str, kind: type[MongoTable] = MongoTable) -> Iterator[Place]:
    with ExitStack() as stack:
        folder = _folder(stack)
        database = stack.enter_context(new_mongo_database(server))
        stack.enter_context(patch.dict("os.environ", {URL: server}))
        config = MongoSource.model_validate(
            {"type": "mongo", "url": {"env": URL}, "database": database, "change_stream": change_stream}
        )
        table = kind(config, server, database)
        yield _place(stack, table, folder, f"sqlite:///{folder}/ledger.sqlite", engine)


class Playing(Protocol):
    told: list[str]

    def play(self) -> None: ...


def play(sequence: Playing, seed: int, place: str) -> None:
    """Raises AssertionError that says what was done, and how to do it again."""
    try:
        sequence.play()
    except Exception as error:
        told = "\n".join(sequence.told)
        raise AssertionError(f"VECSYNC_SEED={seed} VECSYNC_SEQUENCES=1 ({place}): {error}\n{told}") from error
