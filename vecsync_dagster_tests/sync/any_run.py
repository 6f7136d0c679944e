"""One sequence of changes and runs, drawn from a seed: any settings, any kind of run, any service failing.

What must hold is worked out from the rows that were written to the source, and from nothing that is under test.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast, get_args
from unittest.mock import patch

import pyarrow as pa
import sqlalchemy as sa

from vecsync_dagster.config.models import ChecksConfig, EntityConfig, SyncConfig
from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.documents import Document, DocumentBuilder
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import (
    EmbeddingRejected,
    EmbeddingUnavailable,
    LedgerUnavailable,
    SourceUnavailable,
    StoreRejected,
    StoreUnavailable,
    VecsyncError,
)
from vecsync_dagster.ledger.tables import index_state
from vecsync_dagster.sources import Page, Read, Source
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, SyncOptions, sync_tenant
from vecsync_dagster.sync.options import STAGES
from vecsync_dagster_tests.sync.any_run_places import COLLECTIONS, ENTITY, Place
from vecsync_dagster_tests.sync.fates import Crash, Fate, Fated, Kind
from vecsync_dagster_tests.world import START

__all__ = ["Sequence"]

TENANTS = (GLOBAL, "acme", "brick")
Run = Literal["full", "incremental", "ids"]
DAY: tuple[Run, ...] = get_args(Run)
"""One tenant's runs of a usual day, under the gate: each meets what the one before left, its snapshot too."""

IDS = range(1, 10)
TEXTS = {"works": "{name} {code}", "codes": "{code}", "units": "{unit} {name}", "prices": "{name}"}
PROVIDER = HashProvider(HashConfig(provider="hash", dimensions=16))

STORE_CALLS = ("upsert", "set_payload", "delete", "scan", "count", "retrieve")
LEDGER_CALLS = (
    "begin_writing",
    "finish_writing",
    "rows",
    "keep_vectors",
    "confirm",
    "touch",
    "fail",
    "unseen",
    "forget",
)
CALLS = {"store": STORE_CALLS, "provider": ("embed_documents",), "ledger": LEDGER_CALLS, "source": ("page",)}
ERRORS: dict[str, list[VecsyncError]] = {
    "store": [StoreUnavailable("away", service="S"), StoreRejected("no", service="S")],
    "provider": [EmbeddingUnavailable("away"), EmbeddingRejected("no")],
    "ledger": [LedgerUnavailable("away")],
    "source": [SourceUnavailable("away")],
}

# What a change does to a row: a field, and one of these values.
CHANGES: dict[str, tuple[str, Any]] = {
    "text": ("name", "ABC"),
    "payload": ("price", "123"),
    "move": ("", ()),
    "mark as deleted": ("deleted_at", [START]),
    "bring back": ("deleted_at", [None]),
    "filter": ("unit", ["pc", "kg", None]),
    "spoil": ("name", [None]),
    "heal": ("name", "AB"),
}

Key = tuple[str, str, str]
"""Collection, tenant, id."""


@dataclass(frozen=True)
class Fault:
    """`where` fails at the nth of these calls, or (`n` 0) at every one of them."""

    where: str
    calls: tuple[str, ...]
    n: int
    kind: Kind
    after: bool
    error: VecsyncError


class _Outage(Fate):
    """Every one of the calls fails, as long as the run takes."""

    def meet(self, method: str, call: Callable[[], Any], error: VecsyncError) -> Any:
        if method in self._methods:
            raise error
        return call()


class Sequence:
    """`told`: what was done so far, for people."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = random.Random(f"any run {seed}")
        # Drawn apart, so that a seed that failed once stays the same sequence.
        self.repair = random.Random(f"repair {seed}").choice(["write", "write", "report"])
        self.told: list[str] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.collections = self.random.choice([COLLECTIONS[:1]] * 3 + [COLLECTIONS])
        self._running: list[set[Key]] = []
        place.clear()
        self._configure()

    def play(self) -> None:
        for _ in range(5):
            self.change("insert")
        if self.random.random() < 0.35:
            self._play_day(self.random.choice(sorted(self._live().values()) or TENANTS))
        else:
            self._play_anything()
        self.put_right()

    def _play_day(self, tenant: str) -> None:
        for kind in DAY:
            self.run_any(tenant, kind)
            for _ in range(self.random.choice([0, 0, 1, 2])):
                self.change()

    def _play_anything(self) -> None:
        for _ in range(self.random.randint(2, 5)):
            for _ in range(self.random.choice([0, 1, 1, 2, 4])):
                self.change()
            if self.random.random() < 0.1:
                self._configure()
            self.run_any(self.random.choice(TENANTS))

    # -- the source --------------------------------------------------------------------------------
    def _configure(self) -> None:
        pick = self.random.choice
        settings = {
            "source": "db",
            "table": "works",
            "id": self.place.table.id_field,
            "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
            "updated_at": pick(["updated_at", "updated_at", "updated_at", None]),
            "deleted_at": pick(["deleted_at", "deleted_at", None]),
            "filter": pick([{}, {"unit": "pc"}, {"unit": ["pc", None]}]),
            "overlap": pick(["PT0S", "PT2S", "PT10M"]),
            "checksum": pick([True, False]),
            "required": ["name"],
            "collections": {name: {"text": TEXTS[name], "payload": ["price", "unit"]} for name in self.collections},
        }
        self.entity = EntityConfig.model_validate(settings)
        self.source: Source = self.place.source(self.entity)
        told = {name: settings[name] for name in ("updated_at", "deleted_at", "filter", "overlap")}
        self._tell(f"settings {told}")

    def change(self, kind: str | None = None) -> None:
        pick = self.random.choice
        kind = kind or pick(["insert", "delete", *CHANGES, *CHANGES])
        if kind == "insert":
            row: dict[str, Any] = {"id": pick(IDS), "code": pick("AB"), "name": pick("AB"), "unit": "pc", "price": "1"}
            self._put({**row, "deleted_at": None, **_whose(pick(TENANTS))})
        elif self.rows:
            row = self.rows[pick(sorted(self.rows))]
            if kind == "delete":
                self._drop(row["id"])
            else:
                field, values = CHANGES[kind]
                self._put({**row, **(_whose(pick(TENANTS)) if kind == "move" else {field: pick(values)})})

    def _put(self, row: dict[str, Any]) -> None:
        dated = "updated_at" not in row or self.random.random() < 0.9
        row = {**row, "updated_at": self.place.moment() if dated else row["updated_at"]}
        row["deleted_at"] = row["deleted_at"] and row["updated_at"]
        self.rows[row["id"]] = row
        self.place.table.put(row)
        times = ("deleted_at", "updated_at")
        said = {k: v.strftime("%M:%S") if k in times and v else v for k, v in row.items()}
        self._changed(f"  put {said}")

    def _drop(self, row_id: int) -> None:
        del self.rows[row_id]
        self.place.table.drop(row_id)
        self._changed(f"  drop {row_id}")

    def _changed(self, what: str) -> None:
        """A record has to be live all the while that a run takes, to be missed."""
        self._tell(what)
        for held in self._running:
            held &= {(c, tenant, str(row_id)) for c in COLLECTIONS for row_id, tenant in self._live().items()}

    def _live(self) -> dict[int, str]:
        return {row_id: _owner(row) for row_id, row in self.rows.items() if self._is_live(row)}

    def _is_live(self, row: dict[str, Any]) -> bool:
        deleted = self.entity.deleted_at is not None and row["deleted_at"] is not None
        return not deleted and all(row[name] in allowed for name, allowed in self.entity.filter.items())

    # -- runs --------------------------------------------------------------------------------------
    def run_any(self, tenant: str, kind: Run | None = None) -> None:
        """`kind`: that of the day; None: any."""
        options = self._options(tenant) if kind is None else self._usual(tenant, kind)
        settings, checks = self._sync_settings(), self._checks(gated=kind is not None)
        chosen = self.random.choice([self.collections, self.random.sample(self.collections, 1)])
        fault = self._fault(0.6 if kind is None else 0.25)
        stop = self.random.choice([None] * 12 + [1, 3])
        before = self._state() if options.dry_run and (fault is None or fault.kind != "meanwhile") else None
        self._tell(f"run {tenant} {options} of {chosen}")
        self._tell(f"  {settings.model_dump(mode='json', exclude_unset=True)}")
        self._tell(f"  {checks.model_dump(mode='json', exclude_unset=True)} {fault} stop {stop}")
        counter = itertools.count()
        self.run(
            tenant,
            options,
            fault,
            collections=chosen,
            settings=settings,
            checks=checks,
            missing_for=timedelta(0) if self.random.random() < 0.5 else None,
            stop=lambda: stop is not None and next(counter) >= stop,
        )
        assert before is None or self._state() == before, "a dry run wrote something"

    def _options(self, tenant: str) -> SyncOptions:
        pick, chance = self.random.choice, self.random.random
        ids: tuple[str, ...] | None = None
        if chance() < 0.3:
            whenever = datetime.max.replace(tzinfo=UTC)
            rows = self.place.ledger.failed_rows(ENTITY, ["works"], due=whenever, tenant=tenant, limit=3)
            due = [row.db_id for row in rows]
            ids = tuple(due) if due and chance() < 0.5 else tuple(map(str, self.random.sample(IDS, pick([1, 2, 4]))))
        some = tuple(stage for stage in STAGES if chance() < 0.5) or ("export",)
        return SyncOptions(
            mode=pick(["full", "full", "incremental", "incremental", None]),
            limit=pick([None] * 6 + [0, 1, 3]),
            offset=pick([0] * 6 + [1, 2]),
            ids=ids,
            retry=ids is not None and chance() < 0.5,
            tenant_gone=chance() < 0.1,
            allow_removals=chance() < 0.5,
            dry_run=chance() < 0.07,
            stages=pick([STAGES, STAGES, STAGES, ("export",), STAGES[1:], ("vectors",), some]),
        )

    def _usual(self, tenant: str, kind: Run) -> SyncOptions:
        pick, chance = self.random.choice, self.random.random
        if kind != "ids":
            return SyncOptions(mode=kind, allow_removals=chance() < 0.5)
        live = [str(row_id) for row_id, owner in self._live().items() if owner == tenant]
        ids = self.random.sample(live, min(len(live), pick([1, 2, 4])))
        return SyncOptions(ids=tuple(ids) or ("1",), retry=chance() < 0.5, stages=pick([STAGES, STAGES, STAGES[1:]]))

    def _sync_settings(self) -> SyncConfig:
        pick = self.random.choice
        return SyncConfig.model_validate(
            {
                "mode": pick(["full", "incremental"]),
                "page": pick([1, 2, 3, 500]),
                "batch": pick([1, 2, 3, 200]),
                "delete_batch": pick([1, 2, 500]),
                "parallel": pick([1, 2, 4]),
                "skip_invalid": pick([True, True, True, False]),
                "verify": pick(["auto", "identity", "counts"]),
                "repair": self.repair,
                "removal_guard": {"share": pick([0, 0.3, 1]), "min_documents": pick([0, 1, 2, 50])},
                "retry": {"base": "PT0S", "max_retries": pick([0, 1_000, 1_000])},
            }
        )

    def _checks(self, *, gated: bool) -> ChecksConfig:
        pick = self.random.choice
        share = pick([0, 0.2, 0.5, 1] if gated else [None, 0, 0.2, 0.5, 1])
        return ChecksConfig.model_validate({"max_invalid_share": share, "min_invalid": pick([1, 2, 10])})

    def _fault(self, share: float) -> Fault | None:
        pick = self.random.choice
        if self.random.random() >= share:
            return None
        where = pick(["store", "store", "store", "provider", "provider", "source", "ledger"])
        calls = CALLS[where]
        one = (pick(calls),) if where in ("store", "ledger") and self.random.random() < 0.5 else calls
        kind = pick(get_args(Kind))
        n = pick([0, 1, 1, 2, 3]) if kind == "failure" and where != "ledger" else pick([1, 1, 2, 3])
        return Fault(where, one, n, kind, self.random.random() < 0.5, pick(ERRORS[where]))

    def _meanwhile(self, tenant: str) -> None:
        self._tell(" meanwhile")
        for _ in range(self.random.choice([0, 1, 2])):
            self.change()
        others = [other for other in TENANTS if other != tenant]
        if self.random.random() < 0.5 and len(self._running) < 2:
            options = SyncOptions(mode=self.random.choice(["full", "incremental"]), allow_removals=True)
            other = self.random.choice(others)
            self._tell(f"  run {other} {options}")
            self.run(other, options)
        self._tell(" goes on")

    def run(
        self, tenant: str, options: SyncOptions, fault: Fault | None = None, **more: Any
    ) -> list[PartitionResult] | None:
        """None where the run crashed, or could not begin."""
        fated = {where: _fate(fault if fault and fault.where == where else None, self, tenant) for where in CALLS}

        def met(where: str, real: Any) -> Fated:
            error = fault.error if fault and fault.where == where else ERRORS[where][0]
            return Fated(real, CALLS[where], fated[where], error)

        held = self._held() & {(c, whose, str(i)) for c in COLLECTIONS for i, whose in self._live().items()}
        self._running.append(held)
        try:
            with _failing_pages(self.source, fated["source"], ERRORS["source"][0]):
                return self._checked(
                    sync_tenant(
                        ENTITY,
                        self.entity,
                        tenant,
                        source=self.source,
                        store={name: met("store", self.place.stores[name]) for name in self.collections},
                        provider=cast("Any", met("provider", PROVIDER)),
                        ledger=cast("Any", met("ledger", self.place.ledger)),
                        options=options,
                        snapshots=self.place.snapshots,
                        **more,
                    )
                )
        except (Crash, VecsyncError) as error:
            self._tell(f"  {error!r}")
            if fault is None and "export" in options.stages:
                raise
            return None
        finally:
            self._running.remove(held)
            lost = held - self._held()
            assert not lost, f"live at the source, and removed: {sorted(lost)}"

    def _checked(self, results: list[PartitionResult]) -> list[PartitionResult]:
        for result in results:
            figures = {name: value for name, value in result.figures.as_dict().items() if value}
            self._tell(f"  {result.collection} {result.mode} {result.outcome} {result.error!r} {figures}")
        return results

    # -- what holds --------------------------------------------------------------------------------
    def put_right(self) -> None:
        """One clean full run of each tenant, with the checks as they are by default. What has used up its retries is
        asked for by hand first."""
        for tenant in self.random.sample(TENANTS, len(TENANTS)):
            self._tell(f"at the end: {tenant}")
            if permanent := self._permanent(tenant):
                self.run(tenant, SyncOptions(ids=permanent))
            for result in self.run(tenant, SyncOptions(mode="full", allow_removals=True)) or []:
                assert result.error is None, result
                assert not result.figures.failed, result
        for collection in self.collections:
            self._assert_exact(collection)

    def _assert_exact(self, collection: str) -> None:
        documents = {d.point_id: d for d in self._documents(collection)}
        invalid = {(tenant, str(i)) for i, tenant in self._live().items() if not self.rows[i]["name"]}
        stored = {
            point_id: payload
            for point_id, payload in self._points(collection).items()
            if (payload["tenantId"] or GLOBAL, payload["dbId"]) not in invalid  # the last good version may be there
        }
        assert stored == {point_id: dict(d.payload) for point_id, d in documents.items()}
        assert self._ledger_points(collection) == {
            point_id: (payload["tenantId"] or GLOBAL, payload["contentHash"], payload["payloadHash"])
            for point_id, payload in self._points(collection).items()
        }
        for document in documents.values():
            vector = PROVIDER.embed_query(document.text)
            found = self.place.stores[collection].search(collection, vector, _tenant(document.payload), limit=20)
            assert {hit.point_id: hit.score for hit in found}[document.point_id] > 0.999, document.text

    def _documents(self, collection: str) -> Iterator[Document]:
        for row_id, tenant in self._live().items():
            row = {name: value for name, value in self.rows[row_id].items() if not name.endswith("_at")}
            records = pa.RecordBatch.from_pylist([{**row, self.place.table.id_field: row_id}])
            yield from DocumentBuilder(ENTITY, self.entity, tenant, [collection]).build(records)[collection].documents

    def _points(self, collection: str) -> dict[str, dict[str, Any]]:
        store = self.place.stores[collection]
        if store.pinned_space(collection) is None:
            return {}
        return {p.point_id: dict(p.payload) for page in store.scan(collection) for p in page}

    def _ledger_points(self, collection: str) -> dict[str, tuple[str, str, str]]:
        pages = self.place.ledger.points(ENTITY, collection)
        return {p.point_id: (p.tenant, p.content_hash, p.payload_hash) for page in pages for p in page}

    def _permanent(self, tenant: str) -> tuple[str, ...]:
        row = index_state.c
        used_up = sa.and_(row.tenant_id == tenant, row.status == "failed", row.next_attempt_at.is_(None))
        with self.place.rows.connect() as connection:
            return tuple(
                connection.execute(sa.select(row.db_id).distinct().where(used_up).order_by(row.db_id)).scalars()
            )

    def _held(self) -> set[Key]:
        """What both the store and the ledger have: of what the store was given without the ledger's learning of it
        nobody could tell the version."""
        points = {
            (collection, _tenant(payload), payload["dbId"])
            for collection in self.collections
            for payload in self._points(collection).values()
        }
        with self.place.rows.connect() as connection:
            confirmed = index_state.c.content_hash.is_not(None)
            columns = (index_state.c.collection, index_state.c.tenant_id, index_state.c.db_id)
            rows = connection.execute(sa.select(*columns).where(confirmed)).all()
        return points & {cast("Key", tuple(row)) for row in rows}

    def _state(self) -> Any:
        with self.place.rows.connect() as connection:
            rows = connection.execute(sa.select(index_state).order_by("collection", "document_id")).all()
        return [self._points(collection) for collection in self.collections], rows

    def _tell(self, what: str) -> None:
        self.told.append(what)


def _fate(fault: Fault | None, sequence: Sequence, tenant: str) -> Fate:
    if fault is None:
        return Fate(lambda: None)
    if fault.n == 0:
        return _Outage(lambda: None, fault.calls)
    return Fate(lambda: sequence._meanwhile(tenant), fault.calls, fault.n, fault.kind, fault.after)


@contextlib.contextmanager
def _failing_pages(source: Any, fate: Fate, error: VecsyncError) -> Iterator[None]:
    """The source is the real one, as it offers more than its protocol; each of its pages meets its fate."""
    real = source.read

    def read(what: Read, page: int = 500) -> Iterator[Page]:
        pages = real(what, page)
        try:
            while (one := fate.meet("page", lambda: next(pages, None), error)) is not None:
                yield one
        finally:
            pages.close()

    with patch.object(source, "read", read):
        yield


def _tenant(payload: Any) -> str:
    return payload["tenantId"] or GLOBAL


def _owner(row: dict[str, Any]) -> str:
    return GLOBAL if row["is_global"] else str(row["tenant_id"])


def _whose(tenant: str) -> dict[str, Any]:
    return {"tenant_id": None if tenant == GLOBAL else tenant, "is_global": tenant == GLOBAL}
