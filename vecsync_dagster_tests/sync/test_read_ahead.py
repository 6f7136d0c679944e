"""A source is not kept waiting while something else is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from vecsync_dagster.errors import OutputUnwritable, SourceUnavailable
from vecsync_dagster.identity import Key
from vecsync_dagster.sources.base import Cursor, Page
from vecsync_dagster.sync import read_ahead
from vecsync_dagster_tests.sync.failing_services import BATCH, Services, befall

PATIENCE_S = 3.0


def nobody_reads(services: Services) -> bool:
    """Whether, before long, no transaction is open in the source."""
    engine, until = services.world.engine, time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    query = "SELECT 1 FROM pg_stat_activity WHERE xact_start < now() AND datname = current_database()"
                    if connection.execute(sa.text(query)).first() is None:
                        return True
                else:
                    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                    connection.exec_driver_sql("BEGIN EXCLUSIVE")
                    return True
        except sa.exc.OperationalError:
            pass
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("run", [{"mode": "full"}, {"mode": "incremental"}, {"ids": tuple(map(str, range(1, 51)))}])
def test_no_transaction_is_open_while_a_provider_is_awaited(services: Services, run: dict[str, Any]) -> None:
    """Others can write to the source, and its server can clean up, however long the embedding takes."""
    world = services.world
    world.insert({"id": n, "tenant_id": "acme"} for n in (1, 100))
    world.sync("acme")
    world.insert({"id": n, "tenant_id": "acme"} for n in range(2, 5 * BATCH + 1))
    free: list[bool] = []
    befall(services.provider, "handle", lambda: free.append(nobody_reads(services)), nth=2)
    [result] = world.sync("acme", **run)
    assert (free, result.ok, result.figures.new) == ([True], True, 5 * BATCH - 1)
    world.assert_exact()


def pages(count: int, broken: bool = False) -> Iterator[Page]:
    for n in range(count):
        records = pa.RecordBatch.from_pydict({"id": pa.array([n]), "name": pa.array(["x" * 100])})
        yield Page(records, (Key(str(n), f"{n}.0"),), Cursor("now", str(n)))
    if broken:
        raise SourceUnavailable("the database is away")


@pytest.mark.parametrize("in_memory", [1, 1 << 20], ids=["file", "memory"])
@pytest.mark.parametrize(
    "busy", [lambda n: True, lambda n: False, lambda n: n % 3 == 0], ids=["always", "never", "often"]
)
def test_pages_come_as_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, busy: Callable[[int], bool]
) -> None:
    """In their order, with their cursors and with tombstones' own notation, wherever they waited; also where the read
    breaks after them."""
    monkeypatch.setattr(read_ahead, "_IN_MEMORY", in_memory)
    asked, taken = iter(range(1000)), list[Page]()
    ahead = read_ahead.read_ahead(pages(9, broken=True), lambda: not busy(next(asked)), lambda: None, tmp_path / "new")
    with pytest.raises(SourceUnavailable):
        taken.extend(ahead)
    assert taken == list(pages(9))
    assert [page.tombstones[0].native for page in taken if isinstance(page.tombstones[0], Key)] == [
        f"{n}.0" for n in range(9)
    ]
    assert list(tmp_path.rglob("*.*")) == []


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pages cannot wait, the error names the folder."""

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", full)
    with pytest.raises(OutputUnwritable, match=f"{tmp_path}: No space left on device"):
        list(read_ahead.read_ahead(pages(2), lambda: False, lambda: None, tmp_path))
