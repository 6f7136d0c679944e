"""vecsync.yaml as typed, frozen models. Unknown keys are refused; defaults are what most users want.

What belongs here: the whole file, how it is synced, and what can be checked from the file alone. Its parts
are `entities.py`, `services.py` and `automation.py`; reading it and writing messages for people are `loading.py`
and `messages.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.config.automation import AutomationConfig, ChecksConfig, Interval, ScheduleConfig
from vecsync_dagster.config.entities import DEFAULT_STORE, CollectionConfig, EntityConfig, FieldType, Tenancy
from vecsync_dagster.config.services import (
    BundledProvider,
    EmbeddingConfig,
    HashProvider,
    LedgerConfig,
    MongoSource,
    OpenAIProvider,
    PostgresSource,
    ProviderConfig,
    QdrantStore,
    SentenceTransformersProvider,
    SourceConfig,
    SqliteSource,
    StoreConfig,
)
from vecsync_dagster.config.values import Duration, EnvRef, Model, Name, Text, resolve

__all__ = [
    "AlertsConfig",
    "AutomationConfig",
    "BundledProvider",
    "ChecksConfig",
    "CollectionConfig",
    "Config",
    "EmbeddingConfig",
    "EntityConfig",
    "EnvRef",
    "FieldType",
    "HashProvider",
    "LedgerConfig",
    "Misplaced",
    "MongoSource",
    "OpenAIProvider",
    "PostgresSource",
    "ProviderConfig",
    "QdrantStore",
    "RemovalGuard",
    "RetentionConfig",
    "RetryConfig",
    "ScheduleConfig",
    "SentenceTransformersProvider",
    "SourceConfig",
    "SqliteSource",
    "StoreConfig",
    "SyncConfig",
    "Tenancy",
    "resolve",
]


class RemovalGuard(Model):
    """A full run that would remove more than `share` of a partition, and more than `min_documents`,
    removes nothing."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.3
    min_documents: Annotated[int, Field(ge=0)] = 50


class RetryConfig(Model):
    """Back-off of failed documents: base x multiplier^n, capped; permanent after max_retries of their own.
    The retry worker looks for due ones every `interval`, and tries at most `batch` documents of an entity at once;
    `enabled`: whether its sensor is on from the start."""

    enabled: bool = True
    max_retries: Annotated[int, Field(ge=0)] = 5
    base: Duration = timedelta(seconds=5)
    multiplier: Annotated[float, Field(ge=1, le=100)] = 2.0
    cap: Duration = timedelta(seconds=300)
    interval: Annotated[timedelta, Field(ge=timedelta(seconds=1))] = timedelta(seconds=60)
    batch: Annotated[int, Field(ge=1, le=1_000)] = 10


class SyncConfig(Model):
    """`verify` is what the checks on `vectors` compare after a run: `identity` reads every point of the
    partition back, `counts` only counts; `auto` is identity after a full run, and counts after an incremental one,
    unless the store has more or fewer points than the ledger knows. `repair` is what becomes of the differences that
    `identity` finds: `write` puts them right with vectors of the cache, and the checks warn; `report` leaves them, and
    the checks fail."""

    mode: Literal["full", "incremental"] = "incremental"
    page: Annotated[int, Field(ge=1, le=10_000)] = 500
    batch: Annotated[int, Field(ge=1, le=2_000)] = 200
    delete_batch: Annotated[int, Field(ge=1, le=2_000)] = 500
    parallel: Annotated[int, Field(ge=1, le=10)] = 3
    skip_invalid: bool = True
    verify: Literal["auto", "identity", "counts"] = "auto"
    repair: Literal["write", "report"] = "write"
    removal_guard: RemovalGuard = RemovalGuard()
    retry: RetryConfig = RetryConfig()


class RetentionConfig(Model):
    """How long the ledger keeps what only grows: the history of `runs` and of `rejected` records, and vectors that no
    text has needed for so long (`unused_vectors`). The last runs of each partition stay, however old they are.

    `dagster_runs`: how long Dagster keeps its runs and their events; `dagster_runs_per_job`: how many of each job."""

    runs: Interval = timedelta(days=90)
    rejected: Interval = timedelta(days=90)
    unused_vectors: Interval = timedelta(days=90)
    dagster_runs: Interval = timedelta(days=14)
    dagster_runs_per_job: Annotated[int, Field(ge=1)] = 5000


class Config(Model):
    """The whole file. `state` is the folder of ledger, snapshots and run history."""

    sources: Annotated[dict[Name, SourceConfig], Field(min_length=1)]
    entities: Annotated[dict[Name, EntityConfig], Field(min_length=1)]
    stores: dict[Name, StoreConfig] = Field(
        default_factory=lambda: {DEFAULT_STORE: QdrantStore(type="qdrant", path=".vecsync/qdrant")}, min_length=1
    )
    embedding: EmbeddingConfig = EmbeddingConfig()
    ledger: LedgerConfig = LedgerConfig()
    sync: SyncConfig = SyncConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    alerts: AlertsConfig = AlertsConfig()
    automation: AutomationConfig = AutomationConfig()
    checks: ChecksConfig = ChecksConfig()
    retention: RetentionConfig = RetentionConfig()
    state: Text = ".vecsync"

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """The configuration file's folder: relative paths start here."""
        return self._folder

    def path(self, relative: str) -> Path:
        return (self._folder / Path(relative).expanduser()).resolve()

    @property
    def state_folder(self) -> Path:
        return self.path(self.state)

    @property
    def project(self) -> str:
        """Tells projects apart that share a ledger or a Dagster instance."""
        return hashlib.sha256(str(self.state_folder.resolve()).encode()).hexdigest()[:12]

    def with_folder(self, folder: Path) -> Config:
        config = self.model_copy()
        config._folder = folder.resolve()
        return config

    @model_validator(mode="before")
    @classmethod
    def _not_empty(cls, data: Any) -> Any:
        if data is None:
            raise ValueError("the file is empty; it needs sources and entities")
        return data

    @model_validator(mode="after")
    def _references(self) -> Config:
        owner: dict[str, str] = {}
        for entity_name, entity in self.entities.items():
            at = ("entities", entity_name)
            if entity.source not in self.sources:
                raise Misplaced((*at, "source"), _unknown("source", entity.source, self.sources))
            if entity.writeback and not isinstance(self.sources[entity.source], MongoSource):
                raise Misplaced((*at, "writeback"), "only documents of a MongoDB source can be written back to")
            for name, collection in entity.collections.items():
                here = (*at, "collections", name)
                if collection.store not in self.stores:
                    raise Misplaced((*here, "store"), _unknown("store", collection.store, self.stores))
                if name in owner:
                    raise Misplaced(
                        here, f"{owner[name]} has a collection of this name; a collection belongs to one entity"
                    )
                owner[name] = entity_name
        return self


class Misplaced(ValueError):
    """A value that is wrong only beside the rest of the file; `path` leads to it."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}; valid is {', '.join(known)}"
