"""The engines the contract runs over: each can open a store again on the same data, and write as a stranger would."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vecsync_dagster.space import Space
from vecsync_dagster.stores.base import Point, VectorStore
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.stores.qdrant_server import QdrantServerStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest

__all__ = ["SPACE", "Embedded", "Engine", "Memory", "Server", "payload", "point", "uid"]

SPACE = Space("hash", "words", 4)


class Engine(Protocol):
    def open(self, prefix: str = "") -> VectorStore:
        """A new store over the same data, as another run would open it."""
        ...

    def write_as_stranger(self, physical: str, points: Mapping[int, Mapping[str, Any]]) -> None:
        """Points with numeric ids, written past the store; every store must be closed."""
        ...

    def make_anew(self, physical: str, alias: str, space: Space) -> None:
        """The collection of this name, empty and for vectors of another space; every store must be closed."""
        ...


class Embedded:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, prefix: str = "") -> VectorStore:
        return QdrantEmbeddedStore(self.folder, prefix, lock_timeout_s=0.2)

    def write_as_stranger(self, physical: str, points: Mapping[int, Mapping[str, Any]]) -> None:
        shard = edge.EdgeShard.load(str(self.folder / physical))
        new = [edge.Point(number, [1.0] * SPACE.dimensions, dict(fields)) for number, fields in points.items()]
        shard.update(edge.UpdateOperation.upsert_points(new))
        shard.close()

    def make_anew(self, physical: str, alias: str, space: Space) -> None:
        shutil.rmtree(self.folder / physical)
        (self.folder / physical).mkdir()
        distance = {"cosine": edge.Distance.Cosine, "dot": edge.Distance.Dot}[space.distance]
        config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(size=space.dimensions, distance=distance))
        edge.EdgeShard.create(str(self.folder / physical), config).close()


class _Client:
    """Both ways to talk to the client: over HTTP and in memory."""

    def __init__(self, client: QdrantClient) -> None:
        self.client = client

    def write_as_stranger(self, physical: str, points: Mapping[int, Mapping[str, Any]]) -> None:
        new = [
            models.PointStruct(id=number, vector=[1.0] * SPACE.dimensions, payload=dict(fields))
            for number, fields in points.items()
        ]
        self.client.upsert(physical, new)

    def make_anew(self, physical: str, alias: str, space: Space) -> None:
        distance = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}[space.distance]
        self.client.delete_collection(physical)
        self.client.create_collection(physical, models.VectorParams(size=space.dimensions, distance=distance))
        lead = models.CreateAlias(collection_name=physical, alias_name=alias)
        self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=lead)])


class Server(_Client):
    def __init__(self, rest: QdrantRest) -> None:
        super().__init__(QdrantClient(url=rest.url, check_compatibility=False))
        self.rest = rest

    def open(self, prefix: str = "") -> VectorStore:
        return QdrantServerStore(self.rest.url, prefix=prefix, timeout_s=30, attempts=2)


class Memory(_Client):
    def __init__(self) -> None:
        super().__init__(QdrantClient(":memory:"))

    def open(self, prefix: str = "") -> VectorStore:
        return QdrantServerStore(client=self.client, prefix=prefix, attempts=1)


@contextmanager
def started(name: str, folder: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        if name == "embedded":
            yield Embedded(folder)
            return
        engine = Server(stack.enter_context(QdrantRest())) if name == "server" else Memory()
        stack.callback(engine.client.close)
        yield engine


def uid(name: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(name)))


def payload(name: object, tenant: str, /, **fields: Any) -> dict[str, Any]:
    """What vecsync writes; `tenant` is "global" or a tenant's id."""
    shared = tenant == "global"
    return {
        "id": f"{tenant}-material-{name}",
        "entity": "materials",
        "type": "material",
        "dbId": str(name),
        "tenantId": None if shared else tenant,
        "scope": "global" if shared else "tenant",
        "isGlobal": shared,
        "contentHash": "c" * 16,
        "payloadHash": "p" * 16,
        **fields,
    }


def point(
    name: object, tenant: str, vector: Sequence[float] | NDArray[np.float32] = (1.0, 0.0, 0.0, 0.0), /, **fields: Any
) -> Point:
    return Point(uid(name), payload(name, tenant, **fields), np.asarray(vector, dtype=np.float32))
