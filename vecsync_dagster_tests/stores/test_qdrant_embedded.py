"""The embedded store: one process at a time, whole after a kill, clear about its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from vecsync_dagster.errors import OutputUnwritable, StoreLocked, StoreRejected
from vecsync_dagster.stores.base import Point
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster_tests.stores.engines import SPACE, payload, point, uid

NAME = "materials"
PHYSICAL = SPACE.physical_name(NAME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "qdrant"


@contextmanager
def opened(folder: Path, lock_timeout_s: float = 0.2) -> Iterator[QdrantEmbeddedStore]:
    store = QdrantEmbeddedStore(folder, lock_timeout_s=lock_timeout_s)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def other_process(todo: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the store open; killed at the end if it still runs."""
    command = [sys.executable, "-m", "vecsync_dagster_tests.stores.embedded_process", todo, str(folder), *more]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_what_is_written_at_once_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors and payloads go to the engine in records of at most `max_request_bytes`; a larger point goes alone."""
    sizes: list[int] = []
    update = QdrantEmbeddedStore._update

    def noted(store: QdrantEmbeddedStore, target: Any, operation: edge.UpdateOperation, points: int) -> None:
        sizes.append(points)
        update(store, target, operation, points)

    monkeypatch.setattr(QdrantEmbeddedStore, "_update", noted)
    points = [point(n, "A", text="x" * (1_000 if n else 9_000)) for n in range(25)]
    with closing(QdrantEmbeddedStore(folder, max_request_bytes=5_000)) as store:
        store.ensure_collection(NAME, SPACE)
        store.upsert(NAME, points)
        assert (sizes[0], sum(sizes), max(sizes)) == (1, 25, 3)
        sizes.clear()
        assert store.set_payload(NAME, points) == []
        assert sizes == [1] * 25
        sizes.clear()
        store.delete(NAME, "A", [uid(n) for n in range(25)] * 10)
        assert (sum(sizes), max(sizes), store.count(NAME)) == (250, 125, 0)


class TestLock:
    def test_second_process_is_told_who_holds_the_store(self, folder: Path) -> None:
        """While another process has the store open, every call is StoreLocked and names its pid and command."""
        with other_process("hold", folder) as holder, opened(folder) as store:
            for call in (lambda: store.count(NAME), lambda: store.upsert(NAME, [point(1, "A")]), store.check):
                with pytest.raises(StoreLocked, match=rf"\b{holder.pid}\b") as caught:
                    call()
                assert caught.value.code == "QDRANT_LOCKED"
                assert "embedded_process.py hold, since 20" in str(caught.value)
                assert str(folder) in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "command"),
        [
            (["/opt/bin/vecsync", "sync", "sesame", "--key=sesame"], "vecsync sync"),
            (["/opt/bin/vecsync", "--key=sesame"], "vecsync"),
            (["/opt/lib/dagster/__main__.py", "dev"], "dagster dev"),
        ],
    )
    def test_holder_is_program_and_subcommand(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str
    ) -> None:
        """Program and subcommand are written down, arguments are not: they may hold anything."""
        monkeypatch.setattr(sys, "argv", arguments)
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            holder = json.loads((folder / "holder.json").read_text("utf-8"))
        assert (holder["pid"], holder["command"]) == (os.getpid(), command)

    def test_lock_dies_with_its_process(self, folder: Path) -> None:
        """A killed holder leaves nothing to clear away by hand."""
        with other_process("hold", folder) as holder:
            holder.kill()
            holder.wait()
        with opened(folder, lock_timeout_s=0) as store:
            assert store.pinned_space(NAME) == PHYSICAL

    def test_second_store_in_one_process_waits_for_the_first(self, folder: Path) -> None:
        """The lock is the store's, not the process's; it is free again after close, from whatever thread."""
        with opened(folder) as first, opened(folder, lock_timeout_s=0) as hasty, opened(folder, 30) as patient:
            first.ensure_collection(NAME, SPACE)
            with pytest.raises(StoreLocked, match=rf"\b{os.getpid()}\b"):
                hasty.count(NAME)
            closing = threading.Timer(0.1, first.close)
            closing.start()
            assert patient.count(NAME) == 0
            closing.join()

    def test_a_wait_in_vain_is_the_only_one(self, folder: Path) -> None:
        """A command of many partitions waits once; it has the store as soon as that is free."""
        with opened(folder) as first, opened(folder, lock_timeout_s=1) as second:
            first.ensure_collection(NAME, SPACE)
            with pytest.raises(StoreLocked):
                second.count(NAME)
            began = time.monotonic()
            for _ in range(5):
                with pytest.raises(StoreLocked, match="waited 1 s"):
                    second.count(NAME)
            assert time.monotonic() < began + 1
            first.close()
            assert second.count(NAME) == 0

    def test_close_removes_the_holder(self, folder: Path) -> None:
        """After close nobody is named as holder, and a store that was never used closes without a trace."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            assert (folder / "holder.json").exists()
        assert not (folder / "holder.json").exists()
        QdrantEmbeddedStore(folder / "never").close()
        assert not (folder / "never").exists()


class TestCrash:
    @pytest.mark.parametrize("flush_after", [[], ["400"]], ids=["write-ahead log alone", "flushing often"])
    def test_kill_loses_nothing_that_was_confirmed(self, folder: Path, flush_after: list[str]) -> None:
        """After kill -9 every confirmed upsert, payload and delete is there."""
        with other_process("write", folder, *flush_after) as writer:
            assert writer.stdout is not None
            confirmed = [int(writer.stdout.readline()) for _ in range(30)]
            writer.kill()
            confirmed += [int(line) for line in writer.stdout.read().splitlines()]
        assert len(confirmed) >= 30
        with opened(folder) as store:
            for batch in confirmed:
                names = [f"{batch}-{n}" for n in range(10)]
                got = {p.point_id: p for p in store.retrieve(NAME, [uid(name) for name in names])}
                assert set(got) == {uid(name) for name in names} - {uid(names[1])}
                assert got[uid(names[0])].tenant == "B"
                assert got[uid(names[9])].payload == payload(names[9], "A", batch=batch)
            assert {hit.payload["tenantId"] for hit in store.search(NAME, np.ones(4, np.float32), "B")} == {"B"}

    def test_half_created_collection_is_created_again(self, folder: Path) -> None:
        """What a kill left behind while a collection was being created is no collection, and is replaced."""
        half = folder / f"{PHYSICAL}.creating"
        half.mkdir(parents=True)
        params = edge.EdgeVectorParams(size=4, distance=edge.Distance.Cosine)
        shard = edge.EdgeShard.create(str(half), edge.EdgeConfig(vectors=params))
        shard.update(edge.UpdateOperation.upsert_points([edge.Point(1, [1.0, 0.0, 0.0, 0.0], {})]))
        shard.close()
        with opened(folder) as store:
            assert store.count(NAME) == 0
            store.ensure_collection(NAME, SPACE)
            store.upsert(NAME, [point(1, "A")])
            assert store.count(NAME) == 1
        assert not half.exists()

    def test_collection_without_alias_keeps_its_points(self, folder: Path) -> None:
        """A whole collection whose alias was not written is taken up again, not made anew."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            store.upsert(NAME, [point(1, "A")])
        (folder / "aliases.json").unlink()
        with opened(folder) as store:
            assert store.count(NAME) == 0
            store.ensure_collection(NAME, SPACE)
            assert store.count(NAME, "A") == 1

    def test_removed_collection_is_unknown_until_ensured(self, folder: Path) -> None:
        """A collection whose folder somebody removed reads as empty, refuses writes, and can be made anew."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            store.upsert(NAME, [point(1, "A")])
            store.close()
            shutil.rmtree(folder / PHYSICAL)
            assert (store.count(NAME), store.pinned_space(NAME)) == (0, None)
            with pytest.raises(StoreRejected, match=NAME):
                store.upsert(NAME, [point(1, "A")])
            store.ensure_collection(NAME, SPACE)
            assert store.count(NAME) == 0

    def test_vanished_collection_is_not_the_end_of_a_scan(self, folder: Path) -> None:
        """A collection that somebody removes between two pages is an error, not an empty page."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            store.upsert(NAME, [point(n, "A") for n in range(3)])
            pages = store.scan(NAME, batch=1)
            assert len(next(pages)) == 1
            store.close()
            shutil.rmtree(folder / PHYSICAL)
            with pytest.raises(StoreRejected, match=NAME):
                next(pages)

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"materials": {"physical": "x"}}', '{"m": {"physical": 1, "space": "a"}}']
    )
    def test_damaged_aliases_are_named(self, folder: Path, text: str) -> None:
        """An aliases.json that makes no sense is an error that names the file; the lock is not kept."""
        folder.mkdir(parents=True)
        (folder / "aliases.json").write_text(text)
        with opened(folder) as store, opened(folder) as other:
            for each in (store, other):
                with pytest.raises(StoreRejected, match=r"aliases\.json"):
                    each.count(NAME)


class TestFolder:
    def test_reading_creates_nothing(self, folder: Path) -> None:
        """Readers of a store that does not exist leave no folder behind."""
        with opened(folder) as store:
            assert store.count(NAME) == 0
            assert list(store.scan(NAME)) == []
            assert store.retrieve(NAME, [uid(1)]) == []
            assert store.pinned_space(NAME) is None
            with pytest.raises(StoreRejected):
                store.search(NAME, np.ones(4, np.float32), "A")
        assert not folder.parent.exists()

    def test_reading_an_unknown_collection_creates_no_folder(self, folder: Path) -> None:
        """Beside a known collection, an unknown one stays without a folder."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            before = sorted(p.name for p in folder.iterdir())
            assert store.count("works") == 0
            assert list(store.scan("works")) == []
            assert sorted(p.name for p in folder.iterdir()) == before

    def test_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        """A path below a file ends in OutputUnwritable with the path."""
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "qdrant"
        with opened(folder) as store, pytest.raises(OutputUnwritable) as caught:
            store.ensure_collection(NAME, SPACE)
        assert str(folder) in str(caught.value)
        assert caught.value.code == "OUTPUT_UNWRITABLE"

    def test_full_disk_is_refused_before_the_engine_touches_it(self, folder: Path) -> None:
        """Where the reserve of free disk is missing, opening and writing end in OutputUnwritable, not in a crash."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
        store = QdrantEmbeddedStore(folder, reserve_bytes=2**62)
        for call in (lambda: store.count(NAME), lambda: store.upsert(NAME, [point(1, "A")]), store.check):
            with pytest.raises(OutputUnwritable, match="MiB") as caught:
                call()
            assert str(folder) in str(caught.value)
        with opened(folder) as store:
            assert store.count(NAME) == 0

    def test_disk_that_fills_up_stops_writes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that fills up while the store is open stops every write before it starts, and no reader."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            store.upsert(NAME, [point(1, "A")])
            full = shutil.disk_usage(folder)._replace(free=0)
            monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
            writes: list[Callable[[], object]] = [
                lambda: store.upsert(NAME, [point(2, "A")]),
                lambda: store.set_payload(NAME, [point(1, "B")]),
                lambda: store.delete(NAME, "A", [uid(1)]),
                lambda: store.delete_foreign(NAME, [uid(1)]),
                lambda: store.ensure_collection("works", SPACE),
            ]
            for write in writes:
                with pytest.raises(OutputUnwritable):
                    write()
            assert (store.count(NAME), store.count(NAME, "A")) == (1, 1)


class TestEngine:
    @pytest.mark.parametrize(
        "bad",
        [
            Point("not a uuid", payload(1, "A"), np.ones(4, np.float32)),
            Point(uid(1), payload(1, "A", price=float("nan")), np.ones(4, np.float32)),
            Point(uid(1), payload(1, "A", name="\ud800"), np.ones(4, np.float32)),
        ],
        ids=["id", "NaN in the payload", "lone surrogate"],
    )
    def test_what_the_engine_refuses_is_our_error(self, folder: Path, bad: Point) -> None:
        """The engine's plain exceptions become StoreRejected; nothing of the call is written, the store goes on."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            with pytest.raises(StoreRejected, match="upsert 2 points") as caught:
                store.upsert(NAME, [point(2, "A"), bad])
            assert caught.value.every_document is False
            assert store.count(NAME) == 0
            store.upsert(NAME, [point(2, "A")])
            assert store.count(NAME) == 1

    def test_check_names_engine_and_folder(self, folder: Path) -> None:
        """The connection test says which engine, where, and how many collections."""
        with opened(folder) as store:
            store.ensure_collection(NAME, SPACE)
            assert store.check() == f"embedded Qdrant (qdrant-edge-py 0.9.0) at {folder}, 1 collections"


def test_a_dropped_collections_shard_is_closed(folder: Path) -> None:
    """At once, not when Python comes to collect it: its files would be held until then."""
    with opened(folder) as store:
        store.ensure_collection(NAME, SPACE)
        shard = store._known(NAME).shard
        store.drop_collection(NAME)
        with pytest.raises(Exception, match="not initialized"):
            shard.count(edge.CountRequest(exact=True))
