"""Key, type, tenancy, filter, primary key, collections and write-back change under what is synced: nothing live is
lost, nothing is paid for twice, and one full run of each tenant makes it right.

VECSYNC_SEQUENCES: how many sequences; VECSYNC_SEED: the first one's seed; as in `test_any_run`.
"""

from __future__ import annotations

import logging
import os

import pytest

from vecsync_dagster_tests.sync.any_run_places import mongo, play, postgres, sqlite
from vecsync_dagster_tests.sync.changing_runs import Runs
from vecsync_dagster_tests.sync.changing_settings import KeyedDocuments, KeyedRows
from vecsync_dagster_tests.sync.test_any_run import Places

SEQUENCES = int(os.environ.get("VECSYNC_SEQUENCES", "8"))
FIRST = int(os.environ.get("VECSYNC_SEED", "0"))

PLACES: Places = {
    "sqlite+memory": lambda _: sqlite("memory", KeyedRows),
    "sqlite+embedded": lambda _: sqlite("embedded", KeyedRows),
    "postgres+http": lambda request: postgres("http", request.getfixturevalue("postgres_url"), KeyedRows),
    "mongo+memory": lambda request: mongo("memory", request.getfixturevalue("mongo_url"), "auto", KeyedDocuments),
    "mongo+embedded": lambda request: mongo("embedded", request.getfixturevalue("mongo_url"), "never", KeyedDocuments),
}
TWENTY = ["sqlite+embedded", "postgres+http", "mongo+embedded", "mongo+memory", *["sqlite+memory"] * 12]
TWENTY += ["mongo+memory"] * (20 - len(TWENTY))


@pytest.mark.timeout(3 * max(SEQUENCES, 100))
@pytest.mark.parametrize("place", PLACES)
def test_whatever_the_settings_become(
    place: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever they were, ran, changed and failed before."""
    caplog.set_level(logging.CRITICAL)
    seeds = [seed for seed in range(FIRST, FIRST + SEQUENCES) if TWENTY[seed % 20] == place]
    with PLACES[place](request) as where:
        for seed in seeds:
            play(Runs(where, seed), seed, place)
