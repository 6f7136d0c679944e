"""The store contract over the embedded engine, the server's REST protocol and the client's in-memory reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster.stores.base import VectorStore
from vecsync_dagster_tests.stores.engines import SPACE, Engine, started
from vecsync_dagster_tests.stores.store_contract import StoreContract

ENGINES = [
    "embedded",
    "server",
    # The reference says that it keeps no payload indexes; the other two engines do.
    pytest.param("memory", marks=pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")),
]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with started(request.param, tmp_path / "qdrant") as engine:
        yield engine


@pytest.fixture
def store(engine: Engine) -> Iterator[VectorStore]:
    store = engine.open()
    store.ensure_collection("materials", SPACE)
    yield store
    store.close()


class TestStoreContract(StoreContract):
    pass
