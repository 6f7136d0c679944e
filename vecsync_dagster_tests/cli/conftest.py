"""A demo that is synced once, and copies of it that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vecsync_dagster.config import ENVIRONMENT
from vecsync_dagster.demo import CONFIG
from vecsync_dagster_tests.cli.program import copy_sparse, vecsync, write_hash_demo


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the surroundings has a say; output is as wide as for a pipe."""
    for name in (*ENVIRONMENT, "VECSYNC_CONFIG", "DAGSTER_HOME", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def synced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synced demo; tests only copy it and ask it."""
    folder = tmp_path_factory.mktemp("synced")
    ran = vecsync("sync", "all", "--no-record", "--config", write_hash_demo(folder / "written"))
    assert ran.code == 0, ran.err
    # A copy is a twentieth as large, and quicker to copy.
    return Path(shutil.copytree(folder / "written", folder / "synced", copy_function=copy_sparse))


@pytest.fixture(scope="session")
def asked(synced_once: Path) -> Path:
    """The configuration file of a synced demo, for tests that only ask."""
    return synced_once / CONFIG


@pytest.fixture
def synced(synced_once: Path, tmp_path: Path) -> Path:
    """A synced demo of the test's own."""
    return Path(shutil.copytree(synced_once, tmp_path / "synced", copy_function=copy_sparse))


@pytest.fixture
def config(synced: Path) -> Path:
    """The configuration file of `synced`."""
    return synced / CONFIG


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The configuration file of a demo that was never synced."""
    return write_hash_demo(tmp_path / "fresh")
