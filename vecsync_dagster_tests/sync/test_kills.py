"""kill -9 at any boundary, then one clean run: everything is right, and no text is paid for twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.sync.test_many_kills import Nursery, nursery
from vecsync_dagster_tests.world import World, config_of, file_of

pytestmark = pytest.mark.xdist_group("kills")  # one process imports everything for all of them

BATCH = 20
PARALLEL = 2

# Each boundary between two of: paying, keeping, writing, confirming, removing, forgetting.
MOMENTS = [
    ("ledger", "keep_vectors", "before", 2),
    ("ledger", "keep_vectors", "after", 3),
    ("store", "upsert", "before", 2),
    ("store", "upsert", "after", 3),
    ("ledger", "confirm", "after", 2),
    ("ledger", "recognise", "after", 1),
    ("store", "set_payload", "after", 1),
    ("store", "delete", "before", 1),
    ("store", "delete", "after", 1),
    ("ledger", "forget", "after", 1),
    ("ledger", "record_run", "before", 1),
]


@pytest.fixture(scope="module")
def born() -> Iterator[Nursery]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", "test-key")
        with nursery() as nursed:
            yield nursed


def paid_world(folder: Path, server: OpenAIServer) -> World:
    provider = {
        "provider": "openai",
        "model": "loopback",
        "dimensions": server.dimensions,
        "base_url": server.base_url,
        "texts_per_request": BATCH,
    }
    config = config_of(
        folder,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "qdrant"},
        embedding={"chain": [provider]},
        sync={"batch": BATCH, "page": 25, "parallel": PARALLEL},
    )
    return World(f"sqlite:///{folder / 'source.db'}", config)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_killed_anywhere_the_next_run_makes_it_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Nursery, moment: tuple[str, str, str, int]
) -> None:
    """After a kill one clean run leaves store == source == ledger; at most the batches in flight are paid again."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        world = paid_world(tmp_path, server)
        world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 61))
        world.sync()
        world.update(*range(1, 11), code="neu")  # payload only
        for n in range(11, 21):
            world.update(n, name=f"иначе {n}")
        world.delete(*range(21, 31))
        world.insert({"id": n, "tenant_id": "acme"} for n in range(101, 181))

        owner, method, when, nth = moment
        assert born.killed(file_of(world.config, tmp_path), f"{owner}.{method}", when, nth)

        world.sync(mode="full")
        world.assert_exact()
        paid = Counter(server.answered)
        assert max(paid.values()) <= 2
        assert sum(1 for times in paid.values() if times > 1) <= BATCH * PARALLEL
        again = world.sync(mode="full")
        assert sum(result.figures.writes + result.figures.embedded for result in again) == 0


def test_a_record_that_vanishes_after_a_kill_leaves_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Nursery
) -> None:
    """Killed after the store's write and before the ledger's, then the record is deleted: its point goes too."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with OpenAIServer(dimensions=16) as server:
        world = paid_world(tmp_path, server)
        world.insert({"id": n, "tenant_id": "acme"} for n in range(1, 6))
        assert born.killed(file_of(world.config, tmp_path), "store.upsert", "after", 1)
        assert len(world.stored()) == 5
        world.delete(2, 3)
        world.sync(mode="full")
        assert len(world.stored()) == 3
        world.assert_exact()
