"""invalid_records.jsonl: every rejected record on a line of its own."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.documents import Rejection
from vecsync_dagster.errors import OutputUnwritable
from vecsync_dagster.sync import rejections as module
from vecsync_dagster.sync.rejection_files import rewrite_without
from vecsync_dagster.sync.rejections import RejectionLog


def rejected(**record: Any) -> Rejection:
    return Rejection("5", "global-tool-5", "VALIDATION_ERROR", "price", "price is not a number", record)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "invalid_records.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[RejectionLog]:
    log = RejectionLog(path)
    yield log
    log.close()


def test_a_line(log: RejectionLog, path: Path) -> None:
    """One line has when, whose, which field, why, and the record; the folder is made when it is needed."""
    before = dt.datetime.now(dt.UTC)
    log.keep("tools", "t1", [rejected(id=5, price="on request")])
    log.close()
    [line] = lines(path)
    assert before <= dt.datetime.fromisoformat(line.pop("timestamp")) <= dt.datetime.now(dt.UTC)
    assert line == {
        "entity_type": "tools",
        "tenant": "t1",
        "field": "price",
        "error": "price is not a number",
        "record": {"id": 5, "price": "on request"},
    }


def test_nothing_to_keep(log: RejectionLog, path: Path) -> None:
    """Without rejected records there is no file."""
    log.keep("tools", "t1", [])
    log.close()
    assert not path.exists()


def test_lines_are_added(log: RejectionLog, path: Path) -> None:
    """A later run adds its lines to those of the runs before, also after the log was closed."""
    log.keep("tools", "t1", [rejected(n=1), rejected(n=2)])
    log.close()
    log.keep("tools", "t2", [rejected(n=3)])
    log.close()
    assert [line["record"]["n"] for line in lines(path)] == [1, 2, 3]


def test_any_value(log: RejectionLog, path: Path) -> None:
    """Line breaks, percent signs, dates, decimals, bytes and NaN in a record do not break the file."""
    values = {
        "text": "a\nb %s {x} \u2028 \0",
        "date": dt.date(2026, 3, 1),
        "time": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        "price": Decimal("1.50"),
        "bytes": b"\xff",
        "nan": float("nan"),
        "list": [{"a": None}],
    }
    log.keep("tools", "t1", [rejected(**values), rejected(n=2)])
    log.close()
    first, second = path.read_text(encoding="utf-8").split("\n")[:2]
    record = json.loads(first)["record"]
    assert (record["text"], record["date"], record["price"], record["nan"]) == (
        values["text"],
        "2026-03-01",
        "1.50",
        None,
    )
    assert json.loads(second)["record"] == {"n": 2}


def test_rotation(log: RejectionLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow for ever: it is rotated, old ones are dropped, and no line is cut."""
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    for n in range(50):
        log.keep("tools", "t1", [rejected(n=n)])
    log.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [
        "invalid_records.jsonl",
        *(f"invalid_records.jsonl.{n}" for n in (1, 2, 3)),
    ]
    kept = [line["record"]["n"] for file in [files[3], files[2], files[1], files[0]] for line in lines(file)]
    assert kept == list(range(kept[0], 50))
    assert all(file.stat().st_size <= 1000 for file in files)


def test_unwritable(tmp_path: Path) -> None:
    """A folder that cannot be made is an error of its own kind that names the file."""
    (tmp_path / "state").write_text("a file where the folder should be")
    log = RejectionLog(tmp_path / "state" / "invalid_records.jsonl")
    with pytest.raises(OutputUnwritable, match=r"invalid_records\.jsonl cannot be written: "):
        log.keep("tools", "t1", [rejected(n=1)])


def test_unwritable_later(log: RejectionLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be rotated any more is the same error, and not a message on the console."""
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    log.keep("tools", "t1", [rejected(n=1)])
    (path.parent / "invalid_records.jsonl.2").touch()
    (path.parent / "invalid_records.jsonl.3").mkdir()  # in the way of the second one
    with pytest.raises(OutputUnwritable):
        log.keep("tools", "t1", [rejected(n=2)])


@pytest.mark.parametrize("value", ["\ud800", 10**400], ids=["half a surrogate pair", "a long number"])
def test_a_tenant_is_taken_out_whatever_its_records_hold(log: RejectionLog, path: Path, value: Any) -> None:
    """Also a record that only one of the two ways to read JSON takes."""
    log.keep("tools", "t1", [rejected(value=value)])
    log.keep("tools", "t2", [rejected(n=2)])
    log.forget("tools", "t1")
    assert [line["tenant"] for line in lines(path)] == ["t2"]


def test_a_line_that_was_not_finished(log: RejectionLog, path: Path) -> None:
    """A full disk or a kill cuts a line: the next one stands on its own, and what is left goes with the tenant."""
    log.keep("tools", "t1", [rejected(name="secret")])
    path.write_bytes(path.read_bytes()[:-20])
    log.keep("tools", "t2", [rejected(n=2)])
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["tenant"] == "t2"
    log.forget("tools", "t1")
    assert [line["tenant"] for line in lines(path)] == ["t2"]


def test_what_a_killed_process_left_while_it_took_out_a_tenant(
    log: RejectionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half of a new file goes with the next tenant, and holds nobody's records for ever."""
    log.keep("tools", "t1", [rejected(n=1)])
    log.keep("tools", "t2", [rejected(n=2)])
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        killed.setattr(Path, "replace", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.forget("tools", "t2")
    assert len(list(path.parent.iterdir())) == 2
    log.forget("tools", "t1")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert [line["tenant"] for line in lines(path)] == ["t2"]


@pytest.mark.parametrize("rotated_only", [False, True], ids=["both files", "the rotated one alone"])
def test_nobody_rotates_what_is_being_rewritten(
    log: RejectionLog, path: Path, monkeypatch: pytest.MonkeyPatch, rotated_only: bool
) -> None:
    """Who adds lines meanwhile waits until the last file is done: no line of another tenant is lost."""
    rotated = path.with_name(f"{path.name}.1")
    log.keep("tools", "t1", [rejected(n=1)])
    path.replace(rotated)
    if not rotated_only:
        log.keep("tools", "t1", [rejected(n=2)])
    adding = threading.Thread(target=RejectionLog(path).keep, args=("tools", "t2", [rejected(n=3)]))

    def rewrite(file: Path, entity: str, tenant: str | None) -> None:
        if file == rotated:
            adding.start()
            adding.join(0.3)
            assert adding.is_alive()
        rewrite_without(file, entity, tenant)

    monkeypatch.setattr(module, "rewrite_without", rewrite)
    log.forget("tools", "t1")
    adding.join()
    assert [line["tenant"] for file in (path, rotated) for line in lines(file)] == ["t2"]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
