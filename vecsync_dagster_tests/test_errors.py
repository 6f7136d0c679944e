"""The tree of errors: its types, codes and fields."""

from __future__ import annotations

import inspect
import re

import pytest

from vecsync_dagster import errors
from vecsync_dagster.errors import (
    ConfigError,
    Interrupted,
    StoreRateLimited,
    StoreRejected,
    StoreTimeout,
    Terminal,
    Transient,
    VecsyncError,
)

DRAWN = dict(re.findall(r"[├└]── (\w+)\s+([A-Z_]+|<STORE>_[A-Z_]+)\s", errors.__doc__ or ""))
CLASSES = {name: getattr(errors, name) for name in errors.__all__}
ROOTS = {"VecsyncError", "Transient", "Terminal"}


def made(name: str) -> VecsyncError:
    kind = CLASSES[name]
    error: VecsyncError = kind("m", service="QDRANT") if name.startswith("Store") else kind("m")
    return error


def test_the_drawing_is_complete() -> None:
    """The drawing at the top of the module has every error, and every error is public."""
    defined = {n for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, VecsyncError) and n[0] != "_"}
    assert set(DRAWN) | ROOTS == set(CLASSES) == defined


@pytest.mark.parametrize("name", DRAWN)
def test_codes_are_as_drawn(name: str) -> None:
    """Each error has the code that is drawn beside it: it stands in ledgers and alerts."""
    assert made(name).code == DRAWN[name].replace("<STORE>", "QDRANT")


@pytest.mark.parametrize("name", DRAWN)
def test_the_type_decides(name: str) -> None:
    """An error is worth another attempt or it is not; only an interruption is neither."""
    kinds = [isinstance(made(name), kind) for kind in (Transient, Terminal, Interrupted)]
    assert kinds.count(True) == 1


def test_codes_are_unique() -> None:
    """No two errors share a code."""
    assert len(set(DRAWN.values())) == len(DRAWN)


def test_fields() -> None:
    """The facts that a message was built from stay with the error."""
    error = ConfigError("a: wrong", key="a", line=3)
    assert (str(error), error.fields, error.code) == ("a: wrong", {"key": "a", "line": 3}, "CONFIG_ERROR")


def test_stores_name_their_service() -> None:
    """Two stores' errors have two codes, and carry the service as a field."""
    error = StoreTimeout("slow", service="MIXEDBREAD", retry_after_s=2.5, collection="works")
    assert (error.code, error.service, error.retry_after_s) == ("MIXEDBREAD_TIMEOUT", "MIXEDBREAD", 2.5)
    assert error.fields == {"service": "MIXEDBREAD", "retry_after_s": 2.5, "collection": "works"}
    assert StoreRateLimited("m", service="QDRANT").retry_after_s is None
    assert StoreRejected("m", service="QDRANT").fields == {"service": "QDRANT"}


def test_messages_are_bounded() -> None:
    """A message fits the ledger's column, however much a service had to say."""
    assert len(str(StoreRejected("x" * 5000, service="QDRANT"))) == 1000
    assert StoreRejected("short", service="QDRANT").args == ("short",)
