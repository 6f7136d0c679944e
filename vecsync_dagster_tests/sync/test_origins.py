"""The server behind a model's name may be another one: its vectors are taken where they are the same."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from safetensors.numpy import load_file, save_file

from vecsync_dagster.cli.probing import probe_all
from vecsync_dagster.cli.searching import Answer, find
from vecsync_dagster.errors import SourceRejected, SpaceMismatch
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.apply import _Batch
from vecsync_dagster_tests.embedding.local_models import local_config, needs_sentence_transformers, with_torch
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.sync.test_kills import paid_world
from vecsync_dagster_tests.sync.test_spaces import codes, with_chain
from vecsync_dagster_tests.world import World, config_of


@pytest.fixture
def world(tmp_path: Path, provider: OpenAIServer) -> World:
    """Synced with the first server."""
    world = paid_world(tmp_path, provider)
    world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
    world.sync()
    return world


def at(world: World, server: OpenAIServer) -> World:
    [provider] = world.config.model_dump(mode="json", exclude_unset=True)["embedding"]["chain"]
    return with_chain(world, provider | {"base_url": server.base_url})


def search(world: World) -> Answer:
    """As `vecsync search` does."""
    with Workspace(world.config, read_only=True) as workspace:
        return find(workspace, "семь", tenant="acme", collection="works", limit=3)


def kept(world: World) -> list[Any]:
    """All that the ledger keeps of the space."""
    with sqlite3.connect(world.config.state_folder / "ledger.sqlite") as ledger:
        tables = ("embedding_cache", "space_origin")
        return [ledger.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_another_model_behind_the_same_name_writes_nothing(world: World, mode: str) -> None:
    """Two models' vectors meet neither in a collection nor in the cache, and no search compares them."""
    with OpenAIServer(dimensions=16, salt="other") as other:
        moved = at(world, other)
        moved.insert([{"id": 7, "tenant_id": "acme", "name": "семь"}, {"id": 8, "tenant_id": "new"}])
        before = moved.stored()
        results = moved.sync(mode=mode)
        assert codes(results) == {"SPACE_MISMATCH"}
        assert all("base_url" in str(result.error) for result in results if result.error is not None)
        assert moved.stored() == before
        with pytest.raises(SpaceMismatch):
            search(moved)
    assert codes(world.sync(mode=mode)) == set()
    world.assert_exact()


def test_the_same_model_at_another_address_goes_on(world: World, provider: OpenAIServer) -> None:
    """One text is embedded once more to find that out, and only when there is something to embed."""
    with OpenAIServer(dimensions=16) as second:
        moved = at(world, second)
        assert codes(moved.sync(mode="full")) == set()
        assert second.asked == []
        moved.insert([{"id": 7, "tenant_id": "acme", "name": "семь"}])
        [result] = moved.sync("acme")
        assert (result.ok, len(second.asked), result.figures.api_calls) == (True, 2, 2)
        moved.insert([{"id": 8, "tenant_id": "acme", "name": "восемь"}])
        assert codes(moved.sync()) == set()
        assert len(second.asked) == 3
        moved.assert_exact()


def test_a_dropped_collection_may_begin_with_another_model(world: World) -> None:
    """Where no document of the former model is left, its cached vectors go too."""
    with OpenAIServer(dimensions=16, salt="other") as other:
        moved = at(world, other)
        world.delete(*range(1, 6))
        world.sync("acme", mode="full", allow_removals=True)
        moved.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
        assert codes(moved.sync(mode="full")) == set()
        assert len(other.asked) == 5


@pytest.mark.parametrize("changed", ["each text", "all but the last"])
def test_a_text_to_compare_is_looked_for_everywhere(world: World, changed: str) -> None:
    """Vectors of two models never meet, in whichever tenant the only text is that has a kept one, and if none is."""
    with world.kept_open():
        world.insert({"id": 100 + n, "tenant_id": f"t{n:02}"} for n in range(21))
        world.insert({"id": 1000 + n, "tenant_id": "t20"} for n in range(205))
        world.sync()
    ids = [row["id"] for row in world.rows()]
    world.update(*(ids if changed == "each text" else ids[:-1]), name="другая")
    before = kept(world)
    with OpenAIServer(dimensions=16, salt="other") as other, at(world, other).kept_open() as workspace:
        selections = workspace.select(["works"], ["acme", "t00", "t20"])
        results = [result for selection in selections for result in workspace.sync(selection)]
        assert [result.error and result.error.code for result in results] == ["SPACE_MISMATCH"] * 3
        assert len(other.asked) == (0 if changed == "each text" else 1)
    assert kept(world) == before


@pytest.mark.parametrize("moment", ["the answer", "keeping", "writing", "confirming"])
def test_a_first_run_that_is_late_mixes_nothing(
    tmp_path: Path, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """While it waits for its server, the ledger or the store, another server is configured, which a run of another
    tenant asks: no document has a vector yet, and that one's count."""
    world = paid_world(tmp_path, provider)
    with QdrantRest() as store, OpenAIServer(dimensions=16, salt="other") as other:
        in_common = {"main": world.config.stores["main"].model_copy(update={"path": None, "url": store.url})}
        world.config = world.config.model_copy(update={"stores": in_common})
        world.insert([{"id": 1, "tenant_id": "acme", "name": "один"}, {"id": 2, "tenant_id": "brick", "name": "два"}])
        moved = World(world.source_url, at(world, other).config)

        def meanwhile() -> None:
            patched.undo()
            assert codes(moved.sync("brick")) == set()

        owner, method = {
            "the answer": (provider, "handle"),
            "keeping": (SqlLedger, "keep_vectors"),
            "writing": (_Batch, "_upsert"),
            "confirming": (_Batch, "_confirm_vectors"),
        }[moment]
        real = getattr(owner, method)

        def late(*arguments: Any) -> Any:
            meanwhile()
            return real(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(owner, method, late)
            assert codes(world.sync("acme")) == {"SPACE_MISMATCH"}
        assert codes(moved.sync(mode="full")) == set()
        moved.assert_exact()
        moved.assert_vectors()


@with_torch
@needs_sentence_transformers
def test_other_weights_of_a_local_model_write_nothing(tmp_path: Path) -> None:
    """It was trained again, under the same name: its vectors meet those of the former one nowhere."""
    model = tmp_path / "model"
    shutil.copytree(local_config().model, model)
    local = {"provider": "sentence_transformers", "model": str(model)}
    config = config_of(
        tmp_path,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        embedding={"chain": [local]},
    )
    world = World(f"sqlite:///{tmp_path / 'source.db'}", config)
    world.insert({"id": n, "tenant_id": "acme", "name": name} for n, name in enumerate(("brick wall", "roof", "beam")))
    assert codes(world.sync()) == set()
    weights = load_file(model / "model.safetensors")
    words = weights["embeddings.word_embeddings.weight"]
    weights["embeddings.word_embeddings.weight"] = np.ascontiguousarray(words[::-1])
    save_file(weights, model / "other", metadata={"format": "pt"})
    before = world.stored()
    (model / "model.safetensors").rename(model / "former")
    (model / "other").rename(model / "model.safetensors")
    world.insert([{"id": 7, "tenant_id": "acme", "name": "paint"}])
    for mode in ("incremental", "full"):
        [result] = world.sync("acme", mode=mode)
        assert "Put the former weights back" in str(result.error)
    with pytest.raises(SpaceMismatch, match="other weights"):
        search(world)
    assert world.stored() == before
    (model / "former").rename(model / "model.safetensors")
    assert codes(world.sync()) == set()
    world.assert_exact()
    world.assert_vectors()


def test_a_search_keeps_nothing(world: World) -> None:
    """Whatever a search finds out about another address, the next sync finds the ledger as it was."""
    with OpenAIServer(dimensions=16) as second:
        moved, before = at(world, second), kept(world)
        assert len(search(moved).hits) == 3
        world.update(*range(1, 6), name="другая")
        with pytest.raises(SpaceMismatch, match="no configured source"):
            search(moved)
        with world.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE works RENAME TO away"))
        with pytest.raises(SourceRejected, match="may be another one"):
            search(moved)
        assert kept(world) == before


def test_a_search_of_an_empty_collection_keeps_nothing(world: World) -> None:
    """Where no document has a vector a search has none to compare, and still writes nothing."""
    world.delete(*range(1, 6))
    world.sync("acme", mode="full", allow_removals=True)
    before = kept(world)
    with OpenAIServer(dimensions=16, salt="other") as other:
        assert search(at(world, other)).hits == ()
    assert kept(world) == before


def test_no_transaction_of_the_source_is_open_while_texts_are_compared(world: World, tmp_path: Path) -> None:
    """The provider may take its time: the source has been let go of before it is asked."""

    class Watching(OpenAIServer):
        def handle(self, body: dict[str, Any], key: str | None) -> Any:
            with closing(sqlite3.connect(tmp_path / "source.db", timeout=0)) as source:
                source.execute("BEGIN EXCLUSIVE")
            return super().handle(body, key)

    world.insert({"id": 100 + n, "tenant_id": "acme"} for n in range(210))
    world.sync()
    with Watching(dimensions=16) as second:
        search(at(world, second))
        assert len(second.answered) == 2


@pytest.mark.parametrize(("salt", "state"), [("", "OK"), ("other", "FAIL")], ids=["the same", "another"])
def test_a_check_compares_as_a_sync_would(world: World, salt: str, state: str) -> None:
    """`vecsync check` says of a collection whether its model is still the one that made its vectors."""
    before = kept(world)
    with OpenAIServer(dimensions=16, salt=salt) as second:
        with Workspace(at(world, second).config, read_only=True) as workspace:
            [told] = [probe for probe in probe_all(workspace) if probe.part == "collection works"]
        assert (told.state, "base_url" in told.message) == (state, state == "FAIL")
    assert kept(world) == before
