"""MongoDB fields whose own names have a dot, from the source to the store, in every place that names a field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.mongo import failing
from vecsync_dagster_tests.small import NAME, Small

UNKNOWN_OPERATOR = 168


class Parts(Small):
    """Documents of which every field that the entity names has a dot in its name."""

    def __init__(self, folder: Path, url: str, database: str, store: str) -> None:
        super().__init__(
            folder,
            {"type": "mongo", "url": {"env": "MONGO_URL"}, "database": database, "change_stream": "never"},
            text="{name} {price.usd}",
            payload=("price.usd",),
            id=["part.no", "part.line"],
            tenancy={"column": "firm.id"},
            updated_at="meta.at",
            overlap=0,
            filter={"state.now": "ready"},
            required=["price.usd"],
        )
        self.data["stores"] = {"main": {"type": "qdrant", "url": store}}
        self.url = url
        self.client: MongoClient[dict[str, Any]] = MongoClient(url)
        self.documents = self.client[database][NAME]
        self.flat = True
        self.before_5 = False

    def part(self, no: int, firm: str, usd: int | None, at: int, state: str = "ready") -> dict[str, Any]:
        fields = {
            "part.no": no,
            "part.line": 1,
            "firm.id": firm,
            "price.usd": usd,
            "meta.at": datetime(2024, 1, 1, 0, at, tzinfo=UTC),
            "state.now": state,
        }
        if self.flat:
            return {"_id": no, "name": f"part {no}", **fields}
        nested: dict[str, Any] = {"_id": no, "name": f"part {no}"}
        for name, value in fields.items():
            outer, _, inner = name.partition(".")
            nested.setdefault(outer, {})[inner] = value
        return nested

    def put(self, *parts: dict[str, Any]) -> None:
        for part in parts:
            self.documents.replace_one({"_id": part["_id"]}, part, upsert=True)

    def sync_all(self, **options: Any) -> dict[str, PartitionResult]:
        with ExitStack() as stack:
            if self.before_5:
                stack.enter_context(failing(self.url, "aggregate", mode={"times": 1}, errorCode=UNKNOWN_OPERATOR))
            workspace = stack.enter_context(Workspace(self.config))
            chosen = workspace.select([NAME])
            results = [result for one in chosen for result in workspace.sync(one, SyncOptions(**options))]
        return {result.tenant: result for result in results}


@pytest.fixture
def parts(tmp_path: Path, mongo_url: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    monkeypatch.setenv("MONGO_URL", mongo_url)
    with QdrantRest() as store:
        parts = Parts(tmp_path, mongo_url, mongo_database, store.url)
        yield parts
        parts.client.close()


@pytest.mark.parametrize("kind", ["flat", "path", "path, before 5.0"])
def test_every_field_is_named_by_it(parts: Parts, kind: str) -> None:
    """Key, tenant, filter, time, text, payload and `required`: a full run, one of what changed, and one by ids. On a
    server that knows no such names they are paths."""
    parts.flat, parts.before_5 = kind == "flat", kind == "path, before 5.0"
    parts.put(
        parts.part(1, "acme", 5, 1),
        parts.part(2, "acme", 6, 2),
        parts.part(3, "brick", 7, 3),
        parts.part(4, "brick", 8, 4, "draft"),
        parts.part(5, "acme", None, 5),
    )
    results = parts.sync_all(mode="full")
    assert {tenant: (r.figures.new, r.figures.invalid) for tenant, r in results.items()} == {
        "acme": (2, 1),
        "brick": (1, 0),
    }
    stored = parts.stored()
    assert {key: (one["tenantId"], one["price.usd"]) for key, one in stored.items()} == {
        "1/1": ("acme", 5),
        "2/1": ("acme", 6),
        "3/1": ("brick", 7),
    }
    parts.put(parts.part(1, "acme", 50, 6), parts.part(3, "brick", 7, 7, "draft"))
    results = parts.sync_all()
    assert {r.mode for r in results.values()} == {"incremental"}
    figures = results["acme"].figures
    assert (figures.fetched, figures.changed) == (2, 1)  # the last one before it as well
    assert parts.stored()["1/1"]["price.usd"] == 50
    assert results["brick"].figures.removed == 1
    parts.documents.delete_one({"_id": 2})
    with Workspace(parts.config) as workspace:
        [chosen] = workspace.select([NAME], ["acme"])
        [result] = workspace.sync(chosen, SyncOptions(ids=("1/1", "2/1")))
    assert (result.figures.unchanged, result.figures.removed, list(parts.stored())) == (1, 1, ["1/1"])


def test_a_server_without_such_names_refuses_a_field_that_has_one(parts: Parts) -> None:
    """Before MongoDB 5.0 a name with a dot is a path; where a document has a field of that very name, the entity fails
    with a message that names it, and nothing is removed."""
    parts.flat, parts.before_5 = False, True
    parts.put(parts.part(1, "acme", 5, 1))
    parts.sync_all(mode="full")
    parts.documents.insert_one({"_id": 2, "price.usd": 6})
    with pytest.raises(Exception, match=r"'price.usd' is the name of a field with a dot.*MongoDB 5\.0") as caught:
        parts.sync_all(mode="full")
    assert getattr(caught.value, "code", "") == "SOURCE_ERROR"
    assert list(parts.stored()) == ["1/1"]
