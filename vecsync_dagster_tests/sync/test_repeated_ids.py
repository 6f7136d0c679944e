"""Two live records of one tenant with one id: which of them is synced, in every kind of run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

from vecsync_dagster.config import Config
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import EmbeddingRejected
from vecsync_dagster.ledger.base import Partition
from vecsync_dagster.sources.base import FindsRepeated
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Selection, Workspace
from vecsync_dagster_tests.small import NAME, Small, mongo_rows, sqlite_source

Do = Callable[[str, dict[str, Any]], None]
JANUARY, FEBRUARY, MARCH, APRIL = (f"2026-0{month}-01T00:00:00Z" for month in range(1, 5))
ROWS = [{"sku": "A", "name": "first"}, {"sku": "A", "name": "second"}, {"sku": "B", "name": "lamp"}]


@pytest.fixture(params=["table", "view", "mongo by time", "mongo by events"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Small, Do]]:
    """`do` sets values of the row of a name."""
    if not request.param.startswith("mongo"):
        path = tmp_path / "source.db"
        db = sqlite3.connect(path, isolation_level=None)
        rows = NAME if request.param == "table" else "kept"
        db.execute(f"CREATE TABLE {rows} (pk INTEGER PRIMARY KEY, sku, name, at, gone)")
        # What is read by the table's own key is not read in the order of its rows.
        order = ROWS if request.param == "view" else [ROWS[1], ROWS[0], ROWS[2]]
        for number, row in enumerate(order):
            pk = -number if request.param == "table" else number
            db.execute(f"INSERT INTO {rows} VALUES (?, ?, ?, ?, NULL)", [pk, row["sku"], row["name"], JANUARY])
        if rows == "kept":
            db.execute(f"CREATE VIEW {NAME} AS SELECT sku, name, at, gone FROM kept")

        def do(name: str, values: dict[str, Any]) -> None:
            sets = ", ".join(f"{column} = ?" for column in values)
            db.execute(f"UPDATE {rows} SET {sets} WHERE name = ?", [*values.values(), name])

        source = sqlite_source(path)
        yield Small(tmp_path, source, id="sku", updated_at="at", deleted_at="gone", payload=("name",)), do
        return
    with mongo_rows(request, stream="never" if request.param == "mongo by time" else "auto") as (source, documents):
        numbered = [{"_id": number, "at": JANUARY, **row} for number, row in enumerate(ROWS)]
        documents.insert_many(reversed(numbered))

        def do(name: str, values: dict[str, Any]) -> None:
            documents.update_one({"name": name}, {"$set": values})

        yield Small(tmp_path, source, id="sku", updated_at="at", deleted_at="gone", payload=("name",)), do


def names(small: Small) -> list[str]:
    return sorted(payload["name"] for payload in small.stored().values())


def test_the_first_one_is_synced_by_every_run(two: tuple[Small, Do]) -> None:
    """Of two live records with one id the first is the one that is synced, whichever of them a run meets; when it is
    gone, the other one takes its place."""
    small, do = two
    result = small.sync()
    assert (result.outcome, result.figures.invalid, names(small)) == ("success", 1, ["first", "lamp"])
    do("second", {"at": FEBRUARY})
    for kind in ({"mode": "incremental"}, {"ids": ("A",)}, {"limit": 1, "offset": 1}, {"mode": "full"}):
        result = small.sync(**kind)
        assert result.outcome == "success"
        assert result.figures.invalid == 1 or "offset" in kind  # that one may meet the first alone
        assert names(small) == ["first", "lamp"], kind
    do("first", {"name": "first again", "at": MARCH})
    assert small.sync(mode="incremental").outcome == "success"
    assert names(small) == ["first again", "lamp"]
    do("first again", {"gone": APRIL, "at": APRIL})
    assert small.sync(mode="incremental").outcome == "success"
    assert names(small) == ["lamp", "second"]


def test_the_first_one_is_what_a_repair_writes(two: tuple[Small, Do]) -> None:
    """Points that were lost come back as the records that were synced."""
    small, _ = two
    small.sync()
    with Workspace(small.config) as workspace:
        store = workspace.store_of(NAME, NAME)
        store.delete_foreign(NAME, [point.point_id for page in store.scan(NAME) for point in page])
        workspace.repair(NAME, NAME, workspace.differences(NAME, NAME))
    assert names(small) == ["first", "lamp"]


def test_a_good_record_takes_the_place_of_a_rejected_one(two: tuple[Small, Do]) -> None:
    """Where the first record of an id is no document, the second one is; the first is rejected, and nothing fails."""
    small, do = two
    do("first", {"name": None})
    result = small.sync()
    assert (result.outcome, result.ok, result.figures.invalid, names(small)) == ("success", True, 1, ["lamp", "second"])
    place = Partition(NAME, NAME, GLOBAL)
    with Workspace(small.config) as workspace:
        assert len(workspace.ledger.invalid({place: workspace.ledger.last_runs()[place]})) == 1


@pytest.mark.parametrize("page", [1, 500])
def test_a_rejected_record_says_nothing_of_a_good_one(two: tuple[Small, Do], page: int) -> None:
    """Whichever of them a run meets, and wherever a page ends: the good one is well, and the other one is counted."""
    small, do = two
    small.data["sync"] = {"page": page}
    do("second", {"name": None})
    for kind in ({"mode": "full"}, {"mode": "incremental"}, {"ids": ("A",)}, {"mode": "full"}):
        result = small.sync(**kind)
        assert (result.outcome, names(small)) == ("success", ["first", "lamp"]), kind
        assert [c.message for c in result.checks if not c.passed and c.name != "validation"] == [], kind
        with Workspace(small.config) as workspace:
            states = {one.db_id: one.overall for one in workspace.ledger.records(NAME, [NAME])}
        do("lamp", {"at": FEBRUARY})
        assert states == {"A": "synced", "B": "synced"}, kind


def test_a_rejected_record_ends_no_retries_of_a_good_one(
    two: tuple[Small, Do], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the provider refused of the good one fails until it is taken, however often both are read together."""
    small, do = two
    real = HashProvider.embed_documents

    def embed(provider: HashProvider, texts: Sequence[str]) -> Any:
        if any("again" in text for text in texts):
            raise EmbeddingRejected("refused", index=0)
        return real(provider, texts)

    do("second", {"name": None})
    small.sync()
    do("first", {"name": "first again", "at": MARCH})
    with monkeypatch.context() as patched:
        patched.setattr(HashProvider, "embed_documents", embed)
        for _ in range(3):
            small.sync(mode="incremental")
            with Workspace(small.config) as workspace:
                [state] = [one for one in workspace.ledger.records(NAME, [NAME]) if one.db_id == "A"]
            assert state.overall == "failed"
    small.sync(mode=None, ids=("A",))
    assert names(small) == ["first again", "lamp"]


def test_one_that_was_put_right_makes_nothing_fail(two: tuple[Small, Do]) -> None:
    """A record that had no id when an incremental run met it, and has one now: that it is one less than was rejected
    is no difference between source and ledger."""
    small, do = two
    do("second", {"sku": "C"})
    small.sync()
    do("lamp", {"sku": None, "at": FEBRUARY})
    small.sync(mode="incremental")
    do("lamp", {"sku": "B", "at": MARCH})
    assert small.sync(mode="incremental").outcome == "success"
    with Workspace(small.config) as workspace:
        [(_, checks)] = workspace.verify(Selection(NAME, GLOBAL, (NAME,)))
    [counts] = [one for one in checks if one.name == "counts"]
    assert counts.passed, counts.message


def test_one_that_an_incremental_run_meets_is_known_everywhere_at_once(two: tuple[Small, Do]) -> None:
    """What the run rejects, `vecsync invalid`, the check `validation` and a check by hand say the same, and go on
    saying it, once each."""
    small, do = two
    small.sync()

    def rejected() -> set[int]:
        """As the ledger lists them, and as the last check said; then as one says that is made now."""
        place = Partition(NAME, NAME, GLOBAL)
        with Workspace(small.config) as workspace:
            ledger = workspace.ledger
            [kept] = [one for one in ledger.check_results(NAME) if one.check == "validation"]
            listed = ledger.invalid({place: ledger.last_runs()[place]})
            [(_, checks)] = workspace.verify(Selection(NAME, GLOBAL, (NAME,)))
            [now] = [one for one in checks if one.name == "validation"]
        return {len(listed), int(kept.facts["invalid"]), int(now.facts["invalid"])}

    assert rejected() == {1}
    do("lamp", {"sku": "A", "at": FEBRUARY})
    do("second", {"at": FEBRUARY})
    assert small.sync(mode="incremental").figures.invalid == 2
    assert rejected() == {2}
    do("first", {"at": MARCH})
    small.sync(mode="incremental")
    assert rejected() == {2}
    do("lamp", {"sku": "C", "at": APRIL})
    small.sync()
    assert rejected() == {1}


@pytest.mark.parametrize("declared", ["UNIQUE (firm, sku)", "PRIMARY KEY (firm, sku)"])
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_part_of_a_key_that_may_be_null_makes_none_unique(
    database: str, declared: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Any number of rows may have a null there. PostgreSQL lets no part of a primary key be null."""
    url = sql_url(database, tmp_path, request)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as db:
        for table, null in (("things", ""), ("others", " NOT NULL")):
            columns = f"pk integer{null}, firm varchar(9){null}, sku varchar(9){null}, name text"
            db.execute(text(f"CREATE TABLE {table} ({columns}, {declared})"))
    for table, key, unique in [
        ("things", ["firm", "sku"], (database, declared[:7]) == ("postgres", "PRIMARY")),
        ("others", ["firm", "sku"], True),
        ("others", ["firm", "sku", "pk"], True),
        ("others", ["sku"], False),
    ]:
        assert is_unique(sql_config(database, tmp_path), table, key) is unique, (table, key)


def test_in_a_view_no_key_is_unique(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Not even `_id`: a view may make several documents of one. The same two records end alike, whichever is met."""
    with mongo_rows(request, stream="never") as (source, documents):
        documents.insert_one({"_id": 1, "at": JANUARY, "items": [{"name": "first"}, {"name": "second"}]})
        pipeline = [{"$unwind": "$items"}, {"$set": {"name": "$items.name"}}]
        documents.database.command("create", "kept", viewOn=NAME, pipeline=pipeline)
        small = Small(tmp_path, source, id="_id", updated_at="at", payload=("name",))
        assert is_unique(small.config, NAME, ["_id"])
        assert not is_unique(small.config, "kept", ["_id"])
        small.data["entities"][NAME]["table"] = "kept"
        first = [small.sync(**kind) and names(small) for kind in ({"mode": "full"}, {"ids": ("1",)}, {"mode": "full"})]
        assert first == [first[0]] * 3


def sql_url(database: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if database == "sqlite":
        return f"sqlite:///{folder / 'source.db'}"
    url = str(request.getfixturevalue("postgres_database"))
    request.getfixturevalue("monkeypatch").setenv("SOURCE_URL", url)
    return url.replace("postgresql://", "postgresql+psycopg://")


def sql_config(database: str, folder: Path) -> Config:
    source = {"type": "postgres", "url": {"env": "SOURCE_URL"}} if database == "postgres" else None
    return Small(folder, source or sqlite_source(folder / "source.db")).config


def is_unique(config: Config, table: str, key: list[str]) -> bool:
    entity = config.entities[NAME].model_copy(update={"table": table, "id": tuple(key)})
    config = config.model_copy(update={"entities": {NAME: entity}})
    with Workspace(config) as workspace:
        source = workspace.source(NAME)
        assert isinstance(source, FindsRepeated)
        return source.unique()
