"""Keys whose text does not tell their type, from MongoDB to the ledger and back."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from bson import Binary, Decimal128, Int64, ObjectId
from pymongo import MongoClient

from vecsync_dagster.cli.probing import probe_all
from vecsync_dagster.config import Config
from vecsync_dagster.config.models import EntityConfig
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, Selection, SyncOptions, Workspace
from vecsync_dagster.sync.locate import locate

HEX = "5f1d3ec25d0b5f0e9a3c0c2b"
KEYS: dict[str, Any] = {
    "date": datetime(2024, 1, 1, tzinfo=UTC),
    "legacy uuid": Binary(bytes(range(16)), 3),
    "uuid": uuid.UUID(int=7),
    "bytes": Binary(b"\x01\x02\x03\xff"),
    "user-defined": Binary(b"\x01\x02\x04\xff", 128),
    **{f"binary {subtype}": Binary(bytes([1, 2, 5, subtype]), subtype) for subtype in (1, 2, 5, 6, 7, 8, 9)},
    "long": Int64(2**62),
    "object id": ObjectId(HEX),
    "text": "plain",
    "number": 7,
    "fraction": 1.5,
    "decimal": Decimal128("9007199254740993.25"),
    "beyond 64 bits": Decimal128("10000000000000000000000"),
    "an exponent": Decimal128("1E+36"),
    "document": {"firm": "acme", "no": 1},
}


class Notes:
    def __init__(self, url: str, database: str, folder: Path) -> None:
        self.client: MongoClient[dict[str, Any]] = MongoClient(url, uuidRepresentation="standard")
        self.documents = self.client[database]["notes"]
        entity = {"source": "m", "table": "notes", "id": "_id", "collections": {"notes": {"text": "{name}"}}}
        self.config = Config.model_validate(
            {
                "sources": {"m": {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": database}},
                "entities": {"notes": entity},
                "embedding": {"chain": [{"provider": "hash", "dimensions": 32}]},
                "stores": {"main": {"type": "qdrant", "path": "qdrant"}},
                "state": "state",
            }
        ).with_folder(folder)

    def sync(self, **options: Any) -> PartitionResult:
        with Workspace(self.config) as workspace:
            [result] = workspace.sync(Selection("notes", GLOBAL, ("notes",)), SyncOptions(**options))
        assert result.outcome == "success", result.error
        return result

    def names(self) -> list[str]:
        with Workspace(self.config) as workspace:
            pages = workspace.store("main").scan("notes")
            ids = {str(point.payload["dbId"]) for page in pages for point in page}
        return sorted(ids)

    def forget_types(self) -> None:
        """The ledger as the version before left it."""
        with sa.create_engine(f"sqlite:///{self.config.state_folder / 'ledger.sqlite'}").begin() as ledger:
            ledger.exec_driver_sql("UPDATE index_state SET db_key = NULL")


@pytest.fixture
def notes(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    monkeypatch.setenv("MONGO_URL", mongo_url)
    world = Notes(mongo_url, mongo_database, tmp_path)
    yield world
    world.client.close()


def test_a_key_of_any_type_is_found_again(notes: Notes) -> None:
    """Each record is found by its id in a run by ids, also where the ledger does not know the type of its key."""
    notes.documents.insert_many([{"_id": key, "name": name} for name, key in KEYS.items()])
    notes.sync(mode="full")
    known = notes.names()
    assert len(known) == len(KEYS)
    for _ in range(2):
        for text in known:
            with Workspace(notes.config) as workspace:
                places = locate(workspace, "notes", [text])
            result = notes.sync(ids=tuple(places[GLOBAL]))
            assert result.figures.removed == 0
        assert notes.names() == known
        notes.forget_types()


def test_what_is_gone_is_removed_if_its_type_is_known(notes: Notes) -> None:
    """A run by ids removes a record that it asked for by its own key; one whose type nobody knows stays until a full
    run, and the run says so."""
    notes.documents.insert_many([{"_id": key, "name": name} for name, key in KEYS.items()])
    notes.sync(mode="full")
    notes.documents.delete_many({"_id": {"$in": [KEYS["date"], KEYS["text"]]}})
    assert notes.sync(ids=("plain",)).figures.removed == 1
    notes.forget_types()
    date = KEYS["date"].isoformat()
    kept = notes.sync(ids=(date,))
    assert kept.figures.removed == 0
    assert "not found and kept" in kept.note
    assert date in notes.names()
    notes.sync(mode="full")
    assert date not in notes.names()


def test_an_old_snapshot_removes_no_key_that_is_live(notes: Notes) -> None:
    """Stages over a snapshot of before ask the source for what the snapshot lacks by its own key, whatever its type."""
    snapshots = notes.config.state_folder / "snapshots"
    notes.documents.insert_one({"_id": "first", "name": "first"})
    notes.sync(mode="full")
    shutil.copytree(snapshots, snapshots.with_name("before"))
    notes.documents.insert_many([{"_id": key, "name": name} for name, key in KEYS.items()])
    notes.sync(mode="full")
    known = notes.names()
    shutil.rmtree(snapshots)
    snapshots.with_name("before").rename(snapshots)
    for removed in (0, 1):
        result = notes.sync(mode="full", stages=("documents", "embeddings", "vectors"))
        assert result.figures.removed == removed
        assert len(notes.names()) == len(known) - removed
        notes.documents.delete_one({"_id": KEYS["document"]})


@pytest.mark.parametrize(("first", "second"), [(7, "7"), ("7", 7), (ObjectId(HEX), HEX)])
def test_two_keys_of_one_text_do_not_take_each_others_place(notes: Notes, first: Any, second: Any) -> None:
    """The record that is synced stays, with its changes; the other one is refused until the first is gone."""
    notes.documents.insert_one({"_id": first, "name": "first"})
    notes.sync(mode="full")
    notes.documents.insert_one({"_id": second, "name": "second"})
    for mode in ("incremental", "full", "full"):
        notes.sync(mode=mode)
        assert _text(notes) == "first"
    notes.documents.delete_one({"_id": first})
    notes.sync(mode="full")
    assert _text(notes) == "second"


@pytest.mark.parametrize(("page", "name"), [(1, "second"), (500, "second"), (500, None)])
def test_two_new_keys_of_one_text_are_told_apart_at_once(notes: Notes, page: int, name: str | None) -> None:
    """The reason of the one that is refused is the same in the run that meets both first and in each one after it."""
    notes.documents.insert_many([{"_id": 7, "name": "first"}, {"_id": "7", "name": name}])
    notes.config = notes.config.model_copy(update={"sync": notes.config.sync.model_copy(update={"page": page})})
    for _ in range(2):
        assert notes.sync(mode="full").figures.invalid == 1
    assert _text(notes) == "first"
    with sa.create_engine(f"sqlite:///{notes.config.state_folder / 'ledger.sqlite'}").connect() as ledger:
        told = ledger.exec_driver_sql("SELECT code, error FROM invalid_record").all()
    assert [code for code, _ in told] == ["ID_NOT_UNIQUE"] * 2
    assert all("of different types" in error for _, error in told)


def test_a_record_that_is_there_by_another_type_is_not_called_unknown(notes: Notes) -> None:
    """Asked for by a text that tells no type, a record whose type the ledger knows is found there, and kept."""
    notes.documents.insert_one({"_id": KEYS["document"], "name": "n"})
    notes.sync(mode="full")
    [text] = notes.names()
    kept = notes.sync(ids=(text,))
    assert (kept.figures.removed, "the source has them" in kept.note, "not known" in kept.note) == (0, True, False)


def test_a_deleted_key_of_the_same_text_buries_nobody_else(notes: Notes) -> None:
    """The deletion of a record leaves the one whose key has the same text alone."""
    notes.documents.insert_one({"_id": 7, "name": "first"})
    notes.sync(mode="full")
    notes.documents.insert_one({"_id": "7", "name": "second"})
    notes.documents.delete_one({"_id": "7"})
    notes.sync(mode="incremental")
    assert _text(notes) == "first"


@pytest.mark.parametrize("first", [7, "7"])
def test_two_deleted_keys_of_one_text_leave_nothing(notes: Notes, first: Any) -> None:
    """Whichever of the two was synced, and in whichever order they went."""
    second: Any = "7" if first == 7 else 7
    for gone in ((first, second), (second, first)):
        notes.documents.insert_one({"_id": first, "name": "first"})
        notes.sync(mode="full")
        notes.documents.insert_one({"_id": second, "name": "second"})
        notes.sync(mode="incremental")
        for key in gone:
            notes.documents.delete_one({"_id": key})
        assert (notes.sync(mode="incremental").figures.removed, notes.names()) == (1, [])


def _text(notes: Notes) -> str:
    """The name of the record that the one point of the store was made of."""
    with sa.create_engine(f"sqlite:///{notes.config.state_folder / 'ledger.sqlite'}").connect() as ledger:
        [key] = ledger.exec_driver_sql("SELECT db_key FROM index_state").scalars().all()
    kinds = {"7": 7, '"7"': "7", f'"{HEX}"': HEX}
    found = notes.documents.find_one({"_id": kinds.get(key, ObjectId(HEX))})
    return str(found["name"]) if found else "nobody"


def test_check_finds_two_keys_of_one_text(notes: Notes) -> None:
    """`vecsync check` counts records whose ids differ in their type alone."""
    notes.documents.insert_many([{"_id": key, "name": "n"} for key in (7, "7", "8", KEYS["date"], KEYS["document"])])
    with Workspace(notes.config) as workspace:
        [told] = [probe for probe in probe_all(workspace) if probe.part == "ids of notes"]
    assert (told.state, "1 id belongs" in told.message, "'7'" in told.message) == ("FAIL", True, True)


@pytest.mark.parametrize("tenant", [["acme", "brick"], {"id": "acme"}])
def test_a_record_of_several_tenants_is_refused(notes: Notes, tenant: Any) -> None:
    """A tenant's field that is a list or an object makes the record nobody's: it is in no collection, and is counted. A
    list is met under each tenant in it, where the run says why; an object is met by no run."""
    raw = notes.config.entities["notes"].model_dump(exclude_unset=True)
    entity = EntityConfig.model_validate({**raw, "tenancy": {"column": "firm"}})
    config = notes.config.model_copy(update={"entities": {"notes": entity}})
    notes.documents.insert_many([{"_id": 1, "name": "own", "firm": "acme"}, {"_id": 2, "name": "both", "firm": tenant}])
    with Workspace(config) as workspace:
        for one in ("acme", "brick"):
            [result] = workspace.sync(Selection("notes", one, ("notes",)), SyncOptions(mode="full"))
            assert all(check.passed for check in result.checks if check.name == "counts")
            assert result.figures.invalid == (1 if isinstance(tenant, list) else 0)
        rejected = workspace.ledger.invalid(dict(workspace.ledger.last_runs("notes")))
        assert workspace.source("notes").unassigned() == 1
    assert [(one.id, one.tenant) for one in rejected] == [("2", one) for one in tenant if isinstance(tenant, list)]
    assert {one.error for one in rejected} <= {"firm is a list or an object, not one tenant"}
    notes.config = config
    assert notes.names() == ["1"]
