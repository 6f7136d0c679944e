"""Killed over and over, with changes in between and hardly a clean run; then one, and everything is right."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from vecsync_dagster.config.models import EmbeddingConfig, SyncConfig
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.sync.dying_processes import STAGES, Stage
from vecsync_dagster_tests.sync.test_exactness import seed
from vecsync_dagster_tests.world import ENTITY, World, file_of

BATCH = 5
PARALLEL = 2


class Nursery:
    """Starts syncs that die; see `dying_processes`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def killed(self, config: Path, stage: str, when: str, nth: int, mode: str = "full") -> bool:
        """Whether the process died as it should; False where it had finished before its moment came."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{config} {stage} {when} {nth} {mode}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -9), f"{stage} {when} {nth} {mode}"
        return status == -9


@contextmanager
def nursery() -> Iterator[Nursery]:
    program = [sys.executable, "-m", "vecsync_dagster_tests.sync.dying_processes"]
    with subprocess.Popen(program, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Nursery(process)


def paid(world: World, server: OpenAIServer) -> World:
    """The same world with vectors that are paid for, and small batches."""
    provider = {
        "provider": "openai",
        "model": "loopback",
        "dimensions": server.dimensions,
        "base_url": server.base_url,
        "texts_per_request": BATCH,
    }
    update = {
        "embedding": EmbeddingConfig.model_validate({"chain": [provider]}),
        "sync": SyncConfig.model_validate({"batch": BATCH, "page": 10, "delete_batch": 2, "parallel": PARALLEL}),
    }
    world.config = world.config.model_copy(update=update)
    return world


def change(world: World, chance: random.Random, ids: Iterator[int], *, moves: bool) -> None:
    """A few new rows, new texts, new payloads, rows that go, and one that changes hands."""
    there = [row["id"] for row in world.rows()]
    texts, codes, gone, moved = (chance.sample(there, n) for n in (3, 6, 4, 1))
    world.insert({"id": next(ids), "tenant_id": "acme"} for _ in range(6))
    for row in texts:
        world.update(row, name=f"Текст {next(ids)}")
    world.update(*codes, code=f"W-{next(ids)}")
    is_global = chance.random() < 0.5
    if moves:
        world.update(*moved, tenant_id=None if is_global else "acme", is_global=is_global)
    world.delete(*gone)


# A full run has at least so many calls of each stage.
LONGEST: dict[Stage, int] = {"export": 4, "embed": 2, "upsert": 3, "payload": 1, "delete": 2, "commit": 10, "any": 2000}


def moment(chance: random.Random, stage: Stage) -> tuple[str, int]:
    return chance.choice(["before", "after"]), chance.randint(1, LONGEST[stage])


def settle(world: World) -> None:
    """Runs until all is there and nothing is doubted any more: only then is a payload set without its vector."""
    tenants = (GLOBAL, "acme")
    with world.kept_open() as workspace:
        world.sync(*tenants, mode="full", allow_removals=True)
        while doubted := [t for t in tenants if workspace.ledger.unfinished(ENTITY, ENTITY, t)]:
            world.sync(*doubted, mode="full", allow_removals=True)


def lost_by_round(rounds: list[list[str]]) -> Counter[int]:
    """Texts that were paid for once more, by the round whose kill lost the answer before."""
    last: dict[str, int] = {}
    lost: Counter[int] = Counter()
    for number, texts in enumerate(rounds):
        for text in texts:
            if text in last:
                lost[last[text]] += 1
            last[text] = number
    return lost


@pytest.mark.timeout(600)  # a hundred processes one after another, on a machine that may be busy
@pytest.mark.parametrize("of_each", [1, pytest.param(8, marks=pytest.mark.many)])
def test_kills_in_a_row(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_each: int) -> None:
    """So many kills at each stage: one clean run leaves store == source == ledger, and no kill made more than the
    batches in flight be paid for again."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    chance, ids = random.Random(20260301), count(10_000)
    killed: Counter[Stage] = Counter()
    seen, rounds = 0, []
    with OpenAIServer(dimensions=16) as server:
        paid(world, server)
        seed(world, {GLOBAL: 20, "acme": 30})
        config = file_of(world.config, tmp_path)
        with nursery() as born:
            for number, stage in enumerate(STAGES * of_each):
                if stage == "payload":
                    settle(world)
                change(world, chance, ids, moves=stage != "payload")  # what moves is written whole, and doubted
                mode = "incremental" if number % 4 == 3 and stage in ("embed", "upsert", "payload") else "full"
                killed[stage] += born.killed(config, stage, *moment(chance, stage), mode)
                rounds.append(server.answered[seen:])
                seen += len(rounds[-1])
        assert killed == dict.fromkeys(STAGES, of_each)

        results = world.sync(mode="full", allow_removals=True)
        assert not [(r.tenant, r.error, r.figures.failed) for r in results if r.error or r.figures.failed]
        assert not [(r.tenant, c.name, c.message) for r in results for c in r.checks if not (c.passed or c.warning)]
        world.assert_exact()
        rounds.append(server.answered[seen:])
        assert max(lost_by_round(rounds).values(), default=0) <= BATCH * PARALLEL
        again = world.sync(mode="full")
        assert not any(result.figures.touched or result.figures.embedded for result in again)
        world.assert_vectors()
