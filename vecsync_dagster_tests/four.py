"""A world whose entity feeds four collections, with a remote provider, a remote store and a clock that tests hold.

Each field of a work makes the text of one collection; the price is payload in all four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vecsync_dagster.ledger.record_states import RecordState, Status
from vecsync_dagster.sync import PartitionResult
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.world import ENTITY, World, config_of

TEXTS = {"tools": "{name}", "functionality": "{code}", "usecases": "{unit}", "interface": "{unit} for {code}"}
FOUR = tuple(TEXTS)
MANY = 1000


@dataclass
class Four:
    """`now` is the ledger's time."""

    world: World
    store: QdrantRest
    provider: OpenAIServer
    now: datetime = field(default=datetime(2026, 3, 1, 12, tzinfo=UTC))

    def insert(self, *ids: int, **values: Any) -> None:
        more = {"is_global": "tenant_id" not in values, **values}
        self.world.insert({"id": n, "name": f"name {n}", "code": f"code {n}", "unit": f"unit {n}", **more} for n in ids)

    def later(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def sync(self, *collections: str, **options: Any) -> dict[str, PartitionResult]:
        """Sync the tenant `global`; results by collection."""
        results = self.world.sync("global", collections=collections, **options)
        return {result.collection: result for result in results}

    def store_is_down(self, collection: str = "", status: int = 503) -> None:
        """For one collection, or all of them."""
        self.store.fail(status=status, times=MANY, path_contains=collection)

    def store_hangs(self, collection: str) -> None:
        """Longer than a store waits that is `impatient`, at each write of vectors."""
        self.store.hang(1.3, times=MANY, path_contains=f"PUT /collections/{collection}/points")

    def store_refuses(self, collection: str) -> None:
        """The vectors of every document, as something that is not acceptable; it takes others."""
        path = f"PUT /collections/{collection}/points"
        self.store.fail(status=400, times=MANY, path_contains=path, spares=b"vecsync:probe")

    def states(self, *ids: int) -> dict[int, RecordState]:
        with self.world.workspace() as workspace:
            found = workspace.ledger.records(ENTITY, FOUR, limit=MANY)
        return {int(record.db_id): record for record in found if not ids or int(record.db_id) in ids}

    def statuses(self, identity: int) -> tuple[Status, ...]:
        return tuple(state.status for state in self.states()[identity].collections.values())


@contextmanager
def four_collections(folder: Path, **sync: Any) -> Iterator[Four]:
    """`sync`: settings of vecsync.yaml's `sync`. OPENAI_API_KEY has to be set."""
    with QdrantRest() as store, OpenAIServer(dimensions=8, rejects="FORBIDDEN") as provider:
        openai = {
            "provider": "openai",
            "model": "loopback",
            "dimensions": 8,
            "base_url": provider.base_url,
            "attempts": 1,
            "timeout_s": 30,
        }
        collections = {name: {"text": text, "payload": ["price"]} for name, text in TEXTS.items()}
        config = config_of(
            folder,
            source={"type": "sqlite", "path": "source.db"},
            store={"type": "qdrant", "url": store.url, "timeout_s": 30, "attempts": 1},
            embedding={"chain": [openai]},
            sync=sync,
            entities={
                ENTITY: {
                    "source": "estimating",
                    "table": "works",
                    "type": "work",
                    "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
                    "updated_at": "updated_at",
                    "deleted_at": "deleted_at",
                    "required": ["name"],
                    "types": {"price": "number"},
                    "collections": collections,
                }
            },
        )
        four = Four(World(f"sqlite:///{folder / 'source.db'}", config), store, provider)
        four.world.clock = lambda: four.now
        yield four
