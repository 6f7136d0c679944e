"""One sequence in which the settings change under what is synced: key, declared primary key, type, tenancy, filter,
collections and write-back, drawn from a seed, beside changes of rows and runs of a workspace that fail or do not.

What must hold is worked out from the rows that were written to the source and from the settings of that time.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import sqlalchemy as sa

from vecsync_dagster.config.models import Config, EntityConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.documents import Document, DocumentBuilder
from vecsync_dagster.embedding import Embedded
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import EmbeddingRejected
from vecsync_dagster.identity import KEY_TEXT, key_text
from vecsync_dagster.sources.base import Keyed, Source
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import Workspace
from vecsync_dagster.sync.embedders import Embedders
from vecsync_dagster_tests.sync.any_run_places import COLLECTIONS, ENTITY, URL, MongoTable, Place, SqlTable
from vecsync_dagster_tests.world import START, WORKS

__all__ = ["FIRMS", "SETTINGS", "TEXTS", "Changing", "KeyedDocuments", "KeyedRows"]

FIRMS = ("acme", "brick", "cord")
TEXTS = {"works": "{name} {code}", "codes": "{code}", "units": "{unit} {name}", "prices": "{name}"}
BOTH = {"column": "tenant_id", "global_flag": "is_global"}
SETTINGS: dict[str, list[Any]] = {
    "id": [None, "id", "id", ["tenant_id", "id"], ["tenant_id", "id"], ["id", "tenant_id"], ["code", "id"], "price"],
    "type": [None, "one", "two"],
    "tenancy": [BOTH, BOTH, BOTH, {"column": "tenant_id"}, {"column": "code", "global_flag": "is_global"}, None],
    "filter": [{}, {}, {"unit": "pc"}, {"unit": ["pc", None]}],
    "updated_at": ["updated_at", "updated_at", "updated_at", None],
    "deleted_at": ["deleted_at", "deleted_at", None],
    "collections": [COLLECTIONS[:1], COLLECTIONS[:1], COLLECTIONS[:2], COLLECTIONS[1:]],
    "writeback": [True, False],
    "primary": ["", "price", "tenant_id, id", "id"],
}
PROBE = "vecsync"
"""What a provider is asked for to see whether it refuses everything."""


Held = set[tuple[str, str]]
"""Collections and the `price` of records: what tells these apart whatever their key is."""


class KeyedRows(SqlTable):
    """A table whose primary key changes; `price` is the record's own number."""

    def rekey(self, primary: str) -> None:
        columns = ", ".join(f"{column.name} {column.type.compile(self._engine.dialect)}" for column in WORKS.columns)
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(WORKS)).mappings().all()
            connection.exec_driver_sql("DROP TABLE works")
            key = f", PRIMARY KEY ({primary})" if primary else ""
            connection.exec_driver_sql(f"CREATE TABLE works ({columns}{key})")
            if rows:
                connection.execute(sa.insert(WORKS), [dict(row) for row in rows])

    def put(self, row: Mapping[str, Any]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORKS).where(WORKS.c.price == row["price"]))
            connection.execute(sa.insert(WORKS), {name: self._value(value) for name, value in row.items()})

    def drop(self, row_id: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORKS).where(WORKS.c.price == str(row_id)))


class KeyedDocuments(MongoTable):
    """The same: `_id` is the record's own number."""

    def rekey(self, primary: str) -> None:
        """MongoDB's own key is always `_id`."""

    def put(self, row: Mapping[str, Any]) -> None:
        own = int(row["price"])
        told = self.documents.find_one({"_id": own}, {"syncMetadata": 1}) or {}
        self.documents.replace_one({"_id": own}, {**told, "_id": own, **row}, upsert=True)


class Paid(HashProvider):
    """What was paid for, by text; names that are refused."""

    def __init__(self) -> None:
        super().__init__(HashConfig(provider="hash", dimensions=16))
        self.texts: Counter[str] = Counter()
        self.refused = ""

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        if self.refused and any(self.refused in text for text in texts):
            raise EmbeddingRejected("no")
        self.texts.update(text for text in texts if text != PROBE)
        return super().embed_documents(texts)


class Changing:
    """Settings and rows, and what must hold by them. `told`: what was done so far, for people."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = random.Random(f"changing settings {seed}")
        self.told: list[str] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.numbers = 0
        self.mongo = isinstance(place.table, KeyedDocuments)
        self.paid = Paid()
        self.clashed: set[str] = set()
        self.written: dict[tuple[str, str], tuple[tuple[str, ...], str | None]] = {}
        self.off = self.torn = False
        place.clear()
        self.settings = {name: values[0] for name, values in SETTINGS.items()}
        self._configure([*SETTINGS])

    # -- settings and rows -------------------------------------------------------------------------
    def _configure(self, names: Iterable[str]) -> None:
        new = {name: self.random.choice(SETTINGS[name]) for name in names}
        if not self.mongo or new.get("writeback") is None:
            new["writeback"] = new.get("writeback", self.settings["writeback"]) and self.mongo
        self.settings |= new
        if "primary" in new:
            self._rekey(new["primary"])
        s, pick = self.settings, self.random.choice
        key = {"price": "_id"}.get(s["id"], s["id"]) if self.mongo and isinstance(s["id"], str) else s["id"]
        payload = ["price", "unit", "name", "code"]
        entity = {name: s[name] for name in ("type", "tenancy", "filter", "updated_at", "deleted_at", "writeback")} | {
            "source": "db",
            "table": "works",
            "overlap": "PT2S",
            "required": ["name"],
            "collections": {
                name: {"text": TEXTS[name], "payload": payload, "store": name} for name in s["collections"]
            },
        }
        config = Config.model_validate(
            {
                "sources": {"db": {"type": "mongo", "url": {"env": URL}, "database": "d"}},
                "entities": {ENTITY: entity if key is None else {**entity, "id": key}},
                "stores": {name: {"type": "qdrant", "path": name} for name in COLLECTIONS},
                "sync": {
                    "page": pick([1, 2, 500]),
                    "batch": pick([1, 2, 200]),
                    "retry": {"base": "PT0S", "max_retries": 1000},
                    "removal_guard": {"share": pick([0, 0.3, 1]), "min_documents": pick([0, 2, 50])},
                },
                "automation": {"tenants": {"missing_for": pick(["PT0S", "PT15M"])}},
                "state": str(self.place.folder),
            }
        ).model_copy(update={"sources": {"db": self.place.table.config}})
        self.config = config.with_folder(self.place.folder)
        self._told({name: value for name, value in s.items() if name in new})
        self._open()
        self.off = self.off or (self.mongo and not s["writeback"])
        before = getattr(self, "key", None)
        self.key = self._key()
        self._told(f"  key {before} -> {self.key}, primary key ({s['primary']})")
        self._clash()

    def _rekey(self, primary: str) -> None:
        key = primary.split(", ") if primary else []
        values = [tuple(row[name] for name in key) for row in self.rows.values()]
        if self.mongo or None in {one for some in values for one in some} or (key and len({*values}) < len(values)):
            self.settings["primary"] = primary = ""
        table = cast("KeyedRows | KeyedDocuments", self.place.table)
        table.rekey(primary)

    def _open(self) -> None:
        """A process of its own: nothing is remembered but by ledger, stores and snapshots."""
        self.workspace = Workspace(self.config)
        self._take_part(self.place.ledger, self.place.stores, self.paid)
        self.entity: EntityConfig = self.config.entities[ENTITY]
        self.place._opened.append(self.workspace.source(ENTITY))

    def _take_part(self, ledger: Any, stores: Mapping[str, Any], provider: Any) -> None:
        self.workspace.__dict__["ledger"] = ledger
        self.workspace.__dict__["embedders"] = Embedders([provider], ledger)
        self.workspace._stores.update(stores)

    def _key(self) -> tuple[str, ...]:
        """Where none is named it is one of those that may be so, and stays what it was."""
        if self.mongo or self.settings["id"] is not None:
            return self.entity.key
        source: Source = self.workspace.source(ENTITY)
        assert isinstance(source, Keyed)
        key = tuple(source.key())
        tenancy = self.entity.tenancy
        pairs = [] if tenancy is None else [(tenancy.column, "id"), ("id", tenancy.column)]
        assert key in [("id",), *pairs], key
        return key

    def change(self, kind: str | None = None) -> None:
        pick, someone = self.random.choice, self.random.choice(sorted(self.rows) or [""])
        kinds = ["insert", "delete", "text", "payload", "move", "dead", "back", "filter", "spoil", "heal", "empty"]
        kind = kind or pick([*kinds, "insert", "text", "move", "spoil"])
        if kind == "insert":
            self.numbers += 1
            row = {"id": pick(range(1, 8)), "code": pick(FIRMS[:2]), "name": pick("AB"), "unit": "pc"}
            self._put({**row, "price": str(self.numbers), "deleted_at": None, **self._whose()})
        elif someone:
            row = self.rows[someone]
            if kind == "delete":
                self._drop(someone)
            elif kind == "empty":
                for price in [p for p, one in self.rows.items() if one["tenant_id"] == row["tenant_id"]]:
                    self._drop(price)
            else:
                changes: dict[str, dict[str, Any]] = {
                    "text": {"name": pick("ABC")},
                    "payload": {"unit": "pc", "code": pick(FIRMS[:2])},
                    "move": self._whose(),
                    "dead": {"deleted_at": START},
                    "back": {"deleted_at": None},
                    "filter": {"unit": pick(["pc", "kg", None])},
                    "spoil": {"name": None},
                    "heal": {"name": pick("AB")},
                }
                self._put({**row, **changes[kind]})

    def _whose(self) -> dict[str, Any]:
        pick = self.random.choice
        everybodys = pick([False, False, False, True])
        nobody = [None] if "tenant_id" not in self.settings["primary"] else []
        return {"tenant_id": pick([*(nobody if everybodys else []), *FIRMS, *FIRMS]), "is_global": everybodys}

    def _put(self, row: dict[str, Any]) -> None:
        """Each record has a number of its own within its firm, and within the declared key."""
        row = {**row, "updated_at": self.place.moment()}
        row["deleted_at"] = row["deleted_at"] and row["updated_at"]
        for key in [["tenant_id", "id"], *([self.settings["primary"].split(", ")] if self.settings["primary"] else [])]:
            for price, other in [*self.rows.items()]:
                if price != row["price"] and all(other[name] == row[name] for name in key):
                    self._drop(price)
        self.rows[row["price"]] = row
        self.place.table.put(row)
        self._told(
            "  put " + " ".join(str(v) for k, v in row.items() if not k.endswith("_at")) + f" {row['deleted_at']}"
        )
        self._clash()

    def _drop(self, price: str) -> None:
        del self.rows[price]
        self.place.table.drop(int(price))
        self._told(f"  drop {price}")

    # -- the model ---------------------------------------------------------------------------------
    def _owner(self, row: Mapping[str, Any]) -> str | None:
        tenancy = self.entity.tenancy
        if tenancy is None or (tenancy.global_flag and row["is_global"]):
            return GLOBAL
        return cast("str | None", row[tenancy.column])

    def _live(self) -> dict[str, str]:
        """Owner by record."""
        alive = {
            price: self._owner(row)
            for price, row in self.rows.items()
            if (self.entity.deleted_at is None or row["deleted_at"] is None)
            and all(row[name] in allowed for name, allowed in self.entity.filter.items())
        }
        return {price: owner for price, owner in alive.items() if owner is not None}

    def _text(self, row: Mapping[str, Any]) -> str:
        parts = [row["price" if name == "_id" else name] for name in self.key]
        texts = [None if part is None else str(part) for part in parts]
        return str(texts[0]) if len(texts) == 1 else key_text(texts)

    def _same_key(self) -> dict[str, list[str]]:
        """Live records by key, where several have it."""
        found = defaultdict(list)
        for price in self._live():
            found[self._text(self.rows[price])].append(price)
        return {key: prices for key, prices in found.items() if len(prices) > 1}

    def _clash(self) -> None:
        """Of two records of one owner with one key the second one is rejected, whatever is stored of it."""
        live = self._live()
        for prices in self._same_key().values():
            self.clashed |= {p for p in prices if sum(live[p] == live[other] for other in prices) > 1}

    def _document(self, price: str, collection: str) -> Document | None:
        row = {name: value for name, value in self.rows[price].items() if not name.endswith("_at")}
        record = pa.RecordBatch.from_pylist([{**row, "_id": price, KEY_TEXT: self._text(row)}])
        entity = self.entity.model_copy(update={"id": KEY_TEXT})
        [document, *_] = [
            *DocumentBuilder(ENTITY, entity, self._live()[price], [collection]).build(record)[collection].documents,
            None,
        ]
        return document

    def _family(self, key: tuple[str, ...], tenant_column: str | None) -> tuple[str, ...]:
        return tuple(name for name in key if name != tenant_column)

    def _now(self) -> tuple[tuple[str, ...], str | None]:
        return self.key, self.entity.tenancy.column if self.entity.tenancy else None

    def _is_followed(self, collection: str, point: str, payload: Mapping[str, Any]) -> bool:
        """Whether the record's key of today is found from that under which the point was written."""
        before, now = self.written[collection, point], self._now()
        row, key = self.rows[payload["price"]], {*before[0], *now[0]}
        if "code" in key and row["code"] != payload["code"]:
            return False  # its key has another value: that is another record
        if before[0] == now[0]:
            return True
        everybodys = payload["tenantId"] is None and now[1] is not None and row[now[1]] is not None
        return self._family(*before) == self._family(*now) and not (everybodys and now[1] in key)

    def _held(self, *, followed: bool) -> Held:
        """What its owner finds of live records, and the ledger knows."""
        live, found = self._live(), set()
        for collection in self.entity.collections:
            known = {p.point_id for page in self.place.ledger.points(ENTITY, collection) for p in page}
            for point, payload in self._points(collection).items():
                price = payload["price"]
                is_theirs = price in live and (payload["tenantId"] or GLOBAL) == live[price] and point in known
                if is_theirs and (
                    not followed or (price not in self.clashed and self._is_followed(collection, point, payload))
                ):
                    found.add((collection, price))
        return found

    def _points(self, collection: str) -> dict[str, dict[str, Any]]:
        store = self.place.stores[collection]
        if store.pinned_space(collection) is None:
            return {}
        return {p.point_id: dict(p.payload) for page in store.scan(collection) for p in page}

    def _told(self, what: Any) -> None:
        self.told.append(str(what))
