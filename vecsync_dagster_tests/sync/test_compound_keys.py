"""Keys of several columns, of every type and with every character, in each kind of run and every kind of source."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from bson import Int64
from pymongo import MongoClient

from vecsync_dagster.config import Config, load_config
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Figures, Selection, SyncOptions, Workspace, due_rows, retry_rows
from vecsync_dagster.sync.locate import locate
from vecsync_dagster_tests.cli.program import Ran, vecsync
from vecsync_dagster_tests.fakes.openai_server import OpenAIServer
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.world import file_of

PARTS = ("firm", "day", "uid", "raw", "no")
DAY, UID = datetime(2024, 1, 2, tzinfo=UTC), uuid.UUID(int=7)
Key = tuple[Any, ...]
KEYS: list[Key] = [
    ("a/b", DAY, UID, b"\x01\xff", 2**62),
    ("a", DAY, UID, b"b", 2**53 + 1),
    ("a~1b", DAY, UID, b"\x01\xff", 2**62),
    ('it\'s "x", y', DAY, UID, b"\x01\xff", 1),
    (" a ", DAY, UID, None, 1),
    ("~", None, None, None, -1),
    (None, None, None, None, 1),
    ("", None, None, None, 1),
    ("--id", None, UID, None, None),
    ("цена €", DAY, None, None, 0),
]
COLUMNS = {"sqlite": "text, date, text, blob, integer", "postgres": "text, date, uuid, bytea, bigint"}


@dataclass
class Lines:
    """A table or collection whose records are known by five fields, and the command line that syncs it."""

    file: Path
    provider: OpenAIServer
    kind: str = ""
    engine: sa.Engine | None = None
    documents: Any = None
    keys: dict[int, Key] = field(default_factory=dict)

    def insert(self, keys: Sequence[Key]) -> None:
        for key in keys:
            n = len(self.keys) + 1
            self.keys[n] = key
            if self.engine is None:
                parts = dict(zip(PARTS, (Int64(p) if isinstance(p, int) else p for p in key), strict=True))
                self.documents.insert_one(
                    {"_id": parts, "n": n, "name": f"line {n}"}
                    if self.kind == "mongo _id"
                    else {**parts, "n": n, "name": f"line {n}"}
                )
                continue
            firm, day, uid, raw, no = key
            values = {"f": firm, "d": day and day.date().isoformat(), "u": uid and str(uid), "r": raw, "n": no}
            statement = "INSERT INTO lines (firm, day, uid, raw, no, n, name) VALUES (:f, :d, :u, :r, :n, :id, :name)"
            if self.kind == "postgres":
                statement = statement.replace(":u", "CAST(:u AS uuid)").replace(":d", "CAST(:d AS date)")
            with self.engine.begin() as connection:
                connection.execute(sa.text(statement), {**values, "id": n, "name": f"line {n}"})

    def rename(self, n: int, name: str) -> None:
        if self.engine is None:
            self.documents.update_one({"n": n}, {"$set": {"name": name}})
            return
        with self.engine.begin() as connection:
            connection.execute(sa.text("UPDATE lines SET name = :name WHERE n = :n"), {"n": n, "name": name})

    def delete(self, *numbers: int) -> None:
        for n in numbers:
            if self.engine is None:
                self.documents.delete_one({"n": n})
                continue
            with self.engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM lines WHERE n = :n"), {"n": n})

    def run(self, *arguments: str) -> Ran:
        return vecsync(*arguments, "--config", self.file)

    def sync(self, **options: Any) -> Figures:
        """What a run of all records did; `ids` are looked for as the command does."""
        with Workspace(load_config(self.file)) as workspace:
            if "ids" in options:
                options["ids"] = tuple(locate(workspace, "lines", options["ids"])[GLOBAL])
            [result] = workspace.sync(Selection("lines", GLOBAL, ("lines",)), SyncOptions(**options))
        assert result.outcome == "success", result.error
        return result.figures

    def texts(self) -> dict[int, str]:
        """The text of each record's key, as an export says it."""
        ran = self.run("export", "--entity", "lines")
        found = [json.loads(line)["metadata"] for line in ran.out.splitlines()]
        return {one["n"]: one["dbId"] for one in found}


@pytest.fixture(params=["sqlite", "postgres", "mongo _id", "mongo fields"])
def lines(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    kind: str = request.param
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    key = [f"_id.{part}" if kind == "mongo _id" else part for part in PARTS]
    with OpenAIServer(dimensions=8, rejects="FORBIDDEN") as provider, QdrantRest() as rest:
        store = {"type": "qdrant", "url": rest.url, "timeout_s": 20}
        source: dict[str, Any] = {"type": "sqlite", "path": "source.db"}
        engine = documents = None
        if kind == "postgres":
            url = request.getfixturevalue("postgres_database")
            monkeypatch.setenv("SOURCE_URL", url)
            source = {"type": "postgres", "url": {"env": "SOURCE_URL"}}
            engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
        elif kind == "sqlite":
            engine = sa.create_engine(f"sqlite:///{tmp_path / 'source.db'}", poolclass=sa.NullPool)
        else:
            monkeypatch.setenv("MONGO_URL", request.getfixturevalue("mongo_url"))
            database = request.getfixturevalue("mongo_database")
            source = {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": database}
            client: MongoClient[Any] = MongoClient(request.getfixturevalue("mongo_url"), uuidRepresentation="standard")
            documents = client[database]["lines"]
        if engine is not None:
            types = dict(zip(PARTS, COLUMNS[kind].split(", "), strict=True))
            columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE TABLE lines ({columns}, n integer, name text)")
        openai = {"provider": "openai", "model": "loopback", "dimensions": 8, "base_url": provider.base_url}
        entity: dict[str, Any] = {"source": "db", "table": "lines", "id": key, "types": {"n": "integer"}}
        entity["collections"] = {"lines": {"text": "{name}", "payload": ["n"]}}
        if documents is not None:
            entity["writeback"] = True
        config = Config.model_validate(
            {
                "sources": {"db": source},
                "entities": {"lines": entity},
                "embedding": {"chain": [{**openai, "attempts": 1}]},
                "stores": {"main": store},
                "sync": {"retry": {"base": 0}},
                "state": "state",
            }
        ).with_folder(tmp_path)
        world = Lines(file_of(config, tmp_path), provider, kind, engine, documents)
        world.insert(KEYS)
        yield world
        if documents is not None:
            client.close()


def test_every_command_finds_a_record_by_its_key(lines: Lines) -> None:
    """A full run, one by ids, a retry, status, export, a rebuilt ledger, the write-back and stages that read a snapshot
    know each record by one text, write nothing needlessly and remove just what is gone."""
    first = lines.sync(mode="full")
    assert (first.new, first.invalid) == (len(KEYS), 0)
    texts = lines.texts()
    assert len(set(texts.values())) == len(KEYS)

    lines.rename(1, "FORBIDDEN 1")
    lines.rename(7, "FORBIDDEN 7")
    lines.delete(2, 6)
    again = lines.sync(ids=list(texts.values()))
    assert (again.unchanged, again.failed, again.removed) == (len(KEYS) - 4, 2, 2)
    shown = lines.run("status", "--entity", "lines", f"--id={texts[1]}", "--json").json["records"]
    assert [(one["id"], one["overall"]) for one in shown] == [(texts[1], "failed")]
    lines.provider.rejects = ""
    [tried] = lines.run("retry", "--no-record", "--json", f"--id={texts[7]}").json["partitions"]
    assert (tried["tried"], tried["synced"]) == (1, 1)
    with Workspace(load_config(lines.file)) as workspace:
        [result] = retry_rows(workspace, "lines", due_rows(workspace, "lines"))
    assert (result.figures.fetched, result.figures.upserted) == (1, 1)

    (lines.file.parent / "state" / "ledger.sqlite").unlink()
    with Workspace(load_config(lines.file)) as workspace:
        assert workspace.rebuild("lines", "lines").taken == {GLOBAL: len(KEYS) - 2}
    if lines.documents is not None:
        written = lines.documents.distinct("syncMetadata.overallStatus")
        assert (written, lines.documents.count_documents({"syncMetadata": None})) == (["synced"], 0)
    paid = len(lines.provider.answered)
    last = lines.sync(mode="full")
    assert (last.unchanged, last.writes, len(lines.provider.answered)) == (len(KEYS) - 2, 0, paid)
    lines.sync(mode="full", stages=("export",))
    later = lines.sync(mode="full", stages=("documents", "embeddings", "vectors"))
    assert (later.unchanged, later.writes) == (len(KEYS) - 2, 0)
