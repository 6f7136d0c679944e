"""Any settings and any kind of run, with services that fail: nothing live is removed, and one full run makes it right.

VECSYNC_SEQUENCES: how many sequences; VECSYNC_SEED: the first one's seed. Many of them, on two cores:

    for seed in 1000 3500; do VECSYNC_SEQUENCES=2500 VECSYNC_SEED=$seed \\
        python -m pytest -q -n0 vecsync_dagster_tests/sync/test_any_run.py & done; wait
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from vecsync_dagster_tests.sync.any_run import Sequence
from vecsync_dagster_tests.sync.any_run_places import Place, mongo, play, postgres, sqlite

SEQUENCES = int(os.environ.get("VECSYNC_SEQUENCES", "300"))
FIRST = int(os.environ.get("VECSYNC_SEED", "0"))

Places = dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Place]]]
PLACES: Places = {
    "sqlite+memory": lambda _: sqlite("memory"),
    "sqlite+embedded": lambda _: sqlite("embedded"),
    "sqlite+http": lambda _: sqlite("http"),
    "postgres+memory": lambda request: postgres("memory", request.getfixturevalue("postgres_url")),
    "postgres+http": lambda request: postgres("http", request.getfixturevalue("postgres_url")),
    "mongo+memory": lambda request: mongo("memory", request.getfixturevalue("mongo_url"), "auto"),
    "mongo+embedded": lambda request: mongo("embedded", request.getfixturevalue("mongo_url"), "never"),
}
# Which one of twenty sequences is where: most are where they are fast.
SHARES = {"sqlite+embedded": 3, "sqlite+http": 1, "postgres+memory": 1, "postgres+http": 1} | {
    "mongo+memory": 2,
    "mongo+embedded": 1,
}
TWENTY = [place for place, share in SHARES.items() for _ in range(share)]
TWENTY += ["sqlite+memory"] * (20 - len(TWENTY))


@pytest.mark.timeout(3 * max(SEQUENCES, 300))  # seconds of the clock: others may use the processor too
@pytest.mark.parametrize("place", PLACES)
def test_no_run_removes_what_is_live_and_one_full_run_makes_all_right(
    place: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever was set, ran, changed and failed before."""
    caplog.set_level(logging.CRITICAL)
    seeds = [seed for seed in range(FIRST, FIRST + SEQUENCES) if TWENTY[seed % 20] == place]
    with PLACES[place](request) as where:
        for seed in seeds:
            play(Sequence(where, seed), seed, place)
