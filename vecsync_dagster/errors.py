"""The tree of errors. The type decides: `Transient` may be retried, `Terminal` may not.

    VecsyncError                    code, fields
    ├── Transient                   worth another attempt; may carry retry_after_s
    │   ├── EmbeddingTimeout        EMBEDDING_TIMEOUT
    │   ├── EmbeddingRateLimited    EMBEDDING_RATE_LIMIT
    │   ├── EmbeddingUnavailable    EMBEDDING_UNAVAILABLE
    │   ├── StoreTimeout            <STORE>_TIMEOUT          (QDRANT_TIMEOUT ...)
    │   ├── StoreRateLimited        <STORE>_RATE_LIMIT
    │   ├── StoreUnavailable        <STORE>_UNAVAILABLE
    │   ├── StoreLocked             <STORE>_LOCKED           another process holds the embedded store
    │   ├── SourceUnavailable       SOURCE_UNAVAILABLE
    │   ├── LedgerUnavailable       LEDGER_UNAVAILABLE
    │   ├── PartitionBusy           PARTITION_BUSY           another run holds this partition
    │   └── AlertUnsent             ALERT_UNSENT             a channel does not answer, or asks to wait
    ├── Terminal                    the same call would fail again
    │   ├── ConfigError             CONFIG_ERROR
    │   │   └── NotFound            NOT_FOUND                no entity, collection, tenant or record of that name
    │   ├── WrongUsage              WRONG_USAGE              options that do not go together, or one that is missing
    │   ├── SourceRejected          SOURCE_ERROR             wrong table, column, credentials ...
    │   │   └── TenantsLost         TENANTS_LOST             it lacks too many tenants to be believed
    │   ├── InvalidTenant           INVALID_TENANT
    │   ├── ValidationFailed        VALIDATION_ERROR         bad records where skip_invalid is false
    │   ├── EmbeddingRejected       EMBEDDING_REJECTED       the provider refuses this text
    │   ├── EmbeddingMisconfigured  EMBEDDING_MISCONFIGURED  key, model, quota, package
    │   ├── SpaceMismatch           SPACE_MISMATCH           another model's vectors for this collection
    │   ├── StoreRejected           <STORE>_REJECTED
    │   │   └── StoreForeign        <STORE>_FOREIGN          the collection of this name is somebody else's
    │   ├── LedgerRejected          LEDGER_ERROR
    │   ├── ChecksFailed            CHECKS_FAILED            checks over all partitions found something
    │   ├── OutputUnwritable        OUTPUT_UNWRITABLE        folder not writable, disk full
    │   ├── InternalError           INTERNAL_ERROR           an exception that nobody foresaw
    │   └── AlertRefused            ALERT_REFUSED            a channel refuses: wrong URL, login, address
    └── Interrupted                 INTERRUPTED              SIGINT / SIGTERM asked the run to end

Messages carry names, ids and counts; never document text, never a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AlertRefused",
    "AlertUnsent",
    "ChecksFailed",
    "ConfigError",
    "EmbeddingMisconfigured",
    "EmbeddingRateLimited",
    "EmbeddingRejected",
    "EmbeddingTimeout",
    "EmbeddingUnavailable",
    "InternalError",
    "Interrupted",
    "InvalidTenant",
    "LedgerRejected",
    "LedgerUnavailable",
    "NotFound",
    "OutputUnwritable",
    "PartitionBusy",
    "SourceRejected",
    "SourceUnavailable",
    "SpaceMismatch",
    "StoreForeign",
    "StoreLocked",
    "StoreRateLimited",
    "StoreRejected",
    "StoreTimeout",
    "StoreUnavailable",
    "TenantsLost",
    "Terminal",
    "Transient",
    "ValidationFailed",
    "VecsyncError",
    "WrongUsage",
]

MAX_MESSAGE = 1000  # last_error is at most 1000 characters


class VecsyncError(Exception):
    """Base of every error this package raises.

    `code` is what the ledger stores; `fields` are the facts the message was built from. `api_calls`: how many requests
    an embedding provider was sent before it failed.
    """

    default_code: ClassVar[str] = "UNKNOWN"
    api_calls: int = 0

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message[:MAX_MESSAGE])
        self.fields = fields

    @property
    def code(self) -> str:
        return self.default_code


class Transient(VecsyncError):
    """The same call may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, **fields: object) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **fields)
        self.retry_after_s = retry_after_s


class Terminal(VecsyncError):
    """The same call would fail again: somebody has to change something first."""


class Interrupted(VecsyncError):
    """A signal asked the run to end; what was confirmed is in the ledger."""

    default_code = "INTERRUPTED"


class ConfigError(Terminal):
    default_code = "CONFIG_ERROR"


class NotFound(ConfigError):
    """Somebody asked for an entity, a collection, a tenant or a record that is not there."""

    default_code = "NOT_FOUND"


class WrongUsage(Terminal):
    """A command, or one of its options, does not go with what is configured; nothing is wrong with that."""

    default_code = "WRONG_USAGE"


class SourceRejected(Terminal):
    default_code = "SOURCE_ERROR"


class TenantsLost(SourceRejected):
    """The source lacks so many of the tenants that have documents that it is taken for broken. `known` tenants have
    documents; of these the source lacks `missing`."""

    default_code = "TENANTS_LOST"

    def __init__(self, message: str, *, known: int = 0, missing: Sequence[str] = (), **fields: object) -> None:
        super().__init__(message, missing=len(missing), **fields)
        self.known = known
        self.missing = tuple(missing)


class InvalidTenant(Terminal):
    default_code = "INVALID_TENANT"


class ValidationFailed(Terminal):
    default_code = "VALIDATION_ERROR"


class EmbeddingRejected(Terminal):
    """The provider refuses a text. `index` is its position in the call, where the provider said so. `answered` and
    `tokens`: see `EmbeddingUnavailable`."""

    default_code = "EMBEDDING_REJECTED"
    api_calls: int = 1
    answered: Mapping[int, NDArray[np.float32]] = MappingProxyType({})
    tokens: int = 0


class EmbeddingMisconfigured(Terminal):
    default_code = "EMBEDDING_MISCONFIGURED"


class SpaceMismatch(Terminal):
    default_code = "SPACE_MISMATCH"


class LedgerRejected(Terminal):
    default_code = "LEDGER_ERROR"


class ChecksFailed(Terminal):
    """Checks over all partitions of an entity found something; what was synced is synced."""

    default_code = "CHECKS_FAILED"


class OutputUnwritable(Terminal):
    default_code = "OUTPUT_UNWRITABLE"


class InternalError(Terminal):
    """An exception that nobody foresaw: a bug, ours or a library's. Made by `containment.contained` alone."""

    default_code = "INTERNAL_ERROR"


class AlertRefused(Terminal):
    default_code = "ALERT_REFUSED"


class SourceUnavailable(Transient):
    default_code = "SOURCE_UNAVAILABLE"


class LedgerUnavailable(Transient):
    default_code = "LEDGER_UNAVAILABLE"


class PartitionBusy(Transient):
    default_code = "PARTITION_BUSY"


class AlertUnsent(Transient):
    default_code = "ALERT_UNSENT"


class EmbeddingTimeout(Transient):
    default_code = "EMBEDDING_TIMEOUT"


class EmbeddingRateLimited(Transient):
    default_code = "EMBEDDING_RATE_LIMIT"


class EmbeddingUnavailable(Transient):
    """`answered`: the vectors of those texts, by their positions in the request, of which the answer was sound;
    `tokens`: what that answer cost."""

    default_code = "EMBEDDING_UNAVAILABLE"
    answered: Mapping[int, NDArray[np.float32]] = MappingProxyType({})
    tokens: int = 0


class _OfStore(VecsyncError):
    """A store's error: the code starts with the store's service name (`QDRANT`, `MIXEDBREAD`)."""

    suffix: ClassVar[str]

    def __init__(self, message: str, *, service: str, **fields: object) -> None:
        super().__init__(message, **fields)
        self.service = service
        self.fields = {**self.fields, "service": service}

    @property
    def code(self) -> str:
        return f"{self.service}_{self.suffix}"


class StoreTimeout(_OfStore, Transient):
    suffix = "TIMEOUT"


class StoreRateLimited(_OfStore, Transient):
    suffix = "RATE_LIMIT"


class StoreUnavailable(_OfStore, Transient):
    suffix = "UNAVAILABLE"


class StoreLocked(_OfStore, Transient):
    suffix = "LOCKED"


class StoreRejected(_OfStore, Terminal):
    """`every_document`: whether it would refuse any, because the key, the address or the collection is wrong; False:
    it is about what the request holds; None: that is not known."""

    suffix = "REJECTED"

    def __init__(self, message: str, *, every_document: bool | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.every_document = every_document


class StoreForeign(StoreRejected):
    """The store has nothing of ours under this name, and can have nothing."""

    suffix = "FOREIGN"
