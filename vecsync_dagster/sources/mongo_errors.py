"""What MongoDB's errors mean to us: names and codes, nothing of what the server says, which may quote a document."""

from __future__ import annotations

from bson.errors import BSONError
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from vecsync_dagster.errors import ConfigError, SourceRejected, SourceUnavailable, VecsyncError

__all__ = ["NO_STREAMS", "REFUSED", "is_transient", "translated"]

REFUSED = {13: "not authorized", 18: "authentication failed", 8000: "authentication failed"}
NO_STREAMS = {40573, 40324, 59, 115, 136, 166, 303, 304}
"""What servers answer that have no change streams: a standalone, and products that only speak the protocol;
166: a view or a time series collection."""

_TIME_OUT = {50, 89, 202, 262}
# Connection and election, shutdown, cursors that were lost, exhausted resources, conflicts.
_TRANSIENT = {
    6, 7, 43, 63, 64, 91, 112, 133, 134, 146, 150, 175, 189, 234, 237, 239, 246, 317, 365,
    9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436, 16500,
}  # fmt: skip


def is_transient(error: PyMongoError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, OperationFailure):
        return error.code in _TIME_OUT | _TRANSIENT
    return isinstance(error, ConnectionFailure)


def translated(error: PyMongoError | BSONError, place: str, doing: str) -> VecsyncError:
    """Our error for the driver's. `place` names the server without a user or password."""
    name = type(error).__name__
    if isinstance(error, ConfigurationError):
        return ConfigError(f"{place}: {doing}: the options of the URL do not fit this server ({name})")
    if isinstance(error, OperationFailure):
        return _of_server(error, f"{place}: {doing}")
    if isinstance(error, (NetworkTimeout, WTimeoutError)):
        return SourceUnavailable(f"{place}: {doing}: no answer in time ({name})", error=name)
    if isinstance(error, ServerSelectionTimeoutError):
        return SourceUnavailable(f"{place}: {doing}: no server can be reached ({name})", error=name)
    if isinstance(error, PyMongoError) and is_transient(error):
        return SourceUnavailable(f"{place}: {doing}: the connection was lost ({name})", error=name)
    return SourceRejected(f"{place}: {doing}: {name}", error=name)


def _of_server(error: OperationFailure, where: str) -> VecsyncError:
    code = error.code or 0
    told = error.details.get("codeName") if error.details else None
    named = f"{told}, {code}" if told else str(code)
    if code in REFUSED:
        return SourceRejected(f"{where}: {REFUSED[code]} ({named})", code=code)
    if code in _TIME_OUT:
        return SourceUnavailable(f"{where}: no answer in time ({named})", code=code)
    return (SourceUnavailable if code in _TRANSIENT else SourceRejected)(f"{where}: {named}", code=code)
