"""Any sequence of changes, syncs, failures, crashes and crossings, then one full run: store == source == ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from vecsync_dagster.config.models import SyncConfig
from vecsync_dagster.errors import (
    EmbeddingUnavailable,
    LedgerUnavailable,
    SourceUnavailable,
    StoreUnavailable,
)
from vecsync_dagster.ledger import migrate
from vecsync_dagster.stores import GLOBAL, VectorStore
from vecsync_dagster.sync import PartitionResult, SyncOptions, sync_tenant
from vecsync_dagster_tests.fakes.memory_store import MemoryStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.servers.postgres import new_database
from vecsync_dagster_tests.sync.fates import Crash, Fate, Fated, Kind
from vecsync_dagster_tests.world import ENTITY, World, assert_vectors, config_of

MANY = (pytest.mark.many, pytest.mark.timeout(3600))
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


Parts = Callable[[], AbstractContextManager[tuple[World, VectorStore | None]]]
"""Makes an empty world; with it a store, where it is not to be the world's own."""


class AnySequence(RuleBasedStateMachine):
    """Source and ledger are real databases; which, and which store, is what `parts` says."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        with ExitStack() as stack:
            self.world, store = stack.enter_context(parts())
            works = self.world.config.entities[ENTITY].model_copy(update={"overlap": timedelta(seconds=2)})
            self.world.config = self.world.config.model_copy(update={"entities": {ENTITY: works}})
            workspace = stack.enter_context(self.world.kept_open())
            self.source, self.ledger = workspace.source(ENTITY), workspace.ledger
            self.store = store or workspace.store_of(ENTITY, ENTITY)
            self.provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
            self.parts = stack.pop_all()

    def teardown(self) -> None:
        with self.parts:
            self.after_one_full_run_everything_is_right()

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

        before = self.stored()
        self.run(first, replace(options, dry_run=True))
        assert self.stored() == before
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
        assert self.stored() == expected
        assert_vectors(self.store, self.provider, self.world.documents())
        rows = {p.point_id: (p.tenant, p.content_hash, p.payload_hash) for p in self.ledger_points()}
        assert rows == {
            point_id: (payload["tenantId"] or GLOBAL, payload["contentHash"], payload["payloadHash"])
            for point_id, payload in expected.items()
        }
        for tenant in TENANTS:
            [result] = self.run(tenant, options) or []
            assert result.ok, result.checks
            assert not result.figures.touched

    def stored(self) -> dict[str, dict[str, Any]]:
        return {point.point_id: dict(point.payload) for page in self.store.scan(ENTITY) for point in page}

    def ledger_points(self) -> list[Any]:
        return [point for page in self.ledger.points(ENTITY, ENTITY) for point in page]


def owner(row: dict[str, Any]) -> str:
    return GLOBAL if row["is_global"] else str(row["tenant_id"])


def whose(tenant: str) -> dict[str, Any]:
    return {"tenant_id": None if tenant == GLOBAL else tenant, "is_global": tenant == GLOBAL}


@contextmanager
def on_sqlite() -> Iterator[tuple[World, None]]:
    """SQLite, and the embedded store."""
    with tempfile.TemporaryDirectory(prefix="vecsync-sequence-") as folder:
        source, store = {"type": "sqlite", "path": "source.db"}, {"type": "qdrant", "path": "qdrant"}
        world = World(f"sqlite:///{folder}/source.db", config_of(Path(folder), source=source, store=store))
        with world.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # rows may change while others read them
        yield world, None


@contextmanager
def in_memory() -> Iterator[tuple[World, VectorStore]]:
    """SQLite, and a store that is fast enough for many sequences."""
    with on_sqlite() as (world, _):
        yield world, MemoryStore()


@contextmanager
def on_postgres(server: str) -> Iterator[tuple[World, None]]:
    """A database for source and ledger, and the store over HTTP."""
    with tempfile.TemporaryDirectory() as folder, new_database(server) as url, QdrantRest() as store:
        config = config_of(
            Path(folder),
            source={"type": "postgres", "url": {"env": "SOURCE_URL"}},
            store={"type": "qdrant", "url": store.url, "timeout_s": 30},
            ledger={"url": {"env": "SOURCE_URL"}},
        )
        migrate.upgrade(url)
        with patch.dict("os.environ", SOURCE_URL=url):
            yield World(url.replace("postgresql://", "postgresql+psycopg://"), config), None


def assert_any_sequence_ends_well(parts: Parts, *, sequences: int) -> None:
    machine = cast("type[AnySequence]", partial(AnySequence, parts))  # any factory will do, says its documentation
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=10,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),  # finding a smaller example takes longer than a test may
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.parametrize("sequences", [4, pytest.param(500, marks=MANY)])
def test_sequences(sequences: int) -> None:
    """After any of them one full run leaves store == source == ledger."""
    assert_any_sequence_ends_well(in_memory, sequences=sequences)


@pytest.mark.parametrize("sequences", [3, pytest.param(100, marks=MANY)])
def test_sequences_on_sqlite_and_the_embedded_store(sequences: int) -> None:
    """The same with the real embedded engine."""
    assert_any_sequence_ends_well(on_sqlite, sequences=sequences)


@pytest.mark.parametrize("sequences", [2, pytest.param(50, marks=MANY)])
def test_sequences_on_postgres_and_the_http_store(sequences: int, postgres_url: str) -> None:
    """The same with a server for each part."""
    assert_any_sequence_ends_well(lambda: on_postgres(postgres_url), sequences=sequences)
