"""A collection `materials` of a real MongoDB server that tests write to, and sources that read it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

from vecsync_dagster.config.models import EnvRef, MongoSource
from vecsync_dagster.sources.mongo import MongoDbSource
from vecsync_dagster_tests.sources.backends import entity_config

__all__ = ["VARIABLE", "MongoBackend"]

VARIABLE = "TEST_MONGO_URL"
Document = dict[str, Any]


@dataclass
class MongoBackend:
    """`key`: the field that is the id. `text_times`: times are kept as the text they are given in, not as dates."""

    url: str
    database: str
    key: str = "_id"
    text_times: bool = False
    change_stream: str = "never"
    opened: list[MongoDbSource] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client: MongoClient[Document] = MongoClient(self.url, uuidRepresentation="standard")
        self._uuids = False

    @property
    def documents(self) -> Collection[Document]:
        return self.client[self.database]["materials"]

    def create(self, *, id_type: str = "integer") -> None:
        self._uuids = id_type == "uuid"
        self.client[self.database].create_collection("materials")
        if self.key != "_id":
            self.documents.create_index(self.key)

    def put(self, *rows: Mapping[str, Any]) -> None:
        filled = [{"is_global": False, **row} for row in rows]
        self.documents.insert_many([self._stored(row) for row in filled])

    def change(self, document: Any, **fields: Any) -> None:
        self.documents.update_one({self.key: self._id(document)}, {"$set": self._stored(fields)})

    def drop(self, document: Any) -> None:
        self.documents.delete_one({self.key: self._id(document)})

    def source(self, **entity: Any) -> MongoDbSource:
        config = MongoSource.model_validate(
            {
                "type": "mongo",
                "url": EnvRef(env=VARIABLE),
                "database": self.database,
                "change_stream": entity.pop("change_stream", self.change_stream),
            }
        )
        source = MongoDbSource(
            config,
            entity_config(**{"id": self._named(entity.pop("id", "id")), **entity}),
            name="db",
            entity_name="materials",
        )
        self.opened.append(source)
        return source

    def close(self) -> None:
        for source in self.opened:
            source.close()
        self.client.drop_database(self.database)
        self.client.close()

    def _id(self, value: Any) -> Any:
        return uuid.UUID(value) if self._uuids else value

    def _named(self, key: Any) -> Any:
        """The contract calls the key `id`."""
        return self.key if key == "id" else [self.key if name == "id" else name for name in key]

    def _stored(self, row: Mapping[str, Any]) -> Document:
        stored: Document = {}
        for name, value in row.items():
            if name == "id":
                stored[self.key] = self._id(value)
            elif name.endswith("_at") and value is not None and not self.text_times:
                stored[name] = datetime.fromisoformat(value)
            else:
                stored[name] = value
        return stored
