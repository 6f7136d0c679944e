"""Records whose documents get other ids, as the settings change: the last good version stays until there is a newer
one."""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pytest

from vecsync_dagster.documents.hashing import point_id
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import EmbeddingRejected, EmbeddingUnavailable, StoreUnavailable, VecsyncError
from vecsync_dagster.sources.base import Read
from vecsync_dagster.sources.sql import SqlSource
from vecsync_dagster.stores.base import Point
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.apply import remove
from vecsync_dagster_tests.small import NAME, Small, mongo_rows, sqlite_source

FORMER = f"tenant-{NAME}-1"
FIRMS = ("a", "b")
CHANGES: list[dict[str, Any]] = [{"type": "other"}, {"id": ["firm", "id"]}, {"type": "other", "id": ["id", "firm"]}]
HEALED: list[dict[str, Any]] = [
    {"mode": "full"},
    {"mode": "incremental"},
    {"ids": ("1", "a/1", "1/a")},
    {"ids": ("1", "a/1", "1/a"), "retry": True},
]


class Firms:
    """Records of two firms, in a table that keeps no id unique."""

    def __init__(self, folder: Path, key: str = "") -> None:
        self.db = sqlite3.connect(folder / "source.db", isolation_level=None)
        self.db.execute(f"CREATE TABLE {NAME} (firm text, id integer, name text, at integer, gone text{key})")
        self.at = 1_700_000_000
        source = sqlite_source(folder / "source.db")
        settings: dict[str, Any] = {"tenancy": {"column": "firm"}, "updated_at": "at", "deleted_at": "gone"}
        self.small = Small(folder, source, required=("name",), **settings)
        self.entity: Any = self.small.data["entities"][NAME]

    def put(self, firm: str, number: int, name: str | None) -> None:
        self.at += 1
        self.db.execute(f"DELETE FROM {NAME} WHERE firm = ? AND id = ?", (firm, number))
        self.db.execute(f"INSERT INTO {NAME} VALUES (?, ?, ?, ?, NULL)", (firm, number, name, self.at))

    def sync(self, firm: str = "a", **options: Any) -> PartitionResult:
        with Workspace(self.small.config) as workspace:
            [result] = workspace.sync(Selection(NAME, firm, (NAME,)), SyncOptions(**options))
        assert result.error is None
        return result

    def stored(self) -> list[tuple[str, str]]:
        """Firm and number of each point."""
        with Workspace(self.small.config) as workspace:
            points = [point.payload for page in workspace.store_of(NAME, NAME).scan(NAME) for point in page]
        keys = [(p["tenantId"], p["dbId"].split("/")) for p in points]
        return sorted((firm, next((part for part in parts if part != firm), firm)) for firm, parts in keys)


@pytest.fixture
def firms(tmp_path: Path) -> Firms:
    firms = Firms(tmp_path)
    for number in (1, 2, 3):
        firms.put("a", number, f"name {number}")
    firms.sync(mode="full")
    return firms


ALL = [("a", "1"), ("a", "2"), ("a", "3")]


@pytest.mark.in_turn
@pytest.mark.parametrize("healed", HEALED, ids=str)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_rejected_record_keeps_its_last_good_version(
    firms: Firms, change: dict[str, Any], healed: dict[str, Any]
) -> None:
    """Under whatever id, in each full run; once it is valid, whoever meets it replaces it."""
    firms.put("a", 1, "")
    firms.sync(mode="full")
    firms.entity.update(change)
    for removed in (2, 0):
        result = firms.sync(mode="full")
        assert (result.ok, result.figures.removed, result.figures.invalid) == (True, removed, 1)
        assert "former ids" in result.note
        assert firms.stored() == ALL
    firms.put("a", 1, "name 4")
    result = firms.sync(**healed)
    assert (result.figures.removed, firms.stored()) == (1, ALL)
    assert not firms.sync(mode="full").figures.touched


@pytest.mark.in_turn
@pytest.mark.parametrize("deleted", [{"mode": "full"}, {"mode": "incremental"}, {"ids": ("1", "a/1")}], ids=str)
@pytest.mark.parametrize("change", CHANGES[:2], ids=str)
def test_what_waits_goes_with_its_record(firms: Firms, change: dict[str, Any], deleted: dict[str, Any]) -> None:
    """A record that is deleted after its rejection leaves nothing behind."""
    firms.put("a", 1, "")
    firms.entity.update(change)
    firms.sync(mode="full")
    assert firms.stored() == ALL
    firms.db.execute(f"UPDATE {NAME} SET gone = 'yes', at = at + 5 WHERE id = 1")
    firms.sync(**deleted)
    assert firms.stored() == ALL[1:]


@pytest.mark.in_turn
@pytest.mark.parametrize("moved", ["name = 'moved'", "gone = 'yes'", "name = ''"])
@pytest.mark.parametrize("order", ["b", "ab"])
@pytest.mark.parametrize("change", CHANGES[:2], ids=str)
def test_what_waits_goes_with_a_record_that_moves(firms: Firms, change: dict[str, Any], order: str, moved: str) -> None:
    """The new owner's incremental run removes what the former one keeps under a former id."""
    firms.put("b", 9, "nine")
    firms.sync("b", mode="full")
    firms.put("a", 1, "")
    firms.entity.update(change)
    for firm in FIRMS:
        firms.sync(firm, mode="full", allow_removals=True)
    assert firms.stored() == [*ALL, ("b", "9")]
    firms.db.execute(f"UPDATE {NAME} SET firm = 'b', {moved}, at = at + 5 WHERE id = 1")
    for firm in order:
        firms.sync(firm, mode="incremental")
    assert firms.stored() == [*ALL[1:], *([("b", "1")] if "moved" in moved else []), ("b", "9")]


@pytest.mark.in_turn
@pytest.mark.parametrize("then", ["deleted", "valid"])
@pytest.mark.parametrize("synced", [True, False])
@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_rebuilt_ledger_knows_what_waits(
    firms: Firms, change: dict[str, Any], lost: bool, synced: bool, then: str
) -> None:
    """Whether a full sync came after the settings changed or not: the points are taken under the ids they have, and the
    next full sync replaces or keeps them."""
    firms.put("a", 1, "")
    firms.sync(mode="full")
    firms.entity.update(change)
    if synced:
        firms.sync(mode="full")
    if lost:
        for file in (firms.small.folder / "state").glob("ledger.sqlite*"):
            file.unlink() if file.is_file() else shutil.rmtree(file)
    with Workspace(firms.small.config) as workspace:
        rebuilt = workspace.rebuild(NAME, NAME, force=not lost)
    assert (rebuilt.taken, rebuilt.left) == ({"a": 3}, {})
    for _ in range(2):
        result = firms.sync(mode="full")
        assert (result.ok, result.figures.repaired, firms.stored()) == (True, 0, ALL)
    if then == "valid":
        firms.put("a", 1, "name 4")
    else:
        firms.db.execute(f"DELETE FROM {NAME} WHERE id = 1")
    firms.sync(mode="full", allow_removals=True)
    assert firms.stored() == (ALL if then == "valid" else ALL[1:])
    assert not firms.sync(mode="full").figures.touched


@pytest.mark.in_turn
@pytest.mark.parametrize("then", [{"gone": "yes"}, {"firm": "b"}, {"firm": "b", "gone": "yes"}], ids=str)
@pytest.mark.parametrize(("before", "after"), [(["no"], ["firm", "no"]), (["firm", "no"], ["no"])], ids=str)
def test_what_waits_in_mongodb_goes_with_its_record_too(
    request: pytest.FixtureRequest, tmp_path: Path, before: list[str], after: list[str], then: dict[str, Any]
) -> None:
    """What is kept under a former id is known by the key of today in its own type, by which alone MongoDB finds it."""
    at = datetime.now(UTC)
    base = {"at": at, "gone": None}
    with mongo_rows(request, stream="never") as (source, things):
        settings: dict[str, Any] = {"tenancy": {"column": "firm"}, "updated_at": "at", "deleted_at": "gone"}
        small = Small(tmp_path, source, required=("name",), id=before, **settings)
        things.insert_many([{**base, "firm": "a", "no": n, "name": f"name {n}"} for n in (1, 2, 3)])
        things.insert_one({**base, "firm": "b", "no": 9, "name": "nine"})

        def sync(*firms: str, mode: Literal["full", "incremental"]) -> None:
            with Workspace(small.config) as workspace:
                for firm in firms:
                    [result] = workspace.sync(Selection(NAME, firm, (NAME,)), SyncOptions(mode=mode))
                    assert result.error is None

        sync(*FIRMS, mode="full")
        things.update_one({"no": 1}, {"$set": {"name": ""}})
        small.data["entities"][NAME]["id"] = after
        sync(*FIRMS, mode="full")
        assert (len(small.stored()), "/".join(["a", "1"][-len(before) :]) in small.stored()) == (4, True)
        things.update_one({"no": 1}, {"$set": {**then, "at": at + timedelta(seconds=5)}})
        sync(then.get("firm", "a"), mode="incremental")
        assert len(small.stored()) == 3


@pytest.mark.parametrize("others", [0, 60])
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("ids", [("1",), ("1", "2")])
def test_what_waits_stays_where_the_source_is_not_believed(
    tmp_path: Path, ids: tuple[str, ...], retry: bool, others: int
) -> None:
    """A view that is broken for a while lacks all, or most, of what is stored. Nobody would write a record again that
    is rejected today."""
    firms = Firms(tmp_path)
    for number in range(1, 4 + others):
        firms.put("a", number, f"name {number}")
    firms.sync(mode="full")
    firms.put("a", 1, None)
    firms.entity["type"] = "other"
    firms.sync(mode="full")
    stored = firms.stored()
    assert len(stored) == 3 + others
    first = 1 if not others else 3
    firms.db.execute(f"CREATE TABLE away AS SELECT * FROM {NAME} WHERE NOT id = 3 OR ? = 1", (first,))
    firms.db.execute(f"DELETE FROM {NAME} WHERE NOT id = 3 OR ? = 1", (first,))
    firms.sync(mode=None, ids=ids, retry=retry)
    assert firms.stored() == stored
    firms.db.execute(f"INSERT INTO {NAME} SELECT * FROM away")
    firms.sync(mode="full")
    assert firms.stored() == stored


def test_a_key_of_new_settings_is_no_former_owners(firms: Firms) -> None:
    """A dead record has a key that was another tenant's id by the settings of before: that document stays."""
    firms.put("b", 8, "eight")
    firms.put("b", 9, "1")
    firms.sync("b", mode="full")
    firms.db.execute(f"UPDATE {NAME} SET gone = 'yes' WHERE id = 9")
    firms.sync("b", mode="full")
    firms.entity["id"] = "name"
    assert firms.sync("b", mode="incremental", allow_removals=True).mode == "full"
    assert set(ALL) <= {*firms.stored()}


def test_a_refused_record_keeps_its_last_good_version(firms: Firms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider refuses a text under the new id; a retry that succeeds replaces it."""
    real = HashProvider.embed_documents

    def embed(self: HashProvider, texts: Any) -> Any:
        if any("1" in text for text in texts):
            raise EmbeddingRejected("no")
        return real(self, texts)

    monkeypatch.setattr(HashProvider, "embed_documents", embed)
    firms.entity.update({"type": "other", "collections": {NAME: {"text": "{name} {id}"}}})
    for _ in range(2):
        assert firms.sync(mode="full").figures.failed == 1
        assert firms.stored() == ALL
    monkeypatch.undo()
    firms.sync(ids=("1",))
    assert firms.stored() == ALL


@pytest.fixture
def kept(firms: Firms) -> Firms:
    """One record is rejected since the type changed."""
    firms.put("a", 1, "")
    firms.entity["type"] = "other"
    firms.sync(mode="full")
    return firms


@pytest.mark.parametrize("damage", [{"contentHash": "x"}, {"payloadHash": "x"}, {"tenantId": "b"}], ids=str)
def test_a_repair_keeps_the_last_good_version(kept: Firms, damage: dict[str, Any]) -> None:
    """Neither on demand nor in a full run, also after one that was killed, does a damaged one go."""
    for mended in (True, False):
        with Workspace(kept.small.config) as workspace:
            store = workspace.store_of(NAME, NAME)
            [point] = store.retrieve(NAME, [point_id(NAME, FORMER)])
            store.set_payload(NAME, [Point(point.point_id, {**point.payload, **damage})])
            if mended:
                workspace.repair(NAME, NAME, list(workspace.differences(NAME, NAME)))
            else:
                workspace.ledger.begin_writing(NAME, NAME, "a", "dead", "full")
        assert not mended or kept.stored() == ALL
    for _ in range(2):
        kept.sync(mode="full")
        assert kept.stored() == ALL


def test_what_is_lost_is_not_waited_for(kept: Firms) -> None:
    """A former document that the store lost is forgotten: nothing is left to keep."""
    with Workspace(kept.small.config) as workspace:
        workspace.store_of(NAME, NAME).delete_foreign(NAME, [point_id(NAME, FORMER)])
        workspace.repair(NAME, NAME, list(workspace.differences(NAME, NAME)))
        assert not list(workspace.differences(NAME, NAME))
    assert kept.stored() == ALL[1:]


def test_a_dry_run_removes_nothing_that_is_kept(firms: Firms) -> None:
    """It says what a full run does."""
    firms.put("a", 1, "")
    firms.entity["type"] = "other"
    for removed in (2, 0):
        assert firms.sync(mode="full", dry_run=True).figures.removed == removed
        assert firms.sync(mode="full").figures.removed == removed


def test_what_a_removed_document_was_of_is_told(firms: Firms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-back hears the record's key, whatever type the document was of."""
    told: set[str] = set()
    firms.entity["type"] = "other"
    with Workspace(firms.small.config) as workspace:
        target = workspace.target(NAME, NAME, "a")
        config = target.config.model_copy(update={"writeback": True})
        remove(replace(target, config=config, left=told.update), "a", [(FORMER, point_id(NAME, FORMER))])
    assert told == {"1"}


def test_settings_that_change_back_remove_no_live_record(firms: Firms, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that misses such a record between two pages is no reason: the source is asked for it."""
    firms.put("a", 1, "")
    firms.entity["id"] = ["firm", "id"]
    firms.sync(mode="full")
    firms.entity["id"] = "id"
    firms.put("a", 1, "name 1")
    real = SqlSource.read

    def read(self: SqlSource, what: Read, *rest: Any) -> Any:
        for page in real(self, what, *rest):
            missed = pc.equal(page.records["id"], 1)
            yield page if what.ids is not None else replace(page, records=page.records.filter(pc.invert(missed)))

    monkeypatch.setattr(SqlSource, "read", read)
    firms.sync(mode="full", allow_removals=True)
    assert firms.stored() == ALL


@pytest.mark.parametrize("place", ["provider", "store"])
def test_an_outage_in_the_middle_loses_nothing(firms: Firms, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the provider or the store, after the first batch under the new ids: the next full run makes all exact."""
    calls: list[int] = []

    def failing(real: Any, error: VecsyncError) -> Any:
        def call(*given: Any) -> Any:
            calls.append(1)
            if len(calls) > 1:
                raise error
            return real(*given)

        return call

    kind: Any = HashProvider
    if place == "store":
        with Workspace(firms.small.config) as workspace:
            kind = type(workspace.store_of(NAME, NAME))
    name = "upsert" if place == "store" else "embed_documents"
    error = StoreUnavailable("down", service="qdrant") if place == "store" else EmbeddingUnavailable("down")
    firms.entity.update({"type": "other", "collections": {NAME: {"text": "{name} {id}"}}})
    firms.small.data["sync"] = {"batch": 1}
    monkeypatch.setattr(kind, name, failing(getattr(kind, name), error))
    for _ in range(2):
        with Workspace(firms.small.config) as workspace:
            [result] = workspace.sync(Selection(NAME, "a", (NAME,)), SyncOptions(mode="full"))
        assert result.error is not None
        assert {*firms.stored()} == {*ALL}
    monkeypatch.undo()
    firms.sync(mode="full")
    assert firms.stored() == ALL
    assert not firms.sync(mode="full").figures.touched


def test_ids_that_clash_lose_nothing(firms: Firms) -> None:
    """`[firm, id]` becomes `id`, and two firms have the same ids: what is refused stays as it was."""
    for number in (1, 2, 3):
        firms.put("b", number, f"name {number}")
    firms.entity["id"] = ["firm", "id"]
    both = sorted((firm, str(number)) for firm in FIRMS for number in (1, 2, 3))
    for key in (["firm", "id"], "id", "id", ["firm", "id"]):
        firms.entity["id"] = key
        for firm in FIRMS:
            firms.sync(firm, mode="full", allow_removals=True)
        assert firms.stored() == both
    assert not sum(firms.sync(firm, mode="full").figures.touched for firm in FIRMS)


@pytest.mark.parametrize("then", ["", "surrogate", "view"])
def test_the_key_stays_when_the_primary_key_goes(tmp_path: Path, then: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is synced by a primary key of the tenant's column and the id stays known by it, in every kind of run."""
    firms = Firms(tmp_path, ", PRIMARY KEY (firm, id)")
    for firm in FIRMS:
        firms.put(firm, 1, firm)
        firms.sync(firm, mode="full")
    firms.db.execute(f"ALTER TABLE {NAME} RENAME TO old")
    if then == "surrogate":
        firms.db.execute(f"CREATE TABLE {NAME} (firm, id integer, name, at integer, gone, uid INTEGER PRIMARY KEY)")
        firms.db.execute(f"INSERT INTO {NAME} SELECT *, NULL FROM old")
    else:
        firms.db.execute(f"CREATE {then or 'TABLE'} {NAME} AS SELECT * FROM old")
    for options in HEALED:
        for firm in FIRMS:
            result = firms.sync(firm, **options)
            assert (result.figures.touched, result.figures.invalid) == (0, 0)
    assert firms.stored() == [("a", "1"), ("b", "1")]
    assert "write id: [firm, id]" in caplog.text


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_naming_another_key_than_the_tables_own(tmp_path: Path, mode: str) -> None:
    """The id alone where the primary key was used unsaid: a rejected record keeps its last good version, and no changed
    one is stored twice."""
    firms = Firms(tmp_path, ", PRIMARY KEY (firm, id)")
    for number in (1, 2, 3):
        firms.put("a", number, f"name {number}")
    firms.sync(mode="full")
    firms.put("a", 1, "")
    firms.put("a", 2, "other")
    firms.entity["id"] = "id"
    firms.sync(mode=mode, allow_removals=True)
    assert firms.stored() == ALL
    assert not firms.sync(mode="full", allow_removals=True).figures.touched
    assert firms.stored() == ALL


def test_a_repair_by_the_tables_own_key(tmp_path: Path) -> None:
    """It knows that the records were read: what is in neither source nor store is forgotten."""
    firms = Firms(tmp_path, ", PRIMARY KEY (firm, id)")
    for number in (1, 2, 3):
        firms.put("a", number, f"name {number}")
    firms.sync(mode="full")
    firms.db.execute(f"DELETE FROM {NAME} WHERE id = 1")
    with Workspace(firms.small.config) as workspace:
        workspace.store_of(NAME, NAME).delete_foreign(NAME, [point_id(NAME, f"tenant-{NAME}-a/1")])
        assert workspace.repair(NAME, NAME, list(workspace.differences(NAME, NAME))).removed == 1
        assert not list(workspace.differences(NAME, NAME))


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_ids_loses_nothing(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any changes of type and key, with records that are rejected or refused: each live record that was stored has a
    version at any time, and one clean full run makes all exact."""
    pick = random.Random(seed)
    firms = Firms(tmp_path)
    live: dict[tuple[str, str], str] = {}
    real, refused = HashProvider.embed_documents, [False]

    def embed(self: HashProvider, texts: Any) -> Any:
        if refused[0] and any("x" in text for text in texts):
            raise EmbeddingRejected("no")
        return real(self, texts)

    monkeypatch.setattr(HashProvider, "embed_documents", embed)
    for _ in range(12):
        for _ in range(pick.randint(0, 3)):
            firm, number = pick.choice(FIRMS), pick.randint(1, 4)
            live[firm, str(number)] = name = pick.choice(["x", "y", "z", ""])
            firms.put(firm, number, name)
        if pick.random() < 0.4:
            firms.entity.update({"type": pick.choice(["one", "two"]), "id": pick.choice([["firm", "id"], "id"])})
            firms.entity["collections"][NAME]["text"] = pick.choice(["{name}", "{name} {firm}"])
        refused[0] = pick.random() < 0.4
        before = {*firms.stored()} & live.keys()
        for firm in pick.sample(FIRMS, 2):
            firms.sync(firm, **pick.choice([*HEALED, {}]), allow_removals=True)
            assert before <= {*firms.stored()}
    refused[0] = False
    firms.entity["id"] = ["firm", "id"]
    for (firm, row), name in live.items():
        firms.put(firm, int(row), name or "good")
    for firm in FIRMS:
        if any(whose == firm for whose, _ in live):
            firms.sync(firm, mode="full", allow_removals=True)
    assert firms.stored() == sorted(live)
