"""Starting the processes that are measured, and looking at what they left behind."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import orjson

from benchmarks.child import Measured, Task
from benchmarks.sink import CountingProvider
from benchmarks.workload import Row, rows_of

__all__ = ["Wrong", "assert_right", "embedded_so_far", "kill", "lose_points", "measure", "wrong_points"]


class Wrong(Exception):
    """A phase ended with something else in the store than in the source, or with other figures than it must have."""


def measure(task: Task) -> Measured:
    done = _run(task)
    if done.returncode:
        raise Wrong(f"{task} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def kill(task: Task) -> None:
    """Run a task that kills itself."""
    done = _run(task)
    if done.returncode != -signal.SIGKILL:
        raise Wrong(f"{task} was to be killed but ended with {done.returncode}: {done.stderr[-2000:]}")


def embedded_so_far(state: Path) -> int:
    """Texts embedded by all processes with this state, killed ones too."""
    return CountingProvider.total(state / "embedded.log")


def lose_points(state: Path, share: float) -> set[str]:
    """Delete points behind the back of everybody. Returns their ids."""
    with closing(sqlite3.connect(state / "store.sqlite")) as store, store:
        every = round(1 / share)
        ids = [row for n, row in enumerate(store.execute("SELECT id FROM points ORDER BY id")) if n % every == 0]
        store.executemany("DELETE FROM points WHERE id = ?", ids)
    return {point_id for (point_id,) in ids}


def wrong_points(source: Path, state: Path) -> int:
    """Rows without their point, points without a row, and points of another text or payload, by our own comparison."""
    wanted = {}
    provider = CountingProvider(Path("/dev/null"))
    for rows in _chunks(source):
        texts = [
            " ".join(filter(None, (name, category, description, sku)))
            for _, name, category, description, _, sku, *_ in rows
        ]
        vectors = provider.embed_documents(texts).vectors
        for (number, name, category, _, price, sku, *_), vector in zip(rows, vectors, strict=True):
            wanted[str(number)] = (name, category, price, sku or None, zlib.crc32(vector))
    wrong = 0
    with closing(sqlite3.connect(state / "store.sqlite")) as store:
        for payload, vector in store.execute("SELECT payload, vector FROM points"):
            values = orjson.loads(payload)
            found = (values["name"], values["category"], values["price"], values["sku"] or None, vector)
            wrong += wanted.pop(values["dbId"], None) != found
    return wrong + len(wanted)


def assert_right(what: str, source: Path, state: Path) -> None:
    if wrong := wrong_points(source, state):
        raise Wrong(f"{what}: {wrong} points are wrong")


def _run(task: Task) -> subprocess.CompletedProcess[str]:
    started = str(time.clock_gettime(time.CLOCK_MONOTONIC))
    arguments = [sys.executable, "-m", "benchmarks.child", json.dumps(asdict(task)), started]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def _chunks(source: Path) -> Iterator[list[Row]]:
    rows = rows_of(source)
    while some := list(islice(rows, 500)):
        yield some
