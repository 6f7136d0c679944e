"""A small world for tests: a real table of works, a workspace that syncs it, and what the store should hold.

What should be there is worked out from the table itself, without the ledger, the decisions or the writes
that are under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import sqlalchemy as sa
import yaml

from vecsync_dagster.config import Config
from vecsync_dagster.documents import Document, DocumentBuilder
from vecsync_dagster.embedding import EmbeddingProvider
from vecsync_dagster.ledger.part import utc_now
from vecsync_dagster.stores import GLOBAL, VectorStore
from vecsync_dagster.sync import PartitionResult, SyncOptions, Workspace, due_rows, retry_rows

ENTITY = "works"
START = datetime(2026, 1, 1, tzinfo=UTC)

_METADATA = sa.MetaData()
WORKS = sa.Table(
    "works",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("unit", sa.Text),
    sa.Column("price", sa.Text),
    sa.Column("tenant_id", sa.Text),
    sa.Column("is_global", sa.Boolean, nullable=False),
    sa.Column("updated_at", sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")),
    sa.Column("deleted_at", sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")),
)


def retry_due(workspace: Workspace, entity: str) -> list[PartitionResult]:
    """One batch of the retry worker."""
    return list(retry_rows(workspace, entity, due_rows(workspace, entity)))


@dataclass
class World:
    """`source_url` is SQLAlchemy's; `config` is what the workspace is made from; `clock` is its ledger's."""

    source_url: str
    config: Config
    now: datetime = START
    results: list[PartitionResult] = field(default_factory=list)
    _open: Workspace | None = None
    clock: Callable[[], datetime] = utc_now

    def wait(self, time: timedelta = timedelta(minutes=16)) -> None:
        """The ledger's clock goes on by so much: longer than a tenant must be missing, unless told otherwise."""
        before = self.clock
        self.clock = lambda: before() + time

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(self.source_url, poolclass=sa.NullPool)
        _METADATA.create_all(self.engine)

    # -- the source --------------------------------------------------------------------------------

    def insert(self, rows: Iterable[Mapping[str, Any]]) -> None:
        base = {"code": None, "unit": "шт", "price": None, "tenant_id": None, "is_global": False, "deleted_at": None}
        full = [{**base, "name": f"Работа {row['id']}", **row, "updated_at": self._moment()} for row in rows]
        with self.engine.begin() as connection:
            connection.execute(sa.insert(WORKS), full)

    def update(self, *ids: int, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.update(WORKS).where(WORKS.c.id.in_(ids)), {**values, "updated_at": self._moment()})

    def delete(self, *ids: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.delete(WORKS).where(WORKS.c.id.in_(ids)))

    def rows(self) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(WORKS).where(WORKS.c.deleted_at.is_(None)).order_by(WORKS.c.id))
            return [dict(row) for row in found.mappings()]

    def _moment(self) -> Any:
        self.now += timedelta(seconds=1)
        return self.now.isoformat() if self.engine.dialect.name == "sqlite" else self.now

    # -- the sync ----------------------------------------------------------------------------------

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        if self._open is not None:
            yield self._open
            return
        with Workspace(self.config, clock=self.clock) as workspace:
            yield workspace

    @contextmanager
    def kept_open(self) -> Iterator[Workspace]:
        """One workspace for all that is done in the block: opening one takes longer than a small sync."""
        with Workspace(self.config, clock=self.clock) as workspace:
            self._open = workspace
            try:
                yield workspace
            finally:
                self._open = None

    def sync(
        self, *tenants: str, entity: str = ENTITY, collections: Sequence[str] = (), **options: Any
    ) -> list[PartitionResult]:
        """Sync these tenants and collections (none: all there are); returns the results, which are kept as well."""
        with self.workspace() as workspace:
            results: list[PartitionResult] = []
            for selection in workspace.select([entity], list(tenants) or None):
                chosen = replace(selection, collections=tuple(collections) or selection.collections)
                results += workspace.sync(chosen, SyncOptions(**options))
        self.results += results
        return results

    def only_report(self, repair: str = "report") -> None:
        """From now on runs name what differs, and repair none of it."""
        sync = self.config.sync.model_copy(update={"repair": repair})
        self.config = self.config.model_copy(update={"sync": sync})

    def sync_one_by_one(self) -> list[PartitionResult]:
        """A full run of each tenant that the world has rows of; the last one first where the source is PostgreSQL,
        because no order may matter."""
        tenants = {GLOBAL if row["is_global"] else row["tenant_id"] for row in self.rows()}
        last_first = self.engine.dialect.name == "postgresql"
        return [result for tenant in sorted(tenants, reverse=last_first) for result in self.sync(tenant, mode="full")]

    @contextmanager
    def impatient(self, service: Literal["store", "provider"]) -> Iterator[None]:
        """In the block the HTTP store, or the first provider of the chain, has one second to answer."""
        patient = self.config
        if service == "store":
            hasty = patient.stores["main"].model_copy(update={"timeout_s": 1})
            self.config = patient.model_copy(update={"stores": {**patient.stores, "main": hasty}})
        else:
            first, *others = patient.embedding.chain
            chain = [first.model_copy(update={"timeout_s": 1}), *others]
            self.config = patient.model_copy(
                update={"embedding": patient.embedding.model_copy(update={"chain": chain})}
            )
        try:
            yield
        finally:
            self.config = patient

    # -- what should be there ----------------------------------------------------------------------

    def expected(self, collection: str = ENTITY) -> dict[str, dict[str, Any]]:
        """Point id -> payload of every valid row, by tenant and scope."""
        return {document.point_id: dict(document.payload) for document in self.documents(collection)}

    def documents(self, collection: str = ENTITY) -> list[Document]:
        """The document of every valid row."""
        entity = self.config.entities[ENTITY]
        documents: list[Document] = []
        by_tenant: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows():
            tenant = GLOBAL if row["is_global"] else row["tenant_id"]
            if tenant is not None:
                plain = {key: value for key, value in row.items() if key not in ("updated_at", "deleted_at")}
                by_tenant.setdefault(tenant, []).append(plain)
        for tenant, rows in by_tenant.items():
            batch = DocumentBuilder(ENTITY, entity, tenant, [collection]).build(pa.RecordBatch.from_pylist(rows))
            documents += batch[collection].documents
        return documents

    def stored(self, collection: str = ENTITY) -> dict[str, dict[str, Any]]:
        with self.workspace() as workspace:
            store = workspace.store_of(ENTITY, collection)
            return {p.point_id: dict(p.payload) for page in store.scan(collection) for p in page}

    def ledger_points(self, collection: str = ENTITY) -> dict[str, tuple[str, str, str]]:
        with self.workspace() as workspace:
            pages = workspace.ledger.points(ENTITY, collection)
            return {p.point_id: (p.tenant, p.content_hash, p.payload_hash) for page in pages for p in page}

    def assert_exact(self, collection: str = ENTITY) -> None:
        """The store equals the source point by point, and the ledger equals the store."""
        stored = self.stored(collection)
        assert stored == self.expected(collection)
        ledger = self.ledger_points(collection)
        assert ledger == {
            point_id: (payload["tenantId"] or GLOBAL, payload["contentHash"], payload["payloadHash"])
            for point_id, payload in stored.items()
        }

    def assert_vectors(self) -> None:
        with self.workspace() as workspace:
            provider = workspace.embedders.of(ENTITY, ENTITY, pin=False).provider
            assert_vectors(workspace.store_of(ENTITY, ENTITY), provider, self.documents())


def assert_vectors(store: VectorStore, provider: EmbeddingProvider, documents: Sequence[Document]) -> None:
    """Each point's vector is its own text's: nothing is as near to it as the points of that text."""
    text_of = {document.point_id: document.text for document in documents}
    texts = list(dict.fromkeys(text_of.values()))
    vectors = provider.embed_documents([provider.prepare(text).text for text in texts]).vectors
    vector_of = dict(zip(texts, vectors, strict=True))
    for document in documents:
        tenant = document.payload["tenantId"] or GLOBAL
        there = [d for d in documents if d.payload["tenantId"] in (None, tenant) and d.text == document.text]
        hits = store.search(ENTITY, vector_of[document.text], tenant, limit=len(there))
        assert {text_of[hit.point_id] for hit in hits} == {document.text}
        assert min(hit.score for hit in hits) > 0.999


def config_of(folder: Path, *, source: Mapping[str, Any], store: Mapping[str, Any], **more: Any) -> Config:
    """The configuration of one entity `works` with hash vectors; `more` replaces or adds top-level keys."""
    data: dict[str, Any] = {
        "sources": {"estimating": dict(source)},
        "entities": {
            ENTITY: {
                "source": "estimating",
                "table": "works",
                "type": "work",
                "tenancy": {"column": "tenant_id", "global_flag": "is_global"},
                "updated_at": "updated_at",
                "deleted_at": "deleted_at",
                "required": ["name", "unit"],
                "types": {"price": "number"},
                "collections": {ENTITY: {"text": "{name} {unit}", "payload": ["code", "name", "unit", "price"]}},
            }
        },
        "embedding": {"chain": [{"provider": "hash", "dimensions": 64}]},
        "stores": {"main": dict(store)},
        "state": "state",
        **more,
    }
    return Config.model_validate(data).with_folder(folder)


def file_of(config: Config, folder: Path) -> Path:
    """The configuration as a file in the folder that its own paths are relative to."""
    path = folder / "vecsync.yaml"
    path.write_text(
        yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False), encoding="utf-8"
    )
    return path
