"""Any sequence of changes, syncs, failures, crashes and crossings, then one full run: store == source == ledger."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from vecsync_dagster.config.models import HashProvider as HashConfig
from vecsync_dagster.config.models import SyncConfig
from vecsync_dagster.embedding.hashing import HashProvider
from vecsync_dagster.errors import (
    EmbeddingUnavailable,
    LedgerUnavailable,
    SourceUnavailable,
    StoreUnavailable,
)
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.sources import build_source
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster.sync import PartitionResult, SyncOptions, sync_tenant
from vecsync_dagster_tests.fakes.memory_store import MemoryStore
from vecsync_dagster_tests.sync.fates import Crash, Fate, Fated, Kind
from vecsync_dagster_tests.world import ENTITY, World, config_of

TENANTS = (GLOBAL, "acme", "brick")
SETTINGS = SyncConfig.model_validate({"page": 2, "batch": 1, "delete_batch": 1, "parallel": 2})


SOURCE_CALLS = ("read",)
PROVIDER_CALLS = ("embed_documents",)
WRITES = ("upsert", "set_payload", "delete")
STORE_CALLS = (*WRITES, "scan")
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
    "set_watermark",
    "record_run",
)

ChangeKind = Literal["insert", "text", "payload", "move", "delete", "mark as deleted", "empty a tenant"]
Change = tuple[ChangeKind, int, str]
FateOfRun = tuple[Sequence[str], int, Kind, bool]
Then = Literal["later", "back", "back with other payloads"]

# Few rows and few values: what changes shall often change back, and what goes come again as it was.
IDS = range(1, 9)
KINDS: dict[ChangeKind, int] = {
    "insert": 5,
    "text": 4,
    "payload": 3,
    "move": 3,
    "delete": 2,
    "mark as deleted": 1,
    "empty a tenant": 1,
}
some_changes = st.lists(
    st.tuples(
        st.sampled_from([kind for kind, times in KINDS.items() for _ in range(times)]),
        st.sampled_from(range(len(IDS))),
        st.sampled_from(TENANTS),
    ),
    min_size=1,
    max_size=4,
)
TOLD = ("confirm", "forget")
# Most often where it matters most: between what the store is told and what the ledger is.
fates = st.tuples(
    st.sampled_from([WRITES, TOLD] * 8 + [(name,) for name in (*SOURCE_CALLS, *PROVIDER_CALLS, *LEDGER_CALLS, "scan")]),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from(["crash", "crash", "failure", "meanwhile"]),
    st.booleans(),
)


class AnySequence(RuleBasedStateMachine):
    """The source is a real table, the ledger a real database; store and embedding are plain and fast."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vecsync-sequence-"))
        config = config_of(
            self.folder, source={"type": "sqlite", "path": "source.db"}, store={"type": "qdrant", "path": "unused"}
        )
        works = config.entities[ENTITY].model_copy(update={"overlap": timedelta(seconds=2)})
        self.world = World(
            f"sqlite:///{self.folder / 'source.db'}", config.model_copy(update={"entities": {ENTITY: works}})
        )
        self.source = build_source(
            config.sources["estimating"], works, name="estimating", entity_name=ENTITY, path_of=config.path
        )
        self.ledger = SqlLedger.open(f"sqlite:///{self.folder / 'ledger.sqlite'}")
        self.store = MemoryStore()
        self.provider = HashProvider(HashConfig(provider="hash", dimensions=8))
        with self.world.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # rows may change while others read them

    def teardown(self) -> None:
        try:
            self.after_one_full_run_everything_is_right()
        finally:
            self.ledger.close()
            self.source.close()
            self.world.engine.dispose()
            shutil.rmtree(self.folder)

    # -- the source changes ------------------------------------------------------------------------
    @initialize()
    def begin(self) -> None:
        for number in range(6):
            self.change("insert", number, TENANTS[number % 3])
        for tenant in TENANTS:
            self.run(tenant, SyncOptions())

    def change(self, kind: ChangeKind, number: int, tenant: str) -> None:
        """Always something that makes a difference, where the source has a row to change."""
        rows = self.world.rows()
        if kind == "insert":
            row_id = min({*IDS} - {row["id"] for row in rows}, default=None)
            if row_id is not None:
                self.world.delete(row_id)  # it may be there, marked as deleted
                self.world.insert([{"id": row_id, "name": "A", "code": "A", **whose(tenant)}])
        elif rows:
            self.change_row(kind, rows[number % len(rows)], tenant)

    def change_row(self, kind: ChangeKind, row: dict[str, Any], tenant: str) -> None:
        match kind:
            case "text":
                self.world.update(row["id"], name="B" if row["name"] == "A" else "A")
            case "payload":
                self.world.update(row["id"], code="B" if row["code"] == "A" else "A")
            case "move":
                elsewhere = [other for other in TENANTS if other != owner(row)]
                self.world.update(row["id"], **whose(tenant if tenant in elsewhere else elsewhere[0]))
            case "delete":
                self.world.delete(row["id"])
            case "mark as deleted":
                self.world.update(row["id"], deleted_at=self.world.now.isoformat())
            case "empty a tenant":
                self.world.delete(*[there["id"] for there in self.world.rows() if owner(there) == owner(row)])

    def go_back(self, before: list[dict[str, Any]], but: dict[str, Any]) -> None:
        """The rows that changed since are as they were before, but for some values."""
        now = self.world.rows()
        changed = [row for row in before if row not in now]
        self.world.delete(*[row["id"] for row in [*now, *changed] if row not in before or row in changed])
        if changed:
            self.world.insert([{**row, **but} for row in changed])

    # -- syncs, good and bad -----------------------------------------------------------------------
    @rule(
        changes=some_changes,
        later=some_changes,
        tenants=st.permutations(TENANTS),
        mode=st.sampled_from(["full", "full", "incremental"]),
        limit=st.sampled_from([None, None, None, None, 0, 1, 3]),
        fate=fates,
        then=st.sampled_from(get_args(Then)),
        look=st.booleans(),
    )
    def sync(
        self,
        changes: list[Change],
        later: list[Change],
        tenants: list[str],
        mode: Literal["full", "incremental"],
        limit: int | None,
        fate: FateOfRun,
        then: Then,
        look: bool,
    ) -> None:
        """Some changes, then all tenants in any order. The first one's run fails, or crashes, or has a batch in hand
        while the source changes again and another tenant is synced."""
        rows = self.world.rows()
        for change in changes:
            self.change(*change)
        now = self.world.rows()
        changed = {owner(row) for row in [*rows, *now] if row not in rows or row not in now}
        first, *others = sorted(tenants, key=lambda tenant: tenant not in changed)
        options = SyncOptions(mode=mode, allow_removals=True)

        def second() -> None:
            if then == "later":
                for change in later:
                    self.change(*change)
            else:
                self.go_back(rows, {} if then == "back" else {"code": "C"})

        def meanwhile() -> None:
            second()
            self.run(others[0], options)

        before = dict(self.store.points)
        self.run(first, replace(options, dry_run=True))
        assert self.store.points == before
        self.run(first, replace(options, limit=limit, offset=(limit or 0) % 2), fate, meanwhile)
        if fate[2] != "meanwhile":
            second()
        for tenant in others:
            self.run(tenant, options)
        if look:
            self.after_one_full_run_everything_is_right()

    def run(
        self,
        tenant: str,
        options: SyncOptions,
        fated: FateOfRun | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> list[PartitionResult] | None:
        """None where the run crashed or the ledger failed it."""
        fate = Fate(meanwhile, *(fated or ()))
        ledger = Fated(self.ledger, LEDGER_CALLS, fate, LedgerUnavailable("the ledger is away"))
        store = Fated(self.store, STORE_CALLS, fate, StoreUnavailable("the store is away", service="MEMORY"))
        provider = Fated(self.provider, PROVIDER_CALLS, fate, EmbeddingUnavailable("the provider is away"))
        source = Fated(self.source, SOURCE_CALLS, fate, SourceUnavailable("the source is away"))
        try:
            results = sync_tenant(
                ENTITY,
                self.world.config.entities[ENTITY],
                tenant,
                source=source,
                store={ENTITY: store},
                provider=provider,
                ledger=ledger,
                settings=SETTINGS,
                options=options,
            )
        except (Crash, LedgerUnavailable):
            assert fated is not None
            assert fated[2] != "meanwhile"
            return None
        if fated is None or fated[2] == "meanwhile":
            assert all(result.error is None for result in results), results
        return results

    # -- what holds --------------------------------------------------------------------------------
    def after_one_full_run_everything_is_right(self) -> None:
        """At the end of every sequence, and now and then on the way: later changes would hide what is wrong."""
        options = SyncOptions(mode="full", allow_removals=True)
        for tenant in TENANTS:
            self.run(tenant, options)
        expected = self.world.expected()
        assert self.store.points == expected
        self.assert_vectors()
        rows = {p.point_id: (p.tenant, p.content_hash, p.payload_hash) for p in self.ledger_points()}
        assert rows == {
            point_id: (payload["tenantId"] or GLOBAL, payload["contentHash"], payload["payloadHash"])
            for point_id, payload in expected.items()
        }
        for tenant in TENANTS:
            [result] = self.run(tenant, options) or []
            assert result.ok, result.checks
            assert not result.figures.touched

    def assert_vectors(self) -> None:
        """Each point has the vector of its own text."""
        documents = self.world.documents()
        texts = [self.provider.prepare(document.text).text for document in documents]
        vectors = self.provider.embed_documents(texts).vectors
        for document, vector in zip(documents, vectors, strict=True):
            assert np.array_equal(self.store.vectors[document.point_id], vector), document.document_id

    def ledger_points(self) -> list[Any]:
        return [point for page in self.ledger.points(ENTITY, ENTITY) for point in page]


def owner(row: dict[str, Any]) -> str:
    return GLOBAL if row["is_global"] else str(row["tenant_id"])


def whose(tenant: str) -> dict[str, Any]:
    return {"tenant_id": None if tenant == GLOBAL else tenant, "is_global": tenant == GLOBAL}


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=14,
    stateful_step_count=10,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),  # finding a smaller example takes longer than a test may
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
