"""What vecsync writes of records is for its owner alone, whatever the umask; nothing it shows holds a secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from vecsync_dagster.documents import Rejection
from vecsync_dagster.ledger.database import display_name, parse_url
from vecsync_dagster.private import private_file, private_folder
from vecsync_dagster.sync import rejections
from vecsync_dagster.sync.rejections import RejectionLog
from vecsync_dagster_tests.world import World, config_of, file_of


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Files and folders, `folder` too, that anybody but the owner may do anything with."""
    return [
        f"{path.relative_to(folder)} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in (folder, *sorted(folder.rglob("*")))
        if path.stat().st_mode & 0o077
    ]


def world_of(folder: Path) -> World:
    config = config_of(
        folder,
        source={"type": "sqlite", "path": "source.db"},
        store={"type": "qdrant", "path": "state/qdrant"},
    )
    world = World(f"sqlite:///{folder / 'source.db'}", config)
    world.insert([{"id": 1, "tenant_id": "a"}, {"id": 2, "tenant_id": "a", "name": ""}])
    return world


def command(folder: Path, *arguments: str) -> None:
    program = [sys.executable, "-m", "vecsync_dagster.cli", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("umask", [0, pytest.param(0o077, marks=pytest.mark.many)], indirect=True)
def test_a_command_leaves_nothing_open_to_others(tmp_path: Path, umask: int) -> None:
    """State, snapshots, rejected records, ledger, locks, metrics, embedded store and run history are 0700 and 0600."""
    world = world_of(tmp_path)
    file_of(world.config, tmp_path)
    command(tmp_path, "sync", "all", "--full")
    state = tmp_path / "state"
    names = {path.name for path in state.rglob("*")}
    assert {"ledger.sqlite", "invalid_records.jsonl", "a.parquet", "sync_metrics.json", "dagster.yaml"} <= names
    assert open_to_others(state) == []


def test_a_folder_of_an_older_version_is_tightened(tmp_path: Path) -> None:
    """What others could read before they cannot after the next sync; what was written stays readable for us."""
    world = world_of(tmp_path)
    world.sync(mode="full")
    state = tmp_path / "state"
    for path in (state, *state.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    file_of(world.config, tmp_path)
    command(tmp_path, "sync", "all", "--full", "--no-record")
    assert open_to_others(state) == []
    world.assert_exact()


def test_a_library_call_closes_the_folder(tmp_path: Path, umask: int) -> None:
    """In a process whose umask is not ours, a Dagster run's too, all that the state folder holds is closed."""
    world_of(tmp_path).sync(mode="full")
    assert (tmp_path / "state" / "qdrant" / "aliases.json").exists()
    assert open_to_others(tmp_path / "state") == []


@pytest.mark.parametrize("kind", ["configuration", "sticky", "working"])
def test_a_folder_that_is_not_ours_alone_stays(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`state: .` closes no project's folder, and nobody's /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777 if kind == "sticky" else 0o755)
    if kind == "configuration":
        (folder / "vecsync.yaml").touch()
    if kind == "working":
        monkeypatch.chdir(folder)
    before = folder.stat().st_mode
    private_folder(folder)
    assert folder.stat().st_mode == before
    private_folder(folder / "new" / "er")
    private_file(folder / "new" / "er" / "file")
    assert open_to_others(folder / "new") == []


def _keep(path: Path, size: int, number: int) -> None:
    rejections.MAX_BYTES = size
    os.umask(0)
    log = RejectionLog(path)
    for n in range(100):
        log.keep("tools", "t", [Rejection(str(n), None, "VALIDATION_ERROR", "f", "e", {"n": n, "of": number})])


@pytest.mark.parametrize("size", [10**9, 12_000])
def test_rejected_records_of_several_processes(tmp_path: Path, size: int) -> None:
    """Processes that write and rotate at once lose no line, cut none, let no file grow beyond its bound, and leave
    none open to others."""
    path = tmp_path / "state" / "invalid_records.jsonl"
    context = get_context("fork")
    writers = [context.Process(target=_keep, args=(path, size, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    assert all(file.stat().st_size <= size for file in files)
    assert all(line.startswith(b'{"timestamp"') and line.endswith(b"}}") for line in lines)
    assert len(set(lines)) == len(lines)
    assert open_to_others(path.parent) == []
    if size > 10**6:
        assert len(lines) == 400
    else:
        assert len(files) == 4
        assert len(lines) > 3 * 60


@pytest.mark.parametrize(
    "query", ["password=s3cret", "sslpassword=s3cret&application_name=x", "options=-c%20a%3Ds3cret"]
)
def test_the_ledgers_name_has_no_secret(query: str) -> None:
    """A password may stand in the query of the URL as well as before the host."""
    shown = display_name(parse_url(f"postgresql://me:s3cret@db.example:5433/vecsync?{query}"))
    assert "s3cret" not in shown
    assert "db.example:5433/vecsync" in shown
