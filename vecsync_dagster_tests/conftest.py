"""Fixtures that every room's tests may ask for. Nothing is started before a test asks."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from vecsync_dagster.ledger import migrate
from vecsync_dagster_tests.servers.mongo import mongo_server, new_mongo_database
from vecsync_dagster_tests.servers.postgres import new_database, postgres_server

_MEMORY = Path("/dev/shm")  # noqa: S108 (the system's own; pytest makes a folder of its own in it)
_NEEDED = 4 << 30

WORLDS = ("sqlite+embedded", "postgres+http")
"""Source and ledger, and the store, of the fixture `world` (sync/conftest.py)."""

# Databases wait for the disk at each commit; in memory nothing else is different. Before anything asks for a folder.
if "TMPDIR" not in os.environ and _MEMORY.is_mount() and shutil.disk_usage(_MEMORY).free >= _NEEDED:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

# Tests start many processes of ours: what one has compiled, the others need not, whatever this machine is set to.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What every one of them does first is in startup/.
_STARTUP = str(Path(__file__).parent / "startup")
_BEFORE = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", _STARTUP)]
os.environ["PYTHONPATH"] = os.pathsep.join([_STARTUP, *_BEFORE])


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: tests wait for servers, daemons and time-outs as much as they work."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


def _script_directory(config: Config) -> ScriptDirectory:
    """Alembic's `ScriptDirectory.from_config`, once for each folder of scripts: Dagster asks for its own with each new
    instance and with the events of each run, and reading them takes longer than all else that is done then."""
    key = (str(config.config_file_name), str(config.get_main_option("script_location")))
    if key not in _scripts:
        _scripts[key] = _from_config(config)
    return _scripts[key]


_scripts: dict[tuple[str, str], ScriptDirectory] = {}
_from_config = ScriptDirectory.from_config
ScriptDirectory.from_config = _script_directory  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """What the tests have imported stays for good: looking for garbage in it took a tenth of their time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of a `world` runs on one of the two, as its name decides, and those of the known faults on both. Of a test
    that is marked `in_turn`, each value of the longer parameter is run with one value of the shorter one, in turn; a
    single one has all its values. All combinations: `-m "many or not many"`."""
    tests: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("in_turn"):
            tests[item.nodeid.partition("[")[0]].append(item)
        elif isinstance(item, pytest.Function) and "test_fault_" not in item.name and not _its_world(item):
            item.add_marker(pytest.mark.many)
    for variants in tests.values():
        # Of parameters that go together one counts.
        columns = {_places([repr(v.callspec.params[name]) for v in variants]) for name in variants[0].callspec.params}
        several = [column for column in columns if max(column) > 0]
        if len(several) < 2:
            continue
        shortest = min(max(column) + 1 for column in several)
        for number, variant in enumerate(variants):
            if sum(column[number] for column in several) % shortest:
                variant.add_marker(pytest.mark.many)


def _its_world(item: pytest.Function) -> bool:
    """Whether a test is to be run with its parameter `world`: with one of them, that stays the same."""
    world = getattr(item, "callspec", None) and item.callspec.params.get("world")
    return world not in WORLDS or WORLDS[crc32(item.nodeid.replace(world, "").encode()) % len(WORLDS)] == world


def _places(values: list[str]) -> tuple[int, ...]:
    """The place of each value among the different ones."""
    different = list(dict.fromkeys(values))
    return tuple(map(different.index, values))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a throw-away PostgreSQL's superuser: postgresql://user@127.0.0.1:port/database."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def ledger_template(postgres_url: str) -> Iterator[str]:
    """URL of a PostgreSQL database with an empty ledger: never to be connected to, only to be copied."""
    with new_database(postgres_url) as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture
def postgres_ledger(postgres_url: str, ledger_template: str) -> Iterator[str]:
    """URL of a new PostgreSQL database with an empty ledger in it, dropped after the test."""
    with new_database(postgres_url, ledger_template) as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a new, empty PostgreSQL database, dropped after the test."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """URL of a server of MongoDB's protocol that is a replica set: mongodb://127.0.0.1:port/."""
    with mongo_server() as url:
        yield url


@pytest.fixture
def mongo_database(mongo_url: str) -> Iterator[str]:
    """Name of a new, empty database on that server, dropped after the test."""
    with new_mongo_database(mongo_url) as name:
        yield name
