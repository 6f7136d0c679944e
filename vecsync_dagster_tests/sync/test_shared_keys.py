"""Everybody's records whose ids change, as the tenant's column comes into the key, leaves it or moves in it: that
column may say anything of them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster_tests.small import NAME, Small, mongo_rows, sqlite_source

FIRMS = ("a", "b", None)
KEYS = [
    ("id", ["firm", "id"]),
    (["firm", "id"], "id"),
    (["id", "firm"], ["firm", "id"]),
    (["line", "id"], ["line", "firm", "id"]),
    (["firm", "line", "id"], ["line", "id"]),
]
Put = Callable[..., None]


class Shared:
    """Records of tenants and of everybody, in a table that keeps no id unique. A record is known by its firm and
    number."""

    def __init__(self, folder: Path, source: Any, put: Put) -> None:
        tenancy = {"column": "firm", "global_flag": "shared"}
        payload = ("who",)
        self.small = Small(folder, source, required=("name",), tenancy=tenancy, updated_at="at", payload=payload)
        self.entity: Any = self.small.data["entities"][NAME]
        self._put, self._at = put, 1_700_000_000

    def put(self, firm: str | None, number: int, name: str | None = "good", *, shared: bool = True) -> None:
        self._at += 1
        row = {"firm": firm, "id": number, "line": number % 2, "name": name, "who": f"{firm} {number}", "at": self._at}
        self._put({**row, "shared": shared})

    def sync(self, tenant: str = GLOBAL, **options: Any) -> PartitionResult:
        with Workspace(self.small.config) as workspace:
            [result] = workspace.sync(Selection(NAME, tenant, (NAME,)), SyncOptions(**({"mode": "full"} | options)))
        assert result.error is None
        return result

    def stored(self) -> list[str]:
        """Which record each point is of."""
        with Workspace(self.small.config) as workspace:
            points = [point.payload for page in workspace.store_of(NAME, NAME).scan(NAME) for point in page]
        return sorted(str(point["who"]) for point in points)

    def state(self, status: str) -> int:
        with Workspace(self.small.config) as workspace:
            tally = workspace.ledger.tally(NAME, NAME, GLOBAL)
        return {"former": tally.former, "held": tally.held}[status]


@pytest.fixture(params=["sqlite", "mongo"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    if request.param == "mongo":
        with mongo_rows(request, stream="never") as (source, documents):

            def put_document(row: dict[str, Any]) -> None:
                documents.replace_one({"firm": row["firm"], "id": row["id"]}, dict(row), upsert=True)

            yield Shared(tmp_path, source, put_document)
            return
    yield of_sqlite(tmp_path)


def of_sqlite(folder: Path) -> Shared:
    db = sqlite3.connect(folder / "source.db", isolation_level=None)
    db.execute(f"CREATE TABLE {NAME} (firm text, id integer, line integer, name text, who, at integer, shared boolean)")

    def put(row: dict[str, Any]) -> None:
        db.execute(f"DELETE FROM {NAME} WHERE firm IS :firm AND id = :id", row)
        db.execute(f"INSERT INTO {NAME} VALUES (:firm, :id, :line, :name, :who, :at, :shared)", row)

    return Shared(folder, sqlite_source(folder / "source.db"), put)


ALL = ["None 3", "a 1", "b 2"]


@pytest.fixture
def three(shared: Shared) -> Shared:
    for number, firm in enumerate(FIRMS, 1):
        shared.put(firm, number)
    return shared


@pytest.mark.in_turn
@pytest.mark.parametrize(("rejected", "healed"), [(1, "incremental"), (3, "full")])
@pytest.mark.parametrize(("before", "after"), KEYS, ids=str)
def test_a_rejected_record_keeps_its_last_good_version(
    three: Shared, before: Any, after: Any, rejected: int, healed: str
) -> None:
    """In each full run; once it is valid, whoever meets it replaces it."""
    three.entity["id"] = before
    three.sync()
    three.put(FIRMS[rejected - 1], rejected, "")
    three.entity["id"] = after
    for removed in (2, 0):
        result = three.sync()
        assert (result.ok, result.figures.removed, result.figures.invalid) == (True, removed, 1)
        assert (three.stored(), three.state("former")) == (ALL, 1)
    three.put(FIRMS[rejected - 1], rejected)
    three.sync(mode=healed)
    assert (three.stored(), three.state("former")) == (ALL, 0)
    assert not three.sync().figures.touched


@pytest.mark.parametrize(("before", "after"), KEYS, ids=str)
def test_one_run_replaces_more_than_the_guard_lets_go(shared: Shared, before: Any, after: Any) -> None:
    """And nobody meets a record twice."""
    for number in range(120):
        shared.put(FIRMS[number % 3], number)
    shared.entity["id"] = before
    shared.sync()
    shared.entity.update({"id": after, "type": "other"})
    figures = shared.sync().figures
    assert (figures.removed, figures.removals_blocked, figures.embedded) == (120, 0, 0)
    assert len(shared.stored()) == len({*shared.stored()}) == 120


def test_what_an_earlier_version_doubled_is_put_right(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both points are stored, and the settings are not new any more, once the guard is in question."""
    for number in range(120):
        shared.put(FIRMS[number % 3], number)
    shared.sync()
    shared.entity["id"] = ["firm", "id"]
    with monkeypatch.context() as patch:
        patch.setattr("vecsync_dagster.sync.renamed.records_today", lambda *_: {})
        assert shared.sync().figures.removals_blocked == 120
    shared.sync()
    assert len(shared.stored()) == len({*shared.stored()})


def test_records_that_share_an_id_lose_nothing(shared: Shared) -> None:
    """`[firm, id]` becomes `id`, and two firms have the same one: what cannot be stored stays as it was, in runs of any
    kind, also if it changed; the way back replaces all."""
    for firm in FIRMS:
        for number in (1, 2):
            shared.put(firm, number, f"{firm} {number}")
    shared.entity["id"] = ["firm", "id"]
    shared.sync()
    all_of_them = shared.stored()
    assert len(all_of_them) == 6
    shared.put("b", 1, "changed")
    for key, mode in (("id", "full"), ("id", "full"), ("id", "incremental"), (["firm", "id"], "full")):
        shared.entity["id"] = key
        shared.sync(mode=mode)
        assert {*shared.stored()} == {*all_of_them}
    assert shared.stored() == all_of_them
    assert not shared.sync().figures.touched


def test_what_may_be_of_two_records_stays_until_both_are_stored(shared: Shared) -> None:
    """By `id` the store holds one of two records, and the other one comes to be told apart as it is rejected."""
    shared.put("a", 1, "first")
    shared.put("b", 1, "second")
    shared.sync()
    assert len(shared.stored()) == 1
    shared.put("a", 1, "")
    shared.put("b", 1, "")
    shared.entity["id"] = ["firm", "id"]
    shared.sync()
    assert len(shared.stored()) == 1
    for firm in ("a", "b"):
        shared.put(firm, 1, f"{firm} again")
        shared.sync()
        assert {firm} <= {who[0] for who in shared.stored()}
    assert shared.stored() == ["a 1", "b 1"]


@pytest.mark.in_turn
@pytest.mark.parametrize("was_shared", [True, False])
@pytest.mark.parametrize("key", [["firm", "id"], ["id", "firm"]], ids=str)
def test_a_record_may_become_everybodys_or_cease_to_be(shared: Shared, was_shared: bool, key: Any) -> None:
    """In the change of the key: it ends where it belongs, once, and what was not stored there is not seen elsewhere."""
    for number in (1, 2, 3):
        shared.put("a", number, shared=was_shared)
    shared.put("a", 8, shared=True)
    shared.put("a", 9, shared=False)
    for tenant in (GLOBAL, "a"):
        shared.sync(tenant)
    shared.put("a", 1, shared=not was_shared)
    shared.entity["id"] = key
    for _ in range(2):
        for tenant in ("a", GLOBAL):
            assert shared.sync(tenant).ok
    assert shared.stored() == ["a 1", "a 2", "a 3", "a 8", "a 9"]


def test_a_broken_source_is_still_told_from_new_ids(shared: Shared) -> None:
    """What has no record under any key counts for the guard, by its share of all."""
    for number in range(200):
        shared.put(FIRMS[number % 3], number)
    shared.sync()
    shared.entity["id"] = ["firm", "id"]
    for number in range(80):
        shared.put(FIRMS[number % 3], number, shared=False)
    result = shared.sync()
    assert (result.figures.removed, result.figures.removals_blocked, len(shared.stored())) == (120, 80, 200)


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_keys_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Any changes of type and key, with records that are rejected: each one that was stored has a version at any time,
    and a clean full run makes all exact."""
    pick = random.Random(seed)
    shared = of_sqlite(tmp_path)
    live: dict[int, str] = {}
    for _ in range(14):
        for _ in range(pick.randint(0, 3)):
            number = pick.randint(1, 6)
            live[number] = pick.choice(["x", "y", ""])
            shared.put(FIRMS[number % 3], number, live[number])
        if pick.random() < 0.5:
            keys = ["id", ["firm", "id"], ["id", "firm"]]
            shared.entity.update({"type": pick.choice(["one", "two"]), "id": pick.choice(keys)})
        before = shared.stored()
        shared.sync(mode=pick.choice(["full", "incremental"]), allow_removals=pick.random() < 0.5)
        assert {*before} <= {*shared.stored()}
    for number, name in live.items():
        shared.put(FIRMS[number % 3], number, name or "good")
    shared.sync()
    assert shared.stored() == sorted(f"{FIRMS[number % 3]} {number}" for number in live)
