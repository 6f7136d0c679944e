"""Writing the demo's folder."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from vecsync_dagster.demo import CONFIG, DATABASE, write_demo
from vecsync_dagster.errors import OutputUnwritable


def test_makes_the_folder(tmp_path: Path) -> None:
    """The folder and its parents are made; nothing but the two files is in it."""
    folder = tmp_path / "a" / "b"
    assert write_demo(folder) == folder / CONFIG
    assert sorted(path.name for path in folder.iterdir()) == [DATABASE, CONFIG]


def test_tables_have_keys_and_indexes(demo: Path) -> None:
    """Both tables have a primary key, and indexes on the tenant's columns and on the modification time."""
    with closing(sqlite3.connect(demo / DATABASE)) as connection:
        for table in ("materials", "works"):
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            assert [column[1] for column in columns if column[5]] == ["id"]
            indexes = [row[1] for row in connection.execute(f"PRAGMA index_list({table})")]
            indexed = {tuple(row[2] for row in connection.execute(f"PRAGMA index_info({index})")) for index in indexes}
            assert indexed == {("tenant_id", "is_global"), ("updated_at",)}


def test_twice(tmp_path: Path) -> None:
    """A second demo leaves both files untouched, whatever the user has changed in them."""
    write_demo(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("UPDATE materials SET price = 1 WHERE id = 1001")
    (tmp_path / CONFIG).write_text("mine: true\n", encoding="utf-8")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}

    assert write_demo(tmp_path) == tmp_path / CONFIG

    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_missing_file_comes_back(tmp_path: Path) -> None:
    """A file that was removed is written again, the other one stays."""
    write_demo(tmp_path)
    config = (tmp_path / CONFIG).read_bytes()
    (tmp_path / CONFIG).unlink()
    database = (tmp_path / DATABASE).stat().st_mtime_ns

    write_demo(tmp_path)

    assert (tmp_path / CONFIG).read_bytes() == config
    assert (tmp_path / DATABASE).stat().st_mtime_ns == database


def test_file_in_the_way(tmp_path: Path) -> None:
    """A file where the folder, or a folder above it, should be is an error that names the folder."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("", encoding="utf-8")
    for folder in (in_the_way, in_the_way / "demo"):
        with pytest.raises(OutputUnwritable) as raised:
            write_demo(folder)
        assert raised.value.code == "OUTPUT_UNWRITABLE"
        assert str(folder) in str(raised.value)
        assert raised.value.fields == {"folder": str(folder)}


def test_folder_where_the_database_should_be(tmp_path: Path) -> None:
    """A folder of the database's name is an error, and nothing is left behind."""
    (tmp_path / DATABASE).mkdir()
    with pytest.raises(OutputUnwritable, match="directory"):
        write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_disk_full(tmp_path: Path) -> None:
    """A database that cannot be written to its end is an error, and no part of it is left behind."""
    with largest_file(4096), pytest.raises(OutputUnwritable, match=r"cannot be written here: \w+"):
        write_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, which to a writer looks like a full disk."""
    resource = pytest.importorskip("resource", reason="limits on files are a matter of Unix")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
